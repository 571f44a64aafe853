"""Training of one run: state, optimiser, step, epoch."""

from typing import TYPE_CHECKING

from deepsvdd_jax.faces import attach

if TYPE_CHECKING:
    from deepsvdd_jax.training.epoch import (
        EpochKeys,
        EpochUnderWay,
        begin_epoch,
        end_epoch,
        take_steps,
        train_epoch,
    )
    from deepsvdd_jax.training.info import (
        DISTANCE_QUANTILES,
        INFO_WIDTH,
        EpochInfo,
        packed_info,
        unpacked_info,
    )
    from deepsvdd_jax.training.optimizer import descent, learning_rate_factor, start_phase
    from deepsvdd_jax.training.order import batch_order, epoch_order, order_of_epoch
    from deepsvdd_jax.training.state import (
        DATA_AXIS,
        FAILURES,
        NO_RADIUS,
        NON_FINITE,
        NOT_FAILED,
        Batch,
        Hyperparameters,
        RunData,
        TrainState,
        default_hyperparameters,
        run_data,
        scaled_images,
        split_over_devices,
        take_batch,
    )
    from deepsvdd_jax.training.step import STATISTICS_MOMENTUM, StepInfo, batch_loss, train_step

__getattr__, __dir__ = attach(
    __name__,
    {
        "epoch": (
            "EpochKeys",
            "EpochUnderWay",
            "begin_epoch",
            "end_epoch",
            "take_steps",
            "train_epoch",
        ),
        "info": (
            "DISTANCE_QUANTILES",
            "EpochInfo",
            "INFO_WIDTH",
            "packed_info",
            "unpacked_info",
        ),
        "optimizer": (
            "descent",
            "learning_rate_factor",
            "start_phase",
        ),
        "order": (
            "batch_order",
            "epoch_order",
            "order_of_epoch",
        ),
        "state": (
            "Batch",
            "DATA_AXIS",
            "FAILURES",
            "Hyperparameters",
            "NON_FINITE",
            "NOT_FAILED",
            "NO_RADIUS",
            "RunData",
            "TrainState",
            "default_hyperparameters",
            "run_data",
            "scaled_images",
            "split_over_devices",
            "take_batch",
        ),
        "step": (
            "STATISTICS_MOMENTUM",
            "StepInfo",
            "batch_loss",
            "train_step",
        ),
    },
)

__all__ = [
    "Batch",
    "DATA_AXIS",
    "DISTANCE_QUANTILES",
    "EpochInfo",
    "EpochKeys",
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
    "batch_loss",
    "batch_order",
    "begin_epoch",
    "default_hyperparameters",
    "descent",
    "end_epoch",
    "epoch_order",
    "learning_rate_factor",
    "order_of_epoch",
    "packed_info",
    "run_data",
    "scaled_images",
    "split_over_devices",
    "start_phase",
    "take_batch",
    "take_steps",
    "train_epoch",
    "train_step",
    "unpacked_info",
]
