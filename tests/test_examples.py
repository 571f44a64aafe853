"""Every example, the README's first, runs from a folder of a user's own and prints what it says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def output_of(path: Path, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, path],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert list(folder.iterdir()) == [], "an example leaves files behind"
    return done.stdout


def numbers(text: str) -> list[float]:
    return [float(found) for found in re.findall(r"\d+\.\d+", text)]


def test_they_are_numbered_without_a_gap() -> None:
    assert [path.stem[:2] for path in EXAMPLES] == [f"{n:02}" for n in range(1, len(EXAMPLES) + 1)]


@pytest.mark.slow
def test_digits_of_one_class_are_told_from_the_others(tmp_path: Path) -> None:
    alone, _, together = numbers(output_of(EXAMPLES[0], tmp_path))
    assert 0.9 < alone <= together <= 1.0


@pytest.mark.slow
def test_rows_without_what_ties_their_columns_are_found(tmp_path: Path) -> None:
    alarms, asked, found, *_ = numbers(output_of(EXAMPLES[1], tmp_path))
    assert asked == 0.05 and alarms < 0.15 < 0.5 < found


@pytest.mark.slow
def test_scratched_stripes_are_above_the_threshold(tmp_path: Path) -> None:
    scratched, new = numbers(output_of(EXAMPLES[2], tmp_path))
    assert new < 0.3 < scratched


@pytest.mark.slow
def test_a_memory_map_is_streamed(tmp_path: Path) -> None:
    losses = numbers(output_of(EXAMPLES[3], tmp_path))
    assert len(losses) == 4 and losses[0] > losses[1] and losses[2] > losses[3]


@pytest.mark.slow
def test_an_objective_of_ones_own_tells_anomalies(tmp_path: Path) -> None:
    inside, outside = numbers(output_of(EXAMPLES[4], tmp_path))
    assert outside > 3 * inside


CENTERS_OF_TWO_GROUPS = """
import runpy, sys
import numpy as np
example = runpy.run_path(sys.argv[1])
random = np.random.RandomState(0)
groups = random.randn(30, 2), 50.0 + random.randn(10, 2)
rows = np.concatenate([*groups, np.full((7, 2), 1e6)]).astype(np.float32)
found = example["means_of_groups"](rows, np.arange(47) < 40, 2)
print(np.abs(np.sort(found, axis=0) - [group.mean(axis=0) for group in groups]).max() < 1e-4)
"""


@pytest.mark.slow
def test_several_centers_are_the_means_of_groups_and_make_a_sweep(tmp_path: Path) -> None:
    flags = ["--objective=several-centers", "--centers=2", "--epochs=1", "--seeds=1"]
    calls = (
        ["-c", CENTERS_OF_TWO_GROUPS, EXAMPLES[5]],
        [EXAMPLES[5], *flags, "--normal_classes=0", f"--out={tmp_path / 'out'}"],
    )
    groups, sweep = (
        subprocess.run(
            [sys.executable, *call],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        ).stdout
        for call in calls
    )
    assert groups == "True\n" and "deep_svdd several-centers" in sweep


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_says_how_it_is_called(path: Path) -> None:
    assert f"python examples/{path.name}" in path.read_text(encoding="utf-8")


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) < 700


@pytest.mark.slow
def test_the_lines_of_the_readme_run(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    code = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(code) == 1 and code[0].count("detector.predict(new)") == 1
    shown = re.search(r"detector.predict\(new\) +# \[(.*)\]", code[0])
    assert shown is not None
    example = tmp_path / "example.py"
    folder = tmp_path / "mine"
    folder.mkdir()
    example.write_text(code[0].replace("detector.predict(new)", "print(*detector.predict(new))"))
    assert output_of(example, folder).split() == shown[1].split(", ")
