"""One-class SVM on pixels or principal components (`algorithm`: paper, section 4.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from deepsvdd_jax.cli.lazy import lazily
from deepsvdd_jax.cli.sweeps.methods.base import ShallowConfig, ShallowMethod

with lazily():
    from deepsvdd_jax.detectors import ocsvm

if TYPE_CHECKING:
    from deepsvdd_jax.detectors.ocsvm import OneClassSVMConfig


def _config(config: ShallowConfig) -> OneClassSVMConfig:
    gamma: float | Literal["scale"] = config.svm_gamma or "scale"
    return ocsvm.OneClassSVMConfig(config.selection, config.svm_nu, gamma)


def _is_random(config: ShallowConfig) -> bool:
    # The selection draws the labelled tenth.
    return config.selection == "paper"


METHOD = ShallowMethod(
    "ocsvm", "OC-SVM", _config, _is_random, flags=("selection", "svm_nu", "svm_gamma")
)
