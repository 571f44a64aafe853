"""What a command does to its process: platform, devices, compiled programs kept on disk, and the
one way in which every command ends."""

import contextlib
import errno
import logging
import os
import platform as host
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO

from absl import app, flags
from tqdm import tqdm

from deepsvdd_jax import __version__
from deepsvdd_jax.cli import help, paths
from deepsvdd_jax.cli.files import ResultsError, WriteError
from deepsvdd_jax.cli.lazy import lazily
from deepsvdd_jax.configs import ConfigError
from deepsvdd_jax.datasets import DataError
from deepsvdd_jax.io.archives import ModelError
from deepsvdd_jax.runs import program_cache

with lazily():
    from deepsvdd_jax import detectors

_HELP = frozenset(("--help", "-help", "--helpfull", "-helpfull", "-h", "-?"))

_VERSION = frozenset(("--version", "-version"))

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "scikit-learn")

# Signals that end a process, beside that of the keyboard; SIGHUP is not known everywhere.
_ENDS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))

# Why a path that was given cannot be used; any other failure of a file is none of the user's.
_MISTAKES = frozenset(
    {
        *(errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP),
        *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST),
    }
)

# What jax calls each platform, in the order in which they are tried: jax refuses a list one of
# whose entries is not installed.
PLATFORMS = {"cpu": ("cpu",), "gpu": ("cuda", "rocm"), "tpu": ("tpu",)}

# As in jax's guide to its installation.
_INSTALL = {
    "gpu": "pip install 'jax[cuda13]' for NVIDIA, pip install 'jax[rocm7-local]' for AMD",
    "tpu": "pip install 'jax[tpu]' on a TPU machine",
}

# jax's words for a platform that is not installed, which say nothing more.
_UNKNOWN_TO_JAX = "not in the list of known backends"

# One device a core pays as long as every device has runs to loop over.
MOST_CPU_DEVICES = 16


class Failure(RuntimeError):
    """Something failed that was not the user's mistake: exit code 1, one line."""


class Interrupted(RuntimeError):
    """A signal asked the command to stop, and all that was done is saved: exit code 1."""


@help.topic("Device")
def define_flags() -> None:
    """Defines the flags that every command has."""
    flags.DEFINE_enum("platform", "auto", ["auto", "cpu", "gpu", "tpu"], "where to compute")
    flags.DEFINE_string(
        "compilation_cache",
        program_cache.default_folder(),
        "folder that keeps compiled programs for the next call; empty = none",
    )


def start(command: ModuleType) -> None:
    """Runs a command, a module with a docstring, `define_flags` and `main`."""
    sys.modules["__main__"].__doc__ = command.__doc__
    command.define_flags()
    run_command(command.main)


def run_command(main: Callable[[], None]) -> None:
    """Runs a command under absl and leaves the process with its exit code."""
    warnings.showwarning = show_warning
    _log_plain_lines()

    def run(rest: list[str]) -> None:
        for number in _ENDS:
            # What is ignored stays so, as after nohup.
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, _end)
        sys.exit(exit_code(main, rest))

    app.run(run, flags_parser=parse_flags)


def _log_plain_lines() -> None:
    """Prints what the library logs as it is; absl would put date, process and line before it."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("deepsvdd_jax")
    logger.addHandler(handler)
    logger.propagate = False


def show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Prints a warning of this package as one line, others as Python does."""
    if category.__module__.startswith("deepsvdd_jax"):
        print(f"warning: {message}", file=sys.stderr)
    else:
        print(warnings.formatwarning(message, category, filename, lineno), end="", file=sys.stderr)


