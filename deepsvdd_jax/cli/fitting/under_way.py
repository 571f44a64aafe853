"""Checkpoints of a fit in the model's folder, so that the same command continues after a kill."""

import hashlib
import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import numpy.typing as npt

from deepsvdd_jax import __version__, detectors
from deepsvdd_jax.cli import exits, files
from deepsvdd_jax.cli.fitting import tasks
from deepsvdd_jax.cli.fitting.tasks import Plan
from deepsvdd_jax.cli.sweeps import checkpoints
from deepsvdd_jax.cli.sweeps.checkpoints import ProgramCheckpoint
from deepsvdd_jax.cli.sweeps.records import QualifiedName, RunName
from deepsvdd_jax.configs import to_dict
from deepsvdd_jax.runs import Program, Progress

# The next save waits this many times as long as the last one took, at least a second.
_WAIT_FACTOR = 60.0

_NAME = re.compile(r"under-way-([0-9a-f]{12})(-\d)?\.(bin|json)")

Stop = Callable[[], None]


def fingerprint(planned: Plan, groups: npt.NDArray[np.str_] | None, more: object) -> str:
    """Returns a hash that identifies a fit: settings, samples, versions and devices.

    Args:
      planned: before a time budget changes it.
      groups: as of `tasks.training_set`.
      more: further settings, JSON values.
    """
    digest = hashlib.sha256()
    device = jax.devices()[0]
    facts = [__version__, jax.__version__, device.device_kind, jax.local_device_count(), more]
    digest.update(json.dumps(facts).encode())
    for task in planned.tasks:
        digest.update(json.dumps(to_dict(task.config), sort_keys=True).encode())
        for name, values in tasks.training_set(task, planned.samples, groups).items():
            if values is None:
                continue
            array = np.asarray(values)
            digest.update(f"{name} {array.dtype} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:12]


class UnderWay:
    """The checkpoints of a fit, one a task (reads and writes files, reads the clock).

    Args:
      folder: of the model.
      mark: see `fingerprint`.
    """

    def __init__(self, folder: Path, mark: str) -> None:
        self._folder, self._mark = folder, mark
        self._due = 0.0
        others = {found[1] for name in self._names() if (found := _NAME.fullmatch(name))} - {mark}
        if others:
            print(
                f"{folder}: a fit with other settings, samples or devices was left there; it is "
                "not taken up",
                file=sys.stderr,
            )

    def is_there(self) -> bool:
        """Whether this fit has checkpoints."""
        return any(name.startswith(f"under-way-{self._mark}") for name in self._names())

    def choice(self) -> dict[str, Any] | None:
        """Returns the choice that `keep_choice` kept; None if there is none."""
        path = self._folder / f"under-way-{self._mark}.json"
        return files.read_json(path) if path.exists() else None

    def keep_choice(self, choice: dict[str, Any]) -> None:
        """Keeps a choice that depends on the clock, which might differ another time."""
        files.write_json(self._folder / f"under-way-{self._mark}.json", choice)

    def checkpoint(self, number: int, total: int, stop: Stop) -> detectors.Checkpoint:
        """Returns the checkpoint of a task.

        Args:
          number: of the task, from 0.
          total: epochs of its last phase.
          stop: raises `Interrupted` once a signal has asked for it.
        """
        self._due = time.monotonic() + 1.0

        def save(progress: Progress) -> None:
            # The end of a finished task is kept until all are finished.
            over = progress.phase == "training" and progress.epoch >= total
            try:
                stop()
            except exits.Interrupted:
                self._write(number, progress)
                raise
            if over or time.monotonic() >= self._due:
                self._write(number, progress)

        return detectors.Checkpoint(save, lambda program: self._resume(number, program))

    def clear(self) -> None:
        """Removes all checkpoints of fits in the folder, and an empty folder."""
        for name in self._names():
            if _NAME.fullmatch(name):
                (self._folder / name).unlink(missing_ok=True)
        if self._folder.is_dir() and not self._names():
            self._folder.rmdir()

    def _names(self) -> list[str]:
        return [path.name for path in self._folder.iterdir()] if self._folder.is_dir() else []

    def _path(self, number: int) -> Path:
        return self._folder / f"under-way-{self._mark}-{number}.bin"

    def _write(self, number: int, progress: Progress) -> None:
        started = time.monotonic()
        name = QualifiedName(RunName("fit", 0, number))
        checkpoints.write_checkpoint(
            self._path(number), ProgramCheckpoint((name,), progress, {}, 0.0)
        )
        ended = time.monotonic()
        self._due = ended + max(1.0, _WAIT_FACTOR * (ended - started))

    def _resume(self, number: int, program: Program) -> Progress | None:
        if not self._path(number).exists():
            return None
        saved = checkpoints.read_checkpoint(self._path(number))
        if saved is None:
            return None
        found = checkpoints.restore(saved, program.state_template(saved.phase))
        if found is None:
            return None
        progress = found.progress
        print(f"taken up after epoch {progress.epoch} of the {progress.phase}", file=sys.stderr)
        return program.place(progress)
