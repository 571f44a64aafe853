"""What `--help` prints: texts from the docstrings of settings, flags under their topics."""

import dataclasses
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import ModuleType
from typing import Literal

import pytest
from absl import flags

from deepsvdd_jax.cli import help, run_settings, settings
from deepsvdd_jax.cli.commands import sweep
from deepsvdd_jax.configs import BaseObjectiveConfig
from deepsvdd_jax.configs import objective as objective_settings

Calling = Callable[[ModuleType], AbstractContextManager[Callable[..., int]]]


@dataclasses.dataclass
class Parent:
    """A thing.

    Attributes:
      size: how large it is; a long text
        goes on in the next line.
      color: a
        colour.

    Not a field: this.
    """

    size: int = 1
    color: str = ""


@dataclasses.dataclass
class Child(Parent):
    """A smaller thing.

    Attributes:
      age: in years.
      size: said again.
    """

    age: int = 1


def test_fields_have_the_text_of_their_docstring_inherited_ones_too() -> None:
    parent = help.documented(Parent)
    assert parent["size"] == "how large it is; a long text goes on in the next line."
    child = help.documented(Child)
    assert child["age"] == "in years." and child["size"] == parent["size"]


def test_every_flag_of_a_run_is_explained_and_stands_under_a_topic(
    calling: Calling, capsys: pytest.CaptureFixture[str]
) -> None:
    with calling(sweep) as call:
        assert call("--help") == 0
        names = [setting.flag for setting in run_settings.run_settings()]
        assert len(names) == len(set(names))
    printed = capsys.readouterr().out
    topics = re.split(r"^(\w[\w ]+):\n", printed, flags=re.MULTILINE)
    by_topic = dict(zip(topics[1::2], topics[2::2], strict=True))
    assert list(by_topic) == [
        *("Command", "Data", "What is normal", "Several processes", "Recipe", "Objective"),
        *("Training", "Autoencoder", "Network", "Preprocessing", "Methods without training"),
        "Device",
    ]
    assert "  --rep_dim: width D of the representation (default" in by_topic["Network"]
    assert "  --pretrain_batch_size: autoencoder: images a step" in by_topic["Autoencoder"]
    assert "  --eta: deep-sad: weight of a labelled example" in by_topic["Objective"]
    # The ten that matter most stand above all topics.
    assert topics[0].count("\n  --") == 10


def test_settings_of_an_objective_of_ones_own_are_flags(
    monkeypatch: pytest.MonkeyPatch, calling: Calling
) -> None:
    @dataclasses.dataclass(frozen=True)
    class MarginConfig(BaseObjectiveConfig):
        """A toy.

        Attributes:
          margin: least distance of an anomaly.
          table: no flag can hold it.
        """

        kind: Literal["toy"] = "toy"
        margin: float = 2.0
        table: dict[str, float] | None = None

    monkeypatch.setitem(objective_settings.CLASSES, "toy", MarginConfig)
    with calling(sweep):
        values = flags.FLAGS
        values(["sweep", "--objective=toy", "--margin=0.5"])
        assert "table" not in values
        assert values["margin"].help == "toy: least distance of an anomaly (default: the preset's)"
        objective = settings.run_config(values, "digits", (8, 8, 1)).training.objective
    assert objective == MarginConfig(margin=0.5, nu=objective.nu)
