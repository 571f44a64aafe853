"""Detectors: train a model on normal images and score new ones."""

from typing import TYPE_CHECKING

from deepsvdd_jax.faces import attach

if TYPE_CHECKING:
    from deepsvdd_jax.detectors.batches import preprocessing_of, states_of
    from deepsvdd_jax.detectors.deep_svdd import (
        Checkpoint,
        History,
        Prepared,
        fit_detector,
        make_model,
        prepare,
    )
    from deepsvdd_jax.detectors.errors import CollapseWarning, ConstantFeatureWarning, TrainingError
    from deepsvdd_jax.detectors.held_out import default_alarm_rate, held_out_count, held_out_mask
    from deepsvdd_jax.detectors.inputs import Images, network_values
    from deepsvdd_jax.detectors.judgement import Judgement, judge
    from deepsvdd_jax.detectors.measurement import Speed, measure, steps_of_epoch
    from deepsvdd_jax.detectors.scores import (
        Scores,
        combine_distances,
        member_distances,
        score_images,
    )
    from deepsvdd_jax.detectors.untrained import untrained_model

__getattr__, __dir__ = attach(
    __name__,
    {
        "batches": ("preprocessing_of", "states_of"),
        "deep_svdd": (
            "Checkpoint",
            "History",
            "Prepared",
            "fit_detector",
            "make_model",
            "prepare",
        ),
        "errors": (
            "CollapseWarning",
            "ConstantFeatureWarning",
            "TrainingError",
        ),
        "held_out": (
            "default_alarm_rate",
            "held_out_count",
            "held_out_mask",
        ),
        "inputs": (
            "Images",
            "network_values",
        ),
        "scores": (
            "Scores",
            "combine_distances",
            "member_distances",
            "score_images",
        ),
        "judgement": ("Judgement", "judge"),
        "measurement": ("Speed", "measure", "steps_of_epoch"),
        "untrained": ("untrained_model",),
    },
)

__all__ = [
    "Checkpoint",
    "CollapseWarning",
    "ConstantFeatureWarning",
    "History",
    "Images",
    "Judgement",
    "Prepared",
    "Scores",
    "Speed",
    "TrainingError",
    "combine_distances",
    "default_alarm_rate",
    "fit_detector",
    "held_out_count",
    "held_out_mask",
    "judge",
    "make_model",
    "measure",
    "member_distances",
    "network_values",
    "prepare",
    "preprocessing_of",
    "score_images",
    "states_of",
    "steps_of_epoch",
    "untrained_model",
]
