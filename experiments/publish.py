"""`python -m experiments.publish`: see `deepsvdd_jax.cli.commands.publish`."""

from deepsvdd_jax.cli import process
from deepsvdd_jax.cli.commands import publish

if __name__ == "__main__":
    process.start(publish)
