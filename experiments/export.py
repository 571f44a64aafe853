"""`python -m experiments.export`: see `deepsvdd_jax.cli.commands.export`."""

from deepsvdd_jax.cli import environment
from deepsvdd_jax.cli.commands import export

if __name__ == "__main__":
    environment.start(export)
