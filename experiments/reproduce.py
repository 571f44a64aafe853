"""`python -m experiments.reproduce`: see `deepsvdd_jax.cli.commands.reproduce`."""

from deepsvdd_jax.cli import process
from deepsvdd_jax.cli.commands import reproduce

if __name__ == "__main__":
    process.start(reproduce)
