"""`python -m experiments.gtsrb_adversarial`: see `deepsvdd_jax.cli.commands.gtsrb_adversarial`."""

from deepsvdd_jax.cli import process
from deepsvdd_jax.cli.commands import gtsrb_adversarial

if __name__ == "__main__":
    process.start(gtsrb_adversarial)
