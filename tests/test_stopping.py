"""Stopping rules: which pass each chooses, what it is worth, and the command."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy import stats

from deepsvdd_jax.cli.commands import stopping
from deepsvdd_jax.cli.commands.stopping import Judged, Observed, Trace
from deepsvdd_jax.cli.sweeps import figures, records
from deepsvdd_jax.cli.sweeps.records import Record, RunName

Call = Callable[..., int]
Calling = Callable[[ModuleType], AbstractContextManager[Call]]

EPOCHS = np.array([2, 4, 6, 8, 10])
# One seed falls fast, then rests; the other goes on falling.
TRAIN = np.array([[10.0, 5.0, 4.9, 4.8, 4.7], [10.0, 8.0, 6.0, 4.0, 2.0]])
HELD_OUT = np.array([[10.0, 6.0, 6.5, 6.2, 6.4], [10.0, 9.0, 8.0, 7.0, 6.0]])
RANKS = np.array(
    [
        [[1, 2, 3, 4], [2, 1, 3, 4], [2, 1, 3, 4], [2, 1, 3, 4], [2, 1, 3, 4]],
        [[4, 3, 2, 1], [3, 4, 1, 2], [2, 1, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4]],
    ],
    float,
)
SEEN = Observed(EPOCHS, TRAIN, HELD_OUT, RANKS)


def test_each_rule_stops_where_it_says() -> None:
    assert stopping.last(SEEN).tolist() == [4, 4]
    # The first seed falls by 1 % an epoch from the third pass on, the second never that slowly.
    assert stopping.plateau(SEEN, least=0.02).tolist() == [2, 4]
    assert stopping.plateau(SEEN, least=0.2).tolist() == [2, 1]
    assert stopping.held_out_rise(SEEN).tolist() == [1, 4]
    assert stopping.gap(SEEN, most=0.3).tolist() == [2, 2]
    assert stopping.gap(SEEN, most=5.0).tolist() == [4, 4]
    assert stopping.steady(SEEN, least=0.99).tolist() == [2, 4]


def test_agreement_is_the_rank_correlation_between_seeds() -> None:
    expected = [stats.spearmanr(RANKS[0, t], RANKS[1, t]).statistic for t in range(5)]
    np.testing.assert_allclose(stopping.agreements(SEEN), expected, atol=1e-12)
    # -1, -0.6 and 1, then it falls.
    assert stopping.agreement(SEEN, least=0.0).tolist() == [3, 3]


def test_rules_are_judged_by_the_auroc_that_they_cannot_see() -> None:
    aurocs = np.array([[0.7, 0.9, 0.8, 0.75, 0.7], [0.5, 0.6, 0.7, 0.8, 0.9]])
    judged = stopping.judge(stopping.held_out_rise, Trace(SEEN, aurocs))
    assert judged == pytest.approx(Judged((4 + 10) / 2, 0.9, 0.8, 0.9))
    everything = stopping.judge_all({3: Trace(SEEN, aurocs)})
    assert everything[stopping.LAST][3].auroc == pytest.approx(0.8)
    assert set(everything) == set(stopping.RULES) | set(stopping.HELD_OUT_RULES)
    worth = {"a": {3: judged._replace(auroc=0.8)}, "b": {3: judged}}
    assert stopping.best_rule(worth) == "b"
    without = stopping.judge_all({3: Trace(SEEN._replace(held_out=None), aurocs)})
    assert set(without) == set(stopping.RULES)


def write_sweep(folder: Path, passes: bool) -> None:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    rows: records.Records = {}
    for seed in (0, 1):
        name = RunName("deep_svdd", 3, seed)
        history = {
            "epoch": np.array([1, 1, 2, 3, 4]),
            "phase": np.array(["pretraining", *["training"] * 4]),
            "full_mean_distance": np.array([9.0, np.nan, 4.0, np.nan, 3.0]),
            "test_auroc": np.array([0.1, np.nan, 0.6, np.nan, 0.5 + 0.1 * seed]),
        }
        distances = np.array([1.0, 2.0])
        scores = figures.score_arrays(distances, distances, np.array([0, 1]), distances)
        if passes:
            scores |= {
                "pass_epochs": np.array([2, 4]),
                # The seeds have two images in common.
                "pass_images": np.array([5, 7, 9]) + 2 * seed,
                "pass_distances": np.array([[1.0, 2.0, 3.0], [1.0, 3.0, 2.0]]),
            }
        record = Record(dataset="toy", protocol="one-vs-rest", auroc=0.5, **name._asdict())
        records.write_run(folder, rows, record, scores, history)


def test_passes_are_read_by_epoch_and_image(tmp_path: Path) -> None:
    write_sweep(tmp_path / "out", True)
    (trace,) = stopping.read_traces(tmp_path / "out", "deep_svdd").values()
    assert trace.seen.epochs.tolist() == [2, 4] and trace.seen.held_out is None
    assert trace.seen.train.tolist() == [[4.0, 3.0]] * 2
    np.testing.assert_allclose(trace.aurocs, [[0.6, 0.5], [0.6, 0.6]])
    # Images 7 and 9: the last two of the first seed, the first two of the second.
    assert trace.seen.ranks.tolist() == [[[1, 2], [2, 1]], [[1, 2], [1, 2]]]


def test_the_command_marks_what_another_sweep_chose(
    calling: Calling, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, bare = tmp_path / "out", tmp_path / "bare"
    write_sweep(out, True)
    write_sweep(bare, False)
    with calling(stopping) as command:
        assert command(f"--out={out}", f"--choose_on={out}") == 0
        printed = capsys.readouterr().out
        assert "last epoch *" in printed and "(best pass, by test labels)" in printed
        rules = (out / "stopping" / "rules.csv").read_text().splitlines()
        assert rules[1].startswith("last epoch *,4.0,55.00,+0.00,5.00")
        assert (out / "stopping" / "auroc.png").exists()
        assert command(f"--out={bare}") == 2
        assert "--evaluate_every" in capsys.readouterr().err
        assert command() == 2 and "out is not given" in capsys.readouterr().err
