"""Checks the paths of flags before any work: what a command reads, and where it may write.

A command never replaces a file that it did not write itself, nor one that it reads.
"""

import os
import stat
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from absl import flags

from deepsvdd_jax.configs import ConfigError

# A longer path is shortened in a message.
_SHOWN = 120


def of_flag(flag: str, text: str) -> Path:
    """Returns the path that a flag names, `~` being a home folder; it need not exist.

    Raises:
      ConfigError: the path is empty, there is no such home folder, no file can have such a name, or
        the permission to look into its folder is missing.
    """
    if not text:
        raise ConfigError(f"--{flag} is empty; give a path")
    try:
        path = Path(text).expanduser()
    except RuntimeError:
        raise ConfigError(f"--{flag}={_shown(text)}: there is no such home folder") from None
    _status(flag, path)
    return path


def to_read(flag: str, text: str) -> Path:
    """Returns the path that a flag names as `of_flag`; if it exists, it can be read.

    Raises:
      ConfigError: as `of_flag`, or the permission is missing.
    """
    path = of_flag(flag, text)
    needed = os.R_OK | os.X_OK if path.is_dir() else os.R_OK
    if path.exists() and not os.access(path, needed):
        raise ConfigError(f"--{flag}={_shown(path)}: permission denied")
    return path


def file_to_write(
    flag: str, text: str, what: str, is_ours: Callable[[Path], bool], read: Collection[Path] = ()
) -> Path:
    """Returns the file that a flag names, to be written by a draft that is renamed.

    A link is followed, so that it stays a link.

    Args:
      flag: its name.
      text: its value.
      what: a file of the kind that the command writes, as "table of scores".
      is_ours: whether a file that is there is of that kind; only such a one is replaced.
      read: files and folders that the command reads: they are not replaced, nor is anything
        written into such a folder.

    Raises:
      ConfigError: as `of_flag`, or the file cannot be written, or would replace something else.
    """
    path = _resolved(flag, of_flag(flag, text))
    _check_outside(flag, path, read)
    status = _status(flag, path)
    if status is None:
        _check_folder_of(flag, path)
    elif stat.S_ISDIR(status.st_mode):
        raise ConfigError(f"--{flag}={_shown(path)} is a folder; name a file")
    elif not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"--{flag}={_shown(path)} is no regular file; it is not replaced")
    elif status.st_size and not _recognized(path, is_ours):
        raise ConfigError(
            f"--{flag}={_shown(path)} is there and is no {what}, so it is not replaced; give "
            f"another --{flag}"
        )
    else:
        _check_folder_of(flag, path)
    return path


def folder_to_write(
    flag: str, text: str, marks: Sequence[str] | None = None, read: Collection[Path] = ()
) -> Path:
    """Returns the folder that a flag names, to be written into and made where it is missing.

    Args:
      flag: its name.
      text: its value.
      marks: files that a folder has if the command wrote it, together in no other; only such a
        folder, or an empty one, is written into. None: what it may hold is checked elsewhere.
      read: folders that the command reads, of which it is to be none.

    Raises:
      ConfigError: as `of_flag`, or the folder cannot be written, or holds something else.
    """
    path = of_flag(flag, text)
    resolved = _resolved(flag, path)
    status = _status(flag, resolved)
    if any(resolved == _resolved(flag, folder) for folder in read):
        raise ConfigError(f"--{flag}={_shown(path)} is a folder that is read; give another one")
    if status is None:
        _check_folder_of(flag, resolved)
        return path
    if not stat.S_ISDIR(status.st_mode):
        raise ConfigError(f"--{flag}={_shown(path)} is no folder; give another --{flag}")
    if not os.access(resolved, os.R_OK | os.W_OK | os.X_OK):
        raise ConfigError(f"cannot write --{flag}={_shown(path)}: permission denied")
    there = os.listdir(resolved)
    if marks is not None and there and not set(marks) <= set(there):
        raise ConfigError(
            f"--{flag}={_shown(path)} is not empty and was not written by this command; give "
            f"another --{flag}"
        )
    return path


def separate_folder(
    flag: str, text: str, marks: Sequence[str] | None, read: Collection[Path]
) -> Path:
    """Returns the folder that a flag names as `folder_to_write`, outside of all folders that are
    read.

    Raises:
      ConfigError: as `folder_to_write`, or it lies in such a folder.
    """
    path = folder_to_write(flag, text, marks, read)
    _check_outside(flag, _resolved(flag, path), [source for source in read if source.is_dir()])
    return path


def new_folder(flag: str, text: str, read: Collection[Path] = ()) -> Path:
    """Returns the folder that a flag names, missing or empty, outside of all folders that are read.

    Args:
      flag: its name.
      text: its value.
      read: files and folders that the command reads.

    Raises:
      ConfigError: as `folder_to_write`, or something is in it.
    """
    path = separate_folder(flag, text, None, read)
    if path.is_dir() and os.listdir(path):
        raise ConfigError(
            f"--{flag}={_shown(path)} is not empty, and nothing is overwritten; give another "
            f"--{flag}, or remove it"
        )
    return path


def folders_of_study(
    values: flags.FlagValues, name: str, marks: Sequence[str]
) -> tuple[Path, Path]:
    """Returns the folder of a sweep, `--out`, and the folder `--to` that a study of it writes into,
    by default one in the sweep's.

    Args:
      values: parsed flags.
      name: of the default folder.
      marks: see `folder_to_write`.

    Raises:
      ConfigError: no sweep is given, or as `folder_to_write`.
    """
    if values.out is None:
        raise ConfigError("out is not given; it is a sweep's folder")
    sweep = to_read("out", values.out)
    to = str(sweep / name) if values.to is None else values.to
    return sweep, folder_to_write("to", to, marks, [sweep])


def _shown(path: Path | str) -> str:
    text = str(path)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _status(flag: str, path: Path) -> os.stat_result | None:
    """Returns the status of a path, links followed, None if it does not exist; refuses impossible
    names."""
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"--{flag}={_shown(path)}: {reason.lower()}") from None


def _resolved(flag: str, path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError):
        raise ConfigError(f"--{flag}={_shown(path)} is a link to itself") from None


def _check_outside(flag: str, path: Path, read: Collection[Path]) -> None:
    for source in read:
        found = _resolved(flag, source)
        if path == found:
            raise ConfigError(f"--{flag}={_shown(path)} is what the command reads; give another")
        if found in path.parents:
            raise ConfigError(f"--{flag}={_shown(path)} lies in {_shown(source)}; give another")


def _check_folder_of(flag: str, path: Path) -> None:
    """Refuses a path whose folder cannot be written to, or cannot be made."""
    folder = next(parent for parent in path.parents if parent.exists())
    if not folder.is_dir():
        raise ConfigError(f"cannot write --{flag}={_shown(path)}: {_shown(folder)} is no folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"cannot write --{flag}={_shown(path)}: permission denied")


def _recognized(path: Path, is_ours: Callable[[Path], bool]) -> bool:
    try:
        return is_ours(path)
    except (OSError, ValueError):
        return False
