"""Adversarial stop signs: a traffic sign classifier, and the Boundary Attack against it.

Ruff et al. 2018 (section 4.3) take 20 stop signs altered by the Boundary Attack (Brendel et al.
2018) as anomalies. Theirs were never published, so these are made anew: other images, other
distances, comparable in kind only.

The attack needs Foolbox, an extra: `pip install 'deepsvdd_jax[adversarial]'`.
"""

import contextlib
import functools
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from deepsvdd_jax import convolution, npz
from deepsvdd_jax.npz import NpzError
from experiments.adversarial_configs import AttackConfig, ClassifierConfig

ARRAYS_NAME = "adversarials.npz"
PICTURE_NAME = "adversarials.png"

Progress = Callable[[int, int], None]

# Kernel side and features of the convolutions, each followed by a 2x2 max-pool.
_STAGES = ((5, 16), (5, 32), (3, 64))
_HIDDEN = 128
# Keeps the contrast of a nearly flat image from being blown up.
_LEAST_CONTRAST = 0.05
_PREDICTION_BATCH = 500
_BISECTIONS = 8
_PICTURES_A_ROW = 10


class Layer(NamedTuple):
    """Weights of a convolution `[k, k, channels, features]` or dense layer `[inputs, outputs]`.

    Attributes:
      kernel: see above.
      bias: `[features]` or `[outputs]`.
    """

    kernel: Array
    bias: Array


Params = tuple[Layer, ...]


class Classifier(NamedTuple):
    """A trained classifier; `logits(classifier.params, images)` applies it.

    Attributes:
      params: convolutions, then two dense layers.
      stop_class: label of the attacked class.
      test_accuracy: share of all test images that it gets right.
      stop_accuracy: share of the attacked class's test images that it gets right.
    """

    params: Params
    stop_class: int
    test_accuracy: float
    stop_accuracy: float


class Adversarials(NamedTuple):
    """Adversarial examples and what they were made from.

    Attributes:
      images: uint8 `[count, height, width, 3]`; misclassified as they are, rounded.
      originals: uint8, like `images`.
      original_indices: int64 `[count]`, rows of the images that were handed to the attack.
      distances_l2: float64 `[count]`, root of the summed squared difference of `images` and
        `originals`, pixels in [0, 1].
      predicted: int64 `[count]`, the class that the classifier takes `images` for.
      success: bool `[count]`, whether that is another than the true class.
    """

    images: np.ndarray
    originals: np.ndarray
    original_indices: np.ndarray
    distances_l2: np.ndarray
    predicted: np.ndarray
    success: np.ndarray


# --- the classifier -----------------------------------------------------------------------------


def logits(params: Params, images: Array) -> Array:
    """Applies the classifier.

    Args:
      params: from `train_classifier`.
      images: float32 `[n, height, width, 3]`, pixels in [0, 1].

    Returns:
      `[n, classes]`, log-probabilities up to a constant of each image.
    """
    return _head(params, _features(params, images))


def predict(classifier: Classifier, images: np.ndarray) -> np.ndarray:
    """Returns the most likely class of every image.

    Args:
      classifier: from `train_classifier`.
      images: uint8 `[n, height, width, 3]`.

    Returns:
      int64 `[n]`.
    """
    return _predict(classifier.params, images)


def train_classifier(
    config: ClassifierConfig,
    x_train: np.ndarray,
    y_train: np.ndarray,
    x_test: np.ndarray,
    y_test: np.ndarray,
    seed: int,
    progress: Progress | None = None,
) -> Classifier:
    """Trains a small convolutional classifier of all classes and tests it.

    The defaults, on the GTSRB subset with at most 120 training images a class and 780 stop signs:
    test accuracy 0.94, all stop signs right, one minute on one core.

    Args:
      config: settings.
      x_train: uint8 `[n, height, width, 3]`.
      y_train: int `[n]`, classes counted from 0.
      x_test: uint8 `[m, height, width, 3]`.
      y_test: int `[m]`.
      seed: of weights, order, shifts and dropout.
      progress: called with the epochs done and the number of epochs.

    Raises:
      ValueError: arrays of another kind, or without an image of the attacked class; one line.
    """
    _check_labelled("training", x_train, y_train, config.stop_class)
    _check_labelled("test", x_test, y_test, config.stop_class)
    classes = 1 + int(max(y_train.max(), y_test.max()))
    key_init, key_train = jax.random.split(jax.random.key(seed))
    params = _init_params(key_init, x_train.shape[1:], classes)
    state = (params, _optimizer(config, len(x_train)).init(params))
    images, labels = jnp.asarray(x_train), jnp.asarray(y_train, jnp.int32)
    for epoch in range(config.epochs):
        state = _train_epoch(config, jax.random.fold_in(key_train, epoch), state, images, labels)
        if progress is not None:
            # Epochs are queued at once; progress is to be told when one is done.
            jax.block_until_ready(state)
            progress(epoch + 1, config.epochs)
    right = _predict(state[0], x_test) == y_test
    stop_accuracy = float(right[y_test == config.stop_class].mean())
    return Classifier(state[0], config.stop_class, float(right.mean()), stop_accuracy)


