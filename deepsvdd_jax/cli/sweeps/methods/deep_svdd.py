"""Deep SVDD by the objective of `--objective`."""

from deepsvdd_jax import configs
from deepsvdd_jax.cli.sweeps.methods.base import DeepMethod
from deepsvdd_jax.configs import RunConfig


def _as_given(base: RunConfig) -> RunConfig:
    return base


METHOD = DeepMethod(
    "deep_svdd",
    "Deep SVDD",
    _as_given,
    titles={kind: f"Deep SVDD, {kind}" for kind in configs.objective_kinds()},
    place=2,
)
