"""Several processes, on one host or many, that share one sweep: who trains what, and who waits.

They meet once through `jax.distributed`, to know how many they are, and then need nothing of each
other but the folder: every process writes the files of its own runs, and the first one, process 0,
writes `config.json` and the tables. Each holds a lock in the folder as long as it lives, so the
folder also tells who is still at work; its file system must know locks across hosts.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags

from deepsvdd_jax.cli.environment import Failure
from deepsvdd_jax.cli.files import Row
from deepsvdd_jax.cli.lazy import lazily
from deepsvdd_jax.cli.sweeps import records, store
from deepsvdd_jax.cli.sweeps.records import RunName
from deepsvdd_jax.configs import ConfigError

with lazily():
    from deepsvdd_jax.cli.sweeps import discover

# Between two looks at the folder, while others start and while they train.
_STARTING_SECONDS = 0.2
_TRAINING_SECONDS = 1.0

# Share of the timeout during which files may still appear after their writer released its lock:
# network file systems show new files late.
_LATE = 0.1

# How many runs that are missing an error names.
_NAMED = 20


class WorkerGroup(NamedTuple):
    """The processes that share a sweep.

    Attributes:
      number: of this process, from 0.
      size: how many they are.
      timeout: seconds to wait for a process that does not show up.
    """

    number: int = 0
    size: int = 1
    timeout: float = 300.0

    @property
    def is_first(self) -> bool:
        """Whether this process writes what the folder has once."""
        return self.number == 0


SINGLE = WorkerGroup()


def define_flags() -> None:
    """Defines the flags of sweeps that several processes share."""
    flags.DEFINE_bool(
        "distributed",
        False,
        "share the sweep with other processes that are started with the same flags and the same "
        "--out; the next three flags are found in the environment of SLURM, Open MPI, Kubernetes "
        "and TPU pods",
    )
    flags.DEFINE_string("coordinator", None, "distributed: HOST:PORT where process 0 listens")
    flags.DEFINE_integer("num_processes", None, "distributed: how many", lower_bound=1)
    flags.DEFINE_integer("process_id", None, "distributed: number of this one", lower_bound=0)
    flags.DEFINE_integer(
        "patience",
        int(SINGLE.timeout),
        "distributed: seconds to wait for a process that does not show up",
        lower_bound=1,
    )


# --- discovery ----------------------------------------------------------------------------------


def join(values: flags.FlagValues) -> WorkerGroup:
    """Discovers the other processes if flags ask for it, before any computation (starts a process).

    Raises:
      ConfigError: flags that do not fit together, or that are needed here.
      Failure: not all processes came.
    """
    given = _arguments(values)
    if not values.distributed:
        for name in ("coordinator", "num_processes", "process_id"):
            if values[name].value is not None:
                raise ConfigError(f"--{name} is for several processes; give --distributed too")
        return SINGLE
    found = _discover(given, values.patience)
    import jax

    for name, devices in found["visible"].items():
        jax.config.update(name, devices)
    return WorkerGroup(found["number"], found["count"], values.patience)


def _arguments(values: flags.FlagValues) -> dict[str, Any]:
    """Returns the arguments of `jax.distributed.initialize` that were given."""
    address, count, number = values.coordinator, values.num_processes, values.process_id
    if address is not None:
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal():
            raise ConfigError(f"coordinator is {address!r}; give HOST:PORT, as node0:1234")
    if number is not None and count is not None and number >= count:
        raise ConfigError(
            f"process_id is {number}; {count} processes have the numbers 0 to {count - 1}"
        )
    named = {"coordinator_address": address, "num_processes": count, "process_id": number}
    return {name: value for name, value in named.items() if value is not None}


def _discover(given: dict[str, Any], timeout: int) -> dict[str, Any]:
    print("waiting for the other processes", file=sys.stderr)
    limits = {"initialization_timeout": timeout, "shutdown_timeout_seconds": timeout}
    command = [
        sys.executable,
        "-m",
        "deepsvdd_jax.cli.sweeps.discover",
        json.dumps(given | limits),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found
    if discover.UNKNOWN in done.stderr:
        raise ConfigError(
            "distributed: no SLURM, Open MPI, Kubernetes or TPU environment tells it, so give "
            "--coordinator=HOST:PORT, --num_processes and --process_id"
        )
    if discover.ABSENT in done.stderr:
        where = given.get("coordinator_address", "the coordinator")
        raise Failure(
            f"not all processes came to {where} within {timeout} s; start the same command for "
            "every --process_id, with an address that all can reach, or give more --patience"
        )
    lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    raise Failure(f"the processes could not meet: {lines[-1]}")


def open_folder(
    group: WorkerGroup, folder: Path, settings: Mapping[str, Any], stop_if_asked: Callable[[], None]
) -> dict[RunName, Row]:
    """Opens the sweep's folder, locked, as the first process does, or after it (touches files).

    Raises:
      ResultsError: the folder cannot be written, or holds other settings.
      Failure: the first process has not opened it in time.
    """
    if group.is_first:
        return store.open_folder(folder, settings)

    path = folder / "config.json"
    if not _wait(group, path.exists, stop_if_asked):
        raise Failure(f"process 0 has not written {path} within {group.timeout:g} s")
    store.check_settings(folder, settings)
    return records.read_rows(folder)


def wait_for_workers(
    group: WorkerGroup, folder: Path, needed: Collection[int], stop_if_asked: Callable[[], None]
) -> None:
    """Makes the first process wait until those that have runs to train hold their locks (reads
    files, sleeps).

    After this call a free lock means that its process has ended. A process that does not come in
    time is named on stderr.

    Args:
      group: the processes.
      folder: of the sweep.
      needed: numbers of processes.
      stop_if_asked: raises if a signal has come.
    """
    if not group.is_first:
        return
    absent = set(needed) - {0}

    def are_there() -> bool:
        absent.difference_update(_alive(group, folder, absent))
        return not absent

    if not _wait(group, are_there, stop_if_asked):
        print(
            f"{_name(absent)} did not come within {group.timeout:g} s; going on without",
            file=sys.stderr,
        )


def _wait(group: WorkerGroup, holds: Callable[[], bool], stop_if_asked: Callable[[], None]) -> bool:
    """Waits until something is so; returns whether it became so within the timeout."""
    until = time.monotonic() + group.timeout
    while not holds():
        stop_if_asked()
        if time.monotonic() > until:
            return False
        time.sleep(_STARTING_SECONDS)
    return True


def _alive(group: WorkerGroup, folder: Path, numbers: Collection[int]) -> set[int]:
    return {number for number in numbers if store.is_held(folder, number, group.size)}


def _name(numbers: Collection[int]) -> str:
    some = ", ".join(str(number) for number in sorted(numbers))
    return f"process{'es' if len(numbers) > 1 else ''} {some}"


# --- owners and their rows ----------------------------------------------------------------------


def owners(size: int, problems: Sequence[tuple[int, int]]) -> dict[tuple[int, int], int]:
    """Returns which of `size` processes trains the runs of each class and seed, by all methods.

    Neighbours go together and no process has two more than another: with classes before seeds, a
    process prepares the images of few classes. What is finished already does not count, so that
    processes that start at different moments agree.
    """
    return {problem: place * size // len(problems) for place, problem in enumerate(problems)}


def without_rows(
    owners_of_runs: Mapping[RunName, int], rows: Collection[RunName]
) -> dict[RunName, int]:
    """Returns the runs, each with its owner, that have no row yet."""
    return {name: owner for name, owner in owners_of_runs.items() if name not in rows}


def write_table(group: WorkerGroup, folder: Path, rows: Mapping[RunName, Row]) -> None:
    """Writes `runs.csv`, which has one writer: the first process (touches files).

    Raises:
      WriteError: it cannot be written, or the folder has vanished.
    """
    if group.is_first:
        records.check_there(folder)
        records.write_runs(folder, rows)


def collect(
    group: WorkerGroup,
    folder: Path,
    missing: Mapping[RunName, int],
    stop_if_asked: Callable[[], None],
) -> dict[RunName, Row]:
    """Waits for the rows of runs that other processes train (reads files, sleeps).

    A process is waited for as long as it holds its lock, and a tenth of the timeout longer, since
    a network file system may show its last files late.

    Args:
      group: the processes.
      folder: of the sweep.
      missing: the owner of each run that has no row yet.
      stop_if_asked: raises if a signal has come.

    Returns:
      The rows that came; of processes that ended before their work did, some do not.
    """
    left, gone = dict(missing), set[int]()
    found: dict[RunName, Row] = {}
    if left:
        print(f"waiting for {len(left)} runs of {_name(set(left.values()))}", file=sys.stderr)
    alive_until = time.monotonic()
    while left:
        alive = _alive(group, folder, set(left.values()))
        found |= records.read_named_rows(folder, left)
        left = {name: number for name, number in left.items() if name not in found}
        _announce(set(left.values()) - alive - gone)
        gone |= set(left.values()) - alive
        now = time.monotonic()
        alive_until = now if alive else alive_until
        if now > alive_until + _LATE * group.timeout:
            break
        stop_if_asked()
        time.sleep(_TRAINING_SECONDS)
    return found


def _announce(gone: Collection[int]) -> None:
    if gone:
        print(f"{_name(gone)} ended before its runs did", file=sys.stderr)


def describe_missing(missing: Mapping[RunName, int]) -> str:
    """Returns which runs are missing, whose they were and what to do, in one line."""
    names = [name.stem for name in missing]
    some = ", ".join(names[:_NAMED])
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return (
        f"{len(names)} runs of {_name(set(missing.values()))} are missing: {some}{more}; "
        "the same command goes on where they were"
    )
