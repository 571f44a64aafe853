"""Saves the model of a finished run."""

from pathlib import Path

import jax
import numpy as np

from deepsvdd_jax import detectors
from deepsvdd_jax.cli.files import WriteError
from deepsvdd_jax.cli.sweeps.outcomes import Finished
from deepsvdd_jax.configs import RunConfig
from deepsvdd_jax.io import archives, models


def save_run(
    folder: Path,
    config: RunConfig,
    finished: Finished,
    pixel_range: tuple[float, float] | None = None,
) -> None:
    """Writes a run's model, an ensemble of one member (touches files); see `Dataset.pixel_range`.

    Raises:
      WriteError: it cannot be written; the former file stays.
    """
    assert finished.scores is not None, "a failed run has no model"
    # The summary leaves out the time, so that equal runs leave equal models.
    summary = {
        name: value
        for name, value in finished.row.items()
        if isinstance(value, (int, float, str)) and name != "train_seconds"
    }
    made_alike = {} if pixel_range is None else {"data": {"pixel_range": list(pixel_range)}}
    rule = f"quantile {config.threshold_quantile:g} of the training scores"
    states = jax.tree.map(lambda leaf: np.asarray(leaf)[None], finished.state)
    model = detectors.make_model(config, finished.fitted, states, finished.image_shape)
    model = model._replace(
        train_means=np.asarray(finished.scores["train_mean"], np.float64)[None],
        threshold=float(finished.row["threshold"]),
        summary={**summary, "threshold_rule": rule, **made_alike},
    )
    try:
        models.save_model(folder, model)
    except archives.ModelError as error:
        raise WriteError(str(error)) from None
