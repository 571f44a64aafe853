"""The most memory that this process has held; the standard library alone, since imports would be
part of the measurement."""

import resource
import sys
from pathlib import Path


def process_peak_bytes() -> int:
    """Returns the peak of this process's resident memory in bytes; asks the system."""
    # On Linux `ru_maxrss` starts from the memory of the process that this one was started by.
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
