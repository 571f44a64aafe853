"""Files that are there whole or not at all."""

import contextlib
import functools
import hashlib
import os
import platform
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

# A file system takes names of 255 bytes; that of a draft is longer than that of its file.
_LONGEST_NAME = 200


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file under a temporary name, then renames it (touches files).

    Raises:
      OSError: it cannot be written; the former file stays.
    """
    with writing(path) as file:
        file.write(data)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """Gives a file under a temporary name, renamed when the block ends without an error (touches
    files).

    Raises:
      OSError: it cannot be written; the former file stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = draft_of(path)
    try:
        with draft.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def draft_of(path: Path) -> Path:
    """Returns a hidden name beside a path that no other process or thread writes to.

    Drafts beside it that processes of this host left behind when they were killed are removed, once
    a folder and process (touches files).
    """
    _sweep_up(path.parent, os.getpid())
    name = path.name
    if len(os.fsencode(name)) > _LONGEST_NAME:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()[:12]
    return path.with_name(f".{name}-{_host()}-{os.getpid()}-{threading.get_ident()}")


@functools.cache
def _host() -> str:
    """Returns a name for this host or container, by which drafts of others are left alone."""
    try:
        space = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        space = 0
    return hashlib.sha256(f"{platform.node()} {space}".encode()).hexdigest()[:8]


@functools.lru_cache(maxsize=1024)
def _sweep_up(folder: Path, process: int) -> None:
    """Removes drafts of processes of this host that have ended (touches files)."""
    drafts = re.compile(rf"\..+-{_host()}-(\d+)-\d+")
    try:
        names = os.listdir(folder)
    except OSError:
        return
    for name in names:
        found = drafts.fullmatch(name)
        if found and not _is_alive(int(found[1])):
            draft = folder / name
            with contextlib.suppress(OSError):
                draft.unlink() if draft.is_symlink() or not draft.is_dir() else shutil.rmtree(draft)


def _is_alive(process: int) -> bool:
    # On other systems the call would end the process instead of looking for it.
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        # Another user's.
        pass
    return True
