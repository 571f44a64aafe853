"""Two host devices for every test, no silent broadcasting between ranks, commands with flags."""

import atexit
import contextlib
import gc
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import jax
import pytest
from absl import flags

from deepsvdd_jax.cli import exits, process

# What a test compiles runs for a moment: without optimisation the tests take seven tenths of the
# time. Of two ways to emit a loop the newer, the only one since jax 0.11, takes half as long again.
# A module that is split among threads for its code takes the processor a third longer.
effort = [
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_parallel_codegen_split_count=1",
]
if jax.__version_info__ < (0, 11):
    effort.append("--xla_cpu_use_fusion_emitters=false")
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *effort])
jax.config.update("jax_num_cpu_devices", 2)

# What one test has compiled, the others and the processes that they start take: in this session
# alone, in a folder of its own that is removed with it.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    kept = tempfile.mkdtemp(prefix="deepsvdd_jax-tests-")
    atexit.register(shutil.rmtree, kept, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = kept
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.05"
    jax.config.update("jax_compilation_cache_dir", kept)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)
jax.config.update("jax_numpy_rank_promotion", "raise")

# Compiled programs stay, and hold hundreds of thousands of objects: a collector that comes as often
# as it does by default looks through them for a tenth of the tests' time.
gc.set_threshold(20_000, 10, 10)

Call = Callable[..., int]


@pytest.fixture
def compilations() -> Iterator[list[float]]:
    """Seconds of every compilation from here on."""
    seconds: list[float] = []

    def note(event: str, duration: float, **_: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            seconds.append(duration)

    jax.monitoring.register_event_duration_secs_listener(note)
    yield seconds
    jax.monitoring.unregister_event_duration_listener(note)


@pytest.fixture(scope="session")
def calling() -> Callable[[ModuleType], contextlib.AbstractContextManager[Call]]:
    """Gives `calling(module)`, a context in which a command can be called."""
    return _calling


@contextlib.contextmanager
def _calling(module: ModuleType) -> Iterator[Call]:
    """Gives a function that calls a command, a module with `define_flags` and `main`, with
    arguments, and returns its exit code.

    absl has one table of flags for a process; the flags of other commands are away meanwhile.
    """
    others = _flags_of_commands()
    for name in others:
        delattr(flags.FLAGS, name)
    before = set(flags.FLAGS)
    module.define_flags()

    def call(*arguments: str) -> int:
        flags.FLAGS.unparse_flags()
        for name in flags.FLAGS:
            flags.FLAGS[name].unparse()
        command = module.__name__.rpartition(".")[2]
        try:
            rest = process.parse_flags([command, "--compilation_cache=", *arguments])
        except SystemExit as stop:
            return int(str(stop.code))
        return exits.exit_code(module.main, rest)

    try:
        yield call
    finally:
        for name in set(flags.FLAGS) - before:
            delattr(flags.FLAGS, name)
        for name, flag in others.items():
            flags.FLAGS[name] = flag


def _flags_of_commands() -> dict[str, flags.Flag]:
    # Flags that were away and came back belong to no module any more.
    defined_by = flags.FLAGS.find_module_defining_flag
    return {
        name: flags.FLAGS[name]
        for name in list(flags.FLAGS)
        if not str(defined_by(name)).startswith("absl")
    }
