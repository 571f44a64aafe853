"""Finds the images below a folder, and says which files are left out and why."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from deepsvdd_jax.datasets.dataset import DataError, printable
from deepsvdd_jax.datasets.formats.images import is_image_name
from deepsvdd_jax.datasets.layout import LeftOut, sort_paths

_SHOWN_REASONS = 4
_SHOWN_NAMES = 2


class FoundImages(NamedTuple):
    """The files below a folder; paths are relative to it, with slashes, sorted."""

    images: tuple[str, ...]
    left_out: tuple[LeftOut, ...]


def find_images(root: Path, recursive: bool = True) -> FoundImages:
    """Lists the files below a folder that are images by their ending (touches files).

    Links are followed, also to folders; a folder that was already searched is not searched again.
    Hidden files and folders, whose names start with a dot, are left out.

    Args:
      root: the folder.
      recursive: whether to look into its folders.

    Raises:
      DataError: not a folder, or one below it that cannot be read.
    """
    images: list[str] = []
    left_out: list[LeftOut] = []
    links: list[str] = []
    seen: set[tuple[int, int]] = set()
    waiting = [""]
    # Links come last, so that of two ways to a folder the one without a link counts.
    while waiting or links:
        folder = waiting.pop() if waiting else links.pop(0)
        entries = _entries(root, folder, seen)
        if entries is None:
            left_out.append(LeftOut(folder, "a link to a folder that is searched already"))
            continue
        for name, mode, is_link in entries:
            path = f"{folder}/{name}" if folder else name
            if stat.S_ISDIR(mode) and not name.startswith("."):
                if recursive:
                    (links if is_link else waiting).append(path)
            elif reason := _reason(name, mode):
                left_out.append(LeftOut(path, reason))
            else:
                images.append(path)
    return FoundImages(
        sort_paths(images), tuple(sorted(left_out, key=lambda item: item.path.split("/")))
    )


def describe_left_out(left_out: Sequence[LeftOut]) -> str:
    """Returns one line: how many files are left out, why, and some of their names."""
    by_reason: dict[str, list[str]] = {}
    for path, reason in left_out:
        by_reason.setdefault(reason, []).append(path)
    most = sorted(by_reason.items(), key=lambda item: -len(item[1]))
    parts = [
        f"{len(paths)} {reason} ({', '.join(map(printable, paths[:_SHOWN_NAMES]))}"
        f"{', ...' if len(paths) > _SHOWN_NAMES else ''})"
        for reason, paths in most[:_SHOWN_REASONS]
    ]
    parts += ["..."] * (len(most) > _SHOWN_REASONS)
    noun = "file" if len(left_out) == 1 else "files"
    return f"{len(left_out)} {noun} left out: {'; '.join(parts)}"


def _entries(
    root: Path, folder: str, seen: set[tuple[int, int]]
) -> list[tuple[str, int, bool]] | None:
    """Returns the entries of a folder by name: name, mode (0 for a link that leads nowhere), and
    whether it is a link. None if the folder was seen before."""
    place = root / folder
    try:
        about = place.stat()
        if (about.st_dev, about.st_ino) in seen:
            return None
        seen.add((about.st_dev, about.st_ino))
        with os.scandir(place) as entries:
            found = [(entry.name, _mode(entry), entry.is_symlink()) for entry in entries]
    except NotADirectoryError:
        raise DataError(f"{root}: not a folder of images") from None
    except OSError as error:
        raise DataError(f"{place}: cannot be read ({error.strerror or error})") from None
    return sorted(found)


def _mode(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_mode
    except OSError:
        return 0


def _reason(name: str, mode: int) -> str:
    """Returns why a file is left out, nothing for an image."""
    if name.startswith("."):
        return "hidden"
    if mode == 0:
        return "a link that leads nowhere"
    if not stat.S_ISREG(mode):
        return "no regular file"
    if not is_image_name(name):
        return "no image by its ending"
    return ""


def image_files(folder: str | Path, recursive: bool = True) -> list[Path]:
    """Lists the image files of a folder (touches files); see `find_images`."""
    root = Path(folder)
    return [root / path for path in find_images(root, recursive).images]
