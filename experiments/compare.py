"""`python -m experiments.compare`: see `deepsvdd_jax.cli.commands.compare`."""

from deepsvdd_jax.cli import process
from deepsvdd_jax.cli.commands import compare

if __name__ == "__main__":
    process.start(compare)
