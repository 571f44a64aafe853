"""Runs: a run's figures are its own, whatever shares its program."""

import dataclasses
from typing import Any

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from deepsvdd_jax import runs, streaming, training
from deepsvdd_jax.configs import (
    ConfigError,
    NetworkConfig,
    ObjectiveConfig,
    OptimizerConfig,
    PhaseConfig,
    RunConfig,
)
from deepsvdd_jax.networks import build_network
from deepsvdd_jax.runs import Outcome, Progress, Run
from deepsvdd_jax.runs.chunks import epoch_key
from deepsvdd_jax.training import RunData

SHAPE = (8, 8, 1)
NETWORK = NetworkConfig(stages=((4,),), rep_dim=4, kernel_size=3)
PHASE = PhaseConfig(optimizer=OptimizerConfig("adam", 1e-3), epochs=4, batch_size=16)
CONFIG = RunConfig(network=NETWORK, training=PHASE)
SIZES = (45, 23, 16)


def make_images(count: int = 90) -> np.ndarray:
    return np.random.RandomState(0).rand(count, *SHAPE).astype(np.float32)


def make_run(number: int, config: RunConfig = CONFIG, padded: int = 45) -> Run:
    count = SIZES[number]
    indices = np.zeros(padded, np.int32)
    indices[:count] = np.arange(count) * 2 % 90
    data = RunData(
        jnp.asarray(indices),
        jnp.int32(count),
        jnp.full((1, 1, 1), 0.1, jnp.float32),
        jnp.full((1, 1, 1), 1.5, jnp.float32),
    )
    key = jax.random.fold_in(jax.random.key(7), number)
    return Run(key, data, *runs.phase_settings(config), {})


def train(
    config: RunConfig, members: list[Run], devices: int = 1, chunks: tuple[int, ...] = (25,) * 9
) -> tuple[Outcome, Progress]:
    images = make_images()
    network, mesh = build_network(config.network, SHAPE), runs.make_mesh(jax.devices()[:devices])
    pools = runs.in_memory(mesh, images, images[:33])
    stacked = runs.place(mesh, runs.stack_runs(members))
    program = runs.Program(config, network, mesh, pools, stacked)
    progress = program.init()
    for epochs in chunks:
        if runs.is_over(config, progress):
            break
        progress = program.advance(progress, epochs)
    assert runs.is_over(config, progress)
    return program.finish(progress), progress


def first_epochs(
    config: RunConfig, members: list[Run], epochs: int, images: np.ndarray | None = None
) -> Progress:
    pool = make_images() if images is None else images
    network, mesh = build_network(config.network, SHAPE), runs.make_mesh(jax.devices()[:1])
    pools = runs.in_memory(mesh, pool, pool[:33])
    stacked = runs.place(mesh, runs.stack_runs(members))
    program = runs.Program(config, network, mesh, pools, stacked)
    return program.advance(program.init(), epochs)


TWENTY_EPOCHS = dataclasses.replace(PHASE, epochs=20)


def test_settings_that_travel_as_arrays_share_a_program() -> None:
    keys = jax.random.split(jax.random.key(0), 2)

    def center_and_kernel(training: PhaseConfig, preset: str) -> Any:
        config = dataclasses.replace(CONFIG, preset=preset, training=training)
        state = runs.train_runs(keys, config, make_images(60), make_images(60))[0].state
        return jax.device_get((state.center, state.params))

    one = center_and_kernel(TWENTY_EPOCHS, "x")
    compiled = runs.compiled.cache_info().misses
    faster = dataclasses.replace(
        TWENTY_EPOCHS, optimizer=OptimizerConfig("adam", 1e-2), weight_decay=0.1
    )
    other = center_and_kernel(faster, "y")
    assert runs.compiled.cache_info().misses == compiled
    np.testing.assert_array_equal(one[0], other[0])
    changed = jax.tree.map(lambda a, b: not np.allclose(a, b), one[1], other[1])
    assert all(jax.tree.leaves(changed))


