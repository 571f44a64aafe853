"""Training of one run: state, optimiser, step, epoch."""

from deepsvdd_jax.objectives import (
    FAILURES,
    NO_RADIUS,
    NON_FINITE,
    NOT_FAILED,
    Batch,
    Hyperparameters,
    TrainState,
    default_hyperparameters,
)
from deepsvdd_jax.training.data import (
    DATA_AXIS,
    RunData,
    run_data,
    scaled_images,
    split_over_devices,
    take_batch,
)
from deepsvdd_jax.training.epoch import (
    EpochUnderWay,
    begin_epoch,
    end_epoch,
    take_steps,
)
from deepsvdd_jax.training.info import (
    DISTANCE_QUANTILES,
    INFO_WIDTH,
    EpochInfo,
    packed_info,
    unpacked_info,
)
from deepsvdd_jax.training.optimizer import descent, learning_rate_factor, start_phase
from deepsvdd_jax.training.order import balanced_order, batch_order, epoch_order, order_of_epoch
from deepsvdd_jax.training.perturbation import check_images, perturbed
from deepsvdd_jax.training.step import (
    STATISTICS_MOMENTUM,
    StepInfo,
    apply_network,
    batch_loss,
    train_step,
)

__all__ = [
    "Batch",
    "DATA_AXIS",
    "DISTANCE_QUANTILES",
    "EpochInfo",
    "EpochUnderWay",
    "FAILURES",
    "Hyperparameters",
    "INFO_WIDTH",
    "NON_FINITE",
    "NOT_FAILED",
    "NO_RADIUS",
    "RunData",
    "STATISTICS_MOMENTUM",
    "StepInfo",
    "TrainState",
    "apply_network",
    "balanced_order",
    "batch_loss",
    "batch_order",
    "begin_epoch",
    "check_images",
    "default_hyperparameters",
    "descent",
    "end_epoch",
    "epoch_order",
    "learning_rate_factor",
    "order_of_epoch",
    "packed_info",
    "perturbed",
    "run_data",
    "scaled_images",
    "split_over_devices",
    "start_phase",
    "take_batch",
    "take_steps",
    "train_step",
    "unpacked_info",
]
