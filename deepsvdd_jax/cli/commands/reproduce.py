"""Makes one published table by one command, with all its methods, seeds and epochs.

    python -m experiments.reproduce --table=mnist --data_dir=DIR
    python -m experiments.reproduce --table=cifar10 --data_dir=DIR --estimate_only
    python -m experiments.reproduce --table=cifar10 --data_dir=DIR --shortened
    python -m experiments.reproduce --table=deep_sad --dataset=mnist --data_dir=DIR

A table is a sweep whose settings the publication fixes, so that everything about
`experiments.sweep` holds: the same command resumes an interrupted table, and `--normal_classes`,
`--seeds` and `--methods` select a part of it. It first prints the missing runs and their cost on
this device.

The table of Deep SAD is many sweeps in one folder, for every share of labelled anomalies one for
each class that they come from; `--labelled_ratios` and `--known_anomalous_classes` select a part.
Their runs train together, in the same programs.
"""

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from absl import flags
from absl.testing import flagsaver

from deepsvdd_jax.cli import environment, exits, files, paths, settings
from deepsvdd_jax.cli.commands import gtsrb_adversarial, sweep
from deepsvdd_jax.cli.lazy import lazily
from deepsvdd_jax.cli.reporting import label_table, tables
from deepsvdd_jax.cli.reporting.label_table import Cell
from deepsvdd_jax.cli.sweeps import plans, records, workers
from deepsvdd_jax.cli.sweeps.plans import Sweep
from deepsvdd_jax.cli.sweeps.records import Summary
from deepsvdd_jax.cli.sweeps.workers import WorkerGroup
from deepsvdd_jax.configs import ConfigError

with lazily():
    from deepsvdd_jax.cli.reporting import costs
    from deepsvdd_jax.cli.sweeps import together

_ALL_METHODS = "deep_svdd,soft_boundary,dcae,ocsvm,kde,isolation_forest"


@dataclasses.dataclass(frozen=True)
class Table:
    """A published table as a sweep.

    Attributes:
      dataset: of the figures.
      preset: the recipe.
      seeds: number of seeds that the publication averages over; the ITU report has one, ours ten.
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
    # For any data set with published figures; a cell of the paper is one run a pair.
    "deep_sad": Table("", "deep_sad", seeds="1", methods="deep_svdd", selection="none"),
    "itu": Table(
        "mnist",
        "itu",
        normal_classes="1",
        methods="deep_svdd,ocsvm,isolation_forest",
        selection="none",
    ),
}

# Tables of about 40 minutes on two cores; the epochs keep the recipe's proportions of learning
# rates.
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

# Flags that the published table fixes.
_FIXED = ("dataset", "preset", "config", "protocol", "anomalous_classes")

# Flags on known anomalies, which a sweep without them refuses.
_OF_LABELS = ("known_anomalous_classes", "labelled_ratio", "eta", "balanced_batches")


class Work(NamedTuple):
    """A checked table: its sweep, and the function that carries it out."""

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
    flags.DEFINE_list(
        "labelled_ratios",
        "0,0.01,0.05,0.1,0.2",
        "--table=deep_sad: shares of known anomalies in the training set",
    )
    flags.DEFINE_bool("estimate_only", False, "say what is to go and what it costs, then stop")
    sweep.define_flags()
    gtsrb_adversarial.define_attack_flags()


def main() -> None:
    """Reads the flags, prints the cost of the table, and makes it."""
    values = flags.FLAGS
    name, table = chosen_table(values)
    group = workers.join(values)
    environment.use_platform(values.platform, values.compilation_cache)
    with flagsaver.as_parsed(**missing_flags(values, name, table)):
        if values.table == "deep_sad":
            return reproduce_labelled(values, name)
        work = prepare(values, name, group)
        if group.is_first:
            rows = records.read_rows(work.planned.out)
            load = costs.machine_load()
            estimated = costs.estimate(work.planned, rows)
            announced = costs.describe(work.planned, rows, estimated, load)
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
    given = [name for name in _fixed(values.table) if values[name].present]
    if given:
        raise ConfigError(
            f"--{given[0]} is fixed by --table={values.table}; python -m experiments.sweep takes it"
        )
    if values.table == "deep_sad":
        if not values["dataset"].present or values.dataset not in label_table.PUBLISHED:
            allowed = ", ".join(label_table.PUBLISHED)
            raise ConfigError(f"--table=deep_sad needs --dataset, one of {allowed}")
        return f"deep_sad-{values.dataset}", TABLES["deep_sad"]
    if values["labelled_ratios"].present:
        raise ConfigError("--labelled_ratios is for --table=deep_sad")
    if values.shortened:
        return f"{values.table}-shortened", SHORTENED[values.table]
    return values.table, TABLES[values.table]


def _fixed(table: str) -> tuple[str, ...]:
    if table == "gtsrb":
        # One process makes the adversarials and scores them.
        return (*_FIXED, "normal_classes", "distributed")
    if table == "deep_sad":
        # One process holds all its sweeps; --labelled_ratios sets the shares.
        return (*_FIXED[1:], "methods", "distributed", "labelled_ratio", "outliers")
    return _FIXED


def missing_flags(values: flags.FlagValues, name: str, table: Table) -> dict[str, str]:
    """Returns the flags that make the table, without those that were given."""
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
    if not table.dataset:
        del wanted["dataset"]
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
      ConfigError, DataError: says what is wrong and what is allowed.
    """
    extra_settings = {"table": name}
    if name == "gtsrb":
        experiment = gtsrb_adversarial.plan(values)
        return Work(experiment.planned, lambda: gtsrb_adversarial.run(experiment, extra_settings))
    planned = plans.plan(values)._replace(group=group)
    return Work(planned, lambda: sweep.carry_out(planned, extra_settings))


