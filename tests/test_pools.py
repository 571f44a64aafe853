"""What runs share as input of a program."""

import numpy as np

from deepsvdd_jax.cli.sweeps import pools
from deepsvdd_jax.cli.sweeps.pools import Job
from deepsvdd_jax.cli.sweeps.records import QualifiedName, RunName
from deepsvdd_jax.configs import PreprocessingConfig, RunConfig
from deepsvdd_jax.datasets import Dataset, OneClassSplit


def toy_dataset() -> Dataset:
    images = np.random.default_rng(0).integers(0, 256, (40, 4, 4, 1)).astype(np.uint8)
    labels = np.arange(40) % 2
    return Dataset("toy", images, labels, images[:6], labels[:6], ("even", "odd"))


def job(seed: int, indices: range, sweep: str = "") -> Job:
    nothing = np.zeros(0, np.int32)
    split = OneClassSplit(
        train_indices=np.array(indices, np.int32),
        validation_indices=nothing,
        test_indices=np.arange(6, dtype=np.int32),
        test_labels=np.arange(6, dtype=np.uint8) % 2,
        known_anomalies=nothing,
    )
    return Job(QualifiedName(RunName("deep_svdd", 0, seed), sweep), split)


def test_a_run_is_scaled_by_its_own_training_set_whatever_others_train_with_it() -> None:
    dataset, config = toy_dataset(), RunConfig(preprocessing=PreprocessingConfig(min_max=True))
    # One class, of which seeds and sweeps hold other images: held out, or polluted.
    jobs = [job(0, range(0, 40, 2)), job(1, range(2, 12, 2)), job(0, range(3, 9), "other")]
    (pool,) = pools.image_pools(config, dataset, jobs)
    run = pools.stack_jobs(config, pool, jobs, 4, 20)
    for number, one in enumerate(jobs):
        values = dataset.x_train[one.split.train_indices].astype(np.float64) / 255
        low, high = values.min(), values.max()
        np.testing.assert_allclose(np.ravel(run.data.shift[number]), low, rtol=1e-6)
        np.testing.assert_allclose(np.ravel(run.data.scale[number]), 1 / (high - low), rtol=1e-6)
        (alone,) = pools.image_pools(config, dataset, [one])
        mine = pools.stack_jobs(config, alone, [one], 1, 20)
        np.testing.assert_array_equal(run.data.shift[number], mine.data.shift[0])
        np.testing.assert_array_equal(run.data.scale[number], mine.data.scale[0])
    assert len({float(np.ravel(shift)[0]) for shift in run.data.shift[:3]}) > 1


def test_runs_that_are_whitened_share_images_if_they_are_fitted_to_the_same() -> None:
    dataset, config = toy_dataset(), RunConfig(preprocessing=PreprocessingConfig(zca=True))
    even, odd = range(0, 40, 2), range(1, 40, 2)
    found = pools.image_pools(config, dataset, [job(0, even), job(1, odd), job(0, even, "other")])
    members = [[one.run for one in pool.jobs] for pool in found]
    first = RunName("deep_svdd", 0, 0)
    assert members == [
        [QualifiedName(first), QualifiedName(first, "other")],
        [QualifiedName(RunName("deep_svdd", 0, 1))],
    ]
