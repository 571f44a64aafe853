"""Where commands may write: checked before any work, and nothing is replaced that is not theirs."""

import errno
import os
import pwd
import stat
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType

import pytest

from deepsvdd_jax.cli import environment, exits, paths
from deepsvdd_jax.cli.commands import (
    compare,
    ensembles,
    export,
    fit,
    publish,
    report,
    score,
    stopping,
    sweep,
)
from deepsvdd_jax.configs import ConfigError
from deepsvdd_jax.io import atomic
from deepsvdd_jax.runs import program_cache

Call = Callable[..., int]
Calling = Callable[[ModuleType], AbstractContextManager[Call]]

NOBODY = "~no-such-user/x"
LONG = "x" * 300


def is_ours(path: Path) -> bool:
    return path.read_text(encoding="utf-8").startswith("ours")


def to_write(text: object, *read: Path) -> Path:
    return paths.file_to_write("out", str(text), "file of ours", is_ours, read)


# --- files --------------------------------------------------------------------------------------


def test_a_new_file_an_empty_one_and_our_own_may_be_written(tmp_path: Path) -> None:
    empty, own = tmp_path / "empty", tmp_path / "own"
    empty.touch()
    own.write_text("ours: 1")
    for path in (tmp_path / "a" / "b" / "new", empty, own):
        assert to_write(path) == path.resolve()
    assert not (tmp_path / "a").exists()


def test_a_file_that_is_not_ours_is_not_replaced(tmp_path: Path) -> None:
    for name, content in (("photo.png", b"\x89PNG\xff"), ("table.csv", b"a,b\n1,2\n")):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(ConfigError, match="is no file of ours, so it is not replaced"):
            to_write(path)
        assert path.read_bytes() == content


def test_what_is_read_is_not_replaced_nor_written_into(tmp_path: Path) -> None:
    table, model = tmp_path / "table", tmp_path / "model"
    table.write_text("ours: it would be taken for an earlier result")
    model.mkdir()
    (tmp_path / "link").symlink_to(table)
    for path in (table, tmp_path / "." / "table", tmp_path / "link"):
        with pytest.raises(ConfigError, match="what the command reads"):
            to_write(path, table, model)
    with pytest.raises(ConfigError, match="lies in"):
        to_write(model / "new", table, model)


def test_devices_and_pipes_are_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (Path("/dev/null"), pipe):
        with pytest.raises(ConfigError, match="no regular file"):
            to_write(path)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode) and stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    disk, link = tmp_path / "disk", tmp_path / "link"
    disk.mkdir()
    link.symlink_to(disk / "scores")
    atomic.write_bytes(to_write(link), b"ours")
    assert link.is_symlink() and (disk / "scores").read_bytes() == b"ours"
    circle = tmp_path / "circle"
    circle.symlink_to(circle)
    with pytest.raises(ConfigError):
        to_write(circle)


