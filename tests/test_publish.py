"""What is published of a sweep: tables as they are, no path, no large file."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from deepsvdd_jax.cli.commands import publish
from deepsvdd_jax.cli.reporting import tables
from deepsvdd_jax.cli.sweeps import figures, records, summaries
from deepsvdd_jax.cli.sweeps.records import Record, RunName, Summary

Call = Callable[..., int]
Calling = Callable[[ModuleType], AbstractContextManager[Call]]

SETTINGS = {
    "data": {"name": "mnist", "image_size": None},
    "data_dir": "/home/someone/data",
    "split": {"protocol": "one-vs-rest"},
    "methods": ["deep_svdd", "kde"],
    "deep_svdd": {"preset": "icml2018", "initial_model": "/home/someone/x.model"},
    "device": {"platform": "cpu", "processor": "Abacus 3"},
    "versions": {"jax": "0.10"},
}


SWEPT = (
    SETTINGS | {"normal_classes": [3], "seeds": [0, 1]},
    (RunName("deep_svdd", 3, 0), "one-class", 0.90),
    (RunName("deep_svdd", 3, 1), "one-class", 0.94),
    (RunName("kde", 3, 0), "", 0.8625),
)


@pytest.fixture
def command(calling: Calling) -> Iterator[Call]:
    with calling(publish) as call:
        yield call


@pytest.fixture
def swept(tmp_path: Path) -> Path:
    """A finished sweep of digit 3, two seeds and a kernel density."""
    return make_sweep(tmp_path / "out", *SWEPT)


def make_sweep(out: Path, settings: object, *runs: tuple[RunName, str, float]) -> Path:
    out.mkdir()
    (out / "config.json").write_text(json.dumps(settings))
    rows: records.Records = {}
    labels = np.arange(40) % 2
    for name, objective, auroc in runs:
        distances = np.random.default_rng(name.seed).random(40) + labels
        scores = figures.score_arrays(distances, distances, labels, np.ones(5))
        record = Record(
            **{"dataset": "mnist", "protocol": "one-vs-rest", "objective": objective},
            **name._asdict(),
            auroc=auroc,
            train_seconds=10.25,
        )
        records.write_run(out, rows, record, scores, None)
    records.write_runs(out, rows)
    summaries.write_summary(out, rows)
    return out


def test_a_published_folder_is_small_and_tells_no_path(
    command: Call, swept: Path, tmp_path: Path
) -> None:
    to = tmp_path / "published"
    for _ in range(2):
        # Publishing again renews what is there.
        assert command(f"--out={swept}", f"--to={to}") == 0
    names = {path.name for path in to.iterdir()}
    tables_of = {"config.json", "hardware.json", "runs.csv", "summary.csv", "table.md"}
    assert names == tables_of | {"classes.png", "seeds.png"}
    for name in ("runs.csv", "summary.csv"):
        assert (to / name).read_bytes() == (swept / name).read_bytes()
    text = "".join((to / name).read_text() for name in tables_of)
    assert "someone" not in text and "data_dir" not in text and "x.model" in text
    assert sum(path.stat().st_size for path in to.iterdir()) < 200_000
    hardware = json.loads((to / "hardware.json").read_text())
    assert hardware["device"]["processor"] == "Abacus 3"
    assert hardware["methods"]["deep_svdd"] == {"runs": 2, "seconds": 20.5}


def test_a_sweep_that_was_asked_for_more_is_published_as_what_it_has(
    command: Call, swept: Path, tmp_path: Path
) -> None:
    settings = json.loads((swept / "config.json").read_text())
    asked = {"normal_classes": [8, 3], "seeds": [0, 1, 2], "methods": ["dcae", "deep_svdd", "kde"]}
    (swept / "config.json").write_text(json.dumps(settings | asked))
    assert command(f"--out={swept}", f"--to={tmp_path / 'kept'}") == 0
    kept = json.loads((tmp_path / "kept" / "config.json").read_text())
    has = {"normal_classes": [3], "seeds": [0, 1], "methods": ["deep_svdd", "kde"]}
    assert {name: kept[name] for name in has} == has and kept["split"] == settings["split"]


def test_the_table_has_ours_all_seeds_and_the_published_ones(
    command: Call, swept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(f"--out={swept}", "--markdown") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| method | 3 | mean |"
    assert lines[2:4] == ["| **KDE** | 86.25 | 86.25 |", "| KDE, published | (86.2) | (86.2) |"]
    assert lines[4] == "| **Deep SVDD, one-class** | 92.00 ± 2.83 | 92.00 ± 2.83 |"
    assert re.fullmatch(
        r"\| Deep SVDD, one-class, 2 seeds together \| [\d.]+ \| [\d.]+ \|", lines[5]
    )
    assert lines[6] == "| Deep SVDD, one-class, published | 91.9 | 91.9 |"


def test_a_class_that_a_method_lacks_stays_empty() -> None:
    def row(method: str, label: int | None) -> Summary:
        return Summary(dataset="", normal_class=label, method=method, runs=1, auroc_mean=0.5)

    summary = [row("kde", 0), row("kde", None), row("ocsvm", 1), row("ocsvm", None)]
    lines = tables.markdown_table(summary, "auto", "one-vs-rest").splitlines()
    assert lines[2:] == ["| **OC-SVM** |  | 50.00 | 50.00 |", "| **KDE** | 50.00 |  | 50.00 |"]


@pytest.mark.parametrize(("ensemble", "rows"), [(None, 1), (0.75, 2)])
def test_seeds_without_a_common_score_have_no_row(ensemble: float | None, rows: int) -> None:
    figures = {"auroc_mean": 0.5, "auroc_std": 0.25, "auroc_ensemble": ensemble}
    summary = [
        Summary(dataset="", normal_class=label, method="ocsvm", runs=3, **figures)
        for label in (0, None)
    ]
    lines = tables.markdown_table(summary, "auto", "one-vs-rest").splitlines()[2:]
    assert lines[0] == "| **OC-SVM** | 50.00 ± 25.00 | 50.00 ± 25.00 |"
    assert lines[1:] == ["| OC-SVM, 3 seeds together | 75.00 | 75.00 |"][: rows - 1]


def test_wrong_folders_are_one_line(
    command: Call, swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("mine")
    for arguments, expected in (
        ((), "neither is given"),
        ((f"--out={swept}", f"--join={swept}", "--markdown"), "both are given"),
        ((f"--out={swept}",), "--to=results/published/NAME"),
        ((f"--out={foreign}", "--markdown"), "holds no sweep"),
        ((f"--out={swept}", f"--to={swept}"), "a folder that is read"),
        ((f"--out={swept}", f"--to={foreign}"), "was not written by this command"),
        ((f"--out={swept}", f"--to={foreign / 'thesis.txt'}"), "is no folder"),
    ):
        assert command(*arguments) == 2
        message = capsys.readouterr().err
        assert expected in message and message.count("\n") == 1
    assert [path.name for path in foreign.iterdir()] == ["thesis.txt"]


def test_git_keeps_what_is_published_and_nothing_else() -> None:
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        pytest.skip("not a git checkout")

    def is_ignored(name: str) -> bool:
        found = subprocess.run(["git", "check-ignore", "-q", f"results/{name}"], cwd=root)
        return found.returncode == 0

    kept = ("config.json", "hardware.json", "runs.csv", "summary.csv", "table.md", "seeds.png")
    left = ("rows/a.json", "scores/a.npz", "history/a.csv", "models/a/model.json", ".lock-0-of-1")
    assert not any(is_ignored(f"published/x/{name}") for name in kept)
    left += ("under-way/a.bin", "pretrained/a.bin")
    assert all(is_ignored(f"published/x/{name}") for name in left)
    # The default of a sweep, whatever it holds.
    assert is_ignored("mnist-icml2018/runs.csv") and is_ignored("mnist/scores/a.npz")


# --- parts of a table ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published_parts(calling: Calling, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Digit 3 and digit 8, each swept and published by itself."""
    folder = tmp_path_factory.mktemp("parts")
    swept = make_sweep(folder / "out", *SWEPT)
    other = make_sweep(
        folder / "other",
        SETTINGS | {"normal_classes": [8], "seeds": [0, 1], "device": {"processor": "Babbage"}},
        (RunName("deep_svdd", 8, 0), "one-class", 0.80),
        (RunName("deep_svdd", 8, 1), "one-class", 0.90),
    )
    folders = []
    with calling(publish) as command:
        for out in (swept, other):
            folders.append(folder / f"published-{out.name}")
            assert command(f"--out={out}", f"--to={folders[-1]}") == 0
    return folders


