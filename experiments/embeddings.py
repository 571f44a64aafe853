"""`python -m experiments.embeddings`: see `deepsvdd_jax.cli.commands.embeddings`."""

from deepsvdd_jax.cli import environment
from deepsvdd_jax.cli.commands import embeddings

if __name__ == "__main__":
    environment.start(embeddings)
