"""Prints `--help`: flags by topic, the important ones first, with the text of docstrings."""

import contextlib
import functools
import inspect
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

from absl import flags

# Every command, in the order of the overview, and its most important flags.
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

# The topic of flags without a topic of their own.
_OF_THE_COMMAND = "Command"

# The topic of every flag that was defined within `topic`.
_TOPICS: dict[str, str] = {}


@contextlib.contextmanager
def topic(title: str) -> Iterator[None]:
    """Puts the flags that are defined within it under a title."""
    before = set(flags.FLAGS)
    yield
    _TOPICS.update({name: title for name in flags.FLAGS if name not in before})


def documented(config: type) -> Mapping[str, str]:
    """Returns the text of each field of a dataclass, inherited ones included, from its docstring
    under `Attributes:`."""
    return _documented(config)


@functools.cache
def _documented(config: type) -> Mapping[str, str]:
    texts: dict[str, str] = {}
    for kind in reversed(config.__mro__):
        section = inspect.cleandoc(vars(kind).get("__doc__") or "").partition("\nAttributes:\n")[2]
        for entry in re.split(r"\n(?=  \S)", section.rstrip()):
            name, colon, text = entry.strip().partition(": ")
            if colon:
                texts.setdefault(name, " ".join(text.split()))
    return MappingProxyType(texts)


def explain_flags(program: str) -> str:
    """Returns the docstring of a command and the text of each of its flags."""
    ours = {
        flag.name
        for module, defined in flags.FLAGS.flags_by_module_dict().items()
        if module.startswith("deepsvdd_jax.cli") or module == program
        for flag in defined
    }
    command = program.split()[-1].removesuffix(".py").rpartition("/")[2]
    first = [name for name in COMMANDS.get(command, ()) if name in ours]
    rest = [name for name in flags.FLAGS if name in ours]
    about = sys.modules["__main__"].__doc__ or ""
    return "\n".join([about.rstrip(), "", *first_flags(first), *all_flags(rest)])


def first_flags(names: Iterable[str]) -> Iterator[str]:
    """Yields the lines of each of the most important flags."""
    known = [flags.FLAGS[name] for name in names if name in flags.FLAGS]
    width = max((len(flag.name) for flag in known), default=0) + 4
    for flag in known:
        start = f"  --{flag.name}".ljust(width)
        yield from _wrapped(f"{start}  ", _text(flag), width + 2)


def all_flags(names: Iterable[str]) -> Iterator[str]:
    """Yields the lines of flags, by topic."""
    by_topic: dict[str, list[str]] = {_OF_THE_COMMAND: []}
    for name in names:
        by_topic.setdefault(_TOPICS.get(name, _OF_THE_COMMAND), []).append(name)
    for title, members in by_topic.items():
        if members:
            yield from ("", f"{title}:")
        for name in members:
            flag = flags.FLAGS[name]
            start = f"  --{'[no]' if flag.boolean else ''}{name}: "
            yield from _wrapped(start, _text(flag), 8)


def _wrapped(start: str, text: str, indent: int) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=start,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _text(flag: flags.Flag) -> str:
    default = flag.default
    if isinstance(default, list):
        default = ",".join(map(str, default))
    shown = "" if default in (None, False, "") else f" (default {default})"
    return f"{flag.help}{shown}"