@pytest.mark.parametrize("text", ["", ".", "/", LONG, NOBODY, f"{LONG}/x", "\0"])
def test_what_can_be_no_file_is_one_line(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        to_write(text)
    assert "--out" in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_is_no_folder_to_write_into(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for check in (to_write, lambda path: paths.folder_to_write("out", str(path))):
        with pytest.raises(ConfigError, match="is no folder"):
            check(tmp_path / "file" / "x" / "y")


def test_a_draft_of_the_longest_name_can_be_made(tmp_path: Path) -> None:
    path = tmp_path / ("ä" * 127)
    atomic.write_bytes(path, b"whole")
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


# --- folders ------------------------------------------------------------------------------------


def test_a_folder_of_other_things_is_not_written_into(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    assert paths.folder_to_write("to", str(folder), ["mark"]) == folder
    folder.mkdir()
    (folder / "thesis.txt").touch()
    with pytest.raises(ConfigError, match="not empty"):
        paths.folder_to_write("to", str(folder), ["mark"])
    (folder / "mark").touch()
    assert paths.folder_to_write("to", str(folder), ["mark"]) == folder
    with pytest.raises(ConfigError, match="is read"):
        paths.folder_to_write("to", str(folder / "."), ["mark"], [folder])
    with pytest.raises(ConfigError, match="is no folder"):
        paths.folder_to_write("to", str(folder / "mark"), ["mark"])


def test_permissions_are_looked_at_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which a superuser has all."""
    (tmp_path / "there").mkdir()
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ConfigError, match="permission denied"):
        paths.to_read("data_dir", str(tmp_path))
    with pytest.raises(ConfigError, match="permission denied"):
        to_write(tmp_path / "new")
    for name in ("new", "there"):
        with pytest.raises(ConfigError, match="permission denied"):
            paths.folder_to_write("out", str(tmp_path / name))


def test_a_page_of_someone_else_is_not_replaced(tmp_path: Path) -> None:
    report.check_pages(tmp_path)
    (tmp_path / "report").mkdir()
    with pytest.raises(ConfigError, match="did not write"):
        report.check_pages(tmp_path)
    (tmp_path / "report.html").write_text("<html>my thesis</html>")
    with pytest.raises(ConfigError, match="did not write"):
        report.check_pages(tmp_path)


# --- commands -----------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", LONG, NOBODY])
@pytest.mark.parametrize(
    ("module", "flag", "others"),
    [
        (score, "out", ["--model=.", "--data_dir=."]),
        (score, "model", ["--data_dir=."]),
        (score, "data_dir", ["--model=."]),
        (export, "out", ["--model=."]),
        (export, "model", []),
        (fit, "model", []),
        (fit, "data_dir", ["--model=new"]),
        (fit, "config", ["--model=new", "--dataset=digits"]),
        (sweep, "out", []),
        (sweep, "data_dir", []),
        (report, "out", []),
        (report, "scores", ["--out=new"]),
        (publish, "to", ["--out=."]),
        (publish, "out", ["--markdown"]),
        (compare, "to", ["--out=results,docs"]),
        (compare, "out", []),
        (ensembles, "to", ["--out=."]),
        (stopping, "to", ["--out=."]),
        (stopping, "choose_on", ["--out=."]),
    ],
)
def test_a_path_that_cannot_be_is_one_line_of_every_command(
    calling: Calling,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    module: ModuleType,
    flag: str,
    others: list[str],
    text: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    with calling(module) as command:
        assert command(*others, f"--{flag}={text}") == 2
    said = capsys.readouterr().err
    assert flag in said.splitlines()[-1] and "Traceback" not in said
    assert not list(tmp_path.iterdir())


def test_scores_replace_no_table_no_image_and_no_model(
    calling: Calling, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Before the model is read: here there is none that could be."""
    model, images, table = tmp_path / "model", tmp_path / "images", tmp_path / "table.csv"
    for folder in (model, images):
        folder.mkdir()
    (model / "model.json").write_text("{}")
    (images / "a.png").write_bytes(b"\x89PNG")
    # A cell that is longer than the csv module takes.
    table.write_text("a,b" + "b" * 200_000 + "\n1,2\n")
    before = {path: path.read_bytes() for path in (model / "model.json", images / "a.png", table)}
    with calling(score) as command:
        for out in before:
            data = images if out.parent == images else table
            assert command(f"--model={model}", f"--data_dir={data}", f"--out={out}") == 2
            message = capsys.readouterr().err
            assert message.count("\n") == 1 and "--out=" in message
    assert {path: path.read_bytes() for path in before} == before


def test_a_file_that_fails_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def failing(number: int) -> Callable[[], None]:
        def main() -> None:
            raise OSError(number, os.strerror(number), "/some/where")

        return main

    for number, code in ((errno.EACCES, 2), (errno.ENAMETOOLONG, 2), (errno.EIO, 1)):
        assert exits.exit_code(failing(number), ["command"]) == code
        message = capsys.readouterr().err
        assert f"/some/where: {os.strerror(number)}" in message and message.count("\n") == 1


# --- the cache ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cache", "home", "expected"),
    [
        ("/var/cache", "/home/me", "/var/cache/deepsvdd_jax"),
        (None, "/home/me", "~/.cache/deepsvdd_jax"),
        ("", "/home/me", "~/.cache/deepsvdd_jax"),
        ("cache", "/home/me", "~/.cache/deepsvdd_jax"),
        (None, None, ""),
        ("", "", ""),
        (None, ".", ""),
    ],
)
def test_programs_are_kept_in_the_users_cache_or_nowhere(
    monkeypatch: pytest.MonkeyPatch, cache: str | None, home: str | None, expected: str
) -> None:
    """Without a home there is no cache; the working folder is none."""

    def unknown(user: int) -> None:
        raise KeyError(user)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name, value in (("XDG_CACHE_HOME", cache), ("HOME", home)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    assert program_cache.default_folder() == expected


def test_a_cache_that_cannot_be_made_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    environment.use_platform("auto", str(tmp_path / "file"))
    assert "compiled programs are not kept" in capsys.readouterr().err
