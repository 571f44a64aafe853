"""The PyOD face, by what PyOD's own tests ask of a detector."""

import numpy as np
import pytest

pytest.importorskip("pyod")

from pyod.utils.data import generate_data  # noqa: E402
from sklearn.base import clone  # noqa: E402
from sklearn.metrics import roc_auc_score  # noqa: E402

import deepsvdd_jax as svdd  # noqa: E402
from deepsvdd_jax.detectors.pyod_detector import PyODDeepSVDD  # noqa: E402

CONTAMINATION = 0.1


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, ...]:
    return generate_data(
        n_train=200, n_test=100, n_features=30, contamination=CONTAMINATION, random_state=42
    )


@pytest.fixture(scope="module")
def detector(data: tuple[np.ndarray, ...]) -> PyODDeepSVDD:
    return PyODDeepSVDD(CONTAMINATION, epochs=5).fit(data[0])


def test_the_fitted_attributes_are_there(detector: PyODDeepSVDD, data: tuple) -> None:  # type: ignore[type-arg]
    assert detector.decision_scores_.shape == detector.labels_.shape == (200,)
    assert set(np.unique(detector.labels_)) == {0, 1}
    assert detector.labels_.sum() == 20
    above = (detector.decision_scores_ > detector.threshold_).astype(int)
    np.testing.assert_array_equal(detector.labels_, above)
    assert detector._mu == pytest.approx(detector.decision_scores_.mean())
    assert detector._sigma == pytest.approx(detector.decision_scores_.std())


def test_scores_are_those_of_the_estimator_and_find_outliers(
    detector: PyODDeepSVDD,
    data: tuple,  # type: ignore[type-arg]
) -> None:
    train, test, _, labels = data
    estimator = svdd.DeepSVDD(epochs=5, calibration_fraction=0.0).fit(train)
    scores = detector.decision_function(test)
    np.testing.assert_array_equal(scores, -estimator.score_samples(test))
    assert roc_auc_score(labels, scores) > 0.9
    np.testing.assert_array_equal(detector.decision_function(train), detector.decision_scores_)


def test_predictions_probabilities_and_ranks_have_pyods_form(
    detector: PyODDeepSVDD,
    data: tuple,  # type: ignore[type-arg]
) -> None:
    test = data[1]
    scores = detector.decision_function(test)
    np.testing.assert_array_equal(detector.predict(test), scores > detector.threshold_)
    labels, confidence = detector.predict(test, return_confidence=True)
    assert labels.shape == confidence.shape == (100,)
    assert confidence.min() >= 0 and confidence.max() <= 1
    for method in ("linear", "unify"):
        chances = detector.predict_proba(test, method=method)
        assert chances.shape == (100, 2) and chances.min() >= 0 and chances.max() <= 1
        np.testing.assert_allclose(chances.sum(axis=1), 1.0)
    with pytest.raises(ValueError, match="method"):
        detector.predict_proba(test, method="something")
    order = np.argsort(np.argsort(scores))
    ranks = detector._predict_rank(test)
    assert np.corrcoef(order, ranks)[0, 1] > 0.9


def test_it_can_be_cloned_and_fits_the_same_twice(data: tuple) -> None:  # type: ignore[type-arg]
    train = data[0]
    first = PyODDeepSVDD(epochs=2, n_seeds=2, random_state=7)
    second = clone(first)
    assert second.get_params() == first.get_params()
    np.testing.assert_array_equal(
        first.fit(train).decision_scores_, second.fit(train).decision_scores_
    )


@pytest.mark.parametrize("contamination", [0.0, 0.6, -1.0])
def test_a_wrong_contamination_is_refused(contamination: float) -> None:
    with pytest.raises(ValueError, match="contamination"):
        PyODDeepSVDD(contamination)


def test_images_are_taken_too() -> None:
    images = np.random.RandomState(0).rand(40, 8, 8).astype(np.float32)
    detector = PyODDeepSVDD(epochs=1).fit(images)
    assert detector.predict(images).shape == (40,)


def test_an_unfitted_detector_is_named(data: tuple) -> None:  # type: ignore[type-arg]
    with pytest.raises(ValueError, match="not fitted"):
        PyODDeepSVDD().decision_function(data[1])
