"""Finds the files in a folder that are new and no longer written to."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple


class Stamp(NamedTuple):
    """A file's size and the time of its last change, in ns: both change while it is written."""

    size: int
    changed: int


def stamps(paths: Iterable[Path], root: Path) -> dict[str, Stamp]:
    """Returns the stamp of every file, by its name below `root` (touches files); files that vanish
    meanwhile are left out."""
    found = {}
    for path in paths:
        try:
            status = os.stat(path)
        except OSError:
            continue
        found[path.relative_to(root).as_posix()] = Stamp(status.st_size, status.st_mtime_ns)
    return found


# A file that is empty for so long, in ns, stays empty: its writer has died, or the disk was full.
EMPTY_FOR = 10 * 10**9


def settled(
    before: Mapping[str, Stamp],
    now: Mapping[str, Stamp],
    done: Mapping[str, Stamp | None],
    clock: int = 0,
) -> list[str]:
    """Returns the names of the new files that are no longer written to, in the order of their
    arrival: files that have not changed since the last look, and are not empty or are old.

    Args:
      before: stamps at the last look.
      now: stamps at this look.
      done: stamps of files that were dealt with; None counts as unchanged. A file that could not be
        read is tried again once it has changed: remove its name, or keep its old stamp.
      clock: the time of this look, in ns; with 0 no empty file is old.
    """
    ready = [
        name
        for name, stamp in now.items()
        if name not in done
        and before.get(name) == stamp
        and (stamp.size > 0 or clock - stamp.changed > EMPTY_FOR)
    ]
    return sorted(ready, key=lambda name: (now[name].changed, name))
