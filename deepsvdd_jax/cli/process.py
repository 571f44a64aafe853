"""Starts a command: parses its flags, and ends the process with its exit code."""

import logging
import sys
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import TextIO

from absl import app, flags

from deepsvdd_jax.cli import environment, exits, help, signals

_HELP = frozenset(("--help", "-help", "--helpfull", "-helpfull", "-h", "-?"))

_VERSION = frozenset(("--version", "-version"))


def start(command: ModuleType) -> None:
    """Runs a command, a module with a docstring, `define_flags` and `main`."""
    sys.modules["__main__"].__doc__ = command.__doc__
    command.define_flags()
    run_command(command.main)


def run_command(main: Callable[[], None]) -> None:
    """Runs a command under absl and leaves the process with its exit code."""
    warnings.showwarning = show_warning
    _log_plain_lines()

    def run(rest: list[str]) -> None:
        signals.end_on_signals()
        sys.exit(exits.exit_code(main, rest))

    app.run(run, flags_parser=parse_flags)


def _log_plain_lines() -> None:
    """Prints the library's log lines as they are; absl would put date, process and line before
    them."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("deepsvdd_jax")
    logger.addHandler(handler)
    logger.propagate = False


def show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Prints a warning of this package as one line, others as Python does."""
    if category.__module__.startswith("deepsvdd_jax"):
        print(f"warning: {message}", file=sys.stderr)
    else:
        print(warnings.formatwarning(message, category, filename, lineno), end="", file=sys.stderr)


def parse_flags(arguments: list[str]) -> list[str]:
    """Parses the command line. A wrong one ends the process with exit code 2 and one line; `--help`
    and `--version` end it with 0 after their text."""
    if asks_for_help(arguments[1:]):
        sys.exit(exits.exit_code(lambda: print(help.explain_flags(arguments[0])), []))
    if asks_for_version(arguments[1:]):
        sys.exit(exits.exit_code(lambda: print(environment.explain_version()), []))
    try:
        return flags.FLAGS(arguments)
    except flags.Error as error:
        sys.exit(exits.explain(2, error))


def asks_for_help(arguments: list[str]) -> bool:
    """Whether some argument asks for help."""
    return bool(_HELP.intersection(arguments))


def asks_for_version(arguments: list[str]) -> bool:
    """Whether some argument asks for the versions."""
    return bool(_VERSION.intersection(arguments))