def _init_params(key: Array, image_shape: tuple[int, ...], classes: int) -> Params:
    height, width, channels = image_shape
    shapes: list[tuple[int, ...]] = []
    for size, features in _STAGES:
        shapes.append((size, size, channels, features))
        height, width, channels = height // 2, width // 2, features
    shapes += [(height * width * channels, _HIDDEN), (_HIDDEN, classes)]
    initializer = jax.nn.initializers.he_normal()
    keys = jax.random.split(key, len(shapes))
    return tuple(
        Layer(initializer(key_layer, shape), jnp.zeros(shape[-1]))
        for key_layer, shape in zip(keys, shapes, strict=True)
    )


def _features(params: Params, images: Array) -> Array:
    """Returns what the last stage makes of the images, `[n, values]`."""
    mean = images.mean((1, 2, 3), keepdims=True)
    contrast = images.std((1, 2, 3), keepdims=True)
    # Signs are photographed in sun and dusk: accuracy is 2 % higher than with the plain pixels.
    values = (images - mean) / (contrast + _LEAST_CONTRAST)
    for kernel, bias in params[: len(_STAGES)]:
        padding = convolution.same_padding(kernel.shape[0])
        pooled = convolution.max_pool(convolution.convolve(values, kernel, padding))
        values = jax.nn.relu(pooled + bias[None, None, None, :])
    return values.reshape(values.shape[0], -1)


def _head(params: Params, features: Array) -> Array:
    hidden, output = params[len(_STAGES) :]
    values = jax.nn.relu(features @ hidden.kernel + hidden.bias[None, :])
    return values @ output.kernel + output.bias[None, :]


