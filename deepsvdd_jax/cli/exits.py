"""Ends every command with its exit code, and with one line where something is wrong."""

import errno
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from deepsvdd_jax.cli.files import ResultsError, WriteError
from deepsvdd_jax.cli.lazy import lazily
from deepsvdd_jax.configs import ConfigError
from deepsvdd_jax.datasets import DataError
from deepsvdd_jax.io.archives import ModelError

with lazily():
    from deepsvdd_jax import detectors

# Reasons why a path of the user's cannot be used; any other failure of a file is not the user's
# mistake.
_MISTAKES = frozenset(
    {
        *(errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP),
        *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST),
    }
)


class Failure(RuntimeError):
    """Something failed that was not the user's mistake: exit code 1, one line."""


class Interrupted(RuntimeError):
    """A signal asked the command to stop, and all that was done is saved: exit code 1."""


def exit_code(main: Callable[[], None], rest: list[str]) -> int:
    """Returns 0 when done, 1 when something failed, 2 for wrong flags or unusable input.

    A user's mistake ends in one line on stderr, never in a traceback.

    Args:
      main: the command.
      rest: the program's name and the arguments that are not flags, of which there must be none.
    """
    try:
        if len(rest) > 1:
            raise ConfigError(f"unknown argument {rest[1]!r}; flags start with --, see --help")
        main()
        sys.stdout.flush()
    except (ConfigError, DataError, ModelError, ResultsError) as error:
        return explain(2, error)
    except (Failure, WriteError) as error:
        return explain(1, error)
    except Interrupted as error:
        return explain(1, f"stopped by {error}; the same command goes on where it was")
    except MemoryError as error:
        return explain(1, _out_of_memory(error))
    except BrokenPipeError:
        discard_output(sys.stdout)
        return explain(1, "what reads the output ended before all of it was printed")
    except KeyboardInterrupt as error:
        return explain(1, f"interrupted; {str(error) or 'what was not finished is not written'}")
    except OSError as error:
        return explain(2 if error.errno in _MISTAKES else 1, _file_error(error))
    except detectors.TrainingError as error:
        return explain(1, error)
    except RuntimeError as error:
        # jax's own, of a device.
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return explain(1, _out_of_memory(error))
    return 0


def explain(code: int, reason: object) -> int:
    """Says on stderr, in one line, why a command ends; returns its exit code."""
    print(f"{program_name()}: {' '.join(str(reason).split())}", file=sys.stderr)
    return code


def program_name() -> str:
    """Returns the name that lines on stderr start with."""
    return Path(sys.argv[0]).stem


def discard_output(stream: TextIO) -> None:
    """Discards the output that is still buffered: the interpreter would fail to print it when it
    ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _out_of_memory(error: BaseException) -> str:
    """Returns where memory ran out: the innermost function of this package."""
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
