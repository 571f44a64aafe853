"""Locks of a sweep's folder: it belongs to one sweep at a time, each process of which has one."""

import contextlib
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from deepsvdd_jax.cli.files import ResultsError

# Folders of published tables have this file, those of sweeps do not.
HARDWARE = "hardware.json"

# The files by which processes hold a folder: number of a process, and how many share the sweep.
_LOCK = ".lock-{}-of-{}"
_OWNER = ".owner-{}-of-{}"

# Lock timeout, in seconds: another process may hold a lock for an instant, to see whether it is
# free.
_LOCK_SECONDS = 1.0


@contextlib.contextmanager
def locked(folder: Path, process: int = 0, processes: int = 1) -> Iterator[None]:
    """Holds a sweep's folder, made where it is missing, against other sweeps (touches files).

    The operating system releases the lock when its owner ends, however it ends, so that a lock that
    was left behind is taken over.

    Args:
      folder: of the sweep.
      process: number of this process among those that share the sweep; each has a lock.
      processes: how many share it; a sweep shared by another number of processes is another sweep.

    Raises:
      ResultsError: the folder is another process's, holds something else, or cannot be written.
    """
    try:
        lock = _acquire(folder, process, processes)
    except OSError as error:
        raise ResultsError(f"cannot write {folder}: {error.strerror or error}") from None
    try:
        yield
    finally:
        (folder / _OWNER.format(process, processes)).unlink(missing_ok=True)
        lock.release()


def is_held(folder: Path, process: int, processes: int) -> bool:
    """Returns whether that process is alive and holds its lock on a folder (touches files)."""
    path = folder / _LOCK.format(process, processes)
    if not path.exists():
        return False
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def check_usable(folder: Path) -> None:
    """Refuses a folder that holds anything but a sweep (touches files).

    Raises:
      ResultsError: says what it holds.
    """
    names = [path.name for path in folder.iterdir()] if folder.exists() else []
    if "config.json" not in names and any(name[0] != "." for name in names):
        raise ResultsError(f"{folder} is not empty and holds no sweep; give another --out")
    if HARDWARE in names:
        raise ResultsError(f"{folder} holds published tables; give another --out")


def _acquire(folder: Path, process: int, processes: int) -> FileLock:
    folder.mkdir(parents=True, exist_ok=True)
    check_usable(folder)
    lock = FileLock(folder / _LOCK.format(process, processes))
    try:
        lock.acquire(timeout=_LOCK_SECONDS, poll_interval=_LOCK_SECONDS / 20)
    except Timeout:
        raise _in_use(folder, process, processes) from None
    for other in _other_sweeps(folder, processes):
        if is_held(folder, *other):
            lock.release()
            raise _in_use(folder, *other)
    owner = f"process {os.getpid()} on {platform.node()} since {time.strftime('%F %T')}"
    (folder / _OWNER.format(process, processes)).write_text(owner, encoding="utf-8")
    return lock


def _other_sweeps(folder: Path, processes: int) -> list[tuple[int, int]]:
    """Returns the process and the number of processes of every lock that is not of this sweep."""
    found = []
    for path in folder.glob(_LOCK.format("*", "*")):
        process, _, count = path.name.removeprefix(".lock-").partition("-of-")
        if process.isdecimal() and count.isdecimal() and int(count) != processes:
            found.append((int(process), int(count)))
    return found


def _in_use(folder: Path, process: int, processes: int) -> ResultsError:
    try:
        owner = (folder / _OWNER.format(process, processes)).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        owner = "another process"
    return ResultsError(f"{folder} is in use by {owner}; wait for it, or give another --out")
