"""A sweep's folder, read back: what is damaged is named, and nothing outside the folder is read."""

import dataclasses
import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepsvdd_jax.cli import files
from deepsvdd_jax.cli.files import ResultsError
from deepsvdd_jax.cli.sweeps import config_file, locks, records
from deepsvdd_jax.cli.sweeps.records import Record, RunName
from deepsvdd_jax.io import npz

PUBLISHED = Path(__file__).parents[1] / "results" / "published"
NAME = RunName("deep_svdd", 0, 3)
SCORES: dict[str, np.ndarray] = {
    "scores": np.array([0.5, 2.0], np.float32),
    "distances": np.array([0.5, 2.0], np.float32),
    "labels": np.array([0, 1], np.uint8),
    "tested": np.array([True, True]),
    "train_mean": np.array(0.25),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sweep's folder of one run."""
    (tmp_path / "config.json").write_text(json.dumps({"seeds": [3], "methods": ["deep_svdd"]}))
    record = Record(dataset="digits", protocol="one-vs-rest", **NAME._asdict(), auroc=1.0)
    history = {"phase": np.array(["training"]), "loss": np.array([0.5])}
    records.write_run(tmp_path, {}, record, SCORES, history)
    return tmp_path


def edit(path: Path, **changes: Any) -> None:
    kept = json.loads(path.read_text())
    for part, values in changes.items():
        kept[part] |= values
    path.write_text(json.dumps(kept))


def test_a_folder_is_read_as_it_was_written(folder: Path) -> None:
    settings, rows = config_file.read_folder(folder)
    assert settings["seeds"] == [3] and rows[NAME].auroc == 1.0
    assert rows[NAME].failure is None
    read = records.read_scores(folder, NAME)
    assert read.keys() == SCORES.keys()
    np.testing.assert_array_equal(read["tested"], SCORES["tested"])
    assert records.read_history(folder, NAME)["loss"].tolist() == [0.5]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"row": {"auroc": "high"}}, "auroc is 'high'"),
        ({"row": {"train_seconds": [1]}}, "train_seconds is '[1]'"),
        ({"row": {"seed": "4"}}, "it is the row of deep_svdd-class0-seed4"),
        ({"files": {"/dev/zero": "0"}}, "'/dev/zero' is no file of this run"),
        ({"files": {"../config.json": "0"}}, "is no file of this run"),
    ],
)
def test_a_damaged_row_does_not_count(
    folder: Path, changes: dict[str, Any], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(folder / "rows" / f"{NAME.stem}.json", **changes)
    assert records.read_rows(folder) == {}
    message = capsys.readouterr().err
    assert reason in message and "deep_svdd-class0-seed3 runs again" in message


@pytest.mark.parametrize(
    ("name", "value"),
    [("seeds", 3), ("methods", "deep_svdd"), ("normal_classes", [[1]]), ("methods", [None])],
)
def test_a_list_of_the_settings_that_is_none_is_named(
    folder: Path, name: str, value: object
) -> None:
    (folder / "config.json").write_text(json.dumps({name: value}))
    for read in (config_file.read_folder, lambda folder: config_file.take_up(folder, {})):
        with pytest.raises(ResultsError, match=f"config.json: damaged: {name} is no list"):
            read(folder)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"tested": None}, "tested is missing"),
        ({"labels": np.zeros(3, np.uint8)}, r"labels has the shape \(3,\)"),
        ({"train_mean": np.ones(1)}, "train_mean has the shape"),
        ({"distances": np.array([1.0, np.nan])}, "distances holds values that are not finite"),
        ({"scores": np.array([{}, None])}, "scores: pickled objects are refused"),
    ],
)
def test_scores_that_are_of_no_use_are_named(
    folder: Path, changes: dict[str, Any], reason: str
) -> None:
    arrays = {name: values for name, values in (SCORES | changes).items() if values is not None}
    path = folder / "scores" / f"{NAME.stem}.npz"
    path.write_bytes(npz.npz_bytes(arrays))
    with pytest.raises(ResultsError, match=f"{NAME.stem}.npz: damaged: {reason}"):
        records.read_scores(folder, NAME)


