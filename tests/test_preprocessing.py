"""Contrast, whitening and scaling against numpy, and the published constants of MNIST."""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest

from deepsvdd_jax import datasets, preprocessing
from deepsvdd_jax.configs import DataConfig, PreprocessingConfig

# The minimum and maximum of each digit that the authors' PyTorch code holds as constants.
MNIST_RANGES = (
    (-0.8827, 9.0015),
    (-0.6661, 20.1081),
    (-0.7820, 11.6651),
    (-0.7646, 12.8951),
    (-0.7254, 12.6832),
    (-0.7699, 13.1033),
    (-0.7784, 10.4578),
    (-0.7130, 12.0578),
    (-0.8280, 10.5815),
    (-0.7370, 10.6970),
)


def make_images(seed: int = 0, count: int = 40, side: int = 4, channels: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, size=(count, side, side, channels)).astype(np.uint8)


def normalized(image: np.ndarray, kind: str) -> np.ndarray:
    """One image by the definition, in float64."""
    image = image.astype(np.float64)
    if kind == "none":
        return image
    centered = image - image.sum() / image.size
    if kind == "l1":
        return centered / (np.abs(centered).sum() / image.size)
    if kind == "l2":
        return centered / np.linalg.norm(centered.ravel())
    return centered / np.std(image.ravel())


def test_unit_range() -> None:
    images = np.array([[0, 51, 255]], np.uint8)
    found = preprocessing.unit_range(images)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[0.0, 0.2, 1.0]], rtol=1e-6)
    values = np.array([[-3.0, 260.0]])
    np.testing.assert_array_equal(preprocessing.unit_range(values), values.astype(np.float32))


@pytest.mark.parametrize("kind", ["none", "std", "l1", "l2"])
def test_contrast_of_each_image_by_the_definition(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # More than one chunk, the last one partial.
    monkeypatch.setattr(preprocessing, "CHUNK", 16)
    images = preprocessing.unit_range(make_images())
    found = preprocessing.normalize_contrast(images, kind)
    assert found.dtype == np.float32
    expected = np.stack([normalized(image, kind) for image in images])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["std", "l1", "l2"])
@pytest.mark.parametrize("level", [0.0, 0.1, 1 / 3, 1.0])
def test_a_constant_image_becomes_zeros(kind: str, level: float) -> None:
    images = preprocessing.unit_range(make_images(count=3))
    images[1] = level
    found = preprocessing.normalize_contrast(images, kind)
    np.testing.assert_array_equal(found[1], np.zeros_like(found[1]))
    assert np.abs(found[[0, 2]]).max() > 0.01


def test_contrast_leaves_its_input_alone() -> None:
    images = preprocessing.unit_range(make_images(count=3))
    before = images.copy()
    preprocessing.normalize_contrast(images, "l1")
    np.testing.assert_array_equal(images, before)


def test_min_max_is_two_scalars() -> None:
    values = np.random.default_rng(1).normal(size=(20, 3, 3, 2)).astype(np.float32)
    values[4, 1, 1, 0], values[7, 2, 0, 1] = -9.0, 11.0
    scaling = preprocessing.fit_scaling(PreprocessingConfig(), values)
    assert scaling.shift.shape == scaling.scale.shape == (1, 1, 1)
    assert float(scaling.shift[0, 0, 0]) == -9.0
    assert float(scaling.scale[0, 0, 0]) == pytest.approx(1 / 20)


def test_no_scaling_is_the_identity() -> None:
    images = make_images()
    config = PreprocessingConfig(min_max=False)
    found = preprocessing.apply(preprocessing.fit(config, images), images)
    np.testing.assert_array_equal(found, preprocessing.unit_range(images))


def test_a_constant_range_is_only_shifted() -> None:
    images = np.full((4, 2, 2, 1), 0.3)
    fitted = preprocessing.fit(PreprocessingConfig(), images)
    np.testing.assert_array_equal(preprocessing.apply(fitted, images), np.zeros((4, 2, 2, 1)))
    assert float(fitted.scaling.scale[0, 0, 0]) == 1.0


def test_standardize_each_feature_of_a_table() -> None:
    rng = np.random.default_rng(2)
    table = rng.normal([3.0, -200.0, 0.0, 7.7], [0.01, 50.0, 1.0, 0.0], size=(60, 4))
    config = PreprocessingConfig(standardize=True)
    fitted = preprocessing.fit(config, table)
    found = preprocessing.apply(fitted, table)
    exact = table.astype(np.float32).astype(np.float64)
    expected = (exact[:, :3] - exact[:, :3].mean(0)) / exact[:, :3].std(0)
    np.testing.assert_allclose(found[:, :3], expected, rtol=1e-3, atol=1e-3)
    # The last feature is constant, up to the rounding of its mean: shifted, not blown up.
    assert np.abs(found[:, 3]).max() < 1e-5
    shifted = preprocessing.apply(fitted, table + np.array([0.0, 0.0, 0.0, 2.0]))
    np.testing.assert_allclose(shifted[:, 3], 2.0, rtol=1e-5)


