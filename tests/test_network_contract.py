"""What every registered network owes, and what adding one takes."""

import functools
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import deepsvdd_jax as svdd
from deepsvdd_jax import configs, recipes
from deepsvdd_jax.cli.commands import sweep
from deepsvdd_jax.configs import NetworkConfig, RunConfig
from deepsvdd_jax.io.models import Model
from deepsvdd_jax.networks import Network, build_network

# What is compiled runs for a moment: most of the compiler's own work would be wasted.
compiled = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


class Case(NamedTuple):
    """A network with two sets of drawn weights, stacked, and six images."""

    config: NetworkConfig
    network: Network
    params: dict[str, Any]
    statistics: dict[str, Any]
    images: np.ndarray

    def member(self, number: int) -> dict[str, Any]:
        return jax.tree.map(lambda leaf: leaf[number], self.params)


# One with dense layers, one with convolutions, one without a dense layer at its end.
QUICK = ("mlp", "lenet", "fcdd_64")


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
        for name in sorted(recipes.NETWORKS)
    ],
)
def case(request: pytest.FixtureRequest) -> Case:
    config = recipes.NETWORKS[request.param]
    shape = (6,) if config.is_dense else (12, 12, 1)
    network = build_network(config, shape)
    params, statistics = jax.eval_shape(lambda: network.init(jax.random.key(0), False))
    generator = np.random.default_rng(0)

    def draw(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        size = max(1, int(np.prod(leaf.shape[:-1])))
        return generator.normal(0.0, size**-0.5, (2, *leaf.shape)).astype(np.float32)

    fresh = {"mean": 0.0, "var": 1.0}
    return Case(
        config,
        network,
        jax.tree.map(draw, params),
        jax.tree_util.tree_map_with_path(
            lambda path, leaf: np.full((2, *leaf.shape), fresh[path[-1].key], np.float32),
            statistics,
        ),
        generator.random((6, *shape)).astype(np.float32),
    )


@pytest.fixture(scope="module")
def seen(case: Case) -> list[Any]:
    """Embeddings and batch statistics of the images under either set of weights."""
    images = in_float64(case.images)
    encode = compiled(lambda params: case.network.encode_batch(params, images, None, None))
    with jax.enable_x64(True):
        return [jax.device_get(encode(in_float64(case.member(number)))) for number in (0, 1)]


def in_float64(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


def assert_close(actual: Any, expected: Any) -> None:
    for one, other in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        scale = max(float(np.abs(other).max()), 1e-3)
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-10 * scale)


def test_it_is_known_by_its_name_and_goes_through_json(case: Case) -> None:
    again = configs.from_json(NetworkConfig, configs.to_json(case.config))
    assert again == case.config and hash(again) == hash(case.config)
    assert recipes.named_network(case.config.name) == case.config


def test_mapped_over_weights_and_padded_it_gives_the_same(case: Case, seen: list[Any]) -> None:
    assert seen[0][0].shape == (6, case.network.rep_dim)
    padding = np.full_like(case.images[:2], 50.0)
    padded, mask = in_float64(np.concatenate([case.images, padding])), np.arange(8) < 6
    encode = case.network.encode_batch
    with jax.enable_x64(True):
        mapped = compiled(jax.vmap(lambda params: encode(params, padded, mask, None)))
        both = jax.device_get(mapped(in_float64(case.params)))
    for number in (0, 1):
        embeddings, statistics = jax.tree.map(lambda leaf, at=number: leaf[at], both)
        assert_close((embeddings[:6], statistics), seen[number])
    # Other weights give other embeddings: the comparison can fail.
    assert float(np.abs(seen[0][0] - seen[1][0]).max()) > 1e-3


# Operation by operation the compiler takes seconds a network: one of each kind.
@pytest.mark.slow
@pytest.mark.parametrize("case", ["mlp", "lenet", "fcdd_64", "itu_cnn"], indirect=True)
def test_without_jit_it_gives_the_same(case: Case, seen: list[Any]) -> None:
    params, images = in_float64((case.member(0), case.images))
    with jax.enable_x64(True):
        found = case.network.encode_batch(params, jnp.asarray(images), None, None)
    assert_close(found, seen[0])


def test_a_saved_model_is_loaded_as_it_was(case: Case, tmp_path: Path) -> None:
    members = np.zeros((2, case.network.rep_dim), np.float32)
    nothing = np.zeros(0, np.float32)
    ones = (1,) * (case.images.ndim - 1)
    model = Model(
        config=RunConfig(network=case.config),
        image_shape=case.images.shape[1:],
        feature_names=(),
        params=case.params,
        statistics=case.statistics,
        center=members + 0.5,
        squared_radius=members[:, 0],
        train_means=np.ones(2),
        shift=np.full(ones, 0.25, np.float32),
        scale=np.full(ones, 2.0, np.float32),
        whitening_mean=nothing,
        whitening_matrix=nothing.reshape(0, 0),
        calibration_scores=nothing,
        threshold=1.0,
        summary={},
    )
    svdd.save_model(tmp_path / "model", model)
    loaded = svdd.load_model(tmp_path / "model")
    assert loaded.config.network == case.config
    for part in ("params", "statistics"):
        saved, read = getattr(model, part), getattr(loaded, part)
        leaves, again = map(jax.tree_util.tree_leaves_with_path, (saved, read))
        assert [path for path, _ in leaves] == [path for path, _ in again]
        for (_, one), (_, other) in zip(leaves, again, strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_toy_network_is_one_line(
    calling: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry of the registry is all that a sweep needs to train it, save it and name it."""
    toy = NetworkConfig("toy", ((3,),), rep_dim=2, kernel_size=3)
    monkeypatch.setitem(recipes.NETWORKS, "toy", toy)
    arguments = ("--normal_classes=0", "--seeds=0,", "--epochs=1", "--milestones=")
    with calling(sweep) as call:
        assert call(*arguments, "--network=toy", "--save_models", f"--out={tmp_path}") == 0
    settings = json.loads((tmp_path / "config.json").read_text())
    assert settings["deep_svdd"]["network"]["name"] == "toy"
    model = svdd.load_model(tmp_path / "models" / "deep_svdd-class0-seed0")
    assert model.config.network == toy and model.center.shape == (1, 2)