@pytest.fixture
def parts(published_parts: list[Path], tmp_path: Path) -> list[Path]:
    """A copy of the published parts, for a test to change."""
    return [shutil.copytree(part, tmp_path / part.name) for part in published_parts]


def test_parts_become_the_table_that_one_sweep_would_have_made(
    command: Call, parts: list[Path], tmp_path: Path
) -> None:
    both = make_sweep(
        tmp_path / "both",
        SETTINGS | {"normal_classes": [3, 8], "seeds": [0, 1]},
        (RunName("deep_svdd", 3, 0), "one-class", 0.90),
        (RunName("deep_svdd", 3, 1), "one-class", 0.94),
        (RunName("kde", 3, 0), "", 0.8625),
        (RunName("deep_svdd", 8, 0), "one-class", 0.80),
        (RunName("deep_svdd", 8, 1), "one-class", 0.90),
    )
    whole, joined = tmp_path / "whole", tmp_path / "joined"
    assert command(f"--out={both}", f"--to={whole}") == 0
    # The other way round, over what was published there before.
    for source in (f"--out={both}", f"--join={parts[1]},{parts[0]}"):
        assert command(source, f"--to={joined}") == 0
    names = {path.name for path in whole.iterdir()} - {"seeds.png"}
    assert {path.name for path in joined.iterdir()} == names
    for name in names - {"config.json", "hardware.json"}:
        assert (joined / name).read_bytes() == (whole / name).read_bytes(), name
    settings = json.loads((joined / "config.json").read_text())
    assert settings["normal_classes"] == [8, 3] and settings["seeds"] == [0, 1]
    # Each part's own, in hardware.json.
    assert "device" not in settings and "versions" not in settings
    hardware = json.loads((joined / "hardware.json").read_text())
    processors = [machine["device"]["processor"] for machine in hardware["parts"]]
    assert processors == ["Babbage", "Abacus 3"]
    assert hardware["methods"]["deep_svdd"] == {"runs": 4, "seconds": 41.0}


