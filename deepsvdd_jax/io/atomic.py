"""Files that are there whole or not at all."""

import hashlib
import os
import threading
from pathlib import Path

# A file system takes names of 255 bytes; that of a draft is longer than that of its file.
_LONGEST_NAME = 200


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file under a temporary name, then renames it (touches files).

    Raises:
      OSError: it cannot be written; what was there before stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = draft_of(path)
    try:
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def draft_of(path: Path) -> Path:
    """Returns a hidden name beside a path that no other process or thread writes to."""
    name = path.name
    if len(os.fsencode(name)) > _LONGEST_NAME:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()[:12]
    return path.with_name(f".{name}-{os.getpid()}-{threading.get_ident()}")
