"""The members of a model, one for each seed, trained in one program."""

from collections.abc import Callable

import jax
import numpy as np
import numpy.typing as npt

from deepsvdd_jax import preprocessing, runs, training
from deepsvdd_jax.configs import DetectorConfig
from deepsvdd_jax.detectors import columns
from deepsvdd_jax.detectors.inputs import Images
from deepsvdd_jax.runs import initialization, streamed

# Epochs between two calls of `on_progress`.
_EPOCHS_PER_REPORT = 5

# The number of training images is rounded up to a multiple of at least this, so that one compiled
# program serves nearby numbers.
_SMALLEST_POOL_STEP = 64
_FEWEST_ROWS, _MOST_ROUNDED_ROWS = 1024, 8192


def train_members(
    config: DetectorConfig,
    images: Images,
    labels: npt.NDArray[np.int32],
    *,
    on_progress: Callable[[runs.Progress], None] | None = None,
    on_compiled: Callable[[int, int], None] | None = None,
    count: int | None = None,
    epochs_per_call: int | None = None,
    start: Callable[[runs.Program], runs.Progress | None] | None = None,
    folds: npt.NDArray[np.int64] | None = None,
    regions: npt.NDArray[np.bool_] | None = None,
) -> tuple[runs.Outcome, runs.Progress]:
    """Trains all members in one program.

    Args:
      config: of the detector.
      images: `[n, ...]`, network input.
      labels: int32 `[n]`.
      on_progress: called after every chunk of epochs.
      on_compiled: see `fit_detector`.
      count: trains on the first so many images; None trains on all. The compiled program is the
        same.
      epochs_per_call: of a chunk; None chooses.
      start: see `Checkpoint.resume`.
      folds: see `Prepared`; member k is trained on all images but those of fold k.
      regions: bool `[known, height, width]`, see `Prepared`.
    """
    padding = padded_count(len(images), is_table=images.ndim == 2) - len(images)
    pool = np.pad(images, ((0, padding), *((0, 0),) * (images.ndim - 1)))
    ones = (1,) * (images.ndim - 1)
    scaling = preprocessing.no_scaling(ones)
    seeds = _filled(config.seeds, is_table=images.ndim == 2)
    keys = jax.vmap(jax.random.key)(np.array([seed % 2**32 for seed in seeds], np.uint32))
    members = [_trained_on(len(images), folds, config.seeds.index(seed)) for seed in seeds]
    data = [
        training.run_data(
            own, len(pool), *scaling, count=count, labels=labels[own], regions=regions
        )
        for own in members
    ]
    weights = [
        initialization.initial_weights(
            config.run, images[own] if folds is not None else images, seed
        )
        for own, seed in zip(members, seeds, strict=True)
    ]
    width = columns.program_width(config.run, images.shape[1:])
    if width is not None:
        pool = columns.pad(pool, width)
        factors = columns.start_factors(config.run.network, images.shape[1], width)
        weights = [{"factors": factors} | drawn for drawn in weights]
    if epochs_per_call is None:
        epochs_per_call = _EPOCHS_PER_REPORT if on_progress else runs.MOST_EPOCHS_PER_CALL
    outcome, progress = runs.train_runs(
        keys,
        config.run,
        pool,
        data=data,
        weights=weights,
        engine=streamed.choose_engine(None, pool),
        start=start,
        epochs_per_call=epochs_per_call,
        on_progress=on_progress,
        on_compiled=on_compiled,
    )
    if len(seeds) > len(config.seeds):
        outcome, history = jax.tree.map(
            lambda leaf: leaf[: len(config.seeds)], (outcome, progress.history)
        )
        progress = progress._replace(history=history)
    if width is not None:
        params = columns.cut(config.run.network, outcome.state.params, images.shape[1])
        outcome = outcome._replace(state=outcome.state._replace(params=params))
    return outcome, progress


def _trained_on(
    count: int, folds: npt.NDArray[np.int64] | None, member: int
) -> npt.NDArray[np.integer]:
    """Returns the inputs that a member is trained on, the normal ones first."""
    everything = np.arange(count)
    if folds is None:
        return everything
    return np.concatenate([np.flatnonzero(folds != member), everything[len(folds) :]])


def _filled(seeds: tuple[int, ...], *, is_table: bool) -> tuple[int, ...]:
    """Returns seeds for all devices. Where there are more members than devices, the last seed is
    repeated until every device has as many, and the repeated members are dropped in the end: five
    members would use one device otherwise. A table trains too briefly to gain from that."""
    devices = jax.local_device_count()
    if is_table or len(seeds) <= devices:
        return seeds
    return seeds + seeds[-1:] * (-len(seeds) % devices)


def padded_count(count: int, *, is_table: bool) -> int:
    """Returns a number of samples to compile for: few numbers, an eighth larger at most but for
    small ones. Rows of a table take so little that up to 8,192 they are a power of two."""
    if is_table and count <= _MOST_ROUNDED_ROWS:
        return max(_FEWEST_ROWS, 1 << (count - 1).bit_length())
    step = max(_SMALLEST_POOL_STEP, 2 ** (count.bit_length() - 4))
    return -(-count // step) * step
