"""What every recipe owes, that a new one is a function and a line, and the published numbers."""

import dataclasses
import functools
import importlib
import json
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from deepsvdd_jax import configs, networks, objectives, recipes, training
from deepsvdd_jax.cli.commands import sweep
from deepsvdd_jax.configs import ConfigError, PhaseConfig
from deepsvdd_jax.objectives import Batch

ROOT = Path(__file__).parents[1]

SHAPES = {
    "digits": (8, 8, 1),
    "mnist": (28, 28, 1),
    "fashion_mnist": (28, 28, 1),
    "kmnist": (28, 28, 1),
    "cifar10": (32, 32, 3),
    "gtsrb": (32, 32, 3),
    "folder": (45, 31, 3),
    "csv": (30,),
}


# --- what every recipe owes ---------------------------------------------------------------------


# Two unpadded convolutions of the report's network leave nothing of eight pixels.
TOO_SMALL = ("itu", "digits")

CASES = [
    (name, dataset)
    for name in recipes.RECIPES
    for dataset, shape in SHAPES.items()
    if (len(shape) == 3 or name == "auto") and (name, dataset) != TOO_SMALL
]


@pytest.mark.parametrize(("name", "dataset"), CASES)
def test_a_recipe_has_a_network_for_its_images_and_goes_through_json(
    name: str, dataset: str
) -> None:
    shape = SHAPES[dataset]
    config = recipes.preset(name, dataset, shape)
    network = networks.build_network(config.network, shape)
    params, _ = jax.eval_shape(
        lambda key: network.init(key, config.needs_decoder), jax.random.key(0)
    )
    assert ("decoder" in params) == (config.pretraining is not None)
    restored = configs.from_json(configs.RunConfig, configs.to_json(config))
    assert restored == config and hash(restored) == hash(config)


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_both_phases_of_a_recipe_take_a_step(name: str) -> None:
    """Shapes alone, as the compiler would see them."""
    shape = SHAPES["mnist"]
    config = recipes.preset(name, "mnist", shape)
    network = networks.build_network(config.network, shape)
    params, statistics = jax.eval_shape(
        lambda key: network.init(key, config.needs_decoder), jax.random.key(0)
    )
    for phase in filter(None, (config.pretraining, config.training)):
        step = functools.partial(one_step, network, phase, shape)
        state, info = jax.eval_shape(step, params, statistics)
        assert (state.params, state.statistics) == (params, statistics)
        assert info.loss.shape == () and info.distances.shape == (phase.batch_size,)


def one_step(
    network: networks.Network, phase: PhaseConfig, shape: tuple[int, ...], params: Any, kept: Any
) -> tuple[Any, Any]:
    """A step of a phase from given weights, over a batch of its own size."""
    center = jnp.zeros(network.rep_dim)
    state = training.start_phase(phase, params, kept, center, jnp.zeros(()))
    images, labels = jnp.zeros((phase.batch_size, *shape)), jnp.zeros(phase.batch_size, jnp.int32)
    batch = Batch(images, jnp.ones(phase.batch_size, bool), labels)
    return training.train_step(state, batch, network, phase, key=jax.random.key(1))


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_a_configuration_tells_its_recipe(name: str) -> None:
    """One that is chosen by the data tells which it was, which then gives the same."""
    for dataset in (dataset for recipe, dataset in CASES if recipe == name):
        config = recipes.preset(name, dataset, SHAPES[dataset])
        assert config.preset == name or name == "auto"
        assert recipes.preset(config.preset, dataset, SHAPES[dataset]) == config


HEADERS = {
    name: importlib.import_module(f"deepsvdd_jax.recipes.{name}").__doc__ or ""
    for name in {*recipes.RECIPES, "small_images", "tables"} - {"auto"}
}