def test_zca_makes_the_covariance_the_identity() -> None:
    rng = np.random.default_rng(3)
    mixing = rng.normal(size=(12, 12))
    images = (rng.normal(size=(300, 12)) @ mixing + 2.0).reshape(300, 2, 2, 3)
    whitening = preprocessing.fit_whitening(images, 1e-9)
    whitened = preprocessing.apply_whitening(whitening, images)
    assert whitened.shape == images.shape and whitened.dtype == np.float32
    flat = whitened.reshape(300, 12).astype(np.float64)
    np.testing.assert_allclose(flat.mean(0), 0.0, atol=1e-5)
    np.testing.assert_allclose(flat.T @ flat / 300, np.eye(12), atol=1e-3)


def test_zca_is_the_inverse_root_with_epsilon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preprocessing, "CHUNK", 64)
    rng = np.random.default_rng(4)
    images = (rng.normal(size=(100, 6)) @ rng.normal(size=(6, 6))).reshape(100, 6)
    whitening = preprocessing.fit_whitening(images, 0.1)
    # Symmetric, and its square is the inverse of covariance + epsilon.
    np.testing.assert_allclose(whitening.matrix, whitening.matrix.T, atol=1e-10)
    centered = images - images.mean(0)
    regular = centered.T @ centered / 100 + 0.1 * np.eye(6)
    np.testing.assert_allclose(whitening.matrix @ whitening.matrix @ regular, np.eye(6), atol=1e-8)
    found = preprocessing.apply_whitening(whitening, images)
    np.testing.assert_allclose(found, centered @ whitening.matrix, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("zca", [False, True])
@pytest.mark.parametrize("contrast", ["none", "std", "l1", "l2"])
def test_training_normals_land_in_the_unit_interval(contrast: str, zca: bool) -> None:
    images = make_images(count=50)
    config = PreprocessingConfig(contrast=contrast, zca=zca)  # type: ignore[arg-type]
    fitted = preprocessing.fit(config, images)
    found = preprocessing.apply(fitted, images)
    assert found.dtype == np.float32 and found.shape == images.shape
    assert found.min() == pytest.approx(0.0, abs=1e-6)
    assert found.max() == pytest.approx(1.0, abs=1e-6)
    unscaled = preprocessing.apply_unscaled(fitted, images)
    low, high = float(unscaled.min()), float(unscaled.max())
    np.testing.assert_allclose(found, (unscaled - low) / (high - low), atol=1e-6)


def test_other_images_use_the_training_constants_and_are_not_clipped() -> None:
    train = np.array([0.2, 0.6], np.float32).reshape(2, 1, 1, 1)
    other = np.array([0.0, 0.4, 1.0], np.float32).reshape(3, 1, 1, 1)
    fitted = preprocessing.fit(PreprocessingConfig(), train)
    found = preprocessing.apply(fitted, other).ravel()
    np.testing.assert_allclose(found, [-0.5, 0.5, 2.0], rtol=1e-5)


def test_mnist_ranges_are_the_published_ones() -> None:
    default = Path(__file__).parents[1].parent / "shared" / "data"
    root = Path(os.environ.get("DEEPSVDD_DATA", default))
    if not (root / "mnist").is_dir():
        pytest.skip(f"no MNIST in {root}; set DEEPSVDD_DATA")
    mnist = datasets.load(DataConfig("mnist", data_dir=str(root)))
    config = PreprocessingConfig(contrast="l1")
    for digit, (low, high) in enumerate(MNIST_RANGES):
        images = mnist.x_train[mnist.y_train == digit]
        fitted = preprocessing.fit(config, images)
        shift, scale = fitted.scaling.shift.item(), fitted.scaling.scale.item()
        assert shift == pytest.approx(low, abs=6e-5), digit
        assert shift + 1 / scale == pytest.approx(high, abs=6e-5), digit


def test_an_epsilon_that_drowns_all_variances_is_told_of() -> None:
    images = np.random.default_rng(8).normal(size=(60, 6))
    with pytest.warns(preprocessing.WhiteningWarning, match="zca_epsilon is 0.1"):
        preprocessing.fit_whitening(1e-12 * images, 0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        preprocessing.fit_whitening(images, 0.1)
