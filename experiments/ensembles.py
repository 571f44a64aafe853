"""`python -m experiments.ensembles`: see `deepsvdd_jax.cli.commands.ensembles`."""

from deepsvdd_jax.cli import process
from deepsvdd_jax.cli.commands import ensembles

if __name__ == "__main__":
    process.start(ensembles)
