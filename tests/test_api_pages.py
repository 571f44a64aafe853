"""The reference is made for every module, and has every public name."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import deepsvdd_jax

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_every_public_name_has_an_entry(tmp_path: Path) -> None:
    pytest.importorskip("pdoc", reason="pdoc is not installed")
    # The pages of all modules take a quarter of a minute longer.
    own = [path.stem for path in (ROOT / "deepsvdd_jax").glob("[a-z]*.py")]
    names = ["deepsvdd_jax", *(f"deepsvdd_jax.{name}" for name in own)]
    script = [sys.executable, ROOT / "docs" / "api.py", tmp_path, *names]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(script, check=True, cwd=ROOT, env=environment)
    page = (tmp_path / "deepsvdd_jax.html").read_text(encoding="utf-8")
    for name in deepsvdd_jax.__all__:
        assert f'id="{name}"' in page, name
    for name in own:
        assert (tmp_path / "deepsvdd_jax" / f"{name}.html").exists()


def test_no_document_holds_a_placeholder() -> None:
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")):
        assert "@@" not in path.read_text(encoding="utf-8"), path
