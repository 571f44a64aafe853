"""Every notebook among the examples runs from top to bottom, and prints what it says."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import betabinom

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


def cells_of(path: Path) -> list[dict[str, Any]]:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4
    return list(notebook["cells"])


def output_of(path: Path, folder: Path) -> str:
    """Runs a notebook's cells one after the other, in a process of their own."""
    sources = ["".join(cell["source"]) for cell in cells_of(path) if cell["cell_type"] == "code"]
    script = folder / "cells.py"
    script.write_text("\n\n".join(sources), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert [file.name for file in folder.iterdir()] == ["cells.py"]
    return done.stdout


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs(path: Path) -> None:
    for cell in cells_of(path):
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None


@pytest.mark.slow
def test_a_drifting_sensor_is_found_in_a_frame(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    (path,) = NOTEBOOKS
    printed = output_of(path, tmp_path).splitlines()
    false_alarms, asked, found = map(float, re.findall(r"\d+\.\d+", printed[0]))
    # The threshold is the 158th of 160 held-out scores: alarms of new rows are beta-binomial.
    most = betabinom.ppf(0.999, 180, 3, 158)
    assert asked == 0.02 and 180 * false_alarms <= most and found > 0.9
    names = [f"'deepsvdd{member}'" for member in range(5)]
    assert printed[1] == f"[{', '.join(names)}] True"
