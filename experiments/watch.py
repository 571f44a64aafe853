"""`python -m experiments.watch`: see `deepsvdd_jax.cli.commands.watch`."""

from deepsvdd_jax.cli import process
from deepsvdd_jax.cli.commands import watch

if __name__ == "__main__":
    process.start(watch)
