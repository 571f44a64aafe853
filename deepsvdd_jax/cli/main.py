"""The command `deepsvdd`: every command of the project under one name.

`deepsvdd COMMAND --help` shows the flags that matter first, `deepsvdd COMMAND --helpfull` all.
"""

import ast
import importlib
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

from absl import flags

from deepsvdd_jax.cli import environment
from deepsvdd_jax.configs import ConfigError

# Every command, in the order in which they are shown, and which of its flags matter first.
COMMANDS: dict[str, tuple[str, ...]] = {
    "fit": (
        *("dataset", "data_dir", "model", "image_size", "false_alarm_rate", "objective"),
        *("seeds", "epochs", "time_budget", "platform"),
    ),
    "score": (
        *("model", "data_dir", "out", "false_alarm_rate", "threshold"),
        *("maps", "normals", "tile", "platform"),
    ),
    "watch": (
        *("model", "data_dir", "out", "false_alarm_rate", "threshold"),
        *("poll_seconds", "drift_false_alarm_rate", "platform"),
    ),
    "threshold": (
        *("model", "data_dir", "out", "cost_missed", "cost_false_alarm", "defect_rate"),
        *("false_alarm_rate", "threshold", "platform"),
    ),
    "report": ("out", "scores", "data_dir", "maps", "normal_classes", "top", "follow_names"),
    "export": ("model", "out", "script", "platforms"),
    "sweep": (
        *("dataset", "data_dir", "normal_classes", "seeds", "methods", "preset", "objective"),
        *("epochs", "out", "platform"),
    ),
    "reproduce": ("table", "data_dir", "methods", "seeds", "shortened", "estimate_only", "out"),
    "publish": ("out", "to", "markdown"),
    "compare": ("out", "to"),
    "gtsrb_adversarial": (
        *("data_dir", "methods", "seeds", "adversarials", "steps", "start", "out", "platform"),
    ),
    "ensembles": ("out", "to", "methods"),
    "embeddings": ("out", "data_dir", "to"),
    "stopping": ("out", "choose_on", "method", "to"),
    "false_alarms": ("dataset", "data_dir", "normal_classes", "false_alarm_rate", "seeds"),
}

_WIDTH = 100


def main() -> None:
    """Runs the command that the first argument names, and leaves with its exit code."""
    arguments = sys.argv[1:]
    name = arguments[0] if arguments else "--help"
    if name in COMMANDS:
        _run(name, arguments[1:])
    sys.argv = ["deepsvdd", *arguments]
    sys.exit(environment.exit_code(lambda: _without_command(name), []))


def _without_command(name: str) -> None:
    if environment.asks_for_help([name]):
        print(overview())
    elif environment.asks_for_version([name]):
        print(environment.explain_version())
    else:
        raise ConfigError(f"unknown command {name!r}; allowed: {', '.join(COMMANDS)}")


def _run(name: str, arguments: list[str]) -> None:
    sys.argv = [f"deepsvdd {name}", *arguments]
    command = importlib.import_module(f"deepsvdd_jax.cli.commands.{name}")
    if environment.asks_for_help(arguments) and "--helpfull" not in arguments:
        command.define_flags()
        sys.exit(environment.exit_code(lambda: print(short_help(name, command.__doc__)), []))
    environment.start(command)


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
    """Reads what a command does, without importing it."""
    path = Path(__file__).parent / "commands" / f"{name}.py"
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0]


def short_help(name: str, about: str | None) -> str:
    """Returns what a command does and its flags that matter first."""
    text = (about or "").replace("python -m experiments.", "experiments.")
    text = text.replace("experiments.", "deepsvdd ").rstrip()
    every = f"All flags: deepsvdd {name} --helpfull"
    return "\n".join([text, "", *_flag_lines(COMMANDS[name]), "", every])


def _flag_lines(names: tuple[str, ...]) -> Iterator[str]:
    known = [flags.FLAGS[name] for name in names if name in flags.FLAGS]
    width = max(len(flag.name) for flag in known) + 4
    for flag in known:
        default = "" if flag.default in (None, False, "") else f" (default {flag.default})"
        start = f"  --{flag.name}".ljust(width)
        yield from textwrap.wrap(
            f"{flag.help}{default}",
            _WIDTH,
            initial_indent=f"{start}  ",
            subsequent_indent=" " * (width + 2),
        )
