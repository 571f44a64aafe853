"""Runs a sweep, or the training of one case, in a process of its own and reports its cost.

    python -m benchmarks.child sweep STARTED --dataset=digits --out=DIR
    python -m benchmarks.child training STARTED '["mlp", "one-class", 1000, 2]' CACHE

STARTED is the time of the command, in seconds of the epoch. Prints one line of JSON at the end.
Started by `benchmarks.suite`.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.monitoring

from benchmarks import subjects, training
from benchmarks.memory import process_peak_bytes
from deepsvdd_jax import runs
from deepsvdd_jax.cli import environment, exits, process
from deepsvdd_jax.cli.commands import sweep

_COMPILED = "/jax/core/compile/backend_compile_duration"


class Watch:
    """Notes when the first epochs ended and how long the compiler worked (listens to jax)."""

    def __init__(self, started: float) -> None:
        self._started = started
        self.first_epoch: float | None = None
        self.compile_seconds = 0.0
        jax.monitoring.register_event_duration_secs_listener(self._note)

    def _note(self, event: str, duration_secs: float, **_: str | int) -> None:
        if event == _COMPILED:
            self.compile_seconds += duration_secs

    def telling(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Returns the function, whose first return is noted."""

        def call(*arguments: Any, **options: Any) -> Any:
            result = function(*arguments, **options)
            self.first_epoch = self.first_epoch or time.time() - self._started
            return result

        return call

    def report(self) -> dict[str, Any]:
        """Returns the seconds noted, and the bytes of the device where it reports them."""
        device = jax.local_devices()[0].memory_stats() or {}
        return {
            "first_epoch": self.first_epoch,
            "compile_seconds": self.compile_seconds,
            "peak_bytes": device.get("peak_bytes_in_use", process_peak_bytes()),
        }


def run_sweep(watch: Watch, arguments: list[str]) -> int:
    """Runs a sweep as its command would; returns the exit code."""
    sweep.define_flags()
    # The calls after which a sweep handles its programs.
    told = watch.telling(runs.Program.advance)
    setattr(runs.Program, "advance", told)  # noqa: B010  # a type checker allows no other way
    return exits.exit_code(sweep.main, process.parse_flags(["sweep", *arguments]))


def run_case(watch: Watch, described: str, cache: str) -> int:
    """Trains a case, as `benchmarks.training` does, for one epoch."""
    *case, width = json.loads(described)
    environment.use_platform("auto", cache)
    one, devices = training.Case(*case), jax.local_device_count()
    images = subjects.random_images(one.network, one.images)
    program, start = training.Program(width), training.lone_start(one, images)
    train = training.our_timer(one, program, devices, images, start)
    watch.telling(train)(1)
    return 0


def main() -> None:
    """Runs the work of the command line and reports."""
    kind, started, *arguments = sys.argv[1:]
    watch = Watch(float(started))
    code = run_sweep(watch, arguments) if kind == "sweep" else run_case(watch, *arguments)
    print(json.dumps(watch.report()))
    sys.exit(code)


if __name__ == "__main__":
    main()
