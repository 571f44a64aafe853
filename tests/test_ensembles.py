"""Seeds together: by number, by normalisation, and the command that compares them."""

import csv
import itertools
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from deepsvdd_jax.cli.commands import ensembles
from deepsvdd_jax.cli.commands.ensembles import NORMALIZATIONS, Members
from deepsvdd_jax.cli.sweeps import records
from deepsvdd_jax.cli.sweeps.records import Record, RunName

Call = Callable[..., int]
Calling = Callable[[ModuleType], AbstractContextManager[Call]]

TRAIN = np.array([[1.0, 2.0, 3.0], [10.0, 10.0, 40.0]])
DISTANCES = np.array([[2.0, 4.0, 1.0, 9.0], [20.0, 5.0, 60.0, 30.0]])
MEMBERS = Members(DISTANCES, TRAIN, TRAIN.mean(axis=1), np.array([0, 1, 0, 1]))


def by_hand(name: str) -> list[float]:
    """Returns the scores of `MEMBERS`, image by image in plain Python."""
    found = []
    for place in range(4):
        one, other = DISTANCES[0, place], DISTANCES[1, place]
        logs = np.log([one, other])
        of_means, of_medians = (one / 2, other / 20), (one / 2, other / 10)
        shares = [(train <= d).mean() for train, d in zip(TRAIN, (one, other), strict=True)]
        ranks = [1 + (row < row[place]).sum() for row in DISTANCES]
        standardised = [
            (log - np.log(train).mean()) / np.log(train).std()
            for log, train in zip(logs, TRAIN, strict=True)
        ]
        found.append(
            {
                "mean of d": (one + other) / 2,
                "mean of d / training mean": sum(of_means) / 2,
                "mean of d / training median": sum(of_medians) / 2,
                "median of d / training mean": sum(of_means) / 2,
                "max of d / training mean": max(of_means),
                "mean of log d": logs.mean(),
                "mean of standardised log d": np.mean(standardised),
                "mean rank in the test set": np.mean(ranks),
                "mean share of nearer training images": np.mean(shares),
            }[name]
        )
    return found


@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_normalizations_are_what_they_say(name: str) -> None:
    np.testing.assert_allclose(NORMALIZATIONS[name].combine(MEMBERS), by_hand(name), rtol=1e-12)


def test_without_training_distances_only_those_that_need_none_are_compared() -> None:
    compared = ensembles.compare_normalizations(MEMBERS)
    assert list(compared) == list(NORMALIZATIONS)
    assert compared["mean of d"] == roc_auc_score(MEMBERS.labels, by_hand("mean of d"))
    fewer = ensembles.compare_normalizations(MEMBERS._replace(train=None))
    needing = {name for name, one in NORMALIZATIONS.items() if one.needs_training}
    assert set(fewer) == set(NORMALIZATIONS) - needing and len(needing) == 3


def random_members(seeds: int) -> Members:
    generator = np.random.default_rng(0)
    labels = np.arange(60) % 2
    distances = generator.gamma(2.0, size=(seeds, 60)) + 0.5 * labels
    return Members(distances, None, np.linspace(1.0, 3.0, seeds), labels)


def test_gains_are_means_over_all_choices_of_seeds() -> None:
    members = random_members(4)
    scaled = members.distances / members.train_means[:, None]
    expected = [
        np.mean(
            [
                roc_auc_score(members.labels, scaled[list(chosen)].mean(axis=0))
                for chosen in itertools.combinations(range(4), size)
            ]
        )
        for size in (1, 2, 3, 4)
    ]
    np.testing.assert_allclose(ensembles.gains(members), expected, rtol=1e-12)


def test_many_choices_are_drawn_differently_and_again_the_same() -> None:
    drawn = ensembles.choices(12, 5, 20)
    assert len(set(drawn)) == 20 and drawn == ensembles.choices(12, 5, 20)
    assert all(len(set(choice)) == 5 and max(choice) < 12 for choice in drawn)
    assert ensembles.choices(4, 3, 20) == list(itertools.combinations(range(4), 3))


def test_enough_seeds_are_those_from_which_nothing_is_gained() -> None:
    assert ensembles.enough_seeds(np.array([90.0, 92.0, 92.95, 92.8, 93.0, 93.0])) == 5
    assert ensembles.enough_seeds(np.array([93.0, 92.95, 93.0])) == 1


def write_sweep(folder: Path, aurocs: dict[RunName, str], **more: Any) -> None:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    rows: records.Records = {}
    members = random_members(3)
    for name, auroc in aurocs.items():
        scores: dict[str, Any] = {
            "scores": members.distances[name.seed],
            "distances": members.distances[name.seed],
            "train_mean": members.train_means[name.seed],
            "labels": members.labels,
            "tested": np.ones(60, bool),
            **more,
        }
        record = Record(dataset="toy", protocol="one-vs-rest", auroc=auroc, **name._asdict())
        records.write_run(folder, rows, record, scores if auroc else None, None)


def test_the_command_prints_and_writes(
    calling: Calling, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    runs = {RunName("deep_svdd", label, seed): "0.7" for label in (2, 5) for seed in range(3)}
    runs[RunName("deep_svdd", 5, 2)] = ""
    write_sweep(out, {**runs, RunName("kde", 2, 0): "0.7"})
    with calling(ensembles) as command:
        assert command(f"--out={out}") == 0
        printed = capsys.readouterr().out
        assert "training distances were not kept" in printed and "kde" not in printed
        with (out / "ensembles" / "seeds.csv").open(newline="") as file:
            lines = list(csv.reader(file))
        assert [line[0] for line in lines] == ["class", "2", "5", "mean"]
        whole = ensembles.gains(random_members(3))
        without_last = ensembles.gains(random_members(3).take((0, 1)))
        assert lines[1][2:5] == [f"{100 * value:.2f}" for value in whole]
        # The failed seed is left out, and the mean ends with the fewest.
        mean = (whole[:2] + without_last) / 2
        assert lines[3][2:5] == [*(f"{100 * value:.2f}" for value in mean), ""]
        assert (out / "ensembles" / "seeds.png").stat().st_size > 1000

        assert command(f"--out={out}", "--methods=kde,dcae") == 2
        assert "methods holds dcae" in capsys.readouterr().err
        assert command(f"--out={out}", "--methods=kde") == 2
        assert "no class has two seeds" in capsys.readouterr().err
        assert command() == 2 and "out is not given" in capsys.readouterr().err
        assert command(f"--out={tmp_path / 'no'}") == 2
        assert "holds no sweep" in capsys.readouterr().err
