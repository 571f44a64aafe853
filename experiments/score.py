"""`python -m experiments.score`: see `deepsvdd_jax.cli.commands.score`."""

from deepsvdd_jax.cli import process
from deepsvdd_jax.cli.commands import score

if __name__ == "__main__":
    process.start(score)
