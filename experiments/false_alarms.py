"""`python -m experiments.false_alarms`: see `deepsvdd_jax.cli.commands.false_alarms`."""

from deepsvdd_jax.cli import process
from deepsvdd_jax.cli.commands import false_alarms

if __name__ == "__main__":
    process.start(false_alarms)
