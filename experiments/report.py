"""`python -m experiments.report`: see `deepsvdd_jax.cli.commands.report`."""

from deepsvdd_jax.cli import environment
from deepsvdd_jax.cli.commands import report

if __name__ == "__main__":
    environment.start(report)
