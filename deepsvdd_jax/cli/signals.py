"""Signals: the first asks a command to stop at a safe point, or ends it where it has none."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator

from tqdm import tqdm

from deepsvdd_jax.cli.exits import Interrupted, discard_output, program_name

# Signals that end a process, beside that of the keyboard; SIGHUP does not exist everywhere.
_ENDS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


class StopSignal:
    """Whether a signal has asked the command to stop."""

    def __init__(self) -> None:
        self._name: str | None = None

    def check(self) -> None:
        """Raises `Interrupted` if a signal has come."""
        if self._name is not None:
            raise Interrupted(self._name)

    def note(self, number: int, frame: object) -> None:
        """Handles a signal: keeps the first one; a second SIGINT interrupts at once."""
        if self._name is not None and number == signal.SIGINT:
            raise KeyboardInterrupt("the same command goes on where it was saved last")
        if self._name is None:
            self._name = signal.Signals(number).name
            _tell(f"{self._name}: saving, then stopping")


@contextlib.contextmanager
def stop_signals(stop: StopSignal | None = None) -> Iterator[StopSignal]:
    """Defers the first SIGINT, SIGTERM or SIGHUP to the next safe point, where `check` raises.

    Args:
      stop: takes the signals; None makes one.
    """
    stop = StopSignal() if stop is None else stop
    if threading.current_thread() is not threading.main_thread():
        # Only the main thread may set handlers.
        yield stop
        return
    before = {
        number: signal.signal(number, stop.note)
        for number in (signal.SIGINT, *_ENDS)
        if number == signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_on_signals() -> None:
    """Ends the process with a line and exit code 1 on signals that would end it silently."""
    for number in _ENDS:
        # A signal that is ignored stays ignored, as after nohup.
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _end)


def _end(number: int, frame: object) -> None:
    """Ends the process at once, with a line and exit code 1.

    Nothing is raised: within a callback of the garbage collection Python would discard it, and
    within XLA's compiler it would abort the process. Drafts are left to the next writer.
    """
    if getattr(tqdm, "_instances", None):
        # A bar leaves its line open.
        _tell("")
    name = signal.Signals(number).name
    _tell(f"{program_name()}: stopped by {name}; what was not finished is not written")
    with contextlib.suppress(OSError, RuntimeError):
        sys.stdout.flush()
    os._exit(1)


def _tell(line: str) -> None:
    """Prints a line on stderr from within a signal handler."""
    try:
        print(line, file=sys.stderr, flush=True)
    except RuntimeError:
        # The signal came while another line was written.
        pass
    except OSError:
        # After SIGHUP the terminal is gone, and printing to it would end the process.
        discard_output(sys.stdout)
        discard_output(sys.stderr)
