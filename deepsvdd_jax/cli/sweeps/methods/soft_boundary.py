"""Soft-boundary Deep SVDD beside the one-class objective, in one sweep."""

from deepsvdd_jax import configs
from deepsvdd_jax.cli.sweeps.methods.base import DeepMethod
from deepsvdd_jax.configs import ConfigError, RunConfig


def _softened(base: RunConfig) -> RunConfig:
    soft = configs.replace_at(base, "training.objective.kind", "soft-boundary")
    if soft == base:
        raise ConfigError(
            "methods: soft_boundary is deep_svdd with --objective=soft-boundary; give one"
        )
    return soft


def _unread(path: str, base: RunConfig) -> str | None:
    return "has its own" if path == "training.objective.kind" else None


METHOD = DeepMethod("soft_boundary", "Deep SVDD, soft-boundary", _softened, unread=_unread)
