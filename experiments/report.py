"""`python -m experiments.report`: see `deepsvdd_jax.cli.commands.report`."""

from deepsvdd_jax.cli import process
from deepsvdd_jax.cli.commands import report

if __name__ == "__main__":
    process.start(report)
