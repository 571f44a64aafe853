"""`python -m experiments.threshold`: see `deepsvdd_jax.cli.commands.threshold`."""

from deepsvdd_jax.cli import process
from deepsvdd_jax.cli.commands import threshold

if __name__ == "__main__":
    process.start(threshold)
