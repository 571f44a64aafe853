"""By which threshold scored rows were called, what other thresholds find, and what rows are."""

import math
from pathlib import Path

import numpy as np
import pytest

from deepsvdd_jax.cli.reporting import called
from deepsvdd_jax.cli.reporting.called import NamedModel
from deepsvdd_jax.cli.reporting.kinds import Kinds, kinds_of
from deepsvdd_jax.datasets import DataError
from deepsvdd_jax.io import models

SAMPLE = Path(__file__).parent / "samples" / "one-class"
SCORES = np.array([5.0, 1.0, 3.0, 2.0])


@pytest.fixture
def named() -> NamedModel:
    model = models.load_model(SAMPLE)
    held_out = np.array([1.0, 2.0, 2.5, 4.0], np.float32)
    return NamedModel("parts.model", model._replace(calibration_scores=held_out, threshold=4.0))


@pytest.mark.parametrize(
    ("alarms", "value", "shown"),
    [
        ((True, False, False, False), 4.0, "between 3 and 5"),
        ((True, False, True, False), 2.5, "between 2 and 3"),
        ((False, False, False, False), 5.0, "5 or higher"),
        ((True, False, False, True), math.nan, "none"),
    ],
)
def test_the_calls_tell_where_the_threshold_lies(
    alarms: tuple[bool, ...], value: float, shown: str
) -> None:
    found = called.threshold_of(SCORES, np.array(alarms), None)
    assert found.shown == shown
    assert found.value == value or math.isnan(found.value) and math.isnan(value)


def test_all_alarms_lie_above_a_threshold_below_them() -> None:
    found = called.threshold_of(SCORES, np.ones(4, bool), None)
    assert found.value < 1.0 and found.shown == "below 1"


def test_neighbouring_numbers_have_a_threshold_between_them() -> None:
    scores = np.array([1.0, np.nextafter(1.0, 2.0)])
    found = called.threshold_of(scores, np.array([False, True]), None)
    assert ((scores > found.value) == [False, True]).all()


def test_the_models_own_threshold_is_told_from_a_moved_one(named: NamedModel) -> None:
    own = called.threshold_of(SCORES, SCORES > 4.0, named)
    assert own.value == 4.0 and own.shown == "4" and own.origin.startswith("The model's own")
    moved = called.threshold_of(SCORES, SCORES > 2.0, named)
    assert moved.value == 2.5 and "Not the model's own, which is 4" in moved.origin


def test_a_threshold_that_nothing_exceeds_is_the_models_own(named: NamedModel) -> None:
    never = named._replace(model=named.model._replace(threshold=math.inf))
    found = called.threshold_of(SCORES, np.zeros(4, bool), never)
    assert found.shown == "inf" and found.origin.startswith("The model's own")
    # It has a place in a picture nonetheless: at the highest score.
    assert found.value == 5.0


def test_thresholds_to_try_part_the_scores_in_every_way() -> None:
    found = called.thresholds_to_try(SCORES, 4.25)
    above = [sorted(score for score in SCORES.tolist() if score > one) for one in found]
    assert above == [[1, 2, 3, 5], [2, 3, 5], [3, 5], [5], []]
    assert 4.25 in found and list(found) == sorted(found)


def test_of_many_scores_the_highest_are_parted_in_every_way() -> None:
    scores = np.random.default_rng(0).permutation(5000.0 + np.arange(5000))
    found = called.thresholds_to_try(scores, 6000.0)
    counts = [int((scores > one).sum()) for one in found]
    assert len(found) <= 201 and counts[0] == 5000 and set(range(90)) <= set(counts)
    assert list(found) == sorted(found) and 6000.0 in found


def test_an_outcome_counts_what_lies_above(named: NamedModel) -> None:
    kinds = Kinds(("dent", "", "", None))
    groups = called.groups_of(SCORES, kinds, named.model.calibration_scores)
    text = called.outcome(2.5, groups)
    assert text == (
        "Above 2.5: 2 of 4 raise an alarm. Of 2 normal ones 1 do (false alarms); of 1 defects 1 "
        "do, and 0 are missed. Of the model's 4 held-out normal scores 1 lie above."
    )


def test_p_values_tell_whether_the_model_has_scored(named: NamedModel) -> None:
    # (1 + held-out scores at least as high) / 5.
    p_values = [0.2, 1.0, 0.4, 0.8]
    called.check_model(SCORES, p_values, named, "scores.csv")
    for wrong in ([0.2, 1.0, 0.4, 0.6], [0.2, 1.0, None, 0.8]):
        with pytest.raises(DataError, match="no scores of parts.model"):
            called.check_model(SCORES, wrong, named, "scores.csv")
    nothing = np.zeros(0, np.float32)
    without = named._replace(model=named.model._replace(calibration_scores=nothing))
    called.check_model(SCORES, [None] * 4, without, "scores.csv")
    with pytest.raises(DataError, match="no scores of parts.model"):
        called.check_model(SCORES, p_values, without, "scores.csv")


def test_folders_tell_kinds() -> None:
    names = ["test/good/a.png", "test/dent/a.png", "test/bad/crack/a.png", "stray.png"]
    assert kinds_of(names).names == ("", "dent", "crack", None)
    assert kinds_of(["good/a.png", "Defects/x/b.png"]).names == ("", "x")
    assert list(kinds_of(names).normal) == [True, False, False, False]
    assert list(kinds_of(names).defective) == [False, True, True, False]


@pytest.mark.parametrize("names", [["a.png", "b.png"], ["red/a.png", "blue/b.png"], ["good.png"]])
def test_names_without_a_folder_of_normals_tell_nothing(names: list[str]) -> None:
    assert kinds_of(names) == Kinds(())


def test_folders_that_cannot_be_understood_are_said() -> None:
    names = [f"{kind}/{part}/good/a.png" for kind in ("nut", "pill") for part in ("train", "test")]
    found = kinds_of(names)
    assert found.names == () and "2 data sets" in found.problem
