"""Runs to train and the images that they share, as input of a program."""

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np
import numpy.typing as npt

from deepsvdd_jax import preprocessing, runs, training
from deepsvdd_jax.cli.sweeps import pretraining
from deepsvdd_jax.cli.sweeps.pretraining import Pretrained
from deepsvdd_jax.cli.sweeps.records import QualifiedName, RunName
from deepsvdd_jax.configs import RunConfig
from deepsvdd_jax.datasets import Dataset, OneClassSplit
from deepsvdd_jax.runs import Run, initialization


class Job(NamedTuple):
    """A run to train, and the autoencoder that it starts from, if any."""

    run: QualifiedName
    split: OneClassSplit
    start: Pretrained | None = None

    @property
    def name(self) -> RunName:
        """Of the run in its sweep."""
        return self.run.name


class ImagePool(NamedTuple):
    """Jobs that share their training and test images.

    Attributes:
      jobs: the runs.
      fitted: preprocessing of each of their training sets, see `training_set`.
      scalings: the part of it that their runs apply on the device.
      images: training images of the data set, the other parts applied.
      test_images: likewise.
    """

    jobs: list[Job]
    fitted: dict[bytes, preprocessing.Preprocessing]
    scalings: dict[bytes, preprocessing.Scaling]
    images: npt.NDArray[np.floating]
    test_images: npt.NDArray[np.floating]


def image_count(split: OneClassSplit) -> int:
    """Returns how many images a run holds: its training images, the known anomalies last, then
    those held out."""
    return trained_count(split) + len(split.validation_indices)


def trained_count(split: OneClassSplit) -> int:
    """Returns how many images a run trains on, known anomalies among them."""
    return len(split.train_indices) + len(split.known_anomalies)


def training_set(split: OneClassSplit) -> bytes:
    """Returns a key of the images that the preprocessing is fitted to."""
    return hashlib.sha256(split.train_indices.tobytes()).digest()


def run_key(seed: int, normal_class: int) -> jax.Array:
    """Returns the key of a run: it depends on nothing but the run itself."""
    return jax.random.fold_in(jax.random.key(seed), normal_class)


def start_failure(job: Job) -> int:
    return training.NOT_FAILED if job.start is None else job.start.failure


def image_pools(config: RunConfig, dataset: Dataset, jobs: list[Job]) -> Iterator[ImagePool]:
    """Runs share one pool unless their preprocessing changes the images: whitening, or a scaling
    that float32 values are too coarse for. Then runs with the same training set share one."""
    by_set: dict[bytes, list[Job]] = {}
    for job in jobs:
        by_set.setdefault(training_set(job.split), []).append(job)
    shared = None if config.preprocessing.zca else _shared_pool(config, dataset, jobs, by_set)
    if shared is not None:
        yield shared
        return
    for key, members in by_set.items():
        normals = dataset.x_train[members[0].split.train_indices]
        fitted = preprocessing.fit(config.preprocessing, normals)
        images, scaling = preprocessing.apply_on_host(fitted, dataset.x_train)
        test, _ = preprocessing.apply_on_host(fitted, dataset.x_test)
        yield ImagePool(members, {key: fitted}, {key: scaling}, images, test)


def _shared_pool(
    config: RunConfig, dataset: Dataset, jobs: list[Job], by_set: dict[bytes, list[Job]]
) -> ImagePool | None:
    """Returns all jobs with pools that every run scales on the device, in float32; None if that
    would lose digits."""
    contrast = config.preprocessing.contrast
    images = preprocessing.normalize_contrast(preprocessing.unit_range(dataset.x_train), contrast)
    test = preprocessing.normalize_contrast(preprocessing.unit_range(dataset.x_test), contrast)
    scalings: dict[bytes, preprocessing.Scaling] = {}
    for key, members in by_set.items():
        normals = images[members[0].split.train_indices]
        scaling = preprocessing.fit_scaling(config.preprocessing, normals)
        if not preprocessing.fits_float32(scaling):
            return None
        shift, scale = (part.astype(np.float32) for part in scaling)
        scalings[key] = preprocessing.Scaling(shift, scale)
    fitted = {
        key: preprocessing.Preprocessing(contrast, None, scaling)
        for key, scaling in scalings.items()
    }
    converted = (part.astype(np.float32, copy=False) for part in (images, test))
    return ImagePool(jobs, fitted, scalings, *converted)


def stack_jobs(
    config: RunConfig,
    pool: ImagePool,
    jobs: list[Job],
    width: int,
    longest: int,
) -> Run:
    """Stacks the jobs of a program; runs without images fill it up to its width."""
    settings = runs.phase_settings(config)
    stacked = []
    for job in jobs:
        scaling = pool.scalings[training_set(job.split)]
        indices, split = job.split.train_indices, job.split
        # The images after the training images are scored by full passes, and are padding in
        # training.
        held = np.concatenate([indices, split.known_anomalies, split.validation_indices])
        labels = np.zeros(len(held), np.int32)
        labels[len(indices) : trained_count(split)] = -1
        # A run whose autoencoder failed gets no images and ends before it begins.
        count = trained_count(split) if start_failure(job) == training.NOT_FAILED else 0
        data = training.run_data(
            held, longest, scaling.shift, scaling.scale, count=count, labels=labels
        )
        if job.start is not None:
            weights = pretraining.starting_weights(config, job.start)
        else:
            images = (pool.images[indices] - scaling.shift) * scaling.scale
            weights = initialization.initial_weights(config, images, job.name.seed)
        stacked.append(Run(run_key(*job.name[:0:-1]), data, *settings, weights))
    nothing = training.run_data(np.zeros(0, np.int32), longest, scaling.shift, scaling.scale)
    empty = stacked[0]._replace(data=nothing)
    return runs.stack_runs(stacked + [empty] * (width - len(stacked)))
