"""From a finished run to a saved model."""

from pathlib import Path

import jax
import numpy as np

from deepsvdd_jax import checkpoints, preprocessing
from deepsvdd_jax.configs import RunConfig
from experiments.deep import Finished


def save_run(folder: Path, config: RunConfig, finished: Finished) -> None:
    """Writes a run's model, an ensemble of one member (touches files)."""
    assert finished.scores is not None, "a failed run has no model"
    state, fitted = finished.state, finished.fitted
    empty = preprocessing.Whitening(np.zeros(0), np.zeros((0, 0)))
    whitening = fitted.whitening or empty
    params, statistics, center, squared_radius = jax.tree.map(
        lambda leaf: np.asarray(leaf)[None],
        (state.params, state.statistics, state.center, state.squared_radius),
    )
    summary = {
        name: value for name, value in finished.row.items() if isinstance(value, (int, float, str))
    }
    rule = f"quantile {config.threshold_quantile:g} of the training scores"
    checkpoints.save_model(
        folder,
        checkpoints.Model(
            config=config,
            image_shape=finished.image_shape,
            feature_names=(),
            params=params,
            statistics=statistics,
            center=center,
            squared_radius=squared_radius,
            train_means=np.asarray(finished.scores["train_mean"], np.float64)[None],
            shift=fitted.scaling.shift,
            scale=fitted.scaling.scale,
            whitening_mean=whitening.mean,
            whitening_matrix=whitening.matrix,
            calibration_scores=np.zeros(0, np.float32),
            threshold=float(finished.row["threshold"]),
            summary={**summary, "threshold_rule": rule},
        ),
    )