@pytest.mark.parametrize("name", sorted(HEADERS))
def test_a_file_of_a_recipe_says_command_hardware_and_figures_that_were_published(
    name: str,
) -> None:
    header = " ".join(HEADERS[name].split())
    assert re.search(r" python -m (experiments|benchmarks)\.\w+", header), header
    folders = re.findall(r"results/published/[a-z0-9-]+", header)
    assert all((ROOT / folder).is_dir() for folder in folders)
    figures = re.findall(r"\d+\.\d{2}\b", header)
    assert figures or "has published no table of it" in header
    assert not figures or ("cores of an" in header and len(figures) >= 2)
    documents = [path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")]
    for figure in figures:
        assert any(figure in document for document in documents), figure


@pytest.mark.parametrize("name", sorted(set(recipes.RECIPES) - {"auto"}))
def test_a_published_recipe_is_for_images(name: str) -> None:
    with pytest.raises(ConfigError, match=f"preset {name} is for images; data set csv is a table"):
        recipes.preset(name, "csv", SHAPES["csv"])


def test_a_toy_recipe_is_a_function_and_a_line(
    calling: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def toy(dataset: str, image_shape: tuple[int, ...]) -> configs.RunConfig:
        base = recipes.small_images(dataset, image_shape)
        phase = dataclasses.replace(base.training, epochs=1, batch_size=32)
        network = dataclasses.replace(base.network, stages=((3,),), rep_dim=2)
        return dataclasses.replace(base, preset="toy", network=network, training=phase)

    monkeypatch.setitem(recipes.RECIPES, "toy", toy)
    with calling(sweep) as call:
        arguments = ("--preset=toy", "--normal_classes=0", "--seeds=0,", "--milestones=")
        assert call(*arguments, f"--out={tmp_path / 'out'}") == 0
    settings = json.loads((tmp_path / "out" / "config.json").read_text())["deep_svdd"]
    assert settings["preset"] == "toy" and settings["training"]["batch_size"] == 32


# --- the published numbers ----------------------------------------------------------------------


def test_icml2018_is_the_papers_schedule() -> None:
    config = recipes.icml2018("mnist", (28, 28, 1))
    assert config.pretraining is not None
    assert (config.training.epochs, config.training.optimizer.milestones) == (250, (150,))
    assert (config.pretraining.epochs, config.pretraining.optimizer.milestones) == (350, (250,))
    assert config.training.batch_size == 200 and config.training.optimizer.learning_rate == 1e-4
    assert config.network.leaky_slope == 0.1 and config.preprocessing.contrast == "l1"
    assert recipes.icml2018("gtsrb", (32, 32, 3)).training.batch_size == 64
    assert recipes.icml2018("gtsrb", (32, 32, 3)).preprocessing.contrast == "none"


@pytest.mark.parametrize("dataset", ["cifar10", "gtsrb"])
def test_theano_is_the_scripts_of_cifar10_and_gtsrb(dataset: str) -> None:
    config = recipes.theano(dataset, (32, 32, 3))
    assert config.pretraining is not None and config.first_layer == "dictionary"
    assert (config.pretraining.epochs, config.pretraining.optimizer.milestones) == (350, (250,))
    assert config.pretraining.weight_decay == 1e-6 and config.pretraining.whole_batches
    assert (config.training.epochs, config.training.optimizer.milestones) == (150, (50,))
    assert config.training.batch_size == (64 if dataset == "gtsrb" else 200)
    assert config.preprocessing.contrast == ("none" if dataset == "gtsrb" else "l1")
    assert config.preprocessing.min_max


def test_theano_on_mnist_has_a_short_autoencoder_without_a_drop() -> None:
    config = recipes.theano("mnist", (28, 28, 1))
    assert config.pretraining is not None and config.first_layer == "dictionary"
    assert (config.pretraining.epochs, config.pretraining.optimizer.milestones) == (150, ())
    assert config.pretraining.weight_decay == 1e-3


@pytest.mark.parametrize("pretrained", [pytest.param(True, marks=pytest.mark.slow), False])
def test_pytorch_on_cifar10_draws_as_torch_does(pretrained: bool) -> None:
    config = recipes.pytorch("cifar10", (32, 32, 3))
    if not pretrained:
        config = recipes.without_pretraining(config)
    network = networks.build_network(config.network, (32, 32, 3))
    params, _ = jax.jit(network.init, static_argnums=1)(jax.random.key(0), False)
    dense = params["encoder"]["representation"]["dense"]["kernel"]
    # torch.nn.Linear(2048, 128): uniform in +-1/sqrt(2048).
    assert 0.0220 < float(abs(dense).max()) <= 0.0221
    # torch.nn.Conv2d(32, 64, 5): +-1/sqrt(800), and Xavier with gain sqrt(2) in the autoencoder.
    bound = (2 * 6 / (25 * 32 + 25 * 64)) ** 0.5 if pretrained else 800**-0.5
    kernel = params["encoder"]["stage1_0"]["kernel"]
    assert 0.99 * bound < float(abs(kernel).max()) <= bound


def test_itu_is_the_reports_recipe() -> None:
    config = recipes.itu("mnist", (28, 28, 1))
    training = config.training
    assert training.optimizer.name == "sgd" and training.optimizer.learning_rate == 1e-2
    assert (training.weight_decay, training.weight_decay_factor) == (1e-6, 2.0)
    assert (training.stop_below, training.epochs) == (0.0020, 50)
    network = networks.build_network(config.network, (28, 28, 1))
    params, _ = jax.jit(network.init, static_argnums=1)(jax.random.key(0), False)
    # "At Glorot initialisation the term is 0.00056."
    decay = float(2 * 1e-6 * objectives.squared_kernel_norm(params))
    assert decay == pytest.approx(0.00056, abs=5e-6)
    assert training.objective.center_batches == 10 and training.objective.center_floor == 0.0


def test_tables_get_dense_layers_and_images_of_any_size_a_lenet() -> None:
    assert recipes.preset("auto", "csv", (30,)).network.is_dense
    assert not recipes.preset("auto", "folder", (64, 48, 3)).network.is_dense


def test_wrong_names_and_sizes_are_refused() -> None:
    with pytest.raises(ConfigError, match="allowed: auto, icml2018"):
        recipes.preset("best", "mnist", (28, 28, 1))
    with pytest.raises(ConfigError, match="allowed: mnist_lenet"):
        recipes.named_network("resnet")
    with pytest.raises(ConfigError, match="8x8 pixels are too few"):
        networks.build_network(recipes.itu("digits", (8, 8, 1)).network, (8, 8, 1))
