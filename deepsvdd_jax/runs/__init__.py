"""A whole run, many runs in one program, and the mesh of devices that they train on."""

from typing import TYPE_CHECKING

from deepsvdd_jax.faces import attach

if TYPE_CHECKING:
    from deepsvdd_jax.runs.compilation import (
        compiled,
        forget_programs,
        map_runs,
    )
    from deepsvdd_jax.runs.memory import (
        widest_program,
    )
    from deepsvdd_jax.runs.mesh import (
        check_data_devices,
        make_mesh,
        place,
        places_for_runs,
    )
    from deepsvdd_jax.runs.phases import (
        begin_run,
        begin_training,
        end_pretraining,
        evaluate_run,
        finish_run,
        run_epochs,
        train_epoch,
    )
    from deepsvdd_jax.runs.program import (
        Program,
        is_over,
    )
    from deepsvdd_jax.runs.resident import (
        ResidentPools,
        ResidentSource,
        in_memory,
        whole_move,
    )
    from deepsvdd_jax.runs.sources import (
        Chunk,
        ImageSource,
    )
    from deepsvdd_jax.runs.state import (
        MOST_EPOCHS_PER_CALL,
        PHASES,
        Outcome,
        Phase,
        Progress,
        Run,
        autoencoder_config,
        check_image_count,
        check_radius,
        phase_config,
        phase_hyperparameters,
        phase_settings,
        stack_runs,
    )
    from deepsvdd_jax.runs.streamed import (
        Engine,
    )
    from deepsvdd_jax.runs.train import (
        init_run,
        train_runs,
    )
    from deepsvdd_jax.runs.transitions import (
        init_params,
    )

__getattr__, __dir__ = attach(
    __name__,
    {
        "compilation": (
            "compiled",
            "forget_programs",
            "map_runs",
        ),
        "memory": ("widest_program",),
        "mesh": (
            "check_data_devices",
            "make_mesh",
            "place",
            "places_for_runs",
        ),
        "phases": (
            "begin_run",
            "begin_training",
            "end_pretraining",
            "evaluate_run",
            "finish_run",
            "run_epochs",
            "train_epoch",
        ),
        "program": (
            "Program",
            "is_over",
        ),
        "resident": (
            "ResidentPools",
            "ResidentSource",
            "in_memory",
            "whole_move",
        ),
        "sources": (
            "Chunk",
            "ImageSource",
        ),
        "state": (
            "MOST_EPOCHS_PER_CALL",
            "PHASES",
            "Outcome",
            "Phase",
            "Progress",
            "Run",
            "autoencoder_config",
            "check_image_count",
            "check_radius",
            "phase_config",
            "phase_hyperparameters",
            "phase_settings",
            "stack_runs",
        ),
        "streamed": ("Engine",),
        "train": (
            "init_run",
            "train_runs",
        ),
        "transitions": ("init_params",),
    },
)

__all__ = [
    "Chunk",
    "Engine",
    "ImageSource",
    "MOST_EPOCHS_PER_CALL",
    "Outcome",
    "PHASES",
    "Phase",
    "Program",
    "Progress",
    "ResidentPools",
    "ResidentSource",
    "Run",
    "autoencoder_config",
    "begin_run",
    "begin_training",
    "check_data_devices",
    "check_image_count",
    "check_radius",
    "compiled",
    "end_pretraining",
    "evaluate_run",
    "finish_run",
    "forget_programs",
    "in_memory",
    "init_params",
    "init_run",
    "is_over",
    "make_mesh",
    "map_runs",
    "phase_config",
    "phase_hyperparameters",
    "phase_settings",
    "place",
    "places_for_runs",
    "run_epochs",
    "stack_runs",
    "train_epoch",
    "train_runs",
    "whole_move",
    "widest_program",
]
