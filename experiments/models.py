"""From a finished run to a saved model."""

from pathlib import Path

import numpy as np

from deepsvdd_jax import checkpoints, preprocessing
from deepsvdd_jax.configs import RunConfig
from experiments.deep import Finished


def save_run(folder: Path, config: RunConfig, finished: Finished) -> None:
    """Writes a run's model (touches files)."""
    state, fitted = finished.state, finished.fitted
    empty = preprocessing.Whitening(np.zeros(0), np.zeros((0, 0)))
    whitening = fitted.whitening or empty
    checkpoints.save_model(
        folder,
        checkpoints.Model(
            config=config,
            image_shape=finished.image_shape,
            params=state.params,
            statistics=state.statistics,
            center=np.asarray(state.center),
            squared_radius=float(state.squared_radius),
            shift=fitted.scaling.shift,
            scale=fitted.scaling.scale,
            whitening_mean=whitening.mean,
            whitening_matrix=whitening.matrix,
            threshold=float(finished.row["threshold"]),
            summary={
                name: value
                for name, value in finished.row.items()
                if isinstance(value, (int, float, str))
            },
        ),
    )
