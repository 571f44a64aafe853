"""The benchmark of the objectives: equal epochs, turns, what its rows say, what it refuses."""

from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from benchmarks import family, training
from benchmarks.subjects import BenchmarkError
from deepsvdd_jax.training import order_of_epoch


@pytest.mark.parametrize("kind", ["one-class", "deep-sad", "hsc"])
def test_an_epoch_has_as_many_examples_for_every_objective(kind: str) -> None:
    data = training.make_run(family_config("one-class"), 0, np.zeros((20, 2), np.float32)).data
    data = data._replace(labels=family.half_labelled(20))
    order, count = order_of_epoch(jax.random.key(0), data, family.phase_of(kind))
    assert int(count) == 20
    labels = np.asarray(data.labels)[np.asarray(order)[:20]]
    assert np.sum(labels == -1) == 10


def family_config(kind: str) -> Any:
    return family.RunConfig(training=family.phase_of(kind))


def test_timers_take_turns_and_the_median_of_their_ratios_counts() -> None:
    seen: list[str] = []

    def timer(name: str, seconds: list[float]) -> Any:
        def call() -> float:
            seen.append(name)
            return seconds.pop(0)

        return call

    # The machine is slower by a half in the second round, and stalls in the third.
    times = family.rounds({"a": timer("a", [2.0, 3.0, 2.0]), "b": timer("b", [3.0, 4.5, 90.0])}, 3)
    assert seen == ["a", "b"] * 3
    assert family.median_ratio(times["b"], times["a"]) == 1.5


def test_a_row_for_every_objective_beside_one_class(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {"one-class": 1.0, "deep-sad": 1.25, "fcdd": 2.0}

    def timer(network: Any, phase: Any, images: np.ndarray) -> Any:
        return lambda epochs: seconds.get(phase.objective.kind, 1.0)

    monkeypatch.setattr(family, "epoch_timer", timer)
    rows = {row.what: row for row in family.measure_epochs(["mnist_lenet"], 8, 1, 2)}
    assert rows["mnist_lenet one-class, 8 images"].ratio is None
    row = rows["mnist_lenet deep-sad, 8 images"]
    assert (row.value, row.ratio, row.peer) == (1.25, 0.8, "one-class")
    assert rows["fcdd fcdd, 8 images"].ratio == 0.5
    assert len(rows) == 4 + 4


def test_unknown_names_and_small_images_are_refused() -> None:
    wanted = {"parts": ["tiles"], "networks": ["mnist_lenet"], "side": 27, "repeats": 1}
    for changed, message in (
        ({"parts": ["tile"]}, "'tile' is unknown; allowed: epochs, tiles"),
        ({"networks": ["mlp"]}, "'mlp' is unknown; allowed: mnist_lenet"),
        ({}, "side is 27, below a tile of 28 pixels"),
    ):
        values: Any = SimpleNamespace(**{**wanted, **changed})
        with pytest.raises(BenchmarkError, match=message):
            family.measure(values)
