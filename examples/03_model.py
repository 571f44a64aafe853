"""Images of one's own: a detector of three seeds, saved, loaded and asked.

    python examples/03_model.py

The same from a folder of images, without Python: `deepsvdd fit`, `deepsvdd score`.
"""

import dataclasses
import tempfile
from pathlib import Path

import numpy as np

import deepsvdd_jax as svdd

random = np.random.RandomState(0)
grid = np.linspace(0, np.pi, 16)


def stripes(count: int) -> np.ndarray:
    """Returns images `[count, 16, 16, 1]` in [0, 1] of stripes at random phases."""
    phases = random.rand(count, 1, 1) * np.pi
    waves = np.sin(4 * grid[None, :, None] + phases) + 0 * grid[None, None, :]
    noisy = 0.5 + 0.4 * waves + 0.05 * random.randn(count, 16, 16)
    return noisy.clip(0, 1)[..., None].astype(np.float32)


good = stripes(200)
scratched = stripes(20)
scratched[:, 4:9, 7:9] = 1.0

run = svdd.preset("auto", "stripes", good.shape[1:])
run = dataclasses.replace(run, training=dataclasses.replace(run.training, epochs=20))
model, _ = svdd.fit_detector(svdd.DetectorConfig(run=run, seeds=(0, 1, 2)), good)

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "stripes.model"
    svdd.save_model(path, model)
    again = svdd.load_model(path)

above = svdd.score_images(again, scratched) > again.threshold
new = svdd.score_images(again, stripes(100)) > again.threshold
print(
    f"above the threshold: {above.mean():.2f} of the scratched, {new.mean():.2f} of new good ones"
)