@pytest.mark.parametrize(
    ("pretrained", "devices"), [pytest.param(True, 2, marks=pytest.mark.slow), (False, 1)]
)
def test_a_program_that_was_compiled_ahead_compiles_no_more(
    pretrained: bool, devices: int, compilations: list[float]
) -> None:
    config = RunConfig(
        network=NetworkConfig("mlp", stages=(), hidden=(3,), rep_dim=2, batch_norm=False),
        pretraining=dataclasses.replace(
            PHASE, epochs=1, objective=ObjectiveConfig(kind="reconstruction")
        )
        if pretrained
        else None,
        training=dataclasses.replace(PHASE, epochs=2),
    )
    images = np.random.RandomState(0).rand(20, 3).astype(np.float32)
    network, mesh = build_network(config.network, (3,)), runs.make_mesh(jax.devices()[:devices])
    data = training.run_data(np.arange(20), 20, np.zeros(1), np.ones(1))
    made = [Run(jax.random.key(seed), data, *runs.phase_settings(config), {}) for seed in range(2)]
    pools = runs.in_memory(mesh, images, images[:5])
    stacked = runs.place(mesh, runs.stack_runs(made))
    program = runs.Program(config, network, mesh, pools, stacked)
    told: list[tuple[int, int]] = []
    needed = program.compile(lambda *counts: told.append(counts))
    count = 5 if pretrained else 3
    assert told[0] == (0, count) and told[-1] == (count, count)
    # Of 25 images or so of three float32 values, and of the runs' own.
    assert needed > 25 * 3 * 4
    assert len(compilations) >= count
    compilations.clear()
    progress = program.init()
    while not runs.is_over(config, progress):
        progress = program.advance(progress, 1)
    program.finish(progress)
    assert progress.history.keys() == ({"pretraining"} if pretrained else set()) | {"training"}
    assert not compilations


@pytest.mark.parametrize("rule", ["quantile", "block-coordinate", "gradient"])
def test_one_class_and_soft_boundary_share_what_does_not_move_the_radius(rule: Any) -> None:
    """Equal text is an equal program; `gradient` has the radius in its first state."""

    def programs(kind: Any) -> list[str]:
        objective = ObjectiveConfig(kind=kind, radius_rule=rule, warm_up_epochs=3)
        config = dataclasses.replace(
            CONFIG, training=dataclasses.replace(PHASE, objective=objective)
        )
        static = (config, build_network(NETWORK, SHAPE))
        pools = runs.ResidentPools(*2 * [jnp.ones((4, *SHAPE))])

        def text(move: Any, *state: Any) -> str:
            def moved(pools: Any, run: Run, *state: Any) -> Any:
                return move(runs.ResidentSource(pools, run), *static, *state)

            return jax.jit(moved).lower(pools, make_run(0), *state).as_text()

        source = runs.ResidentSource(pools, make_run(0))
        state, _ = jax.eval_shape(lambda: runs.begin_run(source, *static))
        return [text(runs.begin_run), text(runs.finish_run, state)]

    one, soft = programs("one-class"), programs("soft-boundary")
    assert (one == soft) == (rule != "gradient")


def test_one_class_and_soft_boundary_are_compiled_once_where_they_are_equal(
    compilations: list[float],
) -> None:
    def train_briefly(kind: Any) -> None:
        phase = dataclasses.replace(PHASE, epochs=11, objective=ObjectiveConfig(kind=kind))
        config = RunConfig(network=NetworkConfig("mlp", (), (3,), rep_dim=2), training=phase)
        keys = jax.vmap(jax.random.key)(np.arange(1))
        runs.train_runs(keys, config, np.ones((20, 3), np.float32))

    train_briefly("one-class")
    compilations.clear()
    train_briefly("soft-boundary")
    # The epochs alone; a fold of keys or the like may be among them only if it is new.
    assert len(compilations) == 1


