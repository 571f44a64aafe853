"""What the tests of several modules make and read alike."""

import csv
import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from deepsvdd_jax.cli import exits, signals


def texture(seed: int, height: int, width: int) -> npt.NDArray[np.uint8]:
    """Returns gray stripes across an image, with noise."""
    random = np.random.default_rng(seed)
    rows = 100 + 40 * np.sin(np.arange(height) / 2)[:, None]
    return (rows + random.normal(0, 8, (height, width))).clip(0, 255).astype(np.uint8)


def rows_of(path: Path) -> list[dict[str, str]]:
    """Reads a csv file."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def stop_at(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    """Makes the sweep see a signal after so many chunks."""

    seen = 0

    def check(self: signals.StopSignal) -> None:
        nonlocal seen
        seen += 1
        if seen == chunk:
            raise exits.Interrupted("SIGTERM")

    monkeypatch.setattr(signals.StopSignal, "check", check)


def folder_content(out: Path) -> dict[str, object]:
    """Returns every file of sweeps in a folder but for the time that runs took."""
    found: dict[str, object] = {}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if path.name.startswith(".") or not path.is_file():
            continue
        if path.name == "runs.csv":
            rows = list(csv.DictReader(io.StringIO(path.read_text())))
            found[name] = [{**row, "train_seconds": ""} for row in rows]
        elif path.parent.name == "rows" or path.name == "model.json":
            text = path.read_text()
            found[name] = [line for line in text.splitlines() if "train_seconds" not in line]
        else:
            found[name] = path.read_bytes()
    return found
