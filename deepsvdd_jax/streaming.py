"""Streaming under its public name, `svdd.streaming.engine`; see `deepsvdd_jax.runs.streamed`."""

from deepsvdd_jax.runs.memory import budget_in_bytes, device_memory, parse_bytes
from deepsvdd_jax.runs.streamed import choose_engine, engine

__all__ = ["budget_in_bytes", "choose_engine", "device_memory", "engine", "parse_bytes"]
