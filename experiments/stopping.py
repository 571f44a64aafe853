"""`python -m experiments.stopping`: see `deepsvdd_jax.cli.commands.stopping`."""

from deepsvdd_jax.cli import process
from deepsvdd_jax.cli.commands import stopping

if __name__ == "__main__":
    process.start(stopping)
