"""Discovers the processes that share a sweep and prints which of them this one is.

    python -m deepsvdd_jax.cli.sweeps.discover '{"coordinator_address": "node0:1234", ...}'

`workers` starts it as a child process that ends when all have been found. `jax.distributed` ends
all of its processes once the first of them is gone, and aborts if one never comes; a sweep's
processes are independent and have to outlive one another.
"""

import json
import os
import sys
import threading
import time

import jax

# Beginnings of errors: XLA's for a process that has not come in time, ours where no cluster was
# found.
ABSENT = "DEADLINE_EXCEEDED"
UNKNOWN = "UNKNOWN_CLUSTER"


def main() -> None:
    """Discovers the process group and prints it as one line of JSON.

    The argument holds the arguments of `jax.distributed.initialize`; jax finds missing ones in the
    environment of the cluster. The line holds `number`, `count`, and under `visible` the devices
    that the cluster leaves to this process, as options of jax.
    """
    given = json.loads(sys.argv[1])
    threading.Thread(target=_leave_with, args=(os.getppid(),), daemon=True).start()
    # This process computes nothing, and only one process of a host can hold an accelerator.
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 1)
    jax.config.update("jax_cpu_collectives_implementation", None)
    try:
        jax.distributed.initialize(**given)
    except ValueError as error:
        sys.exit(f"{UNKNOWN}: {error}")
    except jax.errors.JaxRuntimeError as error:
        sys.exit(str(error))
    names = ("jax_cuda_visible_devices", "jax_rocm_visible_devices")
    found = {
        "number": jax.process_index(),
        "count": jax.process_count(),
        "visible": {name: jax.config.read(name) for name in names},
    }
    jax.distributed.shutdown()
    print(json.dumps(found))


def _leave_with(parent: int) -> None:
    """Ends this process when its parent is killed, so that its port is free for the next try."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)


if __name__ == "__main__":
    main()
