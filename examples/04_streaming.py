"""A memory map that is larger than what a device may hold, streamed in chunks.

python examples/04_streaming.py
"""

import dataclasses
import tempfile
from pathlib import Path

import jax
import numpy as np

import deepsvdd_jax as svdd

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "images.dat"
    pool = np.memmap(path, np.uint8, "w+", shape=(3000, 8, 8, 1))
    pool[:] = np.random.RandomState(0).randint(0, 256, pool.shape)

    config = svdd.preset("auto", "noise", pool.shape[1:])
    config = dataclasses.replace(config, training=dataclasses.replace(config.training, epochs=2))
    keys = jax.random.split(jax.random.key(0), 2)
    # 768 kB of images as float32, of which a device holds 200 kB at a time.
    outcome, progress = svdd.train_runs(
        keys, config, pool, engine=svdd.streaming.engine(200_000), epochs_per_call=1
    )
    for number, losses in enumerate(progress.history["training"].loss):
        print(f"run {number}: loss of each epoch", *(f"{loss:.2f}" for loss in losses))
    del pool
