"""Trains a class-vs-all sweep: every class normal in turn, several seeds, in few compiled programs.

    python -m experiments.sweep                                    # the embedded digits
    python -m experiments.sweep --dataset=mnist --data_dir=DIR     # original archives in DIR/mnist

Writes `config.json`, `runs.csv`, `summary.csv`, `scores/` and `history/` into `--out`, and prints a
table beside the published figures. The same command resumes an interrupted sweep; more classes,
seeds or methods extend it. With `--distributed`, several processes share it.
"""

import sys
from collections.abc import Mapping
from typing import Any

from absl import flags

from deepsvdd_jax.cli import environment, exits, settings, signals
from deepsvdd_jax.cli.lazy import lazily
from deepsvdd_jax.cli.reporting import tables
from deepsvdd_jax.cli.sweeps import (
    methods,
    plans,
    records,
    shallow,
    shallow_settings,
    summaries,
    workers,
)
from deepsvdd_jax.cli.sweeps.plans import Sweep
from deepsvdd_jax.cli.sweeps.records import RunName
from deepsvdd_jax.cli.sweeps.store import SweepStore, open_store

with lazily():
    from deepsvdd_jax import preprocessing
    from deepsvdd_jax.cli.sweeps import stages


def define_flags() -> None:
    """Defines all flags of the command."""
    settings.define_data_flags()
    settings.define_split_flags()
    flags.DEFINE_string("normal_classes", "all", "`all`, or classes as 0,3,8")
    workers.define_flags()
    define_training_flags()


def define_training_flags() -> None:
    """Defines the flags that do not concern what is normal: methods, settings, files."""
    settings.define_run_flags()
    shallow_settings.define_flags()
    environment.define_flags()
    flags.DEFINE_string("seeds", "5", "a count, or a list; `7,` is the list of one seed")
    flags.DEFINE_string(
        "methods",
        "deep_svdd",
        f"any of {','.join(methods.names())}; soft_boundary is deep_svdd with that objective",
    )
    flags.DEFINE_string("out", None, "result folder (default results/<dataset>-<preset>)")
    flags.DEFINE_bool("save_models", False, "keep every run's model under models/")
    flags.DEFINE_integer("runs_per_program", None, "runs in a compiled program", lower_bound=1)
    flags.DEFINE_integer(
        "data_devices",
        1,
        "devices over which every batch of a run is split, for sweeps of fewer runs than devices; "
        "the batch size must be a multiple of it",
        lower_bound=1,
    )
    flags.DEFINE_string(
        "memory_budget",
        None,
        "bytes of images that a device may hold, as 500MB or 2GiB; sets that are larger stay on "
        "the host and are streamed (default: half of an accelerator's memory, no limit on a CPU)",
    )
    flags.DEFINE_integer(
        "evaluate_every",
        None,
        "epochs between two full passes over training and test set, whose figures, the test AUROC "
        "among them, go into history/ and nowhere else (default: no such passes)",
        lower_bound=1,
    )


def main() -> None:
    """Reads the flags, trains the missing runs, writes and prints the tables."""
    values = flags.FLAGS
    group = workers.join(values)
    environment.use_platform(values.platform, values.compilation_cache)
    carry_out(plans.plan(values)._replace(group=group), {})


def carry_out(sweep: Sweep, extra_settings: Mapping[str, Any]) -> None:
    """Locks the folder, trains the missing runs, writes and prints the tables.

    Args:
      sweep: the planned sweep.
      extra_settings: further entries of `config.json`.
    """
    settings = sweep.settings.to_json() | environment.describe() | dict(extra_settings)
    with (
        signals.stop_signals() as stop,
        open_store(sweep.out, settings, sweep.group, stop) as store,
    ):
        run(sweep, store)


def run(sweep: Sweep, store: SweepStore) -> None:
    """Trains the missing runs of this process; the first process writes and prints the tables.

    Args:
      sweep: the planned sweep.
      store: its folder.

    Raises:
      Interrupted: a signal has come; the programs under way are saved.
      Failure: some runs failed, or are missing from another process; all others are done and
        written.
    """
    group, owners = store.group, plans.owners(sweep)
    own = {name: owner for name, owner in owners.items() if owner == group.number}
    missing = store.missing(owners)
    print(
        f"{sweep.out}: {len(store.rows)} runs are there, {len(own.keys() & missing.keys())} to go",
        file=sys.stderr,
    )
    for line in constant_columns(sweep):
        print(line, file=sys.stderr)
    store.wait_for_workers(missing.values())
    stages.train_deep([stages.Member(sweep, own, store)])
    shallow.score_missing(sweep, own, store)
    if group.is_first:
        store.collect(owners)
        _write_tables(sweep, store)
    _report_failures(owners if group.is_first else own, store)


def constant_columns(sweep: Sweep) -> list[str]:
    """Returns a line for each class of a table that has columns which are constant in training."""
    if sweep.dataset.x_train.ndim != 2:
        return []
    lines = []
    for label in sweep.settings.normal_classes:
        normals = sweep.dataset.x_train[sweep.splits[label, sweep.settings.seeds[0]].train_indices]
        line = preprocessing.describe_constant(normals, sweep.dataset.feature_names)
        if line is not None:
            lines.append(f"class {label}: {line}")
    return lines


def _write_tables(sweep: Sweep, store: SweepStore) -> None:
    """Writes and prints the tables, and removes the checkpoints of finished programs."""
    rows = store.rows
    store.checkpoints.delete_finished(rows)
    store.write_table()
    summary = summaries.write_summary(sweep.out, rows)
    print(tables.summary_table(summary, sweep.preset, sweep.settings.split.protocol))
    for text in tables.itu_tables(rows, sweep.dataset.name, sweep.preset):
        print(text)
    for line in tables.outside_lines(rows):
        print(line)
    print(
        f"written to {sweep.out}; as a page: python -m experiments.report --out={sweep.out}",
        file=sys.stderr,
    )


def _report_failures(owners: dict[RunName, int], store: SweepStore) -> None:
    rows, missing = store.rows, store.missing(owners)
    failed = {name.stem: reason for name, reason in records.failures(rows, owners).items()}
    parts = []
    if failed:
        parts.append(records.describe_failures(failed, "runs.csv"))
    if missing:
        parts.append(workers.describe_missing(missing))
    if parts:
        raise exits.Failure("; ".join(parts))