def test_a_joined_table_is_a_part_like_any_other(
    command: Call, parts: list[Path], tmp_path: Path
) -> None:
    """Three parts, the last with a class that is there already, by another method."""
    third = make_sweep(
        tmp_path / "third",
        SETTINGS | {"normal_classes": [8, 9], "seeds": [0, 1], "soft_boundary": {"preset": "x"}},
        (RunName("soft_boundary", 8, 0), "soft-boundary", 0.7),
        (RunName("deep_svdd", 9, 0), "one-class", 0.6),
    )
    last, pair, all_three = (tmp_path / name for name in ("last", "pair", "all_three"))
    assert command(f"--out={third}", f"--to={last}") == 0
    assert command(f"--join={parts[0]},{parts[1]}", f"--to={pair}") == 0
    assert command(f"--join={pair},{last}", f"--to={all_three}") == 0
    lines = (all_three / "table.md").read_text().splitlines()
    assert lines[0] == "| method | 3 | 8 | 9 | mean |"
    assert "| **Deep SVDD, soft-boundary** |  | 70.00 |  | 70.00 |" in lines
    assert any(line.startswith("| **Deep SVDD, one-class** | 92.00 ± 2.83 |") for line in lines)
    assert len(json.loads((all_three / "hardware.json").read_text())["parts"]) == 3
    settings = json.loads((all_three / "config.json").read_text())
    assert settings["soft_boundary"] == {"preset": "x"} and "device" not in settings


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_of_a_class_in_two_parts_the_one_with_more_seeds_stands(
    command: Call, parts: list[Path], tmp_path: Path, order: tuple[int, int]
) -> None:
    """The larger part's runs and its seeds together, the other's runs of other classes."""
    more = make_sweep(
        tmp_path / "more",
        SETTINGS | {"normal_classes": [8], "seeds": [0, 1, 2]},
        *((RunName("deep_svdd", 8, seed), "one-class", 0.7 + 0.1 * seed) for seed in range(3)),
    )
    longer, pair, joined = (tmp_path / name for name in ("longer", "pair", "joined"))
    assert command(f"--out={more}", f"--to={longer}") == 0
    assert command(f"--join={parts[0]},{parts[1]}", f"--to={pair}") == 0
    both = [(pair, longer)[place] for place in order]
    assert command(f"--join={both[0]},{both[1]}", f"--to={joined}") == 0

    def lines_of(folder: Path, name: str, label: int) -> list[str]:
        found = (folder / name).read_text().splitlines()
        return [line for line in found if f",{label},deep_svdd," in line]

    for name in ("runs.csv", "summary.csv"):
        assert lines_of(joined, name, 8) == lines_of(longer, name, 8) != []
        assert lines_of(joined, name, 3) == lines_of(pair, name, 3) != []
    assert json.loads((joined / "config.json").read_text())["seeds"] == [0, 1, 2]
    # The smaller part's two runs of digit 8 stand no longer.
    spent = json.loads((joined / "hardware.json").read_text())["methods"]["deep_svdd"]
    assert spent["runs"] == 5
    table = (joined / "table.md").read_text()
    assert "| Deep SVDD, one-class, 2 to 3 seeds together |" in table


