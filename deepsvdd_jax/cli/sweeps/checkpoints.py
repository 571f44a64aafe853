"""Checkpoints of programs under way, so that a killed sweep can be resumed."""

import contextlib
import json
import math
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from deepsvdd_jax import runs
from deepsvdd_jax.cli.files import WriteError
from deepsvdd_jax.cli.sweeps import records
from deepsvdd_jax.cli.sweeps.records import QualifiedName, RunName
from deepsvdd_jax.io import archives
from deepsvdd_jax.runs import Progress
from deepsvdd_jax.training import EpochInfo, TrainState

# The next save waits this many times as long as the last one took.
_WAIT_FACTOR = 60.0


class ProgramCheckpoint(NamedTuple):
    """A program under way.

    Attributes:
      names: of its runs, which may belong to several sweeps; runs that only fill it up have none.
      progress: of the program.
      evaluations: figures of the full passes so far by column of the history, `[passes, runs]`, and
        `epoch`, `[passes]`.
      seconds: its time so far, compilation included.
    """

    names: tuple[QualifiedName, ...]
    progress: Progress
    evaluations: dict[str, npt.NDArray[Any]]
    seconds: float


class SavedProgram(NamedTuple):
    """A checkpoint as read from its file: its state is still a flat list of arrays."""

    names: tuple[QualifiedName, ...]
    phase: str
    header: dict[str, Any]
    arrays: dict[str, npt.NDArray[Any]]


class Checkpointer:
    """Saves programs under way, so rarely that it costs less than 2 % of the time (writes files,
    reads the clock).

    Args:
      folder: of the sweep; a program whose first run is of this sweep has the file
        `under-way/<its first run>.bin` there.
      sweep: its name among sweeps that train together, see `QualifiedName`.
    """

    def __init__(self, folder: Path, sweep: str = "") -> None:
        self._folder, self._sweep = folder / "under-way", sweep
        self._due = time.monotonic() + 1.0

    def saved(self, names: Iterable[RunName]) -> list[SavedProgram]:
        """Returns the saved programs whose first run is one of these."""
        paths = (self._path(name) for name in names)
        read = (read_checkpoint(path, self._sweep) for path in paths if path.exists())
        return [one for one in read if one is not None]

    def save(self, checkpoint: ProgramCheckpoint, now: bool = False) -> None:
        """Saves a program if enough time has passed since the last one was, or at once.

        Raises:
          WriteError: it cannot be written, or the sweep's folder has vanished; what was there
            before stays.
        """
        started = time.monotonic()
        if started < self._due and not now:
            return
        records.check_there(self._folder.parent)
        write_checkpoint(self._path(checkpoint.names[0].name), checkpoint)
        ended = time.monotonic()
        self._due = ended + max(1.0, _WAIT_FACTOR * (ended - started))

    def delete(self, names: tuple[QualifiedName, ...]) -> None:
        """Removes the file of a program whose runs are all finished."""
        self._path(names[0].name).unlink(missing_ok=True)

    def delete_finished(self, finished: Iterable[RunName]) -> None:
        """Removes all files whose first run is finished, and the folder if nothing is left in it.

        Only one process may call it, and not while others still save: their folder would vanish.
        """
        for name in finished:
            self._path(name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            # The folder does not exist, or a sweep of other classes is under way.
            self._folder.rmdir()

    def _path(self, first: RunName) -> Path:
        return self._folder / f"{first.stem}.bin"


def write_checkpoint(path: Path, checkpoint: ProgramCheckpoint) -> None:
    """Writes a checkpoint atomically (touches files).

    Raises:
      WriteError: it cannot be written; the former file stays.
    """
    progress = jax.device_get(checkpoint.progress)
    arrays = {f"state/{place}": leaf for place, leaf in enumerate(jax.tree.leaves(progress.state))}
    arrays["untrained"] = progress.untrained_distances
    for phase, info in progress.history.items():
        arrays |= {f"history/{phase}/{name}": value for name, value in info._asdict().items()}
    arrays |= {f"evaluations/{name}": values for name, values in checkpoint.evaluations.items()}
    header = {
        "names": [[*name, *([sweep] if sweep else [])] for name, sweep in checkpoint.names],
        "phase": progress.phase,
        "epoch": progress.epoch,
        "seconds": checkpoint.seconds,
    }
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    try:
        archives.write_archive(path, arrays)
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror or error}") from None


def read_checkpoint(path: Path, sweep: str = "") -> SavedProgram | None:
    """Reads a checkpoint (touches files); None, with a line on stderr, where it is damaged.

    Args:
      path: of the file.
      sweep: of runs that are saved without a sweep.
    """
    try:
        arrays = archives.read_archive(path)
        header = json.loads(arrays.pop("header").tobytes())
        names = tuple(_qualified_name(name, sweep) for name in header["names"])
        if header["phase"] not in runs.PHASES:
            raise ValueError(f"phase {header['phase']!r}")
        if not names:
            raise ValueError("no runs")
        header |= {"epoch": int(header["epoch"]), "seconds": float(header["seconds"])}
        if header["epoch"] < 0 or not 0 <= header["seconds"] < math.inf:
            raise ValueError(f"epoch {header['epoch']} after {header['seconds']} s")
        return SavedProgram(names, header["phase"], header, arrays)
    except (archives.ModelError, *archives.DAMAGES) as error:
        reason = " ".join(str(error).split())
        print(f"{path}: damaged ({reason}); the runs in it start anew", file=sys.stderr)
        return None


def _qualified_name(saved: list[Any], sweep: str) -> QualifiedName:
    method, label, seed, *of = saved
    return QualifiedName(RunName(str(method), int(label), int(seed)), str(of[0]) if of else sweep)


def restore(saved: SavedProgram, template: TrainState) -> ProgramCheckpoint | None:
    """Returns a checkpoint on the host; None, with a line on stderr, where shapes do not fit.

    Args:
      saved: from the file.
      template: shapes and types of the program's state in that phase.
    """
    leaves, structure = jax.tree.flatten(template)
    found = [saved.arrays.get(f"state/{place}") for place in range(len(leaves))]
    fits = all(
        array is not None and (array.shape, array.dtype) == (leaf.shape, leaf.dtype)
        for array, leaf in zip(found, leaves, strict=True)
    )
    if not fits or f"state/{len(leaves)}" in saved.arrays:
        print(
            f"the program of {saved.names[0].path} was left with other shapes (another number of "
            "runs per program or of devices?); its runs start anew",
            file=sys.stderr,
        )
        return None
    history = {
        phase: _history(saved, phase)
        for phase in runs.PHASES
        if f"history/{phase}/ran" in saved.arrays
    }
    evaluations = {
        name.removeprefix("evaluations/"): values
        for name, values in saved.arrays.items()
        if name.startswith("evaluations/")
    }
    progress = Progress(
        saved.phase,
        saved.header["epoch"],
        jax.tree.unflatten(structure, found),
        jnp.asarray(saved.arrays["untrained"]),
        history,
    )
    return ProgramCheckpoint(saved.names, progress, evaluations, saved.header["seconds"])


def _history(saved: SavedProgram, phase: str) -> EpochInfo:
    fields: Any = (saved.arrays[f"history/{phase}/{name}"] for name in EpochInfo._fields)
    return EpochInfo(*fields)
