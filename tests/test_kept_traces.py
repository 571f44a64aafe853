"""Traced programs that one process keeps and another takes."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

import deepsvdd_jax as svdd
from deepsvdd_jax import runs
from deepsvdd_jax.configs import (
    BaseObjectiveConfig,
    NetworkConfig,
    ObjectiveConfig,
    PhaseConfig,
    RunConfig,
)
from deepsvdd_jax.networks import build_network
from deepsvdd_jax.runs import kept_traces


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Programs are kept here while a test runs."""
    before = jax.config.jax_compilation_cache_dir
    least = jax.config.jax_persistent_cache_min_compile_time_secs
    try:
        yield svdd.keep_compiled_programs(tmp_path) / "traced"
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", least)


class Doubling:
    """A function of arrays that counts how often it is traced."""

    def __init__(self) -> None:
        self.traced = 0

    def __call__(self, values: dict[str, Array], more: Array) -> dict[str, Array]:
        self.traced += 1
        return {"twice": 2 * values["some"], "sum": jnp.sum(more)}

    def kept(self, *static: Any) -> Callable[..., dict[str, Array]]:
        """Returns it as another process would make it."""
        return jax.jit(kept_traces.kept(self, static, "cpu"))


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*")) if folder.exists() else []


VALUES = ({"some": np.arange(3.0, dtype=np.float32)}, np.ones((2, 2), np.float32))


def test_a_program_is_traced_once_and_taken_from_the_disk_then(folder: Path) -> None:
    doubling = Doubling()
    for _ in range(3):
        found = doubling.kept("doubling")(*VALUES)
        np.testing.assert_array_equal(found["twice"], [0.0, 2.0, 4.0])
        assert float(found["sum"]) == 4.0
    assert doubling.traced == 1 and len(files(folder)) == 1


@pytest.mark.parametrize(
    ("static", "values"),
    [
        (("another",), VALUES),
        (("doubling", 2), VALUES),
        (("doubling", RunConfig()), VALUES),
        (("doubling",), ({"some": np.ones(4, np.float32)}, VALUES[1])),
        (("doubling",), ({"some": np.ones(3, np.int32)}, VALUES[1])),
    ],
)
def test_other_settings_shapes_or_types_are_another_program(
    folder: Path, static: tuple[Any, ...], values: tuple[Any, ...]
) -> None:
    doubling = Doubling()
    doubling.kept("doubling")(*VALUES)
    found = doubling.kept(*static)(*values)
    np.testing.assert_array_equal(found["twice"], 2 * values[0]["some"])
    assert doubling.traced == 2 and len(files(folder)) == 2


def test_another_value_in_nested_settings_is_another_program(folder: Path) -> None:
    doubling, config = Doubling(), RunConfig()
    objective = dataclasses.replace(config.training.objective, nu=0.2)
    training = dataclasses.replace(config.training, objective=objective)
    doubling.kept(config)(*VALUES)
    doubling.kept(dataclasses.replace(config, training=training))(*VALUES)
    assert doubling.traced == 2


def test_what_is_set_in_jax_is_another_program(folder: Path) -> None:
    doubling = Doubling()
    doubling.kept("doubling")(*VALUES)
    with jax.default_matmul_precision("float32"):
        doubling.kept("doubling")(*VALUES)
    assert doubling.traced == 2


def test_a_damaged_file_is_made_anew(folder: Path) -> None:
    doubling = Doubling()
    doubling.kept("doubling")(*VALUES)
    (path,) = files(folder)
    whole = path.read_bytes()
    for damaged in (b"", whole[:-1], whole[:40], b"x" + whole[1:], whole[:40] + b"?" + whole[41:]):
        path.write_bytes(damaged)
        np.testing.assert_array_equal(doubling.kept("doubling")(*VALUES)["twice"], [0, 2, 4])
        assert path.read_bytes() == whole
    assert doubling.traced == 6


@dataclasses.dataclass(frozen=True)
class OwnConfig(BaseObjectiveConfig):
    """Settings of a user's objective."""


def own_function() -> None:
    """A user's function."""


@pytest.mark.parametrize(
    "static",
    [
        (OwnConfig(),),
        (own_function,),
        (lambda: None,),
        (object(),),
        # A network says nothing of itself without what it was built from.
        (build_network(NetworkConfig(stages=(), hidden=(4,)), (3,)),),
        (RunConfig(), build_network(nn.Dense(2), (3,))),
    ],
    ids=["objective", "function", "lambda", "object", "network alone", "module"],
)
def test_the_code_of_others_is_never_kept(folder: Path, static: tuple[Any, ...]) -> None:
    doubling = Doubling()
    for _ in range(2):
        doubling.kept(*static)(*VALUES)
    assert doubling.traced == 2 and not files(folder)


def test_nothing_is_kept_unless_asked_for_nor_of_an_accelerator(tmp_path: Path) -> None:
    doubling = Doubling()
    for _ in range(2):
        doubling.kept("doubling")(*VALUES)
    assert doubling.traced == 2
    before = jax.config.jax_compilation_cache_dir
    try:
        kept = svdd.keep_compiled_programs(tmp_path)
        jax.jit(kept_traces.kept(doubling, ("doubling",), "gpu"))(*VALUES)
        assert not files(kept / "traced")
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
    assert doubling.kept("doubling")(*VALUES)["sum"] == 4.0
    assert not files(kept / "traced")


def test_a_folder_that_cannot_be_written_costs_time_only(folder: Path) -> None:
    folder.write_bytes(b"a file in its place")
    assert Doubling().kept("doubling")(*VALUES)["sum"] == 4.0


@pytest.mark.slow
def test_a_run_of_a_kept_program_is_the_same_to_the_bit(tmp_path: Path) -> None:
    network = NetworkConfig(stages=((2,),), rep_dim=3, kernel_size=3, dropout=0.2)
    recipe = svdd.preset("auto", "digits", (8, 8, 1))
    config = dataclasses.replace(
        recipe,
        network=network,
        pretraining=PhaseConfig(ObjectiveConfig("reconstruction"), epochs=1, batch_size=8),
        training=dataclasses.replace(
            recipe.training, epochs=2, batch_size=8, augment=("shift", "noise")
        ),
    )
    images = np.random.RandomState(0).rand(20, 8, 8, 1).astype(np.float32)

    def trained() -> list[Any]:
        runs.forget_programs()
        keys = jax.random.split(jax.random.key(0), 2)
        mesh = runs.make_mesh(jax.local_devices()[:1])
        return jax.tree.leaves(svdd.train_runs(keys, config, images, images[:5], mesh=mesh)[0])

    before = jax.config.jax_compilation_cache_dir
    found = [trained()]
    try:
        kept = svdd.keep_compiled_programs(tmp_path) / "traced"
        found += [trained()]
        there = files(kept)
        found += [trained()]
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
        runs.forget_programs()
    assert len(there) == 5 and files(kept) == there
    for other in found[1:]:
        for one, same in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(one, same)
