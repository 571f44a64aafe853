"""`python -m experiments.export`: see `deepsvdd_jax.cli.commands.export`."""

from deepsvdd_jax.cli import process
from deepsvdd_jax.cli.commands import export

if __name__ == "__main__":
    process.start(export)
