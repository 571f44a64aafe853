"""Refuses to use jax in a process that was forked after jax had started: it does not work there."""

import os
import sys

_forked = False


def check_process() -> None:
    """Refuses to compute where jax would wait for ever.

    Raises:
      RuntimeError: this process was forked after jax had started in its parent.
    """
    if _forked:
        raise RuntimeError(
            "this process was forked after jax had started in its parent, whose threads it lacks; "
            "start workers with multiprocessing's 'spawn' or 'forkserver', or with joblib's loky"
        )


def _note_fork() -> None:
    global _forked
    _forked = _forked or _has_started()


def _has_started() -> bool:
    # jax has no public name for this.
    bridge = sys.modules.get("jax._src.xla_bridge")
    return bool(getattr(bridge, "backends_are_initialized", lambda: False)())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)
