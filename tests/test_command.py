"""The command `deepsvdd`: one name for all commands, help that fits a screen, exit codes."""

import configparser
import contextlib
import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from deepsvdd_jax.cli import main

ROOT = Path(__file__).parents[1]
SCREEN = 45


def deepsvdd(*arguments: str) -> subprocess.CompletedProcess[str]:
    call = "from deepsvdd_jax.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", call, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=120,
    )


def test_it_is_what_setup_installs() -> None:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    name, _, place = parser["options.entry_points"]["console_scripts"].strip().partition(" = ")
    module, _, function = place.partition(":")
    assert name == "deepsvdd"
    assert getattr(importlib.import_module(module), function) is main.main
    assert parser["options.packages.find"]["include"].split() == ["deepsvdd_jax*"]


def test_it_has_every_command_and_a_checkout_the_same() -> None:
    for folder in ("deepsvdd_jax/cli/commands", "experiments"):
        files = {path.stem for path in (ROOT / folder).glob("*.py")} - {"__init__"}
        assert files == set(main.COMMANDS)


def test_without_a_command_it_lists_them_on_one_screen() -> None:
    done = deepsvdd()
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout == deepsvdd("--help").stdout
    lines = done.stdout.splitlines()
    assert len(lines) <= SCREEN
    for name in main.COMMANDS:
        assert sum(line.startswith(f"  {name} ") for line in lines) == 1


@pytest.mark.parametrize("name", main.COMMANDS)
def test_help_of_a_command_fits_a_screen_and_names_flags_that_there_are(
    name: str,
    calling: Callable[[ModuleType], contextlib.AbstractContextManager[Callable[..., int]]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["deepsvdd", name, "--help"])
    # The command itself defines its flags.
    no_flags = ModuleType("deepsvdd")
    vars(no_flags)["define_flags"] = lambda: None
    with calling(no_flags), pytest.raises(SystemExit) as stopped:
        main.main()
    printed = capsys.readouterr()
    assert stopped.value.code == 0 and printed.err == ""
    lines = printed.out.splitlines()
    assert len(lines) <= SCREEN and "experiments" not in printed.out
    shown = [line.split()[0] for line in lines if line.startswith("  --")]
    assert shown == [f"--{flag}" for flag in main.COMMANDS[name]]
    assert 2 <= len(shown) <= 10
    assert lines[-1] == f"All flags: deepsvdd {name} --helpfull"


def test_all_flags_are_a_flag_away() -> None:
    full = deepsvdd("sweep", "--helpfull").stdout
    assert "--[no]save_models" in full and "--data_devices" in full


def test_versions() -> None:
    done = deepsvdd("--version")
    assert done.returncode == 0 and done.stdout.startswith("deepsvdd_jax ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("swep",), "deepsvdd: unknown command 'swep'; allowed: fit, score"),
        (("sweep", "--epochs=many"), "deepsvdd sweep: "),
        (("score", "--model=nowhere", "--data_dir=nowhere"), "deepsvdd score: "),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments: tuple[str, ...], words: str) -> None:
    done = deepsvdd(*arguments)
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(words)
