"""The commands from a checkout, `python -m experiments.NAME`; their code is `deepsvdd_jax.cli`."""
