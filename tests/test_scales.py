"""Columns of any unit and offset: what a detector tells apart does not depend on them."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from deepsvdd_jax import DeepSVDD, detectors
from deepsvdd_jax.datasets import DataError
from deepsvdd_jax.detectors import export as exports
from deepsvdd_jax.io import models

NORMAL = np.random.RandomState(0).randn(300, 3)
NEW = np.random.RandomState(1).randn(100, 3)
LABELS = np.arange(100) >= 50


def with_anomalies(sigmas: float) -> np.ndarray:
    """New rows, the last fifty of them anomalous in the first column alone."""
    return NEW + sigmas * LABELS[:, None] * np.array([1.0, 0.0, 0.0])


def detector(**settings: Any) -> DeepSVDD:
    return DeepSVDD(**({"epochs": 10, "n_seeds": 1} | settings))


def in_unit(table: np.ndarray, offset: float, unit: float) -> np.ndarray:
    """The table with its first column in another unit and with an offset."""
    return np.column_stack([offset + unit * table[:, 0], table[:, 1:]])


def auroc(train: np.ndarray, test: np.ndarray) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = -detector().fit(train).score_samples(test)
    return float(roc_auc_score(LABELS, scores))


@pytest.mark.parametrize(
    ("sigmas", "offset", "unit"),
    [
        (12, 0, 1e-9),  # amperes
        (12, 1.7e12, 1e3),  # time stamps in milliseconds
        (6, 101_325e3, 0.5),  # a pressure
        (6, 1.7e9, 10),  # time stamps in seconds
        (6, 1e9, 1e-3),
        (12, 0, 1e-300),
        (12, 0, 1e300),
    ],
)
def test_an_anomalous_column_counts_in_any_unit(sigmas: float, offset: float, unit: float) -> None:
    test = in_unit(with_anomalies(sigmas), offset, unit)
    assert auroc(in_unit(NORMAL, offset, unit), test) > 0.995


def test_whole_numbers_keep_their_offset() -> None:
    def counts(table: np.ndarray) -> np.ndarray:
        return np.round(table * 1000).astype(np.int64) + 1_700_000_000_000

    assert auroc(counts(NORMAL), counts(with_anomalies(12))) > 0.995


def test_one_column_of_a_large_offset_alone_can_be_trained_on() -> None:
    train, test = 1e9 + 1e-3 * NORMAL[:, :1], 1e9 + 1e-3 * with_anomalies(6)[:, :1]
    assert auroc(train, test) > 0.995


@pytest.mark.parametrize("unit", [1e-12, 1e-30, 1e30])
def test_the_unit_of_the_whole_table_changes_nothing(unit: float) -> None:
    test = with_anomalies(4)
    expected = detector().fit(NORMAL).score_samples(test)
    found = detector().fit(unit * NORMAL).score_samples(unit * test)
    np.testing.assert_allclose(found, expected, rtol=1e-3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, ">f4", ">f8"])
def test_any_type_of_number_gives_the_scores_of_its_values(dtype: Any) -> None:
    single, test = NORMAL.astype(np.float32), NEW.astype(np.float32)
    expected = detector().fit(single.astype(np.float64)).score_samples(test.astype(np.float64))
    fitted = detector().fit(single.astype(dtype))
    np.testing.assert_allclose(fitted.score_samples(test.astype(dtype)), expected, rtol=1e-5)


def test_columns_without_information_are_named() -> None:
    table = np.column_stack([NORMAL, np.full(300, 7.1)])
    with pytest.warns(detectors.ConstantFeatureWarning, match=r"^column 3 is constant in the "):
        detector().fit(table)
    rounded = in_unit(NORMAL, 1.7e9 + 64, 20).astype(np.float32)
    assert len(np.unique(rounded[:, 0])) == 2
    expected = r"column 0 is constant to the rounding of float32 in the training data"
    with pytest.warns(detectors.ConstantFeatureWarning, match=expected):
        detector().fit(rounded)


def test_a_saved_model_keeps_the_digits_of_its_scaling(tmp_path: Path) -> None:
    fitted = detector().fit(in_unit(NORMAL, 1.7e12, 1e3))
    test = in_unit(with_anomalies(12), 1.7e12, 1e3)
    models.save_model(tmp_path / "model", fitted.model_)
    loaded = models.load_model(tmp_path / "model")
    np.testing.assert_array_equal(
        detectors.score_images(loaded, test), -fitted.score_samples(test).astype(np.float32)
    )


def test_a_model_that_scales_in_float32_scores_as_it_did() -> None:
    """Models saved before hold their scaling in float32."""
    fitted = detector().fit(NORMAL)
    old = fitted.model_._replace(
        shift=fitted.model_.shift.astype(np.float32), scale=fitted.model_.scale.astype(np.float32)
    )
    np.testing.assert_allclose(
        detectors.score_images(old, NEW), -fitted.score_samples(NEW), rtol=1e-4
    )


def test_an_exported_scorer_keeps_what_float32_holds_and_says_what_it_cannot() -> None:
    single = in_unit(NORMAL, 1e5, 1.0).astype(np.float32)
    model = detector().fit(single).model_
    test = in_unit(with_anomalies(4), 1e5, 1.0).astype(np.float32)
    assert not len(exports.coarse_columns(model))
    np.testing.assert_allclose(
        exports.scores(model, test), detectors.score_images(model, test), rtol=1e-4
    )
    coarse = detector().fit(in_unit(NORMAL, 1.7e9, 10)).model_
    assert exports.coarse_columns(coarse).tolist() == [0]
    with pytest.warns(exports.PrecisionWarning, match="float32, which rounds columns 0 by more"):
        exports.export_model(coarse, ("cpu",))


def test_a_sample_beyond_float32_is_anomalous_or_refused() -> None:
    fitted = detector().fit(NORMAL)
    far = np.array([[0.0, 0.0, 0.0], [1e25, -1e25, 1e25], [1e37, 1e37, -1e37]])
    scores = -fitted.score_samples(far)
    assert np.isfinite(scores).all() and (scores[1:] > 1e30).all()
    assert fitted.predict(far).tolist() == [1, -1, -1]
    with pytest.raises(DataError, match="too large for float32, once they are scaled"):
        fitted.score_samples(np.full((1, 3), 1e300))