@pytest.mark.parametrize("move", [runs.begin_run, runs.run_epochs, runs.finish_run])
def test_only_what_a_table_runs_once_is_compiled_in_a_hurry(
    move: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs.forget_programs()
    options = []
    monkeypatch.setattr(jax, "jit", lambda _, compiler_options: options.append(compiler_options))
    table = build_network(NetworkConfig("mlp", stages=(), hidden=(3,), rep_dim=2), (3,))
    for network in (table, build_network(NETWORK, SHAPE)):
        runs.whole_move(move, runs.make_mesh(), CONFIG, network)
    runs.forget_programs()
    hurried = {"xla_backend_optimization_level": 0}
    assert options == [None if move is runs.run_epochs else hurried, None]


@pytest.mark.parametrize(("kind", "number"), [("reconstruction", 1), ("one-class", 2)])
def test_keys_of_an_epoch_are_named_by_phase_epoch_and_use(kind: str, number: int) -> None:
    network = build_network(NETWORK, SHAPE)
    config = dataclasses.replace(PHASE, objective=ObjectiveConfig(kind=kind))
    phase = runs.Phase("training", config, network)
    of_phase = jax.random.fold_in(make_run(0).key, number)
    for use in (0, 1):
        key = jax.jit(lambda run, use=use: epoch_key(phase, run, jnp.int32(3), use))(make_run(0))
        assert key == jax.random.fold_in(jax.random.fold_in(of_phase, 3), use)


def empty_run() -> Run:
    """Fills a program, so that all of these tests share one compiled program."""
    run = make_run(1)
    return run._replace(data=run.data._replace(count=jnp.int32(0)))


def train_alone(number: int) -> tuple[Outcome, Progress]:
    return train(CONFIG, [make_run(number), empty_run()])


def assert_close(first: Any, second: Any) -> None:
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6),
        first,
        second,
    )


def member(tree: Any, number: int) -> Any:
    return jax.tree.map(lambda leaf: np.asarray(leaf)[number], tree)


def assert_same(first: Any, second: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, first, second)


@pytest.fixture(scope="module")
def together() -> tuple[Outcome, Progress]:
    return train(CONFIG, [make_run(0), make_run(1)])


def test_classes_of_uneven_size_in_one_program_equal_each_alone(
    together: tuple[Outcome, Progress],
) -> None:
    for number in (0, 1):
        outcome, progress = train_alone(number)
        assert_same(member(outcome, 0), member(together[0], number))
        assert_same(member(progress.history, 0), member(together[1].history, number))


def test_longer_padding_changes_no_bit(together: tuple[Outcome, Progress]) -> None:
    outcome, _ = train(CONFIG, [make_run(0, padded=70), make_run(1, padded=70)])
    assert_same(outcome.state, together[0].state)
    assert_same(outcome.test_distances, together[0].test_distances)
    np.testing.assert_array_equal(
        np.asarray(outcome.train_distances)[1, :23], np.asarray(together[0].train_distances)[1, :23]
    )


@pytest.mark.parametrize("chunks", [(2, 2), (3, 1), (1, 1, 1, 1)])
def test_chunks_equal_the_whole(
    together: tuple[Outcome, Progress], chunks: tuple[int, ...]
) -> None:
    outcome, progress = train(CONFIG, [make_run(0), make_run(1)], chunks=chunks)
    assert_same(outcome, together[0])
    assert_same(progress.history, together[1].history)


@pytest.mark.slow
def test_two_devices_equal_one(together: tuple[Outcome, Progress]) -> None:
    outcome, progress = train(CONFIG, [make_run(0), make_run(1)], devices=2)
    assert_close(outcome, together[0])
    assert_close(progress.history, together[1].history)


def test_vmap_equals_the_loop(together: tuple[Outcome, Progress]) -> None:
    network = build_network(NETWORK, SHAPE)
    pools = runs.ResidentPools(jnp.asarray(make_images()), jnp.asarray(make_images(33)))
    stacked = runs.stack_runs([make_run(0), make_run(1)])

    def whole(run: Run) -> Any:
        source = runs.ResidentSource(pools, run)
        state, untrained = runs.begin_run(source, CONFIG, network)
        limits = (jnp.int32(0), jnp.int32(4))
        return runs.run_epochs(source, CONFIG, network, "training", 4, *limits, state)

    state, rows = jax.jit(jax.vmap(whole))(stacked)
    history = training.unpacked_info(np.asarray(rows))
    np.testing.assert_allclose(
        history.loss, together[1].history["training"].loss, rtol=2e-4, atol=1e-6
    )
    for mine, other in zip(
        jax.tree.leaves(state.params), jax.tree.leaves(together[0].state.params), strict=True
    ):
        np.testing.assert_allclose(mine, other, rtol=1e-3, atol=2e-5)


