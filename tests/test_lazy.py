"""What is imported, and when: help, mistyped flags and settings wait for no jax."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import deepsvdd_jax as svdd

ROOT = Path(__file__).parents[1]

HEAVY = ("jax", "jaxlib", "flax", "optax", "sklearn", "scipy", "pandas", "matplotlib", "PIL")
COMMANDS = sorted(
    path.stem
    for path in (ROOT / "experiments").glob("*.py")
    if "process.start(" in path.read_text(encoding="utf-8")
)


def heavy_after(script: str) -> tuple[set[str], str]:
    """Runs a script in a process of its own; returns those of `HEAVY` that were imported in it, and
    what it printed on stderr before."""
    told = f"print(*[name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", f"import atexit, sys\natexit.register(lambda: {told})\n{script}"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=ROOT,
    )
    *before, last = done.stderr.splitlines()
    return set(last.split()), "\n".join(before)


def called(flag: str) -> str:
    """A script that calls one command after the other as `python -m` does, and prints on stderr
    what each of them prints there and imports of `HEAVY`."""
    return f"""
import contextlib, io, runpy
from absl import flags
for command in {COMMANDS!r}:
    sys.argv = [command, {flag!r}]
    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        try:
            runpy.run_module(f"experiments.{{command}}", run_name="__main__")
        except SystemExit:
            pass
    print(command, [name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
    print(said.getvalue().strip() or "-", file=sys.stderr)
    for name in list(flags.FLAGS):
        delattr(flags.FLAGS, name)
"""


def test_there_are_commands() -> None:
    assert {"sweep", "fit", "score", "report"} <= set(COMMANDS)


def test_what_was_imported_is_seen() -> None:
    assert heavy_after("import scipy")[0] == {"scipy"}


@pytest.mark.parametrize(("flag", "said"), [("--help", "-"), ("--no_such_flag", "no_such_flag")])
def test_help_and_a_mistyped_flag_import_nothing_that_is_slow(flag: str, said: str) -> None:
    heavy, told = heavy_after(called(flag))
    assert heavy == set()
    # Of each command its name, what it imported, and one line of its own.
    lines = told.splitlines()
    assert lines[::2] == [f"{command} []" for command in COMMANDS]
    assert all(said in line for line in lines[1::2])


def test_settings_are_there_without_jax() -> None:
    script = "import deepsvdd_jax as svdd\nsvdd.preset('auto', 'digits', (8, 8, 1))\ndir(svdd)"
    assert heavy_after(script) == (set(), "")
    assert "jax" in heavy_after(f"{script}\nsvdd.train_runs")[0]


def test_every_public_name_is_the_one_of_its_module() -> None:
    """What type checkers read is what a user gets."""
    tree = ast.parse(Path(str(svdd.__file__)).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    names = {alias.name: str(node.module) for node in imports for alias in node.names}
    assert sorted(names) == sorted(set(svdd.__all__) - {"__version__"})
    for name, module in names.items():
        assert getattr(svdd, name) is getattr(importlib.import_module(module), name)
        assert name in dir(svdd)


def test_modules_are_attributes_of_the_package() -> None:
    assert svdd.runs is importlib.import_module("deepsvdd_jax.runs")
    with pytest.raises(AttributeError, match="no_such_name"):
        svdd.no_such_name  # noqa: B018


def test_a_module_imported_lazily_is_loaded_on_its_first_use() -> None:
    script = (
        "from deepsvdd_jax.cli.lazy import lazily\n"
        "with lazily():\n"
        "    from deepsvdd_jax.cli.sweeps import deep\n"
        "early = 'jax' in sys.modules\n"
        "deep.train_jobs\n"
        "print(early, 'jax' in sys.modules, file=sys.stderr)\n"
    )
    assert heavy_after(script)[1] == "False True"
