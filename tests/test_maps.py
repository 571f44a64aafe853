"""Maps of anomalies: where they come from, against numpy in float64, and that they find defects."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from deepsvdd_jax import detectors, networks, recipes
from deepsvdd_jax.configs import (
    ConfigError,
    DetectorConfig,
    FCDDConfig,
    NetworkConfig,
    ObjectiveConfig,
    OptimizerConfig,
    PhaseConfig,
    PreprocessingConfig,
    RunConfig,
)
from deepsvdd_jax.detectors import maps as detector_maps
from deepsvdd_jax.io.models import Model
from deepsvdd_jax.scoring import maps

Floats = npt.NDArray[np.float64]

SMALL = NetworkConfig("small", ((4,), (6,)), rep_dim=3, kernel_size=3)
FCDD = NetworkConfig(
    "small_fcdd", ((4,), (6,)), kernel_size=3, bias=True, affine=True, fully_convolutional=True
)


# --- where values look ----------------------------------------------------------------------------


def gaussian(offset: float, sigma: float) -> float:
    return float(np.exp(-(offset**2) / (2 * sigma**2)))


@pytest.mark.parametrize(
    ("grid", "shape", "sides"),
    [
        (maps.Grid(1.5, 4, 32), (8, 8), (32, 32)),
        (maps.Grid(1.5, 4, 10), (3, 5), (14, 21)),
        (maps.Grid(2.0, 1, 5), (6, 4), (10, 8)),
    ],
)
def test_enlarging_adds_a_gaussian_at_every_center(
    grid: maps.Grid, shape: tuple[int, int], sides: tuple[int, int]
) -> None:
    low = np.random.default_rng(0).random((2, *shape))
    sigma, half = grid.receptive_field / 4, grid.receptive_field / 2
    offsets = [k - grid.first % 1 for k in range(-100, 101)]
    total = sum(gaussian(offset, sigma) for offset in offsets if abs(offset) <= half)
    expected = np.zeros((2, *sides))
    for u in range(shape[0]):
        for v in range(shape[1]):
            for i in range(sides[0]):
                for j in range(sides[1]):
                    down = i - (grid.first + grid.stride * u)
                    across = j - (grid.first + grid.stride * v)
                    if max(abs(down), abs(across)) <= half:
                        weight = gaussian(down, sigma) * gaussian(across, sigma)
                        expected[:, i, j] += low[:, u, v] * weight * (grid.stride / total) ** 2
    found = maps.enlarge(jnp.float32(low), grid, sides)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-7)


def test_a_constant_map_keeps_its_value_far_from_the_borders() -> None:
    found = np.asarray(maps.enlarge(jnp.ones((1, 32, 32)), maps.Grid(1.5, 4, 32), (128, 128)))[0]
    np.testing.assert_allclose(found[32:-32, 32:-32], 1.0, rtol=0.01)
    assert found[0, 0] < 0.5


@pytest.mark.parametrize(
    ("network", "side"),
    [
        pytest.param(recipes.NETWORKS["fcdd"], 48, marks=pytest.mark.slow),
        pytest.param(recipes.NETWORKS["fcdd_64"], 64, marks=pytest.mark.slow),
        pytest.param(
            dataclasses.replace(recipes.NETWORKS["fcdd_128"], kernel_size=3),
            64,
            marks=pytest.mark.slow,
        ),
        (dataclasses.replace(FCDD, padding="valid"), 32),
        (dataclasses.replace(FCDD, kernel_size=4, batch_norm=False), 33),
    ],
)
def test_a_value_depends_on_its_receptive_field_and_nothing_else(
    network: NetworkConfig, side: int
) -> None:
    # Every stage as wide as one channel, the pool with gradients of all its pixels: the sum of what
    # many random images make them depend on.
    narrow = dataclasses.replace(network, stages=tuple((2,) * len(s) for s in network.stages))
    built = networks.build_network(narrow, (side, side, 1))
    rows, columns = narrow.map_sides((side, side))
    assert built.rep_dim == rows * columns
    place = (rows // 2, columns // 2)
    params, statistics = built.init(jax.random.key(0), False)

    def value(image: jax.Array) -> jax.Array:
        return built.encode(params, statistics, image[None])[0].reshape(rows, columns)[place]

    images = jax.random.normal(jax.random.key(1), (60, side, side, 1))
    seen = np.abs(np.asarray(jax.lax.map(jax.jit(jax.grad(value)), images)))[..., 0].sum(0) > 0
    first, stride = narrow.map_grid
    half = narrow.receptive_field / 2
    for axis, number in enumerate(place):
        center = first + stride * number
        reached = np.flatnonzero(seen.any(axis=1 - axis))
        low, high = center - half + 0.5, center + half - 0.5
        assert low >= 0 and high <= side - 1
        assert (reached[0], reached[-1]) == (low, high)


# --- maps of a score ------------------------------------------------------------------------------


def test_blurring_is_a_gaussian_mean_of_the_pixels_that_are_there() -> None:
    values = np.random.default_rng(0).random((2, 17, 12))
    options = {"sigma": (0, 1.5, 1.5), "mode": "constant", "truncate": 6.0}
    weights = ndimage.gaussian_filter(np.ones_like(values), **options)
    expected = ndimage.gaussian_filter(values, **options) / weights
    np.testing.assert_allclose(maps.blur(jnp.float32(values), 1.5), expected, rtol=1e-4)


def plain_score(weights: Floats, images: Floats) -> Floats:
    return np.square(np.tensordot(images, weights, axes=3)) + np.square(images[:, 2, 3, 0])


def jax_score(weights: Floats, images: jax.Array) -> jax.Array:
    first = jnp.square(jnp.tensordot(images, jnp.float32(weights), axes=3))
    return first + jnp.square(images[:, 2, 3, 0])


def test_gradient_maps_are_differences_of_the_score() -> None:
    random = np.random.default_rng(2)
    weights, images = random.normal(size=(8, 7, 2)), random.normal(size=(2, 8, 7, 2))
    raw = np.zeros((2, 8, 7))
    for place in np.ndindex(8, 7, 2):
        step = np.zeros(images.shape)
        step[(slice(None), *place)] = 1e-5
        rise = plain_score(weights, images + step) - plain_score(weights, images - step)
        raw[:, place[0], place[1]] += np.abs(rise / 2e-5)
    options = {"sigma": (0, 1, 1), "mode": "constant", "truncate": 6.0}
    expected = ndimage.gaussian_filter(raw, **options)
    expected /= ndimage.gaussian_filter(np.ones_like(raw), **options)
    found = maps.gradient_maps(lambda x: jax_score(weights, x), jnp.float32(images))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_occlusion_maps_are_losses_of_the_score() -> None:
    random = np.random.default_rng(3)
    weights, images = random.normal(size=(24, 17, 1)), random.normal(size=(2, 24, 17, 1))
    mean = random.normal(size=(24, 17, 1))
    # An eighth of 17 is 2; they start at every pixel.
    total, count = np.zeros((2, 24, 17)), np.zeros((24, 17))
    for row in range(23):
        for column in range(16):
            where = slice(row, row + 2), slice(column, column + 2)
            hidden = images.copy()
            hidden[(slice(None), *where)] = mean[where]
            loss = plain_score(weights, images) - plain_score(weights, hidden)
            total[(slice(None), *where)] += loss[:, None, None]
            count[where] += 1
    found = maps.occlusion_maps(
        lambda x: jax_score(weights, x), jnp.float32(images), jnp.float32(mean)
    )
    np.testing.assert_allclose(found, total / count, rtol=2e-3, atol=2e-3)


def test_pieces_cover_a_side() -> None:
    assert maps.covering_starts(10, 4, 3).tolist() == [0, 3, 6]
    assert maps.covering_starts(11, 4, 3).tolist() == [0, 3, 6, 7]
    assert maps.covering_starts(4, 4, 2).tolist() == [0]


# --- maps of a model ------------------------------------------------------------------------------


def normals(count: int, seed: int, side: int = 16) -> npt.NDArray[np.uint8]:
    random = np.random.default_rng(seed)
    images = (
        100
        + 40 * np.sin(np.arange(side) / 2)[:, None, None]
        + random.normal(0, 8, (count, side, side, 1))
    )
    return images.clip(0, 255).astype(np.uint8)


def with_defect(images: npt.NDArray[np.uint8], row: int, column: int) -> npt.NDArray[np.uint8]:
    marked = images.copy()
    marked[:, row : row + 3, column : column + 3] = 255
    return marked


def two_seeds(network: NetworkConfig, training: PhaseConfig) -> DetectorConfig:
    preprocessing = PreprocessingConfig(contrast="none")
    run = RunConfig(network=network, preprocessing=preprocessing, training=training)
    return DetectorConfig(run=run, seeds=(0, 1))


@pytest.fixture(scope="module")
def one_class() -> Model:
    """As it is drawn: what a map is does not depend on the training."""
    phase = PhaseConfig(ObjectiveConfig(), batch_size=16)
    return detectors.untrained_model(two_seeds(SMALL, phase), normals(60, 0))


CONFETTI = PhaseConfig(
    FCDDConfig(),
    OptimizerConfig("adam", 5e-3),
    epochs=25,
    batch_size=16,
    synthetic_anomalies="confetti",
)


@pytest.fixture(scope="module")
def fcdd() -> Model:
    return detectors.untrained_model(two_seeds(FCDD, CONFETTI), normals(60, 0))


@pytest.fixture(scope="module")
def trained_fcdd() -> Model:
    return detectors.fit_detector(two_seeds(FCDD, CONFETTI), normals(60, 0))[0]


PLACES = [(3, 4), (10, 2), (9, 11)]


def is_near(found: npt.NDArray[np.float32], row: int, column: int, reach: int) -> bool:
    top = np.unravel_index(found.argmax(), found.shape)
    return bool(abs(top[0] - row - 1) <= 1 + reach and abs(top[1] - column - 1) <= 1 + reach)


@pytest.mark.slow
@pytest.mark.parametrize(("row", "column"), PLACES)
def test_a_planted_defect_has_the_maximum_of_a_trained_map(
    row: int, column: int, trained_fcdd: Model
) -> None:
    found = detector_maps.mapper(trained_fcdd)(with_defect(normals(4, 1), row, column))
    assert found.shape == (4, 16, 16) and found.dtype == np.float32
    assert all(is_near(one, row, column, 1) for one in found)


class Pixels(nn.Module):
    """A network whose embedding are the pixels."""

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        return images.reshape(images.shape[0], -1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gradient", "occlusion"])
@pytest.mark.parametrize(("row", "column"), PLACES)
def test_a_planted_defect_has_the_maximum_where_the_score_is_of_pixels(
    row: int, column: int, kind: str, one_class: Model
) -> None:
    mean = normals(60, 0).mean(axis=0) / 255
    model = one_class._replace(
        config=RunConfig(network=Pixels(), preprocessing=PreprocessingConfig(contrast="none")),
        params={"encoder": {}},
        statistics={"encoder": {}},
        center=np.float32(mean.reshape(1, -1)),
        squared_radius=np.zeros(1, np.float32),
        train_means=np.ones(1),
        shift=np.zeros((1, 1, 1), np.float32),
        scale=np.ones((1, 1, 1), np.float32),
    )
    found = detector_maps.mapper(model, kind, mean)(with_defect(normals(4, 1), row, column))
    assert all(is_near(one, row, column, 0) for one in found)


def test_gradients_of_an_ensemble_are_those_of_its_score(one_class: Model) -> None:
    image = normals(1, 5).astype(np.float64) / 255
    found = detector_maps.mapper(one_class, "gradient")(image.astype(np.float32))
    raw = np.zeros((16, 16))
    # Of a piecewise smooth score: differences so small that float32 would not show them.
    with jax.enable_x64(True):
        score = float64_score(one_class)
        for place in np.ndindex(16, 16):
            step = np.zeros(image.shape)
            step[(0, *place, 0)] = 1e-6
            raw[place] = abs(score(image + step) - score(image - step)) / 2e-6
    options = {"sigma": 1, "mode": "constant", "truncate": 6.0}
    expected = ndimage.gaussian_filter(raw, **options)
    expected /= ndimage.gaussian_filter(np.ones_like(raw), **options)
    np.testing.assert_allclose(found[0], expected, rtol=2e-3, atol=1e-3 * expected.max())


def float64_score(model: Model):  # type: ignore[no-untyped-def]
    """Returns the ensemble's score of an image, written anew in numpy with float64."""

    def convolve(image: Floats, kernel: Floats) -> Floats:
        padded = np.pad(image, ((1, 1), (1, 1), (0, 0)))
        height, width = image.shape[:2]
        return sum(
            padded[i : i + height, j : j + width] @ kernel[i, j] for i in range(3) for j in range(3)
        )

    def stage(image: Floats, kernel: Floats, mean: Floats, variance: Floats) -> Floats:
        values = (convolve(image, kernel) - mean) / np.sqrt(variance + 1e-4)
        values = np.where(values > 0, values, 0.01 * values)
        height, width, features = values.shape
        return values.reshape(height // 2, 2, width // 2, 2, features).max((1, 3))

    def score(images: Floats) -> float:
        total = 0.0
        for member in range(len(model.center)):
            values = (images[0] - model.shift.astype(np.float64)) * model.scale
            params = jax.tree.map(
                lambda leaf, i=member: np.asarray(leaf[i], np.float64), model.params["encoder"]
            )
            norms = jax.tree.map(
                lambda leaf, i=member: np.asarray(leaf[i], np.float64),
                model.statistics["encoder"],
            )
            for name in ("stage0_0", "stage1_0"):
                norm = norms[name]["norm"]
                values = stage(values, params[name]["kernel"], norm["mean"], norm["var"])
            embedding = values.reshape(-1) @ params["representation"]["dense"]["kernel"]
            total += np.square(embedding - model.center[member]).sum() / model.train_means[member]
        return float(total / len(model.center))

    return score


def alone(model: Model, member: int) -> Model:
    def chosen(leaf: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return leaf[member : member + 1]

    return model._replace(
        params=jax.tree.map(chosen, model.params),
        statistics=jax.tree.map(chosen, model.statistics),
        center=chosen(model.center),
        squared_radius=chosen(model.squared_radius),
        train_means=model.train_means[member : member + 1],
    )


def test_an_ensemble_has_the_mean_map_in_units_of_the_training_scores(fcdd: Model) -> None:
    images = normals(3, 6)
    first, second = (detector_maps.mapper(alone(fcdd, member))(images) for member in range(2))
    expected = (first / fcdd.train_means[0] + second / fcdd.train_means[1]) / 2
    np.testing.assert_allclose(detector_maps.mapper(fcdd)(images), expected, rtol=1e-4)


def test_any_number_of_images_has_the_same_maps(
    one_class: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detector_maps, "MOST_AT_ONCE", 4)
    of_images = detector_maps.mapper(one_class)
    whole = of_images(normals(9, 7))
    parts = np.concatenate([of_images(normals(9, 7)[i : i + 1]) for i in range(9)])
    np.testing.assert_array_equal(whole, parts)
    assert of_images(normals(9, 7)[:0]).shape == (0, 16, 16)


def test_kinds_that_a_model_cannot_have_are_refused(one_class: Model, fcdd: Model) -> None:
    assert detector_maps.map_kind(one_class) == "gradient"
    assert detector_maps.map_kind(fcdd) == "objective"
    with pytest.raises(ConfigError, match="one-class has no map of its own"):
        detector_maps.map_kind(one_class, "objective")
    with pytest.raises(ConfigError, match="allowed: auto, objective"):
        detector_maps.map_kind(one_class, "saliency")
    with pytest.raises(ConfigError, match="needs the mean of normal images"):
        detector_maps.mapper(one_class, "occlusion")
    with pytest.raises(ConfigError, match="trained on a table"):
        detector_maps.map_kind(one_class._replace(image_shape=(5,)))