@pytest.mark.slow
def test_vmapped_smaller_class_is_not_touched_by_padding_steps() -> None:
    """Three steps an epoch for one run, one for the other: the second must equal itself alone."""
    network = build_network(NETWORK, SHAPE)
    pools = runs.ResidentPools(jnp.asarray(make_images()), jnp.asarray(make_images(5)))

    def whole(run: Run) -> Any:
        source = runs.ResidentSource(pools, run)
        state, _ = runs.begin_run(source, CONFIG, network)
        limits = (jnp.int32(0), jnp.int32(2))
        return runs.run_epochs(source, CONFIG, network, "training", 2, *limits, state)[0]

    pair = jax.jit(jax.vmap(whole))(runs.stack_runs([make_run(0), make_run(2)]))
    alone = jax.jit(jax.vmap(whole))(runs.stack_runs([make_run(2), make_run(2)]))
    assert int(pair.step[0]) == 6 and int(pair.step[1]) == 2
    for mine, other in zip(jax.tree.leaves(pair), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(np.asarray(mine)[1], np.asarray(other)[1], rtol=1e-4, atol=1e-6)


def test_filler_runs_do_nothing() -> None:
    outcome, progress = train_alone(1)
    assert int(outcome.state.step[1]) == 0 and not progress.history["training"].ran[1].any()


def test_a_stopped_run_keeps_its_state_and_its_neighbour_goes_on() -> None:
    reference, progress = train(CONFIG, [make_run(0), make_run(1)])
    losses = progress.history["training"].loss
    # Between the two losses of the first epoch: exactly one of the runs stops after it.
    level = float(losses[:, 0].mean())
    phase = dataclasses.replace(PHASE, stop_below=level)
    stopped, progress = train(
        dataclasses.replace(CONFIG, training=phase), [make_run(0), make_run(1)]
    )
    first, second = (0, 1) if losses[0, 0] < level else (1, 0)
    ran = progress.history["training"].ran
    assert ran[first].tolist() == [True, False, False, False]
    assert int(stopped.state.epoch[first]) == 1
    after_one = first_epochs(CONFIG, [make_run(0), make_run(1)], 1).state.params
    assert_same(member(stopped.state.params, first), member(after_one, first))
    never = losses[second].min() >= level
    if never:
        assert_same(member(stopped.state.params, second), member(reference.state.params, second))


def test_a_run_that_blows_up_fails_alone() -> None:
    broken = make_run(0)
    broken = broken._replace(data=broken.data._replace(scale=jnp.full((1, 1, 1), jnp.nan)))
    outcome, progress = train(CONFIG, [broken, make_run(1)])
    alone, _ = train_alone(1)
    assert int(outcome.state.failure[0]) == training.NON_FINITE
    assert progress.history["training"].ran[0].tolist() == [True, False, False, False]
    assert_same(member(outcome, 1), member(alone, 0))


def test_statistics_center_and_floor() -> None:
    network = build_network(NETWORK, SHAPE)
    images = jnp.asarray(make_images(48))
    phase = dataclasses.replace(PHASE, objective=ObjectiveConfig(center_floor=0.0))
    state = runs.init_run(jax.random.key(0), RunConfig(network=NETWORK, training=phase), images)
    encode, encode_batch = jax.jit(network.encode), jax.jit(network.encode_batch)
    embeddings = encode(state.params, state.statistics, images)
    np.testing.assert_allclose(state.center, np.asarray(embeddings).mean(0), rtol=1e-4, atol=1e-6)
    # Three batches of 16: the statistics are the mean over them.
    parts = [encode_batch(state.params, images[i : i + 16], None, None)[1] for i in (0, 16, 32)]
    mean = jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *parts)
    jax.tree.map(
        lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6),
        state.statistics["encoder"],
        mean,
    )
    floored = runs.init_run(jax.random.key(0), CONFIG, images)
    assert np.abs(floored.center).min() >= np.float32(0.1)

    def with_objective(**changes: Any) -> RunConfig:
        objective = ObjectiveConfig(**changes)
        return dataclasses.replace(CONFIG, training=dataclasses.replace(PHASE, objective=objective))

    untouched = runs.init_run(jax.random.key(0), with_objective(statistics_first=False), images)
    leaves = jax.tree.leaves(untouched.statistics)
    assert all(np.isin(leaf, (0.0, 1.0)).all() for leaf in leaves)
    one = runs.init_run(
        jax.random.key(0), with_objective(center_batches=1, center_floor=0.0), images
    )
    first = encode(one.params, one.statistics, images[:16])
    np.testing.assert_allclose(one.center, np.asarray(first).mean(0), rtol=1e-4, atol=1e-6)
    constant = runs.init_run(jax.random.key(0), with_objective(center_init="constant"), images)
    np.testing.assert_array_equal(constant.center, np.full(4, 0.5, np.float32))