def _optimizer(config: ClassifierConfig, count: int) -> optax.GradientTransformation:
    steps = config.epochs * (count // min(config.batch_size, count))
    return optax.adam(optax.cosine_decay_schedule(config.learning_rate, steps))


@functools.partial(jax.jit, static_argnums=0)
def _train_epoch(
    config: ClassifierConfig,
    key: Array,
    state: tuple[Params, optax.OptState],
    images: Array,
    labels: Array,
) -> tuple[Params, optax.OptState]:
    count = len(images)
    batch_size = min(config.batch_size, count)
    batches = count // batch_size
    key_order, key_steps = jax.random.split(key)
    order = jax.random.permutation(key_order, count)[: batches * batch_size]
    optimizer = _optimizer(config, count)

    def step(
        state: tuple[Params, optax.OptState], inputs: tuple[Array, Array]
    ) -> tuple[tuple[Params, optax.OptState], None]:
        params, optimizer_state = state
        rows, key_step = inputs
        gradient = jax.grad(_loss)(params, config, key_step, images[rows], labels[rows])
        updates, optimizer_state = optimizer.update(gradient, optimizer_state)
        return (optax.apply_updates(params, updates), optimizer_state), None

    inputs = (order.reshape(batches, batch_size), jax.random.split(key_steps, batches))
    return jax.lax.scan(step, state, inputs)[0]


def _loss(
    params: Params, config: ClassifierConfig, key: Array, images: Array, labels: Array
) -> Array:
    """Returns the mean cross-entropy of one batch, uint8 images shifted, features dropped."""
    key_shift, key_dropout = jax.random.split(key)
    shifted = _shift(key_shift, images, config.shift).astype(jnp.float32) / 255
    features = _features(params, shifted)
    kept = jax.random.bernoulli(key_dropout, 1 - config.dropout, features.shape)
    features = jnp.where(kept, features / (1 - config.dropout), 0.0)
    losses = optax.softmax_cross_entropy_with_integer_labels(_head(params, features), labels)
    return losses.mean()


def _shift(key: Array, images: Array, most: int) -> Array:
    padded = jnp.pad(images, ((0, 0), (most, most), (most, most), (0, 0)), mode="edge")
    corners = jax.random.randint(key, (len(images), 2), 0, 2 * most + 1)
    return jax.vmap(
        lambda image, corner: jax.lax.dynamic_slice(
            image, (corner[0], corner[1], jnp.zeros((), corner.dtype)), images.shape[1:]
        )
    )(padded, corners)


_pixel_logits = jax.jit(lambda params, pixels: logits(params, pixels.astype(jnp.float32) / 255))


def _predict(params: Params, images: np.ndarray) -> np.ndarray:
    batches = (
        images[start : start + _PREDICTION_BATCH]
        for start in range(0, len(images), _PREDICTION_BATCH)
    )
    predicted = [np.asarray(_pixel_logits(params, batch)).argmax(1) for batch in batches]
    return np.concatenate(predicted) if predicted else np.zeros(0, np.int64)


# --- the attack ---------------------------------------------------------------------------------


def generate_adversarials(
    config: AttackConfig,
    classifier: Classifier,
    images: np.ndarray,
    starting_images: np.ndarray,
    progress: Progress | None = None,
) -> Adversarials:
    """Makes adversarial examples with Foolbox's Boundary Attack, untargeted (seconds to minutes).

    The attacked model rounds its input to 8 bits a pixel, so that what the attack finds survives
    being stored; what was found is rounded and classified once more, and replaced by the example
    of another image where it is not misclassified.

    An attack starts at a point between its original and a real image of another class: of the
    nearest images, each followed towards the original until the class changes, the one that ends
    nearest. The starting images may as well be uniform noise, as in Brendel et al. 2018, which
    starts about four times as far away.

    The result depends on the seed and, in rounding errors that a chaotic search magnifies, on the
    device. NumPy's global generator, which Foolbox draws from, is seeded and then put back.

    Args:
      config: settings.
      classifier: what is to be misled.
      images: uint8 `[m, height, width, 3]`, all of `classifier.stop_class`; originals are drawn
        from those that are classified as such.
      starting_images: uint8 `[k, height, width, 3]` of other classes.
      progress: called with the queries of the batch so far and their expected number.

    Raises:
      ImportError: Foolbox is missing; one line that says how to install it.
      ValueError: too few images or starting images are classified rightly, or found adversarial.
    """
    boundary_attack = import_foolbox()
    _check_images("stop signs", images)
    _check_images("starting images", starting_images)
    starts = starting_images[predict(classifier, starting_images) != classifier.stop_class]
    if not len(starts):
        raise ValueError("no starting image is classified as another class than the stop sign's")
    usable = np.flatnonzero(predict(classifier, images) == classifier.stop_class)
    order = np.random.default_rng(config.seed).permutation(usable)
    found, tried = np.zeros(0, np.int64), 0
    adversarials = images[:0]
    with _numpy_seed(config.seed):
        while len(found) < config.count:
            rows = order[tried : tried + config.count - len(found)]
            tried += len(rows)
            if not len(rows):
                raise ValueError(
                    f"{len(found)} adversarial examples found, {config.count} wanted: only"
                    f" {len(usable)} of {len(images)} images are classified rightly; lower count"
                )
            pixels = _attack(boundary_attack, config, classifier, images[rows], starts, progress)
            success = predict(classifier, pixels) != classifier.stop_class
            found = np.concatenate([found, rows[success]])
            adversarials = np.concatenate([adversarials, pixels[success]])
    return _assemble(classifier, adversarials, images[found], found)


def l2_distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns the Euclidean distance of each pair of images, pixels in [0, 1].

    Args:
      first: uint8 `[n, height, width, 3]`.
      second: likewise.

    Returns:
      float64 `[n]`, not squared.
    """
    difference = (first.astype(np.float64) - second.astype(np.float64)) / 255
    return np.sqrt(np.square(difference).sum((1, 2, 3)))


def import_foolbox() -> Any:
    """Returns the module; raises ImportError with a line that says how to install it."""
    try:
        import foolbox
    except ImportError as error:
        reason = " ".join(str(error).split())
        raise ImportError(
            f"the Boundary Attack needs Foolbox: pip install 'deepsvdd_jax[adversarial]' ({reason})"
        ) from error
    return foolbox


def _attack(
    foolbox: Any,
    config: AttackConfig,
    classifier: Classifier,
    images: np.ndarray,
    starts: np.ndarray,
    progress: Progress | None,
) -> np.ndarray:
    """Attacks one batch; returns what it found rounded, uint8 like `images`."""
    points = _starting_points(config, classifier, images, starts)
    # Foolbox's steps on NumPy arrays take two thirds of the time of those on JAX arrays.
    model = foolbox.NumPyModel(
        _rounding_model(classifier.params, config.steps, progress),
        bounds=(0, 1),
        data_format="channels_last",
    )
    attack = foolbox.attacks.BoundaryAttack(
        steps=config.steps, spherical_step=config.spherical_step, source_step=config.source_step
    )
    criterion = foolbox.criteria.Misclassification(np.full(len(images), classifier.stop_class))
    found = attack.run(model, _scaled(images), criterion, starting_points=points)
    return _rounded(found)


def _rounding_model(
    params: Params, steps: int, progress: Progress | None
) -> Callable[[np.ndarray], np.ndarray]:
    """Returns the classifier as Foolbox sees it: float `[n, ...]` in [0, 1] to `[n, classes]`."""
    # The starting points are asked about first.
    expected = 1 + steps + steps // 10
    queries = 0

    def model(images: np.ndarray) -> np.ndarray:
        nonlocal queries
        queries += 1
        if progress is not None:
            progress(queries, expected)
        return np.asarray(_pixel_logits(params, _rounded(images)))

    return model


def _starting_points(
    config: AttackConfig, classifier: Classifier, images: np.ndarray, starts: np.ndarray
) -> np.ndarray:
    """Returns a misclassified point near each image, float32 in [0, 1] like `images`."""
    return np.stack([_starting_point(config, classifier, image, starts) for image in images])


def _starting_point(
    config: AttackConfig, classifier: Classifier, image: np.ndarray, starts: np.ndarray
) -> np.ndarray:
    distances = l2_distances(starts, image[None])
    ends = _scaled(starts[np.argsort(distances, kind="stable")[: config.candidates]])
    original = _scaled(image[None])
    low, high = np.zeros(len(ends), np.float32), np.ones(len(ends), np.float32)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        classes = predict(classifier, _rounded(_blend(original, ends, middle)))
        misled = classes != classifier.stop_class
        high, low = np.where(misled, middle, high), np.where(misled, low, middle)
    points = _blend(original, ends, high)
    return points[np.square(points - original).sum((1, 2, 3)).argmin()]


def _blend(original: np.ndarray, ends: np.ndarray, weights: np.ndarray) -> np.ndarray:
    # Rounding errors must not leave the bounds, or Foolbox refuses the point.
    return np.clip(original + weights[:, None, None, None] * (ends - original), 0, 1)


def _scaled(pixels: np.ndarray) -> np.ndarray:
    return pixels.astype(np.float32) / np.float32(255)


def _rounded(images: np.ndarray) -> np.ndarray:
    # Foolbox hands the same image back in another precision, where a half would round elsewhere.
    return np.rint(np.clip(images.astype(np.float64), 0, 1) * 255).astype(np.uint8)


@contextlib.contextmanager
def _numpy_seed(seed: int) -> Iterator[None]:
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(state)


def _assemble(
    classifier: Classifier, images: np.ndarray, originals: np.ndarray, indices: np.ndarray
) -> Adversarials:
    predicted = predict(classifier, images).astype(np.int64)
    distances = l2_distances(images, originals)
    success = predicted != classifier.stop_class
    return Adversarials(images, originals, indices.astype(np.int64), distances, predicted, success)


# --- files --------------------------------------------------------------------------------------


def save_adversarials(folder: str | os.PathLike[str], adversarials: Adversarials) -> None:
    """Writes `adversarials.npz` and `adversarials.png` into a folder (touches files).

    The folder is made where it is missing. Each file appears whole or not at all.
    """
    figure = draw_adversarials(adversarials)
    Path(folder).mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = adversarials._asdict()
    _write_whole(Path(folder) / ARRAYS_NAME, lambda file: np.savez(file, **arrays))
    _write_whole(Path(folder) / PICTURE_NAME, lambda file: figure.savefig(file, format="png"))


def load_adversarials(folder: str | os.PathLike[str]) -> Adversarials:
    """Reads what `save_adversarials` wrote (touches files).

    Raises:
      ValueError: no file, a damaged one, or one with other arrays; one line.
    """
    path = Path(folder) / ARRAYS_NAME
    try:
        with path.open("rb") as file:
            arrays = npz.read_npz(file, Adversarials._fields)
        adversarials = Adversarials(*(arrays[name] for name in Adversarials._fields))
    except (OSError, NpzError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: no adversarial examples can be read ({reason})") from error
    _check_adversarials(path, adversarials)
    return adversarials


def draw_adversarials(adversarials: Adversarials) -> Any:
    """Returns a matplotlib figure: originals, adversarials, differences, distances below."""
    from matplotlib.figure import Figure

    count = len(adversarials.images)
    columns = min(count, _PICTURES_A_ROW)
    bands = math.ceil(count / columns)
    difference = _scaled(adversarials.images) - _scaled(adversarials.originals)
    gain = _difference_gain(difference)
    rows = (
        ("original", adversarials.originals),
        ("adversarial", adversarials.images),
        (f"difference ×{gain}", np.clip(0.5 + gain * difference, 0, 1)),
    )
    figure = Figure(figsize=(1.1 * columns + 1.5, 3.9 * bands + 0.6), layout="constrained")
    figure.suptitle("Boundary Attack examples made by this project, not those of Ruff et al. 2018")
    axes = figure.subplots(bands * len(rows), columns, squeeze=False)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[], frame_on=False)
    for index in range(count):
        band, column = divmod(index, columns)
        for row, (name, pictures) in enumerate(rows):
            axis = axes[len(rows) * band + row, column]
            axis.imshow(pictures[index], interpolation="nearest")
            if column == 0:
                axis.set_ylabel(name)
        distance, predicted = adversarials.distances_l2[index], adversarials.predicted[index]
        axis.set_xlabel(f"L2 {distance:.2f}\nclass {predicted}")
    return figure


def _difference_gain(difference: np.ndarray) -> int:
    """Returns the factor that makes nearly all differences just fit around mid-grey."""
    typical = float(np.quantile(np.abs(difference), 0.995))
    return max(1, math.floor(0.5 / max(typical, 1 / 255)))


def _write_whole(path: Path, write: Callable[[IO[bytes]], None]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            write(file)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


# --- checks -------------------------------------------------------------------------------------


def _check_images(name: str, images: np.ndarray) -> None:
    least = 2 ** len(_STAGES)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise ValueError(
            f"{name}: {images.dtype} of shape {images.shape}; expected uint8 [n, height, width, 3]"
        )
    if min(images.shape[1:3]) < least:
        raise ValueError(f"{name}: {images.shape[1:3]} pixels; at least {least} a side are needed")


def _check_labelled(name: str, images: np.ndarray, labels: np.ndarray, stop_class: int) -> None:
    _check_images(f"{name} images", images)
    if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
        raise ValueError(
            f"{name} labels: {labels.dtype} of shape {labels.shape}; expected one whole number"
            f" for each of {len(images)} images"
        )
    if not (labels == stop_class).any():
        raise ValueError(f"{name} labels: class {stop_class}, which is to be attacked, is missing")
    if labels.min() < 0:
        raise ValueError(f"{name} labels: {labels.min()} is negative; classes count from 0")


def _check_adversarials(path: Path, adversarials: Adversarials) -> None:
    shape = adversarials.images.shape
    expected = {
        "images": ("uint8", shape),
        "originals": ("uint8", shape),
        "original_indices": ("int64", shape[:1]),
        "distances_l2": ("float64", shape[:1]),
        "predicted": ("int64", shape[:1]),
        "success": ("bool", shape[:1]),
    }
    if len(shape) != 4 or shape[0] < 1 or shape[3] != 3:
        raise ValueError(f"{path}: images have shape {shape}, expected [count, height, width, 3]")
    for name, (dtype, wanted) in expected.items():
        array = getattr(adversarials, name)
        if (str(array.dtype), array.shape) != (dtype, wanted):
            raise ValueError(
                f"{path}: {name} is {array.dtype} of shape {array.shape}, expected {dtype} {wanted}"
            )
