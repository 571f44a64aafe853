"""Initial weights that are not drawn: host steps between compiled programs."""

import hashlib
import math
import os
from typing import Any

import jax
import numpy as np
import numpy.typing as npt

from deepsvdd_jax.configs import ConfigError, RunConfig
from deepsvdd_jax.io.models import Model, load_model
from deepsvdd_jax.networks import without_decoder
from deepsvdd_jax.objectives import objective

# The numbers of images and patches that the dictionary is learned from are the Theano code's.
_DICTIONARY_IMAGES = 500

# The latest dictionaries that a process has learned, by their input: some kilobytes each.
MOST_DICTIONARIES = 1000
_LEARNED: dict[tuple[Any, ...], npt.NDArray[np.float32]] = {}

# Settings that a network must share with the one whose weights it takes.
_SAME = (
    *("stages", "hidden", "hidden_style", "rep_dim", "kernel_size", "padding", "activation"),
    *("bias", "affine", "batch_norm"),
)
_SAME_AUTOENCODER = ("decoder", "decoder_layout", "autoencoder_norm")


def initial_weights(
    config: RunConfig, images: npt.NDArray[np.floating], seed: int
) -> dict[str, Any]:
    """Returns the parameters that replace drawn ones, a nested dict, empty if there are none. Under
    `statistics` are the running batch statistics of a saved model, under `center` and
    `squared_radius` its sphere, if it has one and this run continues from it without an
    autoencoder.

    Args:
      config: of the run; `initial_model` (of an ensemble its first member) and `first_layer` say
        what is wanted.
      images: `[n, height, width, channels]`, the run's training images, network input.
      seed: of the run.

    Raises:
      ConfigError, ModelError: as `check_start`.
    """
    check_start(config, tuple(images.shape[1:]))
    if config.initial_model is not None:
        return _model_weights(config, load_model(os.path.expanduser(config.initial_model)))
    if config.first_layer == "dictionary":
        network = config.network
        kernel = _learned_once(images, network.kernel_size, network.stages[0][0], seed)
        return {"encoder": {"stage0_0": {"kernel": kernel}}}
    return {}


def check_start(config: RunConfig, image_shape: tuple[int, ...]) -> None:
    """Refuses a start that does not suit a run's network or images (reads the saved model).

    Raises:
      ConfigError: a saved model of another network or image shape, or a dictionary without a
        convolution or of patches larger than the images.
      ModelError: a saved model that cannot be read.
    """
    network = config.network
    if config.initial_model is not None:
        _check_model(config, load_model(os.path.expanduser(config.initial_model)), image_shape)
    elif config.first_layer == "dictionary" and (
        network.is_dense or min(image_shape[:2]) < network.kernel_size
    ):
        raise ConfigError(
            "first_layer dictionary needs a convolution no larger than the images: kernel_size is "
            f"{network.kernel_size}, the images are {image_shape}"
        )


def _check_model(config: RunConfig, model: Model, image_shape: tuple[int, ...]) -> None:
    path = config.initial_model
    if image_shape != model.image_shape:
        raise ConfigError(
            f"initial_model {path} was trained on images of shape {model.image_shape}; these have "
            f"{image_shape}"
        )
    decodes = config.needs_decoder and "decoder" in model.params
    for name in (*_SAME, *(_SAME_AUTOENCODER if decodes else ())):
        theirs, ours = getattr(model.config.network, name), getattr(config.network, name)
        if theirs != ours:
            raise ConfigError(f"initial_model {path} has {name}={theirs}; this run has {ours}")


def _model_weights(config: RunConfig, model: Model) -> dict[str, Any]:
    decodes = config.needs_decoder and "decoder" in model.params

    def first(tree: dict[str, Any]) -> dict[str, Any]:
        return jax.tree.map(lambda leaf: leaf[0], tree if decodes else without_decoder(tree))

    weights = {**first(model.params), "statistics": first(model.statistics)}
    if config.pretraining is None and objective(config.training.objective).has_center:
        weights |= _sphere(model)
    return weights


def _sphere(model: Model) -> dict[str, npt.NDArray[np.float32]]:
    """Returns center and squared radius of a model's first member, as the PyTorch code loads them;
    an empty dict for an autoencoder, which has neither."""
    if not objective(model.config.training.objective).has_center:
        return {}
    return {
        "center": np.asarray(model.center[0], np.float32),
        "squared_radius": np.asarray(model.squared_radius[0], np.float32),
    }


def _learned_once(
    images: npt.NDArray[np.floating], size: int, atoms: int, seed: int
) -> npt.NDArray[np.float32]:
    """Returns `dictionary_kernel`, learned once in a process: a measurement before training and
    every method of a sweep start from the same one."""
    content = hashlib.sha256(np.ascontiguousarray(images).tobytes()).hexdigest()
    what = (content, str(images.dtype), images.shape, size, atoms, seed)
    if what not in _LEARNED:
        if len(_LEARNED) >= MOST_DICTIONARIES:
            del _LEARNED[next(iter(_LEARNED))]
        _LEARNED[what] = dictionary_kernel(images, size, atoms, seed)
    return _LEARNED[what]


def dictionary_kernel(
    images: npt.NDArray[np.floating], size: int, atoms: int, seed: int
) -> npt.NDArray[np.float32]:
    """Learns a dictionary of image patches; its atoms are the kernels `[size, size, channels,
    atoms]` of a first convolution.

    Patches of 500 images are standardised; scikit-learn's `MiniBatchDictionaryLearning` with alpha
    1, 1000 iterations of 10 patches (Theano code). Unlike there, an image gives 20 random patches
    instead of all of its own (the 10,000 that the iterations see are drawn from them either way),
    and atoms are scaled to the norm that Glorot initialisation gives a kernel on average, so that
    depth and learning rate keep their meaning.
    """
    from sklearn.decomposition import MiniBatchDictionaryLearning
    from sklearn.feature_extraction.image import extract_patches_2d

    random = np.random.RandomState(seed)
    chosen = images[random.permutation(len(images))[:_DICTIONARY_IMAGES]]
    patches = np.concatenate(
        [
            extract_patches_2d(image, (size, size), max_patches=20, random_state=random)
            for image in chosen
        ]
    ).reshape(-1, size * size * images.shape[-1])
    patches = patches - patches.mean(axis=0)
    patches = patches / np.maximum(patches.std(axis=0), 1e-8)
    iterations, batch = 1000, 10
    learner = MiniBatchDictionaryLearning(
        n_components=atoms,
        alpha=1.0,
        batch_size=batch,
        max_iter=max(1, math.ceil(iterations * batch / len(patches))),
        random_state=random,
    )
    components = learner.fit(patches[random.permutation(len(patches))]).components_
    norms = np.maximum(np.linalg.norm(components, axis=1, keepdims=True), 1e-8)
    channels = images.shape[-1]
    glorot_norm = math.sqrt(
        size * size * channels * 4.0 / (1.0 + 0.01**2) / (size * size * (channels + atoms))
    )
    kernels = (components / norms * glorot_norm).reshape(atoms, size, size, channels)
    return kernels.transpose(1, 2, 3, 0).astype(np.float32)
