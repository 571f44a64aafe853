"""The folder of one sweep, held by this process: finished runs, checkpoints, the stop signal.

Every file is written under a temporary name and renamed, so that no file is incomplete. A run
counts as finished when its row lies in `rows/`, with the checksums of its scores and history;
`runs.csv` and `summary.csv` are made from the rows. Several processes may share a folder: each
writes the files of its own runs, the first one also those that the folder has once.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from deepsvdd_jax.cli.exits import Failure, Interrupted
from deepsvdd_jax.cli.lazy import lazily
from deepsvdd_jax.cli.signals import StopSignal
from deepsvdd_jax.cli.sweeps import config_file, locks, records, workers
from deepsvdd_jax.cli.sweeps.records import Record, Records, RunName
from deepsvdd_jax.cli.sweeps.workers import SINGLE, WorkerGroup

with lazily():
    from deepsvdd_jax.cli.sweeps import checkpoints as saving

if TYPE_CHECKING:
    from deepsvdd_jax.cli.sweeps.checkpoints import Checkpointer, ProgramCheckpoint

# Seconds between two looks at the folder, while others start and while they train.
_STARTING_SECONDS = 0.2
_TRAINING_SECONDS = 1.0

# Share of the timeout during which files may still appear after their writer released its lock:
# network file systems show new files late.
_LATE = 0.1


class SweepStore:
    """A sweep's folder and its state.

    Attributes:
      folder: of the sweep.
      group: the processes that share it.
      rows: of the finished runs; grows.
      stop: to be checked between two steps of work.
      sweep: its name among sweeps that train together, see `QualifiedName`.
    """

    def __init__(
        self,
        folder: Path,
        group: WorkerGroup = SINGLE,
        rows: Mapping[RunName, Record] | None = None,
        stop: StopSignal | None = None,
        sweep: str = "",
    ) -> None:
        self.folder, self.group, self.sweep = folder, group, sweep
        self.rows: Records = dict(rows or {})
        self.stop = StopSignal() if stop is None else stop

    # --- runs of this process -------------------------------------------------------------------

    @functools.cached_property
    def checkpoints(self) -> Checkpointer:
        """Saves programs under way."""
        return saving.Checkpointer(self.folder, self.sweep)

    def check_there(self) -> None:
        """Refuses to write where the folder has vanished; raises WriteError."""
        records.check_there(self.folder)

    def save_checkpoint(self, checkpoint: ProgramCheckpoint) -> None:
        """Saves a program if a save is due (touches files).

        Raises:
          Interrupted: a signal has come; the program is saved by then.
          WriteError: it cannot be written.
        """
        try:
            self.stop.check()
        except Interrupted:
            self.checkpoints.save(checkpoint, now=True)
            raise
        self.checkpoints.save(checkpoint)

    def write_run(
        self,
        record: Record,
        scores: Mapping[str, npt.NDArray[Any]] | None,
        history: Mapping[str, npt.NDArray[Any]] | None,
    ) -> None:
        """Writes a finished run and the table of all; see `records.write_run`."""
        records.write_run(self.folder, self.rows, record, scores, history)
        self.write_table()

    def write_table(self) -> None:
        """Writes `runs.csv`, which has one writer: the first process (touches files).

        Raises:
          WriteError: it cannot be written, or the folder has vanished.
        """
        if self.group.is_first:
            self.check_there()
            records.write_runs(self.folder, self.rows)

    def model_folder(self, name: RunName) -> Path:
        """Returns where the model of a run is kept."""
        return records.model_folder(self.folder, name)

    def missing(self, owners: Mapping[RunName, int]) -> dict[RunName, int]:
        """Returns the runs, each with the process that trains it, that are not finished."""
        return {name: owner for name, owner in owners.items() if name not in self.rows}

    # --- runs of other processes ----------------------------------------------------------------

    def wait_for_workers(self, needed: Collection[int]) -> None:
        """Makes the first process wait until those that have runs to train hold their locks (reads
        files, sleeps).

        After this call a free lock means that its process has ended. A process that does not come
        in time is named on stderr.

        Args:
          needed: numbers of processes.

        Raises:
          Interrupted: a signal has come.
        """
        if not self.group.is_first:
            return
        absent = set(needed) - {0}

        def are_there() -> bool:
            absent.difference_update(self._alive(absent))
            return not absent

        if not _wait(self.group.timeout, are_there, self.stop):
            print(
                f"{workers.named(absent)} did not come within {self.group.timeout:g} s; going on "
                "without",
                file=sys.stderr,
            )

    def collect(self, owners: Mapping[RunName, int]) -> None:
        """Waits for the rows of the runs that other processes train, and adds them (reads files,
        sleeps).

        It waits for a process as long as this holds its lock, and a tenth of the timeout longer,
        since a network file system may show its last files late. Rows of a process that ended
        before its work stay missing.

        Raises:
          Interrupted: a signal has come.
        """
        left, gone = self.missing(owners), set[int]()
        if left:
            print(
                f"waiting for {len(left)} runs of {workers.named(set(left.values()))}",
                file=sys.stderr,
            )
        alive_until = time.monotonic()
        while left:
            alive = self._alive(set(left.values()))
            self.rows |= records.read_named_rows(self.folder, left)
            left = self.missing(left)
            _announce(set(left.values()) - alive - gone)
            gone |= set(left.values()) - alive
            now = time.monotonic()
            alive_until = now if alive else alive_until
            if now > alive_until + _LATE * self.group.timeout:
                break
            self.stop.check()
            time.sleep(_TRAINING_SECONDS)

    def _alive(self, numbers: Collection[int]) -> set[int]:
        size = self.group.size
        return {number for number in numbers if locks.is_held(self.folder, number, size)}


@contextlib.contextmanager
def open_store(
    folder: Path,
    settings: Mapping[str, Any],
    group: WorkerGroup = SINGLE,
    stop: StopSignal | None = None,
    sweep: str = "",
) -> Iterator[SweepStore]:
    """Holds a sweep's folder, made where it is missing (touches files).

    The first process writes the settings; the others wait for it to do so.

    Args:
      folder: of the sweep.
      settings: JSON values; all but those that may differ must equal the folder's own.
      group: the processes that share the folder.
      stop: checked while waiting, and by whoever works with the store.
      sweep: its name among sweeps that train together, empty for one alone.

    Raises:
      ResultsError: the folder is in use, cannot be written, or holds other settings.
      Failure: the first process has not opened it in time.
    """
    stop = StopSignal() if stop is None else stop
    with locks.locked(folder, group.number, group.size):
        if group.is_first:
            rows = config_file.take_up(folder, settings)
        else:
            rows = _join(folder, settings, group, stop)
        yield SweepStore(folder, group, rows, stop, sweep)


def _join(
    folder: Path, settings: Mapping[str, Any], group: WorkerGroup, stop: StopSignal
) -> Records:
    path = config_file.path_of(folder)
    if not _wait(group.timeout, path.exists, stop):
        raise Failure(f"process 0 has not written {path} within {group.timeout:g} s")
    config_file.check_settings(folder, settings)
    return records.read_rows(folder)


def _wait(timeout: float, holds: Callable[[], bool], stop: StopSignal) -> bool:
    """Waits until a condition holds; returns whether it did within the timeout."""
    until = time.monotonic() + timeout
    while not holds():
        stop.check()
        if time.monotonic() > until:
            return False
        time.sleep(_STARTING_SECONDS)
    return True


def _announce(gone: Collection[int]) -> None:
    if gone:
        print(f"{workers.named(gone)} ended before its runs did", file=sys.stderr)
