"""Several processes, on one host or many, that share one sweep: which runs each of them trains, and
which waits.

They meet once through `jax.distributed`, to count themselves, and then share only the folder: every
process writes the files of its own runs, and the first one, process 0, writes `config.json` and the
tables. Each holds a lock in the folder as long as it lives, which shows the others that it is at
work; the file system must support locks across hosts.
"""

import json
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from absl import flags

from deepsvdd_jax.cli import help
from deepsvdd_jax.cli.exits import Failure
from deepsvdd_jax.cli.lazy import lazily
from deepsvdd_jax.cli.sweeps.records import RunName
from deepsvdd_jax.configs import ConfigError

with lazily():
    from deepsvdd_jax.cli.sweeps import discover

# An error names so many of the missing runs.
_NAMED = 20


class WorkerGroup(NamedTuple):
    """The processes that share a sweep.

    Attributes:
      number: of this process, from 0.
      size: number of processes.
      timeout: seconds to wait for a process that does not show up.
    """

    number: int = 0
    size: int = 1
    timeout: float = 300.0

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files that a folder has once."""
        return self.number == 0


SINGLE = WorkerGroup()


@help.topic("Several processes")
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


def named(numbers: Collection[int]) -> str:
    some = ", ".join(str(number) for number in sorted(numbers))
    return f"process{'es' if len(numbers) > 1 else ''} {some}"


def owners(size: int, problems: Sequence[tuple[int, int]]) -> dict[tuple[int, int], int]:
    """Returns which of `size` processes trains the runs of each class and seed, by all methods.

    A process gets neighbouring runs, and no process has two more than another: with classes before
    seeds, each prepares the images of few classes. It does not depend on which runs are finished,
    so that processes that start at different moments agree.
    """
    return {problem: place * size // len(problems) for place, problem in enumerate(problems)}


def describe_missing(missing: Mapping[RunName, int]) -> str:
    """Returns one line on the runs that are missing, their processes, and the remedy."""
    names = [name.stem for name in missing]
    some = ", ".join(names[:_NAMED])
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return (
        f"{len(names)} runs of {named(set(missing.values()))} are missing: {some}{more}; "
        "the same command goes on where they were"
    )
