"""How a command starts on its platform, and how it ends."""

import configparser
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest

import deepsvdd_jax as svdd
from deepsvdd_jax.cli import environment

ROOT = Path(__file__).parents[1]


def run(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Starts Python in the checkout, with further variables of the environment."""
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=ROOT,
        env=os.environ | variables,
    )


def on_platforms(
    *cases: tuple[str, tuple[str, ...], str], before: str = ""
) -> list[tuple[int, list[str]]]:
    """Starts Python; returns the exit code of a command and the lines that it prints, for each of
    several platforms: its name, the kinds that it then has, and what JAX_PLATFORMS says.

    The last case alone may find a device: jax keeps the first that a process has.
    """
    script = f"""
import jax
{before}
from deepsvdd_jax.cli import environment, exits
for name, kinds, variable in {cases!r}:
    environment.PLATFORMS[name] = kinds
    jax.config.update("jax_platforms", variable or None)
    def main():
        environment.use_platform(name, "")
        print(jax.devices()[0].platform, file=sys.stderr)
    print("code", exits.exit_code(main, []), file=sys.stderr)
"""
    done = run("-c", f"import sys\n{script}")
    assert done.returncode == 0 and not done.stdout, done.stderr
    found: list[tuple[int, list[str]]] = []
    lines: list[str] = []
    for line in done.stderr.splitlines():
        word, _, number = line.partition(" ")
        if word == "code":
            found.append((int(number), lines))
            lines = []
        else:
            lines.append(line)
    return found


MISSING = "not-installed"

# A driver that shows no device.
HIDDEN = (
    "from jax._src import hardware_utils\nhardware_utils.has_visible_nvidia_gpu = lambda: False"
)


def test_jax_refuses_a_list_of_platforms_one_of_which_is_not_installed() -> None:
    """What the next test would be in vain without."""
    asked = f"import jax; jax.config.update('jax_platforms', 'cpu,{MISSING}'); jax.devices()"
    done = subprocess.run(
        [sys.executable, "-c", asked], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and MISSING in done.stderr


@pytest.mark.parametrize("names", [("cpu", MISSING), (MISSING, "cpu")], ids=["CUDA", "ROCm"])
def test_one_kind_of_gpu_is_enough(names: tuple[str, ...]) -> None:
    """The processor plays the kind that is installed."""
    assert on_platforms(("gpu", names, "")) == [(0, ["cpu"])]


def test_a_platform_that_is_not_there_is_one_line_that_says_how_to_install_it() -> None:
    """jax fails an assertion of its own where the driver shows no GPU."""
    named = [MISSING, "cuda", f"cpu,{MISSING}"]
    found = on_platforms(
        ("gpu", (MISSING, MISSING), ""),
        ("tpu", (MISSING,), ""),
        ("gpu", ("cuda", MISSING), ""),
        *(("auto", (), variable) for variable in named),
        before=HIDDEN,
    )
    assert [code for code, _ in found] == [2] * 6
    told = [line for _, (line,) in found]
    assert all("--platform=cpu" in line for line in told)
    installs = [["'jax[cuda13]'", "'jax[rocm7-local]'"], ["'jax[tpu]'"], ["'jax[cuda13]'"]]
    for line, wanted in zip(told[:3], installs, strict=True):
        assert all(f"pip install {install}" in line for install in wanted)
    for line, variable in zip(told[3:], named, strict=True):
        assert f"JAX_PLATFORMS={variable}" in line


@pytest.mark.parametrize(("given", "level"), [(None, "2"), ("0", "0")])
def test_warnings_of_the_compiler_stay_out_of_the_bar_unless_asked_for(
    given: str | None, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """jax, when it is imported, sets a level that lets them through."""
    script = (
        "from experiments import sweep\nimport jax, os\nprint(os.environ['TF_CPP_MIN_LOG_LEVEL'])"
    )
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    done = run("-c", script, **({} if given is None else {"TF_CPP_MIN_LOG_LEVEL": given}))
    assert (done.returncode, done.stdout) == (0, f"{level}\n")


def test_what_is_compiled_is_kept_on_every_platform(tmp_path: Path) -> None:
    """In the same folder XLA keeps what its autotuner found on a GPU."""
    before = jax.config.jax_compilation_cache_dir
    try:
        environment.use_platform("auto", str(tmp_path))
        folder = Path(jax.config.jax_compilation_cache_dir)
        assert folder.is_dir() and folder.parent == tmp_path
        assert "autotune" in jax.config.jax_persistent_cache_enable_xla_caches
        assert jax.config.jax_persistent_cache_min_compile_time_secs < 1
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


def test_the_version_is_that_of_the_metadata() -> None:
    """What pip tells is read from the package by setuptools, and names an author."""
    configuration = configparser.ConfigParser()
    configuration.read(ROOT / "setup.cfg")
    assert configuration["metadata"]["version"] == "attr: deepsvdd_jax.__version__"
    assert configuration["metadata"]["author"] in (ROOT / "LICENSE").read_text(encoding="utf-8")
    urls = configuration["metadata"]["project_urls"].split()
    assert urls == ["Paper", "=", "https://proceedings.mlr.press/v80/ruff18a.html"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", svdd.__version__)


def test_a_strict_promotion_of_the_users_does_not_hold_for_commands() -> None:
    """A count of int32 and a sum of float32 stand for what a training divides."""
    code = (
        "from deepsvdd_jax.cli import environment; environment.use_platform('cpu', ''); "
        "import jax.numpy as jnp; print(jnp.float32(1) / jnp.array([2], jnp.int32))"
    )
    done = run("-c", code, JAX_NUMPY_DTYPE_PROMOTION="strict")
    assert (done.returncode, done.stdout.strip()) == (0, "[0.5]"), done.stderr
