"""One published table by one command, with all its methods, seeds and epochs.

    python -m experiments.reproduce --table=mnist --data_dir=DIR
    python -m experiments.reproduce --table=cifar10 --data_dir=DIR --estimate_only
    python -m experiments.reproduce --table=cifar10 --data_dir=DIR --shortened

A table is a sweep whose settings are fixed by the publication, so that all of `experiments.sweep`
holds: an interrupted table goes on where it was, and `--normal_classes`, `--seeds` and `--methods`
ask for a part of it. Says at the start what is to go and what that will cost on this device.
"""

import dataclasses
import sys
from collections.abc import Callable
from typing import NamedTuple

from absl import flags
from absl.testing import flagsaver

from deepsvdd_jax.cli import environment
from deepsvdd_jax.cli.commands import gtsrb_adversarial, sweep
from deepsvdd_jax.cli.lazy import lazily
from deepsvdd_jax.cli.sweeps import plans, records, workers
from deepsvdd_jax.cli.sweeps.plans import Sweep
from deepsvdd_jax.cli.sweeps.workers import WorkerGroup
from deepsvdd_jax.configs import ConfigError

with lazily():
    from deepsvdd_jax.cli.reporting import costs

_ALL_METHODS = "deep_svdd,soft_boundary,dcae,ocsvm,kde,isolation_forest"


@dataclasses.dataclass(frozen=True)
class Table:
    """A published table as a sweep.

    Attributes:
      dataset: that the figures are about.
      preset: the recipe.
      seeds: how many the publication averages over; the ITU report has one, ours ten.
      normal_classes: of the table.
      methods: of the table.
      selection: how the one-class SVM is set.
      settings: further flags, by name.
    """

    dataset: str
    preset: str
    seeds: str = "10"
    normal_classes: str = "all"
    methods: str = _ALL_METHODS
    selection: str = "paper"
    settings: tuple[tuple[str, str], ...] = ()


TABLES = {
    "mnist": Table("mnist", "icml2018"),
    "cifar10": Table("cifar10", "icml2018"),
    # The stop signs against adversarial ones: twenty are too few to take a tenth for a selection.
    "gtsrb": Table("gtsrb", "icml2018", normal_classes="14", selection="none"),
    "itu": Table(
        "mnist",
        "itu",
        normal_classes="1",
        methods="deep_svdd,ocsvm,isolation_forest",
        selection="none",
    ),
}

# What two cores do in about 40 minutes; the epochs keep the recipe's proportions of learning rates.
SHORTENED = {
    "cifar10": dataclasses.replace(
        TABLES["cifar10"],
        seeds="2",
        normal_classes="0,5,8",
        settings=(
            ("pretrain_epochs", "10"),
            ("pretrain_milestones", "7"),
            ("epochs", "10"),
            ("milestones", "6"),
            # The recipe's ten epochs of warm-up would leave a soft boundary without a radius.
            ("warm_up_epochs", "1"),
        ),
    )
}

# What makes a table the published one.
_FIXED = ("dataset", "preset", "config", "protocol", "anomalous_classes")


class Work(NamedTuple):
    """A table that was asked for, checked: its sweep, and what carries it out."""

    planned: Sweep
    carry_out: Callable[[], None]


def define_flags() -> None:
    """Defines all flags of the command."""
    flags.DEFINE_enum("table", None, list(TABLES), "the published table")
    flags.DEFINE_bool(
        "shortened",
        False,
        f"fewer classes, seeds and epochs, for two cores ({','.join(SHORTENED)} only)",
    )
    flags.DEFINE_bool("estimate_only", False, "say what is to go and what it costs, then stop")
    sweep.define_flags()
    gtsrb_adversarial.define_attack_flags()


def main() -> None:
    """Reads the flags, says what the table costs, and makes it."""
    values = flags.FLAGS
    name, table = chosen_table(values)
    group = workers.join(values)
    environment.use_platform(values.platform, values.compilation_cache)
    with flagsaver.as_parsed(**missing_flags(values, name, table)):
        work = prepare(values, name, group)
        if group.is_first:
            rows = records.read_rows(work.planned.out)
            announced = costs.describe(work.planned, rows, costs.estimate(work.planned, rows))
            print(announced, file=sys.stdout if values.estimate_only else sys.stderr)
        if not values.estimate_only:
            work.carry_out()


def chosen_table(values: flags.FlagValues) -> tuple[str, Table]:
    """Returns the table's name, as its folder's, and the table.

    Raises:
      ConfigError: none was chosen, it has no shortened form, or a flag would change it.
    """
    if values.table is None:
        raise ConfigError(f"table is not given; allowed: {', '.join(TABLES)}")
    if values.shortened and values.table not in SHORTENED:
        raise ConfigError(f"--shortened is for --table={' or '.join(SHORTENED)}")
    # One process makes the adversarials and what comes after them.
    fixed = [*_FIXED, "normal_classes", "distributed"] if values.table == "gtsrb" else _FIXED
    given = [name for name in fixed if values[name].present]
    if given:
        raise ConfigError(
            f"--{given[0]} is fixed by --table={values.table}; python -m experiments.sweep takes it"
        )
    if values.shortened:
        return f"{values.table}-shortened", SHORTENED[values.table]
    return values.table, TABLES[values.table]


def missing_flags(values: flags.FlagValues, name: str, table: Table) -> dict[str, str]:
    """Returns the flags that make the table, but for those that were given."""
    wanted = {
        field.name: getattr(table, field.name)
        for field in dataclasses.fields(table)
        if field.name != "settings"
    }
    wanted |= {**dict(table.settings), "out": f"results/{name}"}
    methods = values.methods if values["methods"].present else table.methods
    asked = methods.split(",")
    if "ocsvm" not in asked:
        del wanted["selection"]
    for flag in _unread(table, set(asked)):
        wanted.pop(flag, None)
    return {flag: value for flag, value in wanted.items() if not values[flag].present}


def _unread(table: Table, methods: set[str]) -> list[str]:
    """Returns the table's settings that none of the methods reads."""
    flags_of = [flag for flag, _ in table.settings]
    if not methods & {"deep_svdd", "soft_boundary"}:
        return [flag for flag in flags_of if "dcae" not in methods or "pretrain" not in flag]
    return [] if "soft_boundary" in methods else ["warm_up_epochs"]


def prepare(values: flags.FlagValues, name: str, group: WorkerGroup) -> Work:
    """Checks the table's sweep; writes nothing.

    Args:
      values: parsed flags, those of the table among them.
      name: of the table.
      group: the processes that share it.

    Raises:
      ConfigError, DataError: what is wrong and what is allowed.
    """
    extra_settings = {"table": name}
    if name == "gtsrb":
        experiment = gtsrb_adversarial.plan(values)
        return Work(experiment.planned, lambda: gtsrb_adversarial.run(experiment, extra_settings))
    planned = plans.plan(values)._replace(group=group)
    return Work(planned, lambda: sweep.carry_out(planned, extra_settings))
