"""`python -m experiments.embeddings`: see `deepsvdd_jax.cli.commands.embeddings`."""

from deepsvdd_jax.cli import process
from deepsvdd_jax.cli.commands import embeddings

if __name__ == "__main__":
    process.start(embeddings)
