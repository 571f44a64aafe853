"""`python -m experiments.gtsrb_adversarial`: see `deepsvdd_jax.cli.commands.gtsrb_adversarial`."""

from deepsvdd_jax.cli import environment
from deepsvdd_jax.cli.commands import gtsrb_adversarial

if __name__ == "__main__":
    environment.start(gtsrb_adversarial)