def exit_code(main: Callable[[], None], rest: list[str]) -> int:
    """Returns 0 when done, 1 when something failed, 2 for wrong flags or unusable input.

    A user's mistake ends in one line on stderr, never in a traceback.

    Args:
      main: the command.
      rest: the program's name and what the flags left over, which must be nothing.
    """
    try:
        if len(rest) > 1:
            raise ConfigError(f"unknown argument {rest[1]!r}; flags start with --, see --help")
        main()
        sys.stdout.flush()
    except (ConfigError, DataError, ModelError, ResultsError) as error:
        return _explain(2, error)
    except (Failure, WriteError) as error:
        return _explain(1, error)
    except Interrupted as error:
        return _explain(1, f"stopped by {error}; the same command goes on where it was")
    except MemoryError as error:
        return _explain(1, _out_of_memory(error))
    except BrokenPipeError:
        _discard_output(sys.stdout)
        return _explain(1, "what reads the output ended before all of it was printed")
    except KeyboardInterrupt as error:
        return _explain(1, f"interrupted; {str(error) or 'what was not finished is not written'}")
    except OSError as error:
        return _explain(2 if error.errno in _MISTAKES else 1, _file_error(error))
    except detectors.TrainingError as error:
        return _explain(1, error)
    except RuntimeError as error:
        # jax's own, of a device.
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return _explain(1, _out_of_memory(error))
    return 0


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


def parse_flags(arguments: list[str]) -> list[str]:
    """Parses the command line; leaves with exit code 2 and one line if it is wrong, and with 0
    after an explanation of every flag where `--help` asks for it, or after `--version`."""
    if asks_for_help(arguments[1:]):
        sys.exit(exit_code(lambda: print(explain_flags(arguments[0])), []))
    if asks_for_version(arguments[1:]):
        sys.exit(exit_code(lambda: print(explain_version()), []))
    try:
        return flags.FLAGS(arguments)
    except flags.Error as error:
        sys.exit(_explain(2, error))


def asks_for_help(arguments: list[str]) -> bool:
    """Whether some argument asks what the flags mean."""
    return bool(_HELP.intersection(arguments))


def asks_for_version(arguments: list[str]) -> bool:
    """Whether some argument asks for the versions."""
    return bool(_VERSION.intersection(arguments))


def explain_version() -> str:
    """Returns the versions of this package, of jax and of Python, in one line."""
    versions = _versions()
    names = {"deepsvdd_jax": "deepsvdd_jax", "jax": "jax", "python": "Python"}
    return ", ".join(f"{shown} {versions[name]}" for name, shown in names.items())


def explain_flags(program: str) -> str:
    """Returns what a command does and what each of its flags means."""
    ours = {
        flag.name
        for module, defined in flags.FLAGS.flags_by_module_dict().items()
        if module.startswith("deepsvdd_jax.cli") or module == program
        for flag in defined
    }
    command = program.split()[-1].removesuffix(".py").rpartition("/")[2]
    first = [name for name in help.COMMANDS.get(command, ()) if name in ours]
    rest = [name for name in flags.FLAGS if name in ours]
    about = sys.modules["__main__"].__doc__ or ""
    return "\n".join([about.rstrip(), "", *help.first_flags(first), *help.all_flags(rest)])


def _out_of_memory(error: BaseException) -> str:
    """Returns what was being done, by the innermost function of this package."""
    ours = [
        frame.f_code
        for frame, _ in traceback.walk_tb(error.__traceback__)
        if frame.f_globals.get("__name__", "").startswith("deepsvdd_jax.")
    ]
    where = f" in {ours[-1].co_qualname} ({Path(ours[-1].co_filename).name})" if ours else ""
    words = str(error)[:300]
    return f"out of memory{where}{': ' if words else ''}{words}"


def _file_error(error: OSError) -> str:
    reason = error.strerror or str(error)
    return f"{os.fsdecode(error.filename)}: {reason}" if error.filename else reason


def _end(number: int, frame: object) -> None:
    """Ends the process at once, with a line and exit code 1.

    Nothing is raised: within a callback of the garbage collection Python would discard it, and
    within XLA's compiler it would abort the process. Drafts are left to the next writer.
    """
    if getattr(tqdm, "_instances", None):
        # A bar leaves its line open.
        _tell("")
    name = signal.Signals(number).name
    _tell(f"{_program()}: stopped by {name}; what was not finished is not written")
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
        # The terminal has gone, which is what SIGHUP says: what is printed later would end all.
        _discard_output(sys.stdout)
        _discard_output(sys.stderr)


