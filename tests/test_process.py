"""How the process of a command starts and ends."""

import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest

import deepsvdd_jax as svdd
from deepsvdd_jax.cli.help import COMMANDS

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("letters", "flags"),
    [(10, []), (1_000_000, []), (10, ["--help"])],
    ids=["at the end", "on the way", "of the help"],
)
def test_a_reader_that_ends_early_is_one_line(letters: int, flags: list[str]) -> None:
    """As `command | head`: neither a traceback nor the interpreter's complaint when it ends."""
    script = (
        f"from deepsvdd_jax.cli import process\nprocess.run_command(lambda: print('x' * {letters}))"
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


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_tells_its_version(
    command: str,
    calling: Callable[[ModuleType], AbstractContextManager[Callable[..., int]]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    with calling(importlib.import_module(f"deepsvdd_jax.cli.commands.{command}")) as call:
        assert call("--version") == 0
    told = capsys.readouterr()
    versions = f"deepsvdd_jax {svdd.__version__}, jax {metadata.version('jax')}"
    assert told.out.startswith(versions) and not told.err
