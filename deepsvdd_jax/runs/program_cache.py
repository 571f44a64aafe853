"""Compiled programs, kept on disk for later processes."""

import os
import platform
import zlib
from pathlib import Path

# Where traced programs are kept, see `kept_traces`; set once, as jax's own folder is.
_traces: Path | None = None

# Least seconds of compilation of a program that is kept. Programs of tables compile in short times,
# which are nearly all of a first fit.
_LEAST_SECONDS = 0.1


def keep_compiled_programs(folder: str | os.PathLike[str] | None = None) -> Path:
    """Keeps what is compiled from now on, and takes what another process has kept: a first fit of a
    table then takes a fraction of its time. Results do not depend on it.

    Sets jax's own `jax_compilation_cache_dir`, for the whole process; what was traced lies beside
    it, see `kept_traces`. What lies there is loaded and run: nobody else should be able to write to
    it.

    Args:
      folder: where; None is `deepsvdd_jax` in the user's folder of caches, the one of the commands.

    Returns:
      The folder of this processor in it: a program of another one must not run here.

    Raises:
      OSError: it cannot be made, or none is given and there is no home.
    """
    import jax

    base = default_folder() if folder is None else os.fspath(folder)
    if not base:
        raise FileNotFoundError("no home for compiled programs: give a folder")
    own = Path(base).expanduser() / f"{platform.machine()}-{_processor()}"
    own.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(own))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _LEAST_SECONDS)
    global _traces
    _traces = own / "traced"
    return own


def folder_of_traces() -> Path | None:
    """Returns where traced programs are kept; None unless `keep_compiled_programs` was called and
    its folder is still jax's."""
    import jax

    kept = jax.config.values["jax_compilation_cache_dir"]
    return _traces if _traces is not None and kept == str(_traces.parent) else None


def default_folder() -> str:
    """Returns the folder that keeps compiled programs, in the user's cache; empty without a home.

    A relative or empty `XDG_CACHE_HOME` counts as none, as its specification has it: the working
    folder is no cache.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(base):
        return os.path.join(base, "deepsvdd_jax")
    has_home = os.environ.get("HOME") != "" and os.path.isabs(os.path.expanduser("~"))
    return "~/.cache/deepsvdd_jax" if has_home else ""


def processor_name() -> str:
    """Returns the processor's own name where the system tells it (reads a system file)."""
    named = [line.partition(":")[2] for line in _processor_lines() if line.startswith("model name")]
    return named[0].strip() if named else platform.processor() or platform.machine()


def _processor() -> str:
    # Python's own hash of a string differs from process to process.
    return f"{zlib.crc32(chr(10).join(_processor_lines()).encode()):08x}"


def _processor_lines() -> list[str]:
    """Returns the lines by which kinds of processors differ."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return [platform.processor()]
    lines = [line for line in text.splitlines() if line.startswith(("model name", "flags"))]
    return lines[:2]
