"""Adversarial stop signs: a traffic sign classifier, and the Boundary Attack against it.

Ruff et al. 2018 (section 4.3) take 20 stop signs altered by the Boundary Attack (Brendel et al.
2018) as anomalies. Theirs were never published, so these are made anew: other images, other
distances, comparable in kind only.

The attack needs Foolbox, an extra: `pip install 'deepsvdd_jax[adversarial]'`.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from deepsvdd_jax.cli.adversarial.classifier import (
    Classifier,
    Params,
    Progress,
    check_images,
    pixel_logits,
    predict,
)
from deepsvdd_jax.cli.adversarial.configs import AttackConfig

_BISECTIONS = 8


class Adversarials(NamedTuple):
    """Adversarial examples and what they were made from.

    Attributes:
      images: uint8 `[count, height, width, 3]`; misclassified as they are, rounded.
      originals: uint8, like `images`.
      original_indices: int64 `[count]`, rows of the images that were handed to the attack.
      distances_l2: float64 `[count]`, root of the summed squared difference of `images` and
        `originals`, pixels in [0, 1].
      predicted: int64 `[count]`, the class that the classifier takes `images` for.
      success: bool `[count]`, whether that differs from the true class.
    """

    images: np.ndarray
    originals: np.ndarray
    original_indices: np.ndarray
    distances_l2: np.ndarray
    predicted: np.ndarray
    success: np.ndarray


def generate_adversarials(
    config: AttackConfig,
    classifier: Classifier,
    images: np.ndarray,
    starting_images: np.ndarray,
    progress: Progress | None = None,
) -> Adversarials:
    """Makes adversarial examples with Foolbox's Boundary Attack, untargeted (seconds to minutes).

    The attacked model rounds its input to 8 bits a pixel, so that adversarials survive being
    stored. Each is rounded and classified once more, and replaced by that of another image if it is
    not misclassified.

    An attack starts at a point between its original and a real image of another class: of the
    nearest images, each followed towards the original until the class changes, the one that ends
    nearest. The starting images may as well be uniform noise, as in Brendel et al. 2018, which
    starts about four times as far away.

    The result depends on the seed and, in rounding errors that a chaotic search magnifies, on the
    device. NumPy's global generator, which Foolbox draws from, is seeded and then put back.

    Args:
      config: settings.
      classifier: the classifier to mislead.
      images: uint8 `[m, height, width, 3]`, all of `classifier.stop_class`; originals are drawn
        from those that are classified as such.
      starting_images: uint8 `[k, height, width, 3]` of other classes.
      progress: called with the queries of the batch so far and their expected number.

    Raises:
      ImportError: Foolbox is missing; one line that says how to install it.
      ValueError: too few images or starting images are classified rightly, or found adversarial.
    """
    boundary_attack = import_foolbox()
    check_images("stop signs", images)
    check_images("starting images", starting_images)
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
            pixels = attack_all(
                boundary_attack,
                config,
                classifier,
                images=images[rows],
                starts=starts,
                progress=progress,
            )
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


def attack_all(
    foolbox: Any,
    config: AttackConfig,
    classifier: Classifier,
    images: np.ndarray,
    starts: np.ndarray,
    progress: Progress | None,
) -> np.ndarray:
    """Attacks one batch; returns the adversarials rounded, uint8 like `images`."""
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
    found = attack.run(model, scaled(images), criterion, starting_points=points)
    return rounded(found)


def _rounding_model(
    params: Params, steps: int, progress: Progress | None
) -> Callable[[np.ndarray], np.ndarray]:
    """Returns the classifier as Foolbox sees it: float `[n, ...]` in [0, 1] to `[n, classes]`."""
    # The starting points are classified first.
    expected = 1 + steps + steps // 10
    queries = 0

    def model(images: np.ndarray) -> np.ndarray:
        nonlocal queries
        queries += 1
        if progress is not None:
            progress(queries, expected)
        return np.asarray(pixel_logits(params, rounded(images)))

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
    ends = scaled(starts[np.argsort(distances, kind="stable")[: config.candidates]])
    original = scaled(image[None])
    low, high = np.zeros(len(ends), np.float32), np.ones(len(ends), np.float32)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        classes = predict(classifier, rounded(_blend(original, ends, middle)))
        misled = classes != classifier.stop_class
        high, low = np.where(misled, middle, high), np.where(misled, low, middle)
    points = _blend(original, ends, high)
    return points[np.square(points - original).sum((1, 2, 3)).argmin()]


def _blend(original: np.ndarray, ends: np.ndarray, weights: np.ndarray) -> np.ndarray:
    # Rounding errors must not leave the bounds, or Foolbox refuses the point.
    return np.clip(original + weights[:, None, None, None] * (ends - original), 0, 1)


def scaled(pixels: np.ndarray) -> np.ndarray:
    return pixels.astype(np.float32) / np.float32(255)


def rounded(images: np.ndarray) -> np.ndarray:
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
    return Adversarials(
        images=images,
        originals=originals,
        original_indices=indices.astype(np.int64),
        distances_l2=distances,
        predicted=predicted,
        success=success,
    )