def test_a_failed_run_does_not_take_the_place_of_a_good_one(
    command: Call, parts: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A part with a failed seed 0 and a good seed 5 does not have all seeds of the other."""
    failed = tmp_path / "failed"
    shutil.copytree(parts[1], failed)
    header, *lines = (parts[1] / "runs.csv").read_text().splitlines()
    place = header.split(",").index("auroc")
    cells = next(line for line in lines if ",deep_svdd,one-class,0," in line).split(",")
    other = [*cells]
    cells[place], other[header.split(",").index("seed")] = "", "5"
    kept = [line for line in lines if ",deep_svdd,one-class,0," not in line]
    lines = [header, *kept, ",".join(cells), ",".join(other)]
    (failed / "runs.csv").write_text("\n".join(lines) + "\n")
    assert command(f"--join={parts[1]},{failed}", "--markdown") == 2
    message = capsys.readouterr().err
    assert "two parts have class 8 of deep_svdd, and neither has all seeds" in message


def test_what_is_no_part_is_refused(
    command: Call, parts: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(parts[1], changed)
    config = json.loads((changed / "config.json").read_text())
    (changed / "config.json").write_text(
        json.dumps(config | {"split": {"protocol": "rest-vs-one"}})
    )
    for folders, expected in (
        ((parts[0], parts[0]), "two parts have class 3 of deep_svdd"),
        ((parts[0], changed), "other settings: split.protocol is"),
        ((parts[0], tmp_path / "nowhere"), "runs.csv: No such file"),
    ):
        assert command("--join=" + ",".join(map(str, folders)), "--markdown") == 2
        message = capsys.readouterr().err
        assert expected in message and message.count("\n") == 1
    assert command(f"--join={parts[0]},{parts[1]}", f"--to={parts[1]}") == 2
    assert "a folder that is read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "old", "new", "expected"),
    [
        ("runs.csv", "0.8", "O.8", "runs.csv: damaged: auroc is 'O.8'"),
        ("runs.csv", "0.8", "nan", "auroc is 'nan'"),
        ("runs.csv", "0.8", "inf", "auroc is 'inf'"),
        ("runs.csv", "auroc", "score", "runs.csv: damaged: its columns are"),
        (
            "runs.csv",
            "deep_svdd,one-class,1",
            "deep_svdd,one-class,0",
            "class8-seed0 is there twice",
        ),
        ("runs.csv", "deep_svdd,one-class,1", "kde,,1", "summary.csv: damaged"),
        ("summary.csv", ",8,", ",eight,", "summary.csv: damaged"),
        ("summary.csv", "one-class,2", "one-class,ten", "summary.csv: damaged"),
        ("summary.csv", "\nmnist,8,", "\nmnist,8,a,b", "summary.csv: damaged"),
        ("hardware.json", "{", '{"parts": null,', "hardware.json: damaged: parts is no list"),
        ("hardware.json", "{", '{"parts": ["a"],', "hardware.json: damaged: parts is no list"),
        ("hardware.json", "{", "[", "hardware.json: damaged"),
        ("config.json", '"seeds": [', '"seeds": [{},', "config.json: damaged: seeds is no list"),
        ("config.json", '"split"', '"spilt"', "config.json: damaged: split is no object"),
    ],
)
def test_a_damaged_part_is_one_line(
    command: Call,
    parts: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    old: str,
    new: str,
    expected: str,
) -> None:
    text = (parts[1] / name).read_text()
    assert old in text
    (parts[1] / name).write_text(text.replace(old, new, 1))
    to = tmp_path / "to"
    assert command(f"--join={parts[0]},{parts[1]}", f"--to={to}") == 2
    message = capsys.readouterr().err
    assert expected in message and message.count("\n") == 1
    assert not to.exists()


def test_an_ensemble_that_is_no_auroc_is_damage(
    command: Call, parts: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = parts[1] / "summary.csv"
    header, first, *rest = path.read_text().splitlines()
    for cell in ("nan", "inf", "-0.2", "O.9"):
        cells = first.split(",")
        cells[header.split(",").index("auroc_ensemble")] = cell
        path.write_text("\n".join([header, ",".join(cells), *rest]) + "\n")
        assert command(f"--join={parts[0]},{parts[1]}", "--markdown") == 2
        assert f"{path}: damaged" in capsys.readouterr().err
