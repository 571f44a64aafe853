"""Functions of one run that need no images: weights, changes of the state, the outcome."""

import jax
import jax.numpy as jnp
from jax import Array

from deepsvdd_jax import objectives, scoring, training
from deepsvdd_jax.configs import PhaseConfig, RunConfig
from deepsvdd_jax.networks import BatchStats, Network, Params, without_decoder
from deepsvdd_jax.objectives import Pass
from deepsvdd_jax.runs.state import Outcome, Phase, Run
from deepsvdd_jax.training import EpochInfo, RunData, TrainState


def init_params(config: RunConfig, network: Network, run: Run) -> tuple[Params, BatchStats]:
    """Draws a run's weights. `run.weights` replaces the parameters that it names; under
    `statistics` it has running statistics, under `factors` factors on drawn weights."""
    key_init = jax.random.fold_in(run.key, 0)
    params, statistics = network.init(key_init, config.needs_decoder)
    special = ("statistics", "factors", "center", "squared_radius")
    weights = {name: value for name, value in run.weights.items() if name not in special}
    kept, factors = (run.weights.get(name, {}) for name in special[:2])
    params = _replace_leaves(scale_leaves(params, factors), weights)
    return params, _replace_leaves(statistics, kept)


def _replace_leaves(params: Params, replacements: Params) -> Params:
    merged = dict(params)
    for name, value in replacements.items():
        merged[name] = _replace_leaves(params[name], value) if isinstance(value, dict) else value
    return merged


def scale_leaves(params: Params, factors: Params) -> Params:
    """Returns parameters multiplied by the factors that are given for some of them."""
    scaled = dict(params)
    for name, factor in factors.items():
        leaf = params[name]
        scaled[name] = scale_leaves(leaf, factor) if isinstance(factor, dict) else leaf * factor
    return scaled


def init_state(
    config: RunConfig, network: Network, params: Params, statistics: BatchStats
) -> TrainState:
    """Returns a state of the training phase that knows nothing of the training set yet."""
    if not config.training_reconstructs:
        params, statistics = without_decoder(params), without_decoder(statistics)
    return training.start_phase(
        config.training,
        params,
        statistics,
        objectives.objective(config.training.objective).center(network.rep_dim),
        jnp.zeros((), jnp.float32),
    )


def reset_optimizer(phase: PhaseConfig, run: Run, state: TrainState) -> TrainState:
    """Returns the state before the first step, at the center and radius that the run brings along,
    if any; a run without images never trains."""
    # The optimiser's state has the shape of center and radius where these are trained.
    state = training.start_phase(
        phase,
        state.params,
        state.statistics,
        run.weights.get("center", state.center),
        run.weights.get("squared_radius", state.squared_radius),
    )
    return state._replace(active=run.data.count > 0)


def carry_failure(pretrained: TrainState, new: TrainState) -> TrainState:
    """Returns a new phase's first state; a run that failed before does not train."""
    healthy = pretrained.failure == training.NOT_FAILED
    return new._replace(active=new.active & healthy, failure=pretrained.failure)


def check_health(
    phase: PhaseConfig, state: TrainState, info: EpochInfo
) -> tuple[TrainState, EpochInfo]:
    """Notes the radius that an epoch ended with; stops a run whose loss is low enough, not finite,
    or whose radius vanished. A soft boundary does not stop before it has a radius."""
    info = info._replace(radius=jnp.sqrt(jnp.maximum(state.squared_radius, 0.0)))
    # Losses are measured before each step; the parameter norm also covers the last one.
    finite = jnp.isfinite(info.loss) & jnp.isfinite(info.parameter_norm)
    failure = jnp.where(finite, training.NOT_FAILED, training.NON_FINITE)
    objective = objectives.objective(phase.objective)
    lost = ~objective.healthy(state)
    failure = jnp.where((failure == training.NOT_FAILED) & lost, training.NO_RADIUS, failure)
    active = failure == training.NOT_FAILED
    if phase.stop_below is not None:
        active = active & ~(objective.settled(state) & (info.loss < phase.stop_below))
    return state._replace(active=active, failure=failure.astype(jnp.int32)), info


def outcome_of(
    network: Network, run: Run, state: TrainState, train_distances: Array, test_distances: Array
) -> Outcome:
    """Returns the outcome of a run with the distances of both its sets; see `finish_run`."""
    valid = _valid(run.data)
    # The radius is that of normal images; known anomalies are trained on too.
    normal = valid if run.data.labels is None else valid & (run.data.labels >= 0)
    finite = jnp.all(jnp.isfinite(train_distances) | ~valid) & jnp.all(jnp.isfinite(test_distances))
    lost = (state.failure == training.NOT_FAILED) & (run.data.count > 0) & ~finite
    # The last step may blow up the weights, which no loss before it shows.
    failure = jnp.where(lost, training.NON_FINITE, state.failure)
    state = state._replace(failure=failure.astype(jnp.int32))
    over = (train_distances > state.squared_radius).astype(jnp.float32)
    outside = objectives.masked_mean(over, normal)
    state = objectives.put_exact_radius(state, train_distances, normal, run.training)
    ratio = scoring.collapse_ratio(state, network)
    return Outcome(state, train_distances, test_distances, ratio, outside)


def put_result(phase: Phase, number: int, run: Run, state: TrainState, found: Array) -> TrainState:
    """Puts the result of a pass over the training set into the state."""
    wanted: Pass = phase.objective.passes[number]
    return wanted.put(state, found, _valid(run.data), phase.settings(run))


def _valid(data: RunData) -> Array:
    return jnp.arange(data.indices.shape[0], dtype=jnp.int32) < data.count


def no_statistics(state: TrainState) -> BatchStats:
    """Returns zeros where a sum of batch statistics starts."""
    return jax.tree.map(jnp.zeros_like, state.statistics)


def no_center(state: TrainState) -> Array:
    """Returns zeros where a sum of embeddings starts."""
    return jnp.zeros_like(state.center)


def images_in(batches: int | None, batch_size: int, data: RunData) -> Array:
    """Returns how many images the first batches hold; None: all."""
    return data.count if batches is None else jnp.minimum(data.count, batches * batch_size)
