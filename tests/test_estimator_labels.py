"""The estimator with labels: known anomalies are learned from, and nothing else comes from them."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from deepsvdd_jax import DeepSVDD
from deepsvdd_jax.configs import ConfigError, DetectorConfig
from deepsvdd_jax.detectors import fit_detector


def _table(normals: int, anomalies: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Normals and anomalies differ in the sum of two of eight columns only."""
    random = np.random.default_rng(seed)
    samples = random.normal(size=(normals + anomalies, 8))
    samples[normals:, :2] = np.abs(samples[normals:, :2]) + 0.5
    return samples, np.r_[np.zeros(normals), np.ones(anomalies)]


def _auroc(detector: DeepSVDD) -> float:
    samples, anomalous = _table(300, 300, 1)
    return float(roc_auc_score(anomalous, -detector.score_samples(samples)))


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["deep-sad", "hsc", "bce"])
def test_labels_make_a_better_detector(objective: str) -> None:
    samples, anomalous = _table(200, 20, 0)
    y = np.where(anomalous == 1, -1, 0)
    settings = {"epochs": 30, "n_seeds": 1}
    with_labels = DeepSVDD(objective=objective, **settings).fit(samples, y)
    without = DeepSVDD(**settings).fit(samples[:200])
    assert _auroc(with_labels) > _auroc(without) + 0.1
    assert with_labels.model_.summary["known_anomalies"] == 20


@pytest.mark.slow
def test_without_anomalies_deep_sad_is_one_class() -> None:
    samples, _ = _table(100, 0, 0)
    settings = {"epochs": 3, "n_seeds": 1}
    ours = DeepSVDD(objective="deep-sad", **settings).fit(samples, np.zeros(100, int))
    theirs = DeepSVDD(**settings).fit(samples)
    np.testing.assert_array_equal(ours.score_samples(samples), theirs.score_samples(samples))


def test_scaling_and_calibration_do_not_see_known_anomalies() -> None:
    samples, anomalous = _table(100, 10, 0)
    far = samples.copy()
    far[anomalous == 1] += 1000.0
    y = np.where(anomalous == 1, -1, 0)
    settings = {"objective": "deep-sad", "epochs": 1, "n_seeds": 1}
    near_model = DeepSVDD(**settings).fit(samples, y).model_
    far_model = DeepSVDD(**settings).fit(far, y).model_
    np.testing.assert_array_equal(near_model.shift, far_model.shift)
    np.testing.assert_array_equal(near_model.scale, far_model.scale)
    assert len(near_model.calibration_scores) == 20
    assert near_model.summary["train_samples"] == 80


def test_one_class_ignores_y_as_scikit_learn_does() -> None:
    samples, _ = _table(50, 0, 0)
    settings = {"epochs": 2, "n_seeds": 1}
    plain = DeepSVDD(**settings).fit(samples)
    given = DeepSVDD(**settings).fit(samples, np.arange(50))
    np.testing.assert_array_equal(plain.center_, given.center_)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.full(50, 2), "label .*2.* at index 0; allowed: 0"),
        (np.array(["a"] * 50), "allowed: 0 .unlabelled"),
        (np.zeros(49), r"shape \(49,\), expected \(50,\)"),
        (np.zeros(50), "needs known anomalies: no label is -1"),
        (None, "needs known anomalies: give labels"),
    ],
)
def test_labels_that_cannot_be_used_are_refused(y: object, message: str) -> None:
    samples, _ = _table(50, 0, 0)
    with pytest.raises(ValueError, match=message):
        DeepSVDD(objective="hsc").fit(samples, y)


def test_labels_for_an_objective_without_them_are_refused() -> None:
    samples, _ = _table(50, 0, 0)
    with pytest.raises(ConfigError, match="does not learn from labels"):
        fit_detector(DetectorConfig(), samples, labels=np.zeros(50))


def test_an_unknown_objective_is_refused() -> None:
    with pytest.raises(ConfigError, match="allowed: one-class, soft-boundary"):
        DeepSVDD(objective="deepsad").fit(_table(50, 0, 0)[0])
