"""Sweeps side by side: changes by run, seeds together, what differs, what is refused."""

import csv
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from deepsvdd_jax.cli.commands import compare, publish
from deepsvdd_jax.cli.sweeps import figures, records
from deepsvdd_jax.cli.sweeps.records import Record, RunName

Call = Callable[..., int]
Calling = Callable[[ModuleType], AbstractContextManager[Call]]
LABELS = np.arange(40) % 2


def distances_of(scale: float, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random(40) + scale * LABELS


def make_sweep(out: Path, rate: float, scale: float, aurocs: dict[RunName, float | str]) -> Path:
    """A sweep of one learning rate, whose scores tell `scale` apart."""
    out.mkdir()
    settings = {
        "data": {"name": "mnist"},
        "split": {"protocol": "one-vs-rest"},
        "normal_classes": sorted({name.normal_class for name in aurocs}),
        "seeds": sorted({name.seed for name in aurocs}),
        "methods": sorted({name.method for name in aurocs}),
        "deep_svdd": {
            "preset": "icml2018",
            "training": {"optimizer": {"learning_rate": rate}},
            "initial_model": str(out.parent / "a.model"),
        },
        "device": {"processor": f"Abacus {rate:g}"},
    }
    (out / "config.json").write_text(json.dumps(settings))
    rows: records.Records = {}
    for name, auroc in aurocs.items():
        distances = distances_of(scale, name.seed)
        scores = figures.score_arrays(distances, distances, LABELS, np.ones(5))
        record = Record(
            **{"dataset": "mnist", "protocol": "one-vs-rest", "objective": "one-class"},
            **name._asdict(),
            auroc=auroc,
            train_seconds=2.0,
        )
        records.write_run(out, rows, record, scores if auroc else None, None)
    return out


@pytest.fixture
def sweeps(tmp_path: Path) -> tuple[Path, Path]:
    """Two that share both seeds of digit 2 and a seed of digit 8."""
    runs = [RunName("deep_svdd", 2, 0), RunName("deep_svdd", 2, 1), RunName("deep_svdd", 8, 0)]
    base = dict(zip(runs, (0.80, 0.90, 0.70), strict=True))
    other = dict(zip(runs, (0.84, 0.92, 0.76), strict=True))
    return (
        make_sweep(tmp_path / "base", 1.0, 0.2, base | {RunName("deep_svdd", 8, 1): 0.99}),
        make_sweep(tmp_path / "faster", 2.0, 0.4, other | {RunName("deep_svdd", 8, 1): ""}),
    )


def test_runs_are_compared_in_pairs(
    calling: Calling, sweeps: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = tmp_path / "to"
    with calling(compare) as command:
        for _ in range(2):
            assert command(f"--out={sweeps[0]},{sweeps[1]}", f"--to={to}") == 0
    printed = capsys.readouterr().out
    assert "deep_svdd.training.optimizer.learning_rate is 1.0 there, 2.0 here" in printed
    with (to / "comparison.csv").open(newline="") as file:
        header, first, second = csv.reader(file)

    def together(scale: float, seeds: int) -> float:
        return 100 * float(
            roc_auc_score(LABELS, np.mean([distances_of(scale, n) for n in range(seeds)], 0))
        )

    ensembles = [np.mean([together(scale, 2), together(scale, 1)]) for scale in (0.2, 0.4)]
    # The mean over digits is of 85 and 70; the failed seed counts for neither sweep.
    assert header[-2:] == ["2", "8"]
    assert first[:6] == ["base", "deep_svdd", "3", "77.50", "", ""]
    assert first[6:] == [f"{ensembles[0]:.2f}", "", "85.00", "70.00"]
    # Digit 2 gains 4 and 2 points, digit 8 gains 6: 4.5 if digits weigh the same, 4 if runs do.
    weights = np.array([0.25, 0.25, 0.5])
    error = np.sqrt(1.5 * np.sum((weights * (np.array([4.0, 2.0, 6.0]) - 4.5)) ** 2))
    assert second[3:6] == ["82.00", "+4.50", f"{error:.2f}"]
    assert second[6:8] == [f"{ensembles[1]:.2f}", f"{ensembles[1] - ensembles[0]:+.2f}"]
    with (to / "classes.csv").open(newline="") as file:
        of_two = list(csv.reader(file))[3]
    alone = [together(scale, 2) for scale in (0.2, 0.4)]
    assert of_two[:7] == ["faster", "deep_svdd", "2", "2", "88.00", "+3.00", "1.00"]
    assert of_two[7:] == [f"{alone[1]:.2f}", f"{alone[1] - alone[0]:+.2f}"]
    with (to / "runs.csv").open(newline="") as file:
        told = list(csv.reader(file))
    assert told[-1] == ["faster", "deep_svdd", "8", "0", "0.76"] and len(told) == 7
    machines = json.loads((to / "hardware.json").read_text())
    assert machines["faster"]["device"]["processor"] == "Abacus 2"
    assert machines["base"]["methods"]["deep_svdd"] == {"runs": 3, "seconds": 6.0}
    settings = json.loads((to / "config.json").read_text())
    assert settings["deep_svdd"]["training"]["optimizer"]["learning_rate"] == 1.0
    assert (settings["normal_classes"], settings["seeds"]) == ([2, 8], [0, 1])
    with (to / "settings.csv").open(newline="") as file:
        assert [line[0] for line in csv.reader(file)] == ["sweep", "faster"]
    # Where the sweeps lie is this machine's affair.
    assert all(str(tmp_path) not in path.read_text() for path in to.iterdir())


def test_published_folders_are_compared_as_their_sweeps_are(
    calling: Calling, sweeps: tuple[Path, Path], tmp_path: Path
) -> None:
    """But for seeds together of which some are not in both: their scores are not there."""
    base, other = sweeps
    with calling(publish) as command:
        assert command(f"--out={base}", f"--to={tmp_path / 'kept' / 'base'}") == 0
    tables = []
    with calling(compare) as command:
        for folder in (base, tmp_path / "kept" / "base"):
            to = tmp_path / f"to-{len(tables)}"
            assert command(f"--out={folder},{other}", f"--to={to}") == 0
            with (to / "classes.csv").open(newline="") as file:
                tables.append(list(csv.reader(file)))
    header = tables[0][0]
    lost = {(2, header.index("ensemble")), (4, header.index("ensemble change"))}
    assert (tables[0][2][2], tables[0][4][2]) == ("8", "8")
    for number, lines in enumerate(zip(*tables, strict=True)):
        for place, cells in enumerate(zip(*lines, strict=True)):
            assert cells[1] == ("" if (number, place) in lost else cells[0])


def test_a_single_run_has_no_standard_error_and_equal_sweeps_say_so(
    calling: Calling, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunName("deep_svdd", 2, 0)
    one, two = (make_sweep(tmp_path / name, 1.0, 0.2, {run: 0.8}) for name in ("one", "two"))
    with calling(compare) as command:
        assert command(f"--out={one},{two}") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[3].split()[:5] == ["two", "deep_svdd", "1", "80.00", "+0.00"]
    assert lines[-1].split() == ["two", "none"]


def test_a_long_difference_is_told_by_its_beginning(
    calling: Calling, sweeps: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = sweeps[1] / "config.json"
    settings = json.loads(path.read_text())
    settings["deep_svdd"]["pretraining"] = {
        "objective": {"kind": "reconstruction"},
        "optimizer": {"milestones": list(range(1, 101))},
        "epochs": 200,
    }
    path.write_text(json.dumps(settings))
    with calling(compare) as command:
        assert command(f"--out={sweeps[0]},{sweeps[1]}") == 0
    line = capsys.readouterr().out.splitlines()[-2]
    assert "pretraining is null there" in line and line.endswith("…") and len(line) < 140


def test_what_cannot_be_compared_is_one_line(
    calling: Calling, sweeps: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    apart = make_sweep(tmp_path / "apart", 1.0, 0.2, {RunName("kde", 2, 0): 0.8})
    filled = tmp_path / "filled"
    filled.mkdir()
    (filled / "thesis.txt").touch()
    base, other = sweeps
    written = tmp_path / "written"
    with calling(publish) as command:
        assert command(f"--out={base}", f"--to={written}") == 0
    compared = tmp_path / "compared"
    with calling(compare) as command:
        assert command(f"--out={base},{other}", f"--to={compared}") == 0
    with calling(compare) as command:
        for arguments, expected in (
            ([f"--out={base},{compared}"], "holds a comparison"),
            ([f"--out={base},{other}", f"--to={written}"], "is not empty"),
            ([], "out must be two folders or more"),
            ([f"--out={base}"], "out must be two folders or more"),
            ([f"--out={base},{base}"], "of different names"),
            ([f"--out={base},{apart}"], "have no run in common"),
            ([f"--out={base},{tmp_path / 'no'}"], "holds no sweep"),
            ([f"--out={base},{other}", f"--to={other}"], "a folder that is read"),
            ([f"--out={base},{other}", f"--to={filled}"], "is not empty"),
        ):
            assert command(*arguments) == 2
            message = capsys.readouterr().err
            assert expected in message and message.count("\n") == 1


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"data": {"name": "cifar10"}}, 'data.name is "mnist" there, "cifar10" here'),
        ({"split": {"protocol": "rest-vs-one"}}, "split.protocol is"),
        ({"split": {"protocol": "one-vs-rest", "anomalous_classes": [7]}}, "anomalous_classes is"),
    ],
)
@pytest.mark.parametrize("kept", [False, True], ids=["own", "published"])
def test_sweeps_judged_on_other_data_are_refused(
    calling: Calling,
    sweeps: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changed: dict[str, object],
    expected: str,
    kept: bool,
) -> None:
    base, other = sweeps
    if kept:
        with calling(publish) as command:
            assert command(f"--out={other}", f"--to={tmp_path / 'kept'}") == 0
        other = tmp_path / "kept"
    path = other / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    with calling(compare) as command:
        assert command(f"--out={base},{other}") == 2
    message = capsys.readouterr().err
    assert f"{other} is judged on other data than {base}" in message and expected in message


def test_two_data_sets_of_one_name_are_told_by_their_labels(
    calling: Calling,
    sweeps: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read_scores = records.read_scores

    def of_other_images(folder: Path, name: RunName) -> dict[str, np.ndarray]:
        arrays = read_scores(folder, name)
        return arrays | ({"labels": 1 - arrays["labels"]} if folder == sweeps[1] else {})

    monkeypatch.setattr(records, "read_scores", of_other_images)
    with calling(compare) as command:
        assert command(f"--out={sweeps[0]},{sweeps[1]}") == 2
    assert "checksum of the test labels of class 2 is" in capsys.readouterr().err


def test_a_file_of_the_same_name_elsewhere_is_a_difference(
    calling: Calling, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Unless a folder is published, which tells no places."""
    run = RunName("deep_svdd", 2, 0)
    one, two = (make_sweep(tmp_path / name, 1.0, 0.2, {run: 0.8}) for name in ("one", "two"))
    settings = json.loads((two / "config.json").read_text())
    settings["deep_svdd"] |= {"initial_model": str(tmp_path / "elsewhere" / "a.model")}
    (two / "config.json").write_text(json.dumps(settings))
    with calling(publish) as command:
        assert command(f"--out={two}", f"--to={tmp_path / 'kept'}") == 0
    for other, expected in (
        (two, "deep_svdd.initial_model is a file of the same name in another folder"),
        (tmp_path / "kept", "none"),
    ):
        with calling(compare) as command:
            assert command(f"--out={one},{other}") == 0
        line = capsys.readouterr().out.splitlines()[-1]
        assert line.split(maxsplit=1) == [other.name, expected]
