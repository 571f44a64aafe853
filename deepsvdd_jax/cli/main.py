"""The command `deepsvdd`: every command of the project under one name.

`deepsvdd COMMAND --help` shows the flags that matter first, `deepsvdd COMMAND --helpfull` all.
"""

import ast
import importlib
import sys
from pathlib import Path

from deepsvdd_jax.cli import environment, exits, help, process
from deepsvdd_jax.cli.help import COMMANDS
from deepsvdd_jax.configs import ConfigError


def main() -> None:
    """Runs the command that the first argument names, and leaves with its exit code."""
    arguments = sys.argv[1:]
    name = arguments[0] if arguments else "--help"
    if name in COMMANDS:
        _run(name, arguments[1:])
    sys.argv = ["deepsvdd", *arguments]
    sys.exit(exits.exit_code(lambda: _without_command(name), []))


def _without_command(name: str) -> None:
    if process.asks_for_help([name]):
        print(overview())
    elif process.asks_for_version([name]):
        print(environment.explain_version())
    else:
        raise ConfigError(f"unknown command {name!r}; allowed: {', '.join(COMMANDS)}")


def _run(name: str, arguments: list[str]) -> None:
    sys.argv = [f"deepsvdd {name}", *arguments]
    command = importlib.import_module(f"deepsvdd_jax.cli.commands.{name}")
    if process.asks_for_help(arguments) and "--helpfull" not in arguments:
        command.define_flags()
        sys.exit(exits.exit_code(lambda: print(short_help(name, command.__doc__)), []))
    process.start(command)


def overview() -> str:
    """Returns all commands, a line each."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {_first_line(name)}" for name in COMMANDS]
    return "\n".join(
        [
            "deepsvdd COMMAND [--flag=value ...]: deep one-class anomaly detection",
            "",
            *lines,
            "",
            "deepsvdd COMMAND --help says what a command does and which flags matter first.",
        ]
    )


def _first_line(name: str) -> str:
    """Reads the first line of a command's docstring, without importing it."""
    path = Path(__file__).parent / "commands" / f"{name}.py"
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0]


def short_help(name: str, about: str | None) -> str:
    """Returns the docstring of a command and its most important flags."""
    text = (about or "").replace("python -m experiments.", "experiments.")
    text = text.replace("experiments.", "deepsvdd ").rstrip()
    every = f"All flags: deepsvdd {name} --helpfull"
    return "\n".join([text, "", *help.first_flags(COMMANDS[name]), "", every])
