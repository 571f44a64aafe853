"""Outliers join the images of a data set and none of its classes."""

import numpy as np
import pytest

from deepsvdd_jax.datasets import (
    DataError,
    Dataset,
    add_outliers,
    chosen_outliers,
    one_class_split,
)


def _dataset(dtype: type = np.uint8) -> Dataset:
    images = np.arange(12 * 4).reshape(12, 2, 2, 1).astype(dtype)
    labels = np.arange(12) % 3
    return Dataset(
        name="made",
        x_train=images,
        y_train=labels,
        x_test=images,
        y_test=labels,
        class_names=("a", "b", "c"),
    )


def test_they_are_of_no_class() -> None:
    outliers = np.full((5, 2, 2, 1), 200, np.uint8)
    joined, added = add_outliers(_dataset(), outliers, "x.npz")
    np.testing.assert_array_equal(joined.x_train[added], outliers)
    np.testing.assert_array_equal(joined.x_train[:12], _dataset().x_train)
    for protocol in ("one-vs-rest", "rest-vs-one"):
        split = one_class_split(joined, 0, protocol, outlier_fraction=0.3)
        assert not set(split.train_indices) & set(added)


def test_grey_levels_join_floats_as_fractions() -> None:
    joined, added = add_outliers(_dataset(np.float32), np.full((1, 2, 2, 1), 51, np.uint8), "x")
    np.testing.assert_allclose(joined.x_train[added], 0.2, rtol=1e-6)


def test_a_count_takes_some_of_them_and_always_the_same() -> None:
    images = np.arange(100)
    some = chosen_outliers(images, 8, "x")
    assert len(set(some)) == 8 and set(some) <= set(images)
    np.testing.assert_array_equal(some, chosen_outliers(images, 8, "x"))
    with pytest.raises(DataError, match="101 are asked for, there are 100"):
        chosen_outliers(images, 101, "x")


@pytest.mark.parametrize(
    ("outliers", "message"),
    [
        (np.zeros((3, 2, 3, 1), np.uint8), r"outliers x: shape \(2, 3, 1\); made has \(2, 2, 1\)"),
        (np.zeros((3, 2, 2, 1), np.float32), "float32 beside images of uint8"),
        (np.zeros((0, 2, 2, 1), np.uint8), "there are none"),
    ],
)
def test_outliers_that_do_not_fit_are_refused(outliers: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        add_outliers(_dataset(), outliers, "x")


def test_outliers_that_are_samples_of_the_data_are_told(caplog: pytest.LogCaptureFixture) -> None:
    data = _dataset()
    add_outliers(data, np.full((5, 2, 2, 1), 200, np.uint8), "x")
    assert not caplog.text
    data = data._replace(x_test=data.x_test + 100)
    add_outliers(data, np.concatenate([data.x_train[:3], data.x_test[:2]]), "x")
    assert "outliers x: 3 of 5 are in the training part of the data too" in caplog.text
    assert "outliers x: 2 of 5 are in the test part of the data too" in caplog.text
