"""`python -m experiments.sweep`: see `deepsvdd_jax.cli.commands.sweep`."""

from deepsvdd_jax.cli import process
from deepsvdd_jax.cli.commands import sweep

if __name__ == "__main__":
    process.start(sweep)
