"""The estimator on DataFrames of pandas and polars: names in, the same rows out."""

from typing import Any

import numpy as np
import pytest

from deepsvdd_jax import DeepSVDD, NetworkConfig

TINY = NetworkConfig("tiny", stages=(), hidden=(4,), rep_dim=3, batch_norm=False)
TABLE = np.random.default_rng(0).normal(size=(60, 3))
NEW = np.random.default_rng(1).normal(size=(7, 3)) * [1.0, 1.0, 9.0]


def frame(library: str, values: np.ndarray) -> Any:
    module = pytest.importorskip(library)
    columns = {name: values[:, place] for place, name in enumerate("abc")}
    return module.DataFrame(columns)


@pytest.fixture(scope="module")
def fitted() -> DeepSVDD:
    return DeepSVDD(epochs=2, network=TINY, n_seeds=2).fit(TABLE)


@pytest.fixture(params=["pandas", "polars"])
def library(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_frame_scores_as_its_array_does(library: str, fitted: DeepSVDD) -> None:
    of_frame = DeepSVDD(epochs=2, network=TINY, n_seeds=2).fit(frame(library, TABLE))
    assert list(of_frame.feature_names_in_) == ["a", "b", "c"]
    assert of_frame.model_.feature_names == ("a", "b", "c")
    expected = fitted.score_samples(NEW)
    np.testing.assert_array_equal(of_frame.score_samples(frame(library, NEW)), expected)
    with pytest.raises(ValueError, match="feature names should match"):
        of_frame.predict(frame(library, NEW)[["b", "a", "c"]])


def test_the_rows_of_a_frame_of_scores_are_those_of_the_samples(library: str) -> None:
    detector = DeepSVDD(epochs=2, network=TINY, n_seeds=2).fit(frame(library, TABLE))
    given = frame(library, NEW)
    if library == "pandas":
        given.index = [f"part {number}" for number in range(7)]
    found = detector.score_frame(given)
    assert type(found) is type(given) and list(found.columns) == ["score", "p_value", "anomalous"]
    np.testing.assert_array_equal(found["score"].to_numpy(), -detector.score_samples(given))
    np.testing.assert_array_equal(found["p_value"].to_numpy(), detector.p_values(given))
    np.testing.assert_array_equal(found["anomalous"].to_numpy(), detector.predict(given) == -1)
    if library == "pandas":
        assert list(found["score"].index) == list(given.index)


def test_without_held_out_samples_a_frame_has_no_p_values(library: str) -> None:
    given = frame(library, TABLE)
    detector = DeepSVDD(epochs=1, network=TINY, calibration_fraction=0).fit(given)
    assert list(detector.score_frame(given).columns) == ["score", "anomalous"]


def test_an_array_gives_no_frame(fitted: DeepSVDD) -> None:
    with pytest.raises(TypeError, match="X is ndarray; a DataFrame"):
        fitted.score_frame(NEW)


def test_transform_gives_the_distances_that_scores_are_made_of(fitted: DeepSVDD) -> None:
    distances = fitted.transform(NEW)
    assert distances.shape == (7, 2) and (distances >= 0).all()
    units = fitted.model_.train_means
    np.testing.assert_allclose(
        (distances / units).mean(axis=1), -fitted.score_samples(NEW), rtol=1e-6
    )


def test_set_output_names_the_columns_and_keeps_the_index(library: str) -> None:
    detector = DeepSVDD(epochs=1, network=TINY, n_seeds=2).fit(frame(library, TABLE))
    given = frame(library, NEW)
    if library == "pandas":
        given.index = range(10, 17)
    expected = detector.transform(given)
    found = detector.set_output(transform=library).transform(given)
    assert type(found) is type(given) and list(found.columns) == ["deepsvdd0", "deepsvdd1"]
    np.testing.assert_array_equal(found.to_numpy(), expected)
    if library == "pandas":
        assert list(found.index) == list(range(10, 17))
