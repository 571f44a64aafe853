"""How much memory is free, where the operating system tells."""

from __future__ import annotations

from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")

# Files of the limit and of the usage, in version 2 and in version 1 of control groups.
_LIMITS = (
    ("memory.max", "memory.current"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
)


def shortage(needed: int) -> str | None:
    """Returns None if so many bytes are free, else words for a message (reads files)."""
    free = available_memory()
    if free is None or needed <= free:
        return None
    return f"{needed / 1e9:.1f} GB of memory, of which {free / 1e9:.1f} GB are free"


def available_memory(meminfo: Path = _MEMINFO, cgroup: Path = _CGROUP) -> int | None:
    """Returns the bytes that a process may still take without swapping (reads files).

    A container's limit counts where it is smaller, and its cached files count as free; None where
    the system does not say.
    """
    found = [_of_machine(meminfo), _of_container(cgroup)]
    return min((value for value in found if value is not None), default=None)


def _of_machine(meminfo: Path) -> int | None:
    try:
        lines = meminfo.read_text(encoding="ascii").splitlines()
        fields = next(line.split() for line in lines if line.startswith("MemAvailable:"))
        return int(fields[1]) * 1024
    except (OSError, ValueError, IndexError, StopIteration):
        return None


def _of_container(cgroup: Path) -> int | None:
    for limit, usage in _LIMITS:
        try:
            most = int((cgroup / limit).read_text(encoding="ascii"))
            used = int((cgroup / usage).read_text(encoding="ascii"))
        except (OSError, ValueError):
            # No limit is written as `max`.
            continue
        return max(0, most - used + _kept_files((cgroup / usage).with_name("memory.stat")))
    return None


def _kept_files(statistics: Path) -> int:
    """Returns the bytes of files that a container gives back when memory is short."""
    try:
        fields = [line.split() for line in statistics.read_text(encoding="ascii").splitlines()]
        return next(int(size) for name, size in fields if name == "inactive_file")
    except (OSError, ValueError, StopIteration):
        return 0
