"""The command that counts what is guaranteed: what it calls a rate, an alarm and a delay."""

import numpy as np
import pytest

from benchmarks import guarantees
from deepsvdd_jax.scoring import drift


def test_a_rate_is_a_mean_over_splits_with_its_standard_error() -> None:
    found = guarantees._rate("held-out", 0.05, 0.05, np.array([0.0, 0.1, 0.05, 0.05]))
    assert found.seen == pytest.approx(0.05)
    assert found.error == pytest.approx(np.sqrt(0.005 / 3) / 2)


@pytest.mark.slow
def test_small_sets_are_counted_on_samples_that_nothing_has_seen() -> None:
    held_out, cross = guarantees.small_sets(splits=2, epochs=1)
    # A fifth of a hundred is held out, and carries 1 / 21; the others calibrate across folds.
    assert held_out.asked == held_out.bound == pytest.approx(1 / 21)
    assert cross.asked == 0.02 and cross.bound == pytest.approx(0.04 + 1.6 / 17)
    assert 0 <= held_out.seen <= 0.5 and 0 <= cross.seen <= 0.5


def test_a_delay_is_counted_from_the_change_on(monkeypatch: pytest.MonkeyPatch) -> None:
    places = iter([guarantees.BEFORE + 4, None, guarantees.BEFORE - 1, guarantees.BEFORE + 8])
    monkeypatch.setattr(guarantees, "_first_alarm", lambda *given: next(places))
    found = guarantees.delays(1.0, 4, 1000)
    # The fifth and the ninth image; an alarm before the change is none of it.
    assert found == guarantees.Delays(1.0, 0.5, 7.0, 9.0)


def test_the_first_alarm_is_where_the_capital_reaches_a_hundred() -> None:
    random = np.random.default_rng(0)
    scores = random.gamma(2.0, size=guarantees.CALIBRATION + 400)
    scores[guarantees.CALIBRATION + guarantees.BEFORE :] += 3 * np.sqrt(2)
    capital = drift.watch(
        scores[: guarantees.CALIBRATION], scores[guarantees.CALIBRATION :], seed=0
    )
    assert guarantees._first_alarm(0, 400, 3.0) == int(np.argmax(capital >= 100.0))