def test_pretraining_hands_the_encoder_on() -> None:
    autoencoder = dataclasses.replace(
        PHASE,
        objective=ObjectiveConfig(kind="reconstruction"),
        optimizer=OptimizerConfig("adam", 1e-2),
        epochs=3,
    )
    network = dataclasses.replace(NETWORK, hidden=(5,), autoencoder_norm=True)
    config = dataclasses.replace(CONFIG, pretraining=autoencoder, network=network)
    outcome, progress = train(config, [make_run(0, config), make_run(1, config)])
    assert progress.history["pretraining"].loss.shape == (2, 3)
    assert progress.history["training"].loss.shape == (2, 4)
    losses = progress.history["pretraining"].loss
    assert (losses[:, -1] < losses[:, 0]).all()
    assert set(outcome.state.params) == {"encoder"}
    # The autoencoder's normalisation of the dense layer stays behind.
    assert set(outcome.state.statistics["encoder"]) == {"stage0_0"}
    chunked, _ = train(config, [make_run(0, config), make_run(1, config)], chunks=(2, 1, 1, 3))
    assert_same(outcome, chunked)


def soft(rule: str, **changes: Any) -> RunConfig:
    objective = ObjectiveConfig(
        kind="soft-boundary", nu=0.2, radius_rule=rule, warm_up_epochs=2, radius_every=2, **changes
    )
    phase = dataclasses.replace(PHASE, objective=objective, epochs=30)
    return dataclasses.replace(CONFIG, training=phase)


def with_epochs(config: RunConfig, epochs: int, **changes: Any) -> RunConfig:
    phase = dataclasses.replace(config.training, epochs=epochs, **changes)
    return dataclasses.replace(config, training=phase)


