"""Trains sweeps together: their missing runs fill the same programs, and each has its folder."""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

from deepsvdd_jax.cli import environment, signals
from deepsvdd_jax.cli.sweeps import config_file, plans, records, stages, summaries
from deepsvdd_jax.cli.sweeps.plans import Sweep
from deepsvdd_jax.cli.sweeps.stages import Member
from deepsvdd_jax.cli.sweeps.store import open_store


def carry_out(
    sweeps: Mapping[str, Sweep],
    extra_settings: Mapping[str, Any],
    summarized: Callable[[], None] = lambda: None,
) -> str | None:
    """Locks the folders of sweeps, trains their missing runs, writes their tables.

    A sweep's `summary.csv` is written as soon as all its runs are finished.

    Args:
      sweeps: by name of the folder, see `stages.train_deep`; only their deep methods are trained.
      extra_settings: further entries of every `config.json`.
      summarized: called after sweeps are complete, also for those of earlier calls.

    Returns:
      A line on the runs that failed, None if none did.

    Raises:
      ResultsError: a folder is in use, cannot be written, or holds other settings; no run has
        trained by then.
      Interrupted: a signal has come; the programs under way are saved.
      Failure: see `stages.train_deep`.
    """
    here = environment.describe() | dict(extra_settings)
    settings = {name: sweep.settings.to_json() | here for name, sweep in sweeps.items()}
    for name, sweep in sweeps.items():
        if config_file.path_of(sweep.out).exists():
            config_file.check_settings(sweep.out, settings[name])
    with signals.stop_signals() as stop, contextlib.ExitStack() as held:
        members = []
        for name, sweep in sweeps.items():
            opened = open_store(sweep.out, settings[name], sweep.group, stop, name)
            store = held.enter_context(opened)
            members.append(Member(sweep, tuple(plans.owners(sweep)), store))
        unwritten = {member.store.sweep: member for member in members}

        def write_complete() -> None:
            done = [one for one in unwritten.values() if _is_complete(one)]
            for member in done:
                del unwritten[member.store.sweep]
                member.store.write_table()
                summaries.write_summary(member.store.folder, member.store.rows)
            if done:
                summarized()

        write_complete()
        stages.train_deep(members, write_complete)
        for member in members:
            # Only now: a program whose first run is finished may have others that are not.
            member.store.checkpoints.delete_finished(member.store.rows)
    failed = {
        member.qualified(name).path: reason
        for member in members
        for name, reason in records.failures(member.store.rows, member.own).items()
    }
    return records.describe_failures(failed, "their runs.csv") if failed else None


def _is_complete(member: Member) -> bool:
    return all(name in member.store.rows for name in member.own)
