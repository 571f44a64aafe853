"""Runs a sweep and prints, on stderr, the share of its time that saving took.

    python -m benchmarks.saving --dataset=mnist --data_dir=DIR      # the flags of experiments.sweep

It counts checkpoints, from the device to the disk, and the rows, scores, histories, models and
`runs.csv` of finished runs. The total is the sweep without the imports before it.
"""

import functools
import sys
import time
from collections.abc import Callable
from typing import Any

from deepsvdd_jax.cli import process
from deepsvdd_jax.cli.commands import sweep
from deepsvdd_jax.cli.sweeps import checkpoints, models, records

SAVERS: tuple[tuple[Any, str], ...] = (
    (checkpoints, "write_checkpoint"),
    (models, "save_run"),
    (records, "write_run"),
    (records, "write_runs"),
)


class Stopwatch:
    """Adds up the seconds that functions take (reads the clock)."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.calls = 0

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Returns a function that does the same and whose time is counted, however it ends."""

        @functools.wraps(function)
        def counted(*arguments: Any, **named: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                self.seconds += time.perf_counter() - started
                self.calls += 1

        return counted


def main() -> None:
    """Runs the sweep with its savers timed."""
    watch = Stopwatch()
    for module, name in SAVERS:
        setattr(module, name, watch.timed(getattr(module, name)))
    started = time.perf_counter()
    try:
        sweep.main()
    finally:
        print(report(watch, time.perf_counter() - started), file=sys.stderr)


def report(watch: Stopwatch, whole: float) -> str:
    """Returns the line that is printed."""
    share = 100 * watch.seconds / whole
    return f"saving: {watch.seconds:.2f} of {whole:.1f} s, {share:.2f} %, {watch.calls} times"


if __name__ == "__main__":
    sweep.define_flags()
    process.run_command(main)