def with_warm_up(rule: str, epochs: int, warm_up: int, every: int = 2) -> RunConfig:
    config = with_epochs(soft(rule), epochs)
    objective = dataclasses.replace(
        config.training.objective, warm_up_epochs=warm_up, radius_every=every
    )
    return with_epochs(config, epochs, objective=objective)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (with_warm_up("quantile", 5, 10), "warm_up_epochs=10 .*epochs=5.*epochs above 10"),
        (with_warm_up("quantile", 10, 10), "warm_up_epochs below 10"),
        (with_warm_up("block-coordinate", 9, 0), "warm_up_epochs=0 and radius_every=2"),
    ],
)
def test_a_soft_boundary_that_never_has_a_radius_is_refused(
    config: RunConfig, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        runs.train_runs(jax.random.split(jax.random.key(0), 1), config, np.ones((9, 8, 8, 1)))


@pytest.mark.parametrize(
    "config",
    [
        with_warm_up("gradient", 5, 10),
        with_warm_up("quantile", 11, 10),
        with_warm_up("block-coordinate", 5, 10),
        with_warm_up("block-coordinate", 5, 0, every=1),
        with_epochs(CONFIG, 1),
    ],
)
def test_what_sets_a_radius_is_not_refused(config: RunConfig) -> None:
    runs.check_radius(config)


def test_a_soft_boundary_stops_no_sooner_than_it_has_a_radius() -> None:
    config = with_epochs(soft("quantile"), 6, stop_below=1e9)
    images = np.random.RandomState(0).rand(40, *SHAPE).astype(np.float32)
    _, progress = runs.train_runs(jax.random.split(jax.random.key(0), 1), config, images)
    history = progress.history["training"]
    np.testing.assert_array_equal(history.ran[0], [True] * 3 + [False] * (len(history.ran[0]) - 3))
    assert (history.radius[0, :2] == 0).all() and history.radius[0, 2] > 0


@pytest.mark.parametrize(
    "engine",
    [runs.in_memory, pytest.param(streaming.engine(4000), marks=pytest.mark.slow)],
    ids=["in memory", "streamed"],
)
def test_a_run_starts_at_the_center_and_radius_that_it_brings_along(engine: Any) -> None:
    images = np.random.RandomState(0).rand(40, *SHAPE).astype(np.float32)
    center = np.linspace(-2.0, 3.0, NETWORK.rep_dim).astype(np.float32)
    sphere = {"center": center, "squared_radius": np.float32(6.25)}
    keys = jax.random.split(jax.random.key(0), 1)
    config = with_warm_up("quantile", 2, 1)
    outcome, progress = runs.train_runs(
        keys, config, images, weights=[sphere], epochs_per_call=1, engine=engine
    )
    np.testing.assert_array_equal(outcome.state.center[0], center)
    # In the warm-up the radius is the one that was brought, and after it the batches'.
    radius = progress.history["training"].radius[0]
    assert radius[0] == 2.5 and radius[1] != 2.5


def test_batch_radius_leaves_about_nu_outside_before_the_last_solution() -> None:
    config = soft("quantile")
    outcome, progress = train(config, [make_run(0, config)])
    assert int(outcome.state.failure[0]) == training.NOT_FAILED
    outside = progress.history["training"].outside[0, -5:].mean()
    print(f"quantile: {outside:.3f} of the training images outside, nu is 0.2")
    assert 0.05 < outside < 0.4
    distances = np.sort(np.asarray(outcome.train_distances)[0, :45])
    assert float(outcome.state.squared_radius[0]) == distances[45 - 9 - 1]


def test_trained_radius_follows_the_distances() -> None:
    config = soft("gradient")
    radius = first_epochs(config, [make_run(0, config)], 25).history["training"].radius[0]
    assert 0 < radius[-1] < radius[0]


@pytest.mark.slow
def test_trained_radius_leaves_about_nu_outside_before_the_last_solution() -> None:
    # Steps of R^2 of 1 % of its start follow the distances of this problem.
    network = dataclasses.replace(NETWORK, stages=((4,), (3,)))
    config = dataclasses.replace(soft("gradient", radius_rate=20.0), network=network)
    outcome, progress = train(config, [make_run(0, config)])
    late = progress.history["training"].outside[0, 10:]
    assert late.mean() == pytest.approx(0.2, abs=0.08)
    print(
        f"outside after each epoch: {late.round(2)}; in the end {outcome.fraction_outside[0]:.2f}"
    )


def test_dual_rule_moves_the_center_into_the_codes() -> None:
    config = soft("block-coordinate", center_rule="dual")
    progress = first_epochs(config, [make_run(0, config)], 3)
    assert int(progress.state.failure[0]) == training.NOT_FAILED
    history = progress.history["training"]
    # Epochs 1 and 2 are the warm-up, epoch 3 is not due.
    assert history.radius[0, 1] > 0 and history.radius[0, 2] == history.radius[0, 1]


def test_a_vanished_radius_is_reported() -> None:
    config = soft("block-coordinate", center_floor=0.0)
    run = make_run(1, config)
    run = run._replace(data=run.data._replace(shift=jnp.zeros((1, 1, 1))))
    progress = first_epochs(config, [run], 3, np.zeros((90, *SHAPE), np.float32))
    assert int(progress.state.failure[0]) == training.NO_RADIUS
    assert progress.history["training"].ran[0].tolist() == [True, False, False]


def test_train_runs_finds_obvious_anomalies() -> None:
    random = np.random.RandomState(1)
    base = random.rand(*SHAPE)
    normal = (base + 0.03 * random.randn(80, *SHAPE)).astype(np.float32)
    odd = random.rand(40, *SHAPE).astype(np.float32)
    keys = jax.random.split(jax.random.key(0), 2)
    seen = []
    outcome, progress = runs.train_runs(
        keys,
        dataclasses.replace(CONFIG, training=TWENTY_EPOCHS),
        normal[:60],
        np.concatenate([normal[60:], odd]),
        on_progress=seen.append,
    )
    labels = np.r_[np.zeros(20), np.ones(40)]
    for distances in np.asarray(outcome.test_distances):
        assert roc_auc_score(labels, distances) > 0.95
    epochs = [step.epoch for step in seen]
    assert epochs[0] == 1 and epochs[-1] == 20 == progress.epoch


def test_widest_program_leaves_a_fifth_of_the_memory_and_has_at_least_one_run() -> None:
    # 10 bytes of images; what is left of 210 are 20 a run. 0.8 * 1000 - 10 is enough for 39.
    assert runs.widest_program(needed=210, pools=10, width=10, memory=1000) == 39
    assert runs.widest_program(needed=210, pools=10, width=10, memory=20) == 1
