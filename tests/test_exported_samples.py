"""Scorers that were exported by jax 0.10.2 and jax2onnx 0.17.1 load and score as they did.

After a change of either format, export anew beside them, into a folder of its own.
"""

from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest

pytest.importorskip("flatbuffers", reason="flatbuffers is not installed")

FOLDER = Path(__file__).parent / "samples" / "exported"

# The setting of newer jax.
EXPIRED = "jax_export_deserialize_expired_versions"


@pytest.fixture
def expected() -> tuple[np.ndarray, np.ndarray]:
    with np.load(FOLDER / "expected.npz") as arrays:
        return arrays["samples"], arrays["scores"]


@pytest.fixture
def expired_exports() -> Iterator[None]:
    """jax promises to read exports for half a year, and newer ones refuse older exports unless they
    are asked to try."""
    before = jax.config.values.get(EXPIRED)
    if before is not None:
        jax.config.update(EXPIRED, True)
    yield
    if before is not None:
        jax.config.update(EXPIRED, before)


@pytest.mark.usefixtures("expired_exports")
def test_a_jax_export_of_before_scores_as_it_did(expected: tuple[np.ndarray, np.ndarray]) -> None:
    samples, scores = expected
    scorer = jax.export.deserialize(bytearray((FOLDER / "scorer.jaxexport").read_bytes()))
    np.testing.assert_allclose(scorer.call(samples), scores, rtol=2e-4)


def test_an_onnx_file_of_before_scores_as_it_did(expected: tuple[np.ndarray, np.ndarray]) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    samples, scores = expected
    session = onnxruntime.InferenceSession(str(FOLDER / "scorer.onnx"))
    score, anomalous, p_value = session.run(None, {"samples": samples})
    np.testing.assert_allclose(score, scores, rtol=1e-5)
    np.testing.assert_array_equal(anomalous, scores > 100.0)
    assert ((p_value > 0.0) & (p_value <= 1.0)).all()