def _discard_output(stream: TextIO) -> None:
    """Turns away what is still to be printed: the interpreter would fail on it when it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _explain(code: int, reason: object) -> int:
    print(f"{_program()}: {' '.join(str(reason).split())}", file=sys.stderr)
    return code


def _program() -> str:
    return Path(sys.argv[0]).stem


def use_platform(name: str, cache: str) -> None:
    """Chooses the platform, before any computation: a CPU gets one device a core.

    Raises:
      ConfigError: no such device here.
    """
    import jax

    # A user's JAX_NUMPY_DTYPE_PROMOTION=strict ends in a traceback: counts are int32, sums float32.
    jax.config.update("jax_numpy_dtype_promotion", "standard")
    # Devices cannot change once something was computed in this process.
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", min(_cores(), MOST_CPU_DEVICES))
    if cache:
        _keep_compiled_programs(cache)
    if name == "auto":
        asked: str | None = jax.config.jax_platforms  # type: ignore[attr-defined]  # set by name
        reason = _failure_of(asked)
        if reason is not None:
            which = f" of JAX_PLATFORMS={asked}" if asked else ""
            raise ConfigError(
                f"platform auto: jax can use no device{which}{reason}; give --platform=cpu"
            )
        return
    reasons = []
    for candidate in PLATFORMS[name]:
        reason = _failure_of(candidate)
        if reason is None:
            return
        reasons.append(reason)
    raise ConfigError(
        f"platform {name}: jax finds no such device{''.join(reasons)}; {_INSTALL[name]}, or use "
        "--platform=cpu"
    )


def _failure_of(platforms: str | None) -> str | None:
    """Makes jax use platforms; returns None, or why there is no such device: words that follow a
    sentence, or nothing where jax has nothing to add."""
    import jax

    # jax also notes every platform that it looks for in vain; its warnings tell of a GPU left idle.
    logging.getLogger("jax._src.xla_bridge").setLevel(logging.WARNING)
    jax.config.update("jax_platforms", platforms)
    try:
        jax.devices()
    except AssertionError:
        # Of a CUDA that is asked for where the driver shows no device.
        return ""
    except RuntimeError as error:
        words = str(error).partition(" (set JAX_PLATFORMS")[0]
        return "" if _UNKNOWN_TO_JAX in words else f" ({words})"
    return None


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _keep_compiled_programs(cache: str) -> None:
    folder = paths.of_flag("compilation_cache", cache)
    try:
        program_cache.keep_compiled_programs(folder)
    except OSError as error:
        where = error.filename or folder
        print(f"compiled programs are not kept: {where}: {error.strerror}", file=sys.stderr)


def progress_bar(what: str, total: int, unit: str) -> tqdm:
    """Returns a bar on stderr with an estimate of what is left; silent where there is nothing."""
    slow = 0.5 if sys.stderr.isatty() else 15.0
    return tqdm(
        total=total,
        desc=what,
        unit=f" {unit}s",
        mininterval=slow,
        disable=total == 0,
        smoothing=0.1,
    )


def show_compilation(bar: tqdm) -> Callable[[int, int], None]:
    """Returns what shows on a bar how many programs are compiled, and of how many: called again and
    again until all are. The bar's clock, and so its estimate, stands still meanwhile."""
    begun = shown = 0.0

    def show(done: int, total: int) -> None:
        nonlocal begun, shown
        now = time.time()
        begun = begun or now
        if done < total:
            if not bar.disable and now - max(shown, begun) >= bar.mininterval:
                shown = now
                bar.set_postfix_str(f"compiling, {done} of {total} programs, {now - begun:.0f} s")
            return
        if not bar.disable:
            bar.start_t += now - begun
            bar.last_print_t += now - begun
            bar.set_postfix_str("", refresh=False)
        begun = shown = 0.0

    return show


def _versions() -> dict[str, str]:
    versions = {"python": host.python_version(), "deepsvdd_jax": __version__}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def devices_in_words() -> str:
    """Returns how many devices of which kind there are, as `2 devices (cpu)`."""
    import jax

    kinds = sorted({device.device_kind for device in jax.local_devices()})
    count = jax.local_device_count()
    return f"{count} device{'s' if count > 1 else ''} ({', '.join(kinds)})"


def describe() -> dict[str, Any]:
    """Returns the versions of the packages and the devices, for `config.json`."""
    import jax

    device = jax.local_devices()[0]
    return {
        "versions": _versions(),
        "device": {
            "platform": device.platform,
            "kind": device.device_kind,
            "processor": program_cache.processor_name(),
            "count": jax.local_device_count(),
            "cores": _cores(),
        },
    }
