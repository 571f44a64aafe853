"""How a command ends."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("letters", "flags"),
    [(10, []), (1_000_000, []), (10, ["--help"])],
    ids=["at the end", "on the way", "of the help"],
)
def test_a_reader_that_ends_early_is_one_line(letters: int, flags: list[str]) -> None:
    """As `command | head`: neither a traceback nor the interpreter's complaint when it ends."""
    script = (
        "from experiments import environment\n"
        f"environment.run_command(lambda: print('x' * {letters}))"
    )
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", script, *flags],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
        check=False,
        cwd=ROOT,
    )
    os.close(writer)
    assert done.returncode == 1
    assert "ended before all of it was printed" in done.stderr and done.stderr.count("\n") == 1
