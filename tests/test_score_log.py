"""The growing scores file: whole rows, torn rows, other files, a full disk."""

import errno
import os
from pathlib import Path

import pytest

from deepsvdd_jax.cli import files, score_log
from deepsvdd_jax.cli.score_log import LoggedRow, open_log

HEADER = b"name,score,p_value,anomalous,drift\n"
ROWS = [
    LoggedRow("a.png", 1.5, "0.25", 0, "1"),
    LoggedRow('odd "quoted", name\nof two lines.png', 0.1, "0.01", 1, "1.25"),
]


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "scores.csv"
    with open_log(path) as log:
        log.append(ROWS[:1])
        log.append(ROWS[1:])
    assert path.read_bytes().startswith(HEADER + b"a.png,1.5,0.25,0,1\n")
    with open_log(path) as log:
        assert log.rows == ROWS
    assert path.read_bytes().count(HEADER) == 1


@pytest.mark.parametrize("cut", range(1, 60))
def test_half_a_row_is_cut_off(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "scores.csv"
    with open_log(path) as log:
        log.append(ROWS)
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    with open_log(path) as log:
        # The second row is cut by up to its 53 bytes, then the first is too.
        kept = len(log.rows)
        assert log.rows == ROWS[:kept] and kept < 2
        log.append(ROWS[kept:])
    assert path.read_bytes() == whole


def test_a_header_that_was_cut_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_bytes(HEADER[:10])
    with open_log(path) as log:
        assert log.rows == []
    assert path.read_bytes() == HEADER


@pytest.mark.parametrize(
    "content", [b"name,score\na,1\n", b"my notes", HEADER + b"a,one,0,0,1\n", HEADER + b"a,1\n"]
)
def test_another_file_stays_as_it_is(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "scores.csv"
    path.write_bytes(content)
    with pytest.raises(files.ResultsError, match="scores.csv"), open_log(path):
        pass
    assert path.read_bytes() == content


def test_a_second_command_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    with (
        open_log(path),
        pytest.raises(files.ResultsError, match="another command"),
        open_log(path),
    ):
        pass
    with open_log(path):
        pass


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(files.ResultsError, match="not a file"), open_log(tmp_path):
        pass


def test_a_full_disk_leaves_no_half_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "scores.csv"
    with open_log(path) as log:
        log.append(ROWS[:1])
        before, write = path.read_bytes(), os.write

        def full(descriptor: int, data: bytes) -> int:
            if len(data) < 5:
                raise OSError(errno.ENOSPC, "No space left on device")
            return write(descriptor, data[:-4])

        monkeypatch.setattr(score_log.os, "write", full)
        with pytest.raises(files.WriteError, match="No space left"):
            log.append(ROWS[1:])
        assert path.read_bytes() == before and log.rows == ROWS[:1]
        monkeypatch.undo()
        log.append(ROWS[1:])
    with open_log(path) as log:
        assert log.rows == ROWS


def test_names_that_are_no_text_are_written_with_their_bytes() -> None:
    assert score_log.written_name("part\udcff\r.png") == "part\\udcff\\r.png"
    assert score_log.written_name("größe.png") == "größe.png"
