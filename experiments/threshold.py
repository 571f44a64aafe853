"""`python -m experiments.threshold`: see `deepsvdd_jax.cli.commands.threshold`."""

from deepsvdd_jax.cli import environment
from deepsvdd_jax.cli.commands import threshold

if __name__ == "__main__":
    environment.start(threshold)
