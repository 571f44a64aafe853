"""Several devices: runs beside each other, and the batches of one run split, on 2, 4 and 8.

The devices of a process cannot change, so a child process with eight of them trains everything once
and writes down what came out; the tests compare.
"""

import dataclasses
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.scoring import make_model
from deepsvdd_jax import detectors, runs, training
from deepsvdd_jax.configs import (
    ConfigError,
    FCDDConfig,
    NetworkConfig,
    ObjectiveConfig,
    OptimizerConfig,
    PhaseConfig,
    RunConfig,
)
from deepsvdd_jax.detectors import batches
from deepsvdd_jax.networks import build_network
from deepsvdd_jax.runs import Engine
from deepsvdd_jax.runs import streamed as streaming
from deepsvdd_jax.training import RunData

BATCH = 16
# The last batch holds three images: on eight devices all the padding lies on the last six.
COUNT = 2 * BATCH + 3
SHAPE = (4, 4, 1)
# Plain descent: Adam's first steps have the sign of the gradient, whatever its size, and would
# blow rounding errors up.
PHASE = PhaseConfig(optimizer=OptimizerConfig("momentum", 1e-2), epochs=2, batch_size=BATCH)
CONVOLUTIONAL = NetworkConfig(stages=((3,),), rep_dim=3, kernel_size=3)
DENSE = NetworkConfig("dense", (), (5,), rep_dim=3)
CONFIGS = {
    "one-class": RunConfig(
        network=CONVOLUTIONAL,
        training=PHASE,
        pretraining=dataclasses.replace(PHASE, objective=ObjectiveConfig(kind="reconstruction")),
    ),
    "soft-boundary": RunConfig(
        network=DENSE,
        training=dataclasses.replace(
            PHASE, objective=ObjectiveConfig(kind="soft-boundary", warm_up_epochs=1, nu=0.25)
        ),
    ),
}
# Devices over which batches are split: every number once, eight for both.
SPLIT = (("one-class", 2), ("one-class", 8), ("soft-boundary", 4), ("soft-boundary", 8))


# --- in the child -------------------------------------------------------------------------------


def train(
    config: RunConfig, mesh: jax.sharding.Mesh, count: int = 1, engine: Engine = runs.in_memory
) -> dict[str, np.ndarray]:
    """Trains runs and returns every array that came out, by its place in the tree."""
    images = np.random.RandomState(0).rand(COUNT + 5, *SHAPE).astype(np.float32)
    images = images.reshape(COUNT + 5, -1) if config.network.is_dense else images
    ones = (1,) * (images.ndim - 1)
    data = RunData(jnp.arange(COUNT), jnp.int32(COUNT), jnp.full(ones, 0.1), jnp.full(ones, 1.5))
    keys = jax.vmap(jax.random.key)(jnp.arange(count))
    found = runs.train_runs(
        keys, config, images, images[:21], data=[data] * count, mesh=mesh, engine=engine
    )
    outcome, progress = jax.device_get((found[0], found[1].history))
    leaves = jax.tree_util.tree_leaves_with_path((outcome, progress))
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def gathered_sizes() -> list[int]:
    """Returns the elements of everything that an autoencoder's step on two devices gathers."""
    config = runs.autoencoder_config(CONFIGS["one-class"])
    network, mesh = build_network(config.network, SHAPE), runs.make_mesh(jax.devices()[:2], 2)
    images = jnp.ones((COUNT, *SHAPE))
    state = runs.init_run(jax.random.key(0), config, images)
    data = RunData(jnp.arange(COUNT), jnp.int32(COUNT), jnp.zeros((1, 1, 1)), jnp.ones((1, 1, 1)))

    def step(images: Any, state: Any) -> Any:
        batch = training.take_batch(images, data, jnp.arange(BATCH), jnp.arange(BATCH) < BATCH - 1)
        return training.train_step(state, batch, network, config.training)

    stacked = jax.tree.map(lambda leaf: leaf[None], state)
    program = jax.jit(runs.map_runs(step, mesh)).lower(images, stacked).compile().as_text()
    assert program is not None and "all-reduce" in program
    shapes = re.findall(r"= \w+\[([\d,]*)\]\S* all-(?:gather|to-all)\(", program)
    return [int(np.prod([int(side) for side in shape.split(",") if side])) for shape in shapes]


def scored(devices: int) -> dict[str, np.ndarray]:
    """Scores more than a call takes, so that a last call has a batch for some devices only."""
    model = make_model("mlp", 2)
    images = np.random.RandomState(3).rand(1_100, *model.image_shape).astype(np.float32)
    with (
        mock.patch.object(jax, "local_device_count", lambda: devices),
        mock.patch.object(batches, "_MOST_BATCHES_PER_CALL", 2),
    ):
        return {"distances": detectors.member_distances(model, images)}


def write_everything(path: Path) -> None:
    jax.config.update("jax_num_cpu_devices", 8)
    jax.config.update("jax_numpy_rank_promotion", "raise")
    jax.config.update("jax_disable_most_optimizations", True)
    devices = jax.devices()
    found = {}
    for name, config in CONFIGS.items():
        found[f"{name} on 1"] = train(config, runs.make_mesh(devices[:1]))
    for name, group in SPLIT:
        mesh = runs.make_mesh(devices[:group], group)
        found[f"{name} on {group}"] = train(CONFIGS[name], mesh)
    config = CONFIGS["soft-boundary"]
    streamed = streaming.engine(4 * 4 * BATCH * 16)
    pair = runs.make_mesh(devices[:2], 2)
    found["streamed on 2"] = train(config, pair, engine=streamed)
    for places in (1, 8):
        found[f"16 runs on {places}"] = train(config, runs.make_mesh(devices[:places]), 16)
    found["16 runs on 4 times 2"] = train(config, runs.make_mesh(devices, 2), 16)
    for count in (1, 3, 8):
        found[f"scored on {count}"] = scored(count)
    flat = {f"{name}|{key}": leaf for name, tree in found.items() for key, leaf in tree.items()}
    np.savez(path, gathered=gathered_sizes(), **flat)


