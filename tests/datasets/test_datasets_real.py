"""The published facts about the real data sets; skipped where the data is not there."""

import numpy as np
import pytest

from deepsvdd_jax.configs import DataConfig
from deepsvdd_jax.datasets import load, one_class_split


def test_mnist(data_root):
    dataset = load(DataConfig("mnist", str(data_root)))
    assert dataset.x_train.shape == (60_000, 28, 28, 1)
    assert dataset.x_test.shape == (10_000, 28, 28, 1)
    np.testing.assert_array_equal(dataset.y_train[:5], [5, 0, 4, 1, 9])
    split = one_class_split(dataset, 1)
    assert split.train_indices.size == 6742
    assert (split.test_labels == 0).sum() == 1135 and (split.test_labels == 1).sum() == 8865
    assert abs(dataset.x_train.mean() / 255 - 0.1307) < 5e-5


@pytest.mark.slow
def test_cifar10(data_root):
    dataset = load(DataConfig("cifar10", str(data_root)))
    assert dataset.x_train.shape == (50_000, 32, 32, 3)
    np.testing.assert_array_equal(np.bincount(dataset.y_train), np.full(10, 5000))
    np.testing.assert_array_equal(np.bincount(dataset.y_test), np.full(10, 1000))
    mean = dataset.x_train.mean(axis=(0, 1, 2)) / 255
    np.testing.assert_allclose(mean, [0.49140, 0.48216, 0.44653], atol=5e-6)
    assert dataset.class_names[0] == "airplane"


@pytest.mark.slow
def test_gtsrb(data_root):
    dataset = load(DataConfig("gtsrb", str(data_root)))
    assert dataset.x_train.shape[1:] == dataset.x_test.shape[1:] == (32, 32, 3)
    assert (dataset.y_train == 14).sum() == 780 and (dataset.y_test == 14).sum() == 270
    assert len(np.unique(dataset.y_train)) == 43
    stop = dataset.x_train[dataset.y_train == 14].astype(float).mean(axis=0)
    center, whole = stop[4:28, 4:28], stop.mean(axis=(0, 1))
    assert center[..., 0].mean() > 1.3 * center[..., 2].mean()
    assert whole[0] > whole[2]
