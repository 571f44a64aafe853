"""`python -m experiments.sweep`: see `deepsvdd_jax.cli.commands.sweep`."""

from deepsvdd_jax.cli import environment
from deepsvdd_jax.cli.commands import sweep

if __name__ == "__main__":
    environment.start(sweep)