# --- the table of Deep SAD ----------------------------------------------------------------------

_PAIRS, _TABLE = "pairs.csv", "table.csv"


def reproduce_labelled(values: flags.FlagValues, name: str) -> None:
    """Prints the cost of the table of Deep SAD, and makes it, training the runs of all its sweeps
    together.

    Args:
      values: parsed flags, those of the table among them.
      name: of the table.
    """
    out = paths.folder_to_write("out", values.out, (_PAIRS,))
    ratios = labelled_ratios(values.labelled_ratios)
    with _without_labels(values, out):
        base = plans.plan(values)
    known = settings.class_list(
        ",".join(values.known_anomalous_classes or ()) or "all",
        base.dataset,
        "known_anomalous_classes",
    )
    planned = {
        cell: sweep_of_cell(values, cell, base, labels, out)
        for cell in label_table.cells(ratios, known)
        if (labels := [label for label in base.settings.normal_classes if label != cell.known])
    }
    if set(ratios) - {cell.ratio for cell in planned}:
        raise ConfigError("known_anomalous_classes holds the one normal class and no other")
    announced = describe_labelled(base, planned)
    print(announced, file=sys.stdout if values.estimate_only else sys.stderr)
    if values.estimate_only:
        return
    if not (out / _PAIRS).exists():
        files.write_table(out / _PAIRS, label_table.pair_lines({}))

    def write_pairs() -> None:
        files.write_table(out / _PAIRS, label_table.pair_lines(summaries_of(out)))

    sweeps = {cell.folder: wanted for cell, wanted in planned.items()}
    failed = together.carry_out(sweeps, {"table": name}, write_pairs)
    lines = label_table.lines(summaries_of(out), values.dataset)
    files.write_table(out / _TABLE, lines)
    print(tables.aligned(lines))
    if failed is not None:
        raise exits.Failure(failed)


def summaries_of(out: Path) -> dict[Cell, list[Summary]]:
    """Reads the summaries of the table's sweeps, those of earlier calls too (touches files)."""
    cells = {path: Cell.of_folder(path.parent.name) for path in out.glob("labelled*/summary.csv")}
    found = {cell: path for path, cell in cells.items() if cell is not None}
    # The sweep without a known class comes first.
    order = sorted(found, key=lambda cell: (cell.ratio, -1 if cell.known is None else cell.known))
    return {cell: Summary.read(found[cell]) for cell in order}


def labelled_ratios(texts: list[str]) -> list[float]:
    """Parses shares of known anomalies.

    Raises:
      ConfigError: no numbers in [0, 1), or none.
    """
    try:
        found = [float(text) for text in texts]
    except ValueError:
        found = []
    if not found or not all(0 <= ratio < 1 for ratio in found):
        raise ConfigError(
            f"labelled_ratios is {','.join(texts)!r}; give shares in [0, 1), as 0,0.01,0.05"
        )
    return found


@contextlib.contextmanager
def _without_labels(values: flags.FlagValues, out: Path) -> Iterator[None]:
    with flagsaver.as_parsed(out=str(out / Cell(0.0, None).folder)):
        for flag in _OF_LABELS:
            values[flag].unparse()
        yield


def sweep_of_cell(
    values: flags.FlagValues, cell: Cell, base: Sweep, labels: list[int], out: Path
) -> Sweep:
    """Returns a sweep of the table, checked.

    Args:
      values: parsed flags.
      cell: which one.
      base: the sweep without labels, whose data all sweeps share.
      labels: its normal classes.
      out: the table's folder.

    Raises:
      ConfigError, DataError: says what is wrong and what is allowed.
    """
    with _of_cell(values, cell, labels, out):
        data, split = settings.data_config(values), settings.split_config(values)
        return plans.plan_on(values, data, split, base.dataset, tuple(labels))


@contextlib.contextmanager
def _of_cell(values: flags.FlagValues, cell: Cell, labels: list[int], out: Path) -> Iterator[None]:
    """Sets the flags of a sweep of the table."""
    if cell.known is None:
        with _without_labels(values, out):
            yield
        return
    with flagsaver.as_parsed(
        out=str(out / cell.folder),
        normal_classes=",".join(map(str, labels)),
        known_anomalous_classes=str(cell.known),
        labelled_ratio=repr(cell.ratio),
    ):
        yield


def describe_labelled(base: Sweep, planned: dict[Cell, Sweep]) -> str:
    """Returns a line on the missing runs and their cost, measured on the sweep without labels.

    Args:
      base: the sweep without labels.
      planned: the sweeps of the table.
    """
    to_go = {
        cell: len(plans.owners(wanted).keys() - records.read_rows(wanted.out).keys())
        for cell, wanted in planned.items()
    }
    runs = sum(to_go.values())
    if not runs:
        return "every run is there"
    load = costs.machine_load()
    a_run = sum(cost.seconds for cost in costs.estimate(base, {}))
    # An epoch is longer by the share of known anomalies, which are trained on too.
    seconds = sum(count * a_run / (1 - cell.ratio) for cell, count in to_go.items())
    return (
        f"{runs} runs in {len(planned)} sweeps: {tables.duration(seconds)}, from steps "
        f"measured on this device, {a_run:.3g} s a run without labels; compilation comes on top"
        f"{costs.busy_note(load)}"
    )