# --- in the tests -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    path = tmp_path_factory.mktemp("devices") / "found.npz"
    root = str(Path(__file__).parents[1])
    paths = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    subprocess.run(
        [sys.executable, __file__, path], check=True, env={**os.environ, "PYTHONPATH": paths}
    )
    with np.load(path) as arrays:
        trees: dict[str, Any] = {"gathered": arrays["gathered"]}
        for name in arrays.files:
            tree, _, key = name.partition("|")
            if key:
                trees.setdefault(tree, {})[key] = arrays[name]
        yield trees


def assert_close(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert actual.keys() == expected.keys() and len(actual) > 20
    for key, value in expected.items():
        np.testing.assert_allclose(actual[key], value, rtol=2e-5, atol=2e-6, err_msg=key)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "group"), SPLIT)
def test_split_batches_are_whole_batches(found: dict[str, Any], name: str, group: int) -> None:
    assert_close(found[f"{name} on {group}"], found[f"{name} on 1"])


@pytest.mark.slow
def test_split_batches_are_streamed_too(found: dict[str, Any]) -> None:
    assert_close(found["streamed on 2"], found["soft-boundary on 1"])


@pytest.mark.slow
def test_runs_side_by_side_have_the_same_bits(found: dict[str, Any]) -> None:
    actual, expected = found["16 runs on 8"], found["16 runs on 1"]
    assert actual.keys() == expected.keys() and len(actual) > 20
    for key, value in expected.items():
        np.testing.assert_array_equal(actual[key], value, err_msg=key)


@pytest.mark.slow
@pytest.mark.parametrize("devices", [3, 8])
def test_devices_share_images_and_change_no_score(found: dict[str, Any], devices: int) -> None:
    expected = found["scored on 1"]["distances"]
    assert expected.shape == (2, 1_100) and len(np.unique(expected)) > 2_000
    np.testing.assert_array_equal(found[f"scored on {devices}"]["distances"], expected)


@pytest.mark.slow
def test_both_axes_together(found: dict[str, Any]) -> None:
    assert_close(found["16 runs on 4 times 2"], found["16 runs on 1"])


@pytest.mark.slow
def test_no_images_or_activations_are_gathered(found: dict[str, Any]) -> None:
    assert max(found["gathered"], default=0) <= BATCH * CONVOLUTIONAL.rep_dim


KNOWN = 5


def train_with_masks(devices: int, with_regions: bool = True) -> dict[str, np.ndarray]:
    """Trains FCDD from masks of known anomalies, the last of the images, and of synthetic ones, its
    batches split over devices; returns every array that came out."""
    config = RunConfig(
        network=NetworkConfig("map", ((3,),), kernel_size=3, bias=True, fully_convolutional=True),
        training=dataclasses.replace(
            PHASE, objective=FCDDConfig(map_masks=True), synthetic_anomalies="confetti"
        ),
    )
    random = np.random.RandomState(5)
    images = random.rand(COUNT, 8, 12, 1).astype(np.float32)
    regions = random.rand(KNOWN, 8, 12) < 0.2
    labels = np.where(np.arange(COUNT) < COUNT - KNOWN, 0, -1).astype(np.int32)
    ones = np.ones((1, 1, 1), np.float32)
    data = training.run_data(
        np.arange(COUNT),
        COUNT,
        0 * ones,
        ones,
        labels=labels,
        regions=regions if with_regions else None,
    )
    outcome, progress = runs.train_runs(
        jax.random.key(0)[None],
        config,
        images,
        images[:9],
        data=[data],
        mesh=runs.make_mesh(jax.devices()[:devices], devices),
    )
    leaves = jax.tree_util.tree_leaves_with_path((outcome, progress.history))
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


@pytest.mark.slow
def test_masks_are_split_with_the_batches_that_they_are_of() -> None:
    expected = train_with_masks(1)
    assert_close(train_with_masks(2), expected)
    # They do matter: without those of the known anomalies another network is trained.
    without = train_with_masks(1, with_regions=False)
    assert any(not np.allclose(without[key], leaf, rtol=1e-3) for key, leaf in expected.items())


def test_groups_and_batches_that_do_not_fit_are_refused() -> None:
    devices = jax.devices()
    with pytest.raises(ConfigError, match=r"2 devices cannot be put into groups of 3"):
        runs.make_mesh(devices, 3)
    mesh = runs.make_mesh(devices, 2)
    assert mesh.shape == {"run": 1, "data": 2} and runs.places_for_runs(mesh) == 1
    odd = RunConfig(network=DENSE, training=dataclasses.replace(PHASE, batch_size=5))
    with pytest.raises(ConfigError, match="5 images .* multiple of 2"):
        runs.train_runs(jax.random.split(jax.random.key(0), 1), odd, np.ones((9, 16)), mesh=mesh)


if __name__ == "__main__":
    write_everything(Path(sys.argv[1]))
