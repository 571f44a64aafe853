"""The settings of a run that have flags: fields of dataclasses, with the text of their
docstrings."""

import dataclasses
import types
import typing
from typing import Any, Literal, NamedTuple

from deepsvdd_jax import configs
from deepsvdd_jax.cli import help
from deepsvdd_jax.configs import BaseObjectiveConfig, RunConfig
from deepsvdd_jax.configs.checks import hints_of

# Parts of a `RunConfig` whose fields have flags: the title in `--help`, the beginning of names and
# of texts, and the fields without a flag.
_PARTS: tuple[tuple[str, str, str, str, frozenset[str]], ...] = (
    ("training.objective", "Objective", "", "", frozenset()),
    ("training.optimizer", "Training", "", "", frozenset()),
    ("training", "Training", "", "", frozenset({"objective", "optimizer"})),
    ("pretraining.optimizer", "Autoencoder", "pretrain_", "autoencoder: ", frozenset()),
    (
        "pretraining",
        "Autoencoder",
        "pretrain_",
        "autoencoder: ",
        # Its error is a flag of the objective, its epochs switch it on, the others are no recipe's.
        frozenset(
            {
                *("objective", "optimizer", "epochs", "weight_decay_factor", "stop_below"),
                *("augment", "synthetic_anomalies"),
            }
        ),
    ),
    # Fields that only `--network` sets.
    (
        "network",
        "Network",
        "",
        "",
        frozenset(
            {
                *("name", "stages", "hidden_style", "fully_convolutional"),
                *("autoencoder_norm", "decoder_layout"),
            }
        ),
    ),
    ("preprocessing", "Preprocessing", "", "", frozenset()),
    (
        "",
        "Recipe",
        "",
        "",
        frozenset({"preset", "preprocessing", "network", "pretraining", "training"}),
    ),
)


class Setting(NamedTuple):
    """A setting of a run that has a flag.

    Attributes:
      flag: its name.
      path: of the setting in a `RunConfig`; the flag's type follows from there.
      text: its help, from the docstring of its dataclass.
      topic: of the flag in `--help`.
    """

    flag: str
    path: str
    text: str
    topic: str


def run_settings() -> tuple[Setting, ...]:
    """Returns the settings of a run that have flags, those of every registered objective too."""
    return tuple(
        Setting(*_flag_of(part, field, prefix), beginning + text, topic)
        for part, topic, prefix, beginning, without in _PARTS
        for field, text in _fields_of(part).items()
        if field not in without
    )


def _flag_of(part: str, field: str, prefix: str) -> tuple[str, str]:
    """Returns the flag of a field and the field's place; the flag of a part's `name` or `kind` is
    called as the part."""
    own = part.rpartition(".")[2] if field in ("kind", "name") else field
    return f"{prefix}{own}", f"{part}.{field}" if part else field


def _fields_of(part: str) -> dict[str, str]:
    """Returns the fields of a part of a `RunConfig` and their texts."""
    if part.endswith(".objective"):
        return _fields_of_objectives()
    kind = hint_at(RunConfig, part) if part else RunConfig
    texts = help.documented(kind)
    return {field.name: texts[field.name] for field in dataclasses.fields(kind)}


def _fields_of_objectives() -> dict[str, str]:
    """Returns the fields of all objectives and their texts; the text of a field that only one kind
    has begins with that kind."""
    kinds: dict[str, list[str]] = {}
    texts: dict[str, str] = {}
    for kind in configs.objective_kinds():
        config = configs.objective_class(kind)
        for field in dataclasses.fields(config):
            if _can_be_a_flag(hints_of(config)[field.name]):
                kinds.setdefault(field.name, []).append(kind)
                known = help.documented(config).get(field.name, f"{field.name} of the objective")
                texts.setdefault(field.name, known)
    return {
        name: text if len(kinds[name]) > 1 else f"{kinds[name][0]}: {text}"
        for name, text in texts.items()
    }


def _can_be_a_flag(hint: Any) -> bool:
    """Whether a flag can have the type of a field of an objective, which may be a user's own."""
    is_union = typing.get_origin(hint) in (types.UnionType, typing.Union)
    options = [option for option in typing.get_args(hint) if option is not type(None)]
    (hint,) = options if is_union and len(options) == 1 else (hint,)
    return hint in (float, int, bool, str) or typing.get_origin(hint) in (Literal, tuple)


def hint_at(kind: type, path: str) -> Any:
    """Returns the type of a setting by its place in a dataclass, without None."""
    head, _, rest = path.partition(".")
    is_objective = issubclass(kind, BaseObjectiveConfig)
    hint = _hint_of_objective(head) if is_objective else hints_of(kind)[head]
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        (hint,) = [option for option in typing.get_args(hint) if option is not type(None)]
    return hint_at(hint, rest) if rest else hint


def _hint_of_objective(name: str) -> Any:
    """Returns the type of a setting of any objective; for `kind` that of all kinds."""
    kinds = configs.objective_kinds()
    if name == "kind":
        return Literal[kinds]
    hints = [hints_of(configs.objective_class(kind)) for kind in kinds]
    return next(known[name] for known in hints if name in known)
