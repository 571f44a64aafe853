"""`python -m experiments.fit`: see `deepsvdd_jax.cli.commands.fit`."""

from deepsvdd_jax.cli import process
from deepsvdd_jax.cli.commands import fit

if __name__ == "__main__":
    process.start(fit)