def test_an_archive_that_is_none_is_named(folder: Path) -> None:
    path = folder / "scores" / f"{NAME.stem}.npz"
    for data in (b"", b"PK\5\6", path.read_bytes()[:-30]):
        path.write_bytes(data)
        with pytest.raises(ResultsError, match="damaged"):
            records.read_scores(folder, NAME)


def test_published_tables_are_not_taken_up_as_a_sweep(folder: Path) -> None:
    (folder / "hardware.json").write_text("{}")
    before = {path.name for path in folder.iterdir()}
    with pytest.raises(ResultsError, match="holds published tables; give another --out"):
        locks.locked(folder).__enter__()
    assert {path.name for path in folder.iterdir()} == before


def test_a_record_is_text_only_in_its_row() -> None:
    record = Record(
        dataset="digits",
        protocol="one-vs-rest",
        normal_class=0,
        method="kde",
        seed=3,
        auroc=0.1 + 0.2,
        threshold=float("nan"),
        collapsed=False,
    )
    row = record.to_row()
    # The columns that users rely on come first.
    wanted = (
        "dataset,protocol,normal_class,method,objective,seed,auroc,average_precision,fpr95,"
        "auroc_untrained,threshold,accuracy,precision,recall,f1,epochs,train_seconds,collapsed"
    )
    assert ",".join(row).startswith(wanted)
    given = {column: cell for column, cell in row.items() if cell}
    assert given == {
        **{"dataset": "digits", "protocol": "one-vs-rest", "normal_class": "0", "method": "kde"},
        **{"seed": "3", "auroc": "0.30000000000000004", "collapsed": "0"},
    }
    assert record.name == RunName("kde", 0, 3)
    # A figure without a meaning is None when it is read.
    assert Record.from_row(row) == dataclasses.replace(record, threshold=None)


@pytest.mark.parametrize(
    ("column", "cell"),
    [
        *(("seed", ""), ("seed", "1.0"), ("epochs", "1e3"), ("auroc", "1.5"), ("f1", "nan")),
        *(("collapsed", "True"), ("collapsed", "2"), ("normal_class", "None")),
    ],
)
def test_a_cell_is_of_the_type_of_its_column(column: str, cell: str) -> None:
    row = Record(dataset="digits", protocol="one-vs-rest", normal_class=0, method="kde", seed=3)
    with pytest.raises(ValueError, match=f"{column} is {cell!r}"):
        Record.from_row(row.to_row() | {column: cell})


def test_rows_of_every_published_table_are_written_as_they_were_read(tmp_path: Path) -> None:
    published = sorted(PUBLISHED.glob("*/runs.csv"))
    header = ",".join(records.RUN_COLUMNS)
    of_sweeps = [path for path in published if path.read_text().startswith(header)]
    assert len(of_sweeps) > 10
    for path in of_sweeps:
        records.write_runs(tmp_path, records.read_table(path))
        assert (tmp_path / "runs.csv").read_bytes() == path.read_bytes(), path


def test_a_table_under_way_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "scores.csv"
    with files.new_table(path) as writer:
        writer.writerow(["carriage\rreturn", "line\nfeed", "\udcff", 1.5])
        assert not path.exists()
    assert path.read_bytes() == b'"carriage\rreturn","line\nfeed",\\udcff,1.5\n'
    before = path.read_bytes()
    with pytest.raises(KeyError), files.new_table(path) as writer:
        writer.writerow(["half"])
        raise KeyError
    assert path.read_bytes() == before and [one.name for one in path.parent.iterdir()] == [
        path.name
    ]


def test_a_table_that_cannot_be_written_is_told_by_when(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(ResultsError, match="cannot write .*scores.csv"),
        files.new_table(tmp_path / "file" / "scores.csv"),
    ):
        pytest.fail("there is no such folder")
    with pytest.raises(files.WriteError, match="cannot write .*No space left"):  # noqa: SIM117
        with files.new_table(tmp_path / "scores.csv"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert [one.name for one in tmp_path.iterdir()] == ["file"]
