"""A model's scorer as one ONNX file, which onnxruntime and others run without jax.

Writing one takes jax2onnx, an extra: `pip install 'deepsvdd_jax[onnx]'`.

import numpy as np, onnxruntime

session = onnxruntime.InferenceSession("scorer.onnx")
score, anomalous, p_value = session.run(None, {"samples": np.zeros((3, 28, 28, 1), np.float32)})
"""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import Array

from deepsvdd_jax import convolution
from deepsvdd_jax.detectors import embeddings, export
from deepsvdd_jax.detectors.errors import CollapseWarning
from deepsvdd_jax.detectors.scores import score_images
from deepsvdd_jax.io.models import Model

INPUT = "samples"
OUTPUTS = ("score", "anomalous", "p_value")
METADATA = "deepsvdd_jax"
"""Key of the file's metadata: what it is, as JSON."""

TOLERANCE = 1e-5
"""Largest difference from the model's own scores, relative to the squared distances."""

# The oldest operators that all of the scorer can be written in: more runtimes have them.
_OPSET = 18
_CHECKED = 64


class OnnxError(Exception):
    """The scorer cannot be written as ONNX, or does not score as the model; one line."""


def export_onnx(model: Model) -> bytes:
    """Returns the scorer as an ONNX file, for any number of samples at once, checked.

    It maps `samples`, float32 `[n, *model.image_shape]`, pixels in [0, 1] or the columns of a
    table, to `score`, float32 `[n]`, as of `detectors.score_images`; `anomalous`, bool `[n]`, by
    the model's threshold; and, where the model has calibration scores, `p_value`, float32 `[n]`.
    Preprocessing is part of it. Its metadata holds threshold, its rule, shape and names of columns.

    Args:
      model: fitted or loaded.

    Raises:
      ConfigError: a model that does not score by its center.
      ImportError: jax2onnx is missing; one line that says how to install it.
      OnnxError: jax2onnx cannot convert the network, or the scores that onnxruntime computes are
        not the model's.
    """
    embeddings.check_center(model, "an export takes")
    try:
        import jax2onnx
    except ImportError as error:
        raise ImportError(
            f"an ONNX export needs jax2onnx ({error}): pip install 'deepsvdd_jax[onnx]'"
        ) from None
    export.warn_of_coarse_columns(model)
    names = OUTPUTS if len(model.calibration_scores) else OUTPUTS[:2]
    try:
        # The forms of convolution for a CPU or an accelerator do not help another runtime.
        with convolution.use_form("grouped"), _quiet():
            # The converter replaces functions of jax while it traces, and a network built during
            # that would fail: this call builds it before.
            jax.eval_shape(
                lambda samples: outputs(model, samples),
                jax.ShapeDtypeStruct((1, *model.image_shape), jnp.float32),
            )
            found = jax2onnx.to_onnx(
                lambda samples: outputs(model, samples),
                [("n", *model.image_shape)],
                model_name="deepsvdd_jax_scorer",
                opset=_OPSET,
                input_names=[INPUT],
                output_names=list(names),
            )
    except (NotImplementedError, TypeError, ValueError, RuntimeError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise OnnxError(f"jax2onnx cannot convert this network: {reason}") from None
    entry = found.metadata_props.add()
    entry.key, entry.value = METADATA, json.dumps(_described(model))
    data = bytes(found.SerializeToString())
    check(model, data)
    return data


def outputs(model: Model, samples: Array) -> tuple[Array, ...]:
    """Returns scores, alarms and, with calibration scores, p-values of samples; traceable."""
    scores = export.scores(model, samples)
    alarms = scores > np.float32(model.threshold)
    held_out = np.asarray(model.calibration_scores, np.float32)
    if not len(held_out):
        return scores, alarms
    at_least = jnp.sum((held_out[None] >= scores[:, None]).astype(np.float32), axis=1)
    return scores, alarms, (1.0 + at_least) / np.float32(len(held_out) + 1)


def check(model: Model, data: bytes) -> float:
    """Runs an ONNX file with onnxruntime on drawn samples, and compares with the model's scores.

    Returns:
      The largest difference, relative to the squared distances.

    Raises:
      OnnxError: it is larger than `TOLERANCE`.
    """
    import onnxruntime

    samples = drawn_samples(model)
    with warnings.catch_warnings():
        # Equal scores of drawn samples say nothing about the model.
        warnings.simplefilter("ignore", CollapseWarning)
        expected = score_images(model, samples)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    found = session.run([OUTPUTS[0]], {INPUT: samples})[0]
    # A soft boundary's score is a difference and may be near 0; the distance is what a relative
    # error refers to.
    size = np.abs(expected) + (model.squared_radius[0] if len(model.center) == 1 else 0.0)
    difference = float(np.max(np.abs(found - expected) / np.maximum(size, np.finfo("f4").tiny)))
    if not difference <= TOLERANCE:
        raise OnnxError(
            f"the ONNX file's scores differ from the model's by {difference:.2g} of their size, "
            f"more than {TOLERANCE:g}; export with --format=stablehlo"
        )
    return difference


def drawn_samples(model: Model) -> npt.NDArray[np.float32]:
    """Returns samples `[n, *model.image_shape]` to compare scorers on: images of noise, or rows
    drawn around the model's training rows."""
    generator = np.random.default_rng(0)
    shape = (_CHECKED, *model.image_shape)
    if len(model.image_shape) == 3:
        return generator.random(shape, np.float32)
    scale = np.where(model.scale != 0, model.scale, 1.0)
    return np.asarray(generator.normal(size=shape) / scale + model.shift, np.float32)


def _described(model: Model) -> dict[str, Any]:
    return {
        "threshold": float(model.threshold),
        "threshold_rule": model.summary.get("threshold_rule", ""),
        "calibration_scores": len(model.calibration_scores),
        "image_shape": list(model.image_shape),
        "feature_names": list(model.feature_names),
        "data": model.summary.get("data", {}),
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the converter from logging each of its steps, and shapes that it has no type for."""
    loggers = [logging.getLogger(name) for name in ("", "onnx_ir", "jax2onnx")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
