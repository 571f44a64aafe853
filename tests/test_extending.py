"""An objective of one's own is settings, functions and a line; and what every objective owes."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

import deepsvdd_jax as svdd
from deepsvdd_jax import configs, detectors, objectives, runs, training
from deepsvdd_jax.configs import (
    BaseObjectiveConfig,
    ConfigError,
    DetectorConfig,
    PhaseConfig,
    RunConfig,
)
from deepsvdd_jax.configs import objective as objective_settings
from deepsvdd_jax.networks import Params
from deepsvdd_jax.objectives import (
    Apply,
    Batch,
    Hyperparameters,
    Losses,
    Objective,
    TrainState,
    hypersphere,
    squared_distances,
)

SAMPLES = Path(__file__).parent / "samples"
PUBLISHED = Path(__file__).parents[1] / "results" / "published"
NETWORK = svdd.NetworkConfig("table", stages=(), hidden=(6,), rep_dim=3, batch_norm=False)
step = jax.jit(svdd.train_step, static_argnums=(2, 3))


@dataclasses.dataclass(frozen=True)
class PushConfig(BaseObjectiveConfig):
    """A toy Deep SAD: known anomalies are pushed away by 1 / d."""

    kind: Literal["push"] = "push"
    eta: float = 1.0


def push(config: PushConfig) -> Objective:
    def losses(
        params: Params,
        state: TrainState,
        apply: Apply,
        batch: Batch,
        settings: Hyperparameters,
        key: Array | None,
    ) -> Losses:
        forward = apply(params, batch, key)
        distances = squared_distances(forward.embeddings, state.center)
        assert batch.labels is not None
        labelled = config.eta * (distances + 1e-6) ** batch.labels.astype(jnp.float32)
        values = jnp.where(batch.labels == 0, distances, labelled)
        return Losses(values, distances, forward.statistics)

    return hypersphere(config)._replace(losses=losses)


@pytest.fixture
def registered() -> Iterator[None]:
    with mock.patch.dict(objective_settings.CLASSES), mock.patch.dict(objectives.FACTORIES):
        objectives.register(PushConfig, push=push)
        yield


def run_config(objective: BaseObjectiveConfig, epochs: int = 3) -> RunConfig:
    phase = PhaseConfig(objective=objective, epochs=epochs, batch_size=20)
    return RunConfig(network=NETWORK, training=phase)


def test_a_toy_objective_trains_where_labels_push(registered: None) -> None:
    """Two far rows are known anomalies: trained with their labels they end further away."""
    random = np.random.RandomState(0)
    images = random.randn(40, 4).astype(np.float32)
    images[:4] += 3.0
    labels = np.where(np.arange(40) < 4, -1, 0)
    ones = np.ones((1,), np.float32)
    config = run_config(configs.as_kind(svdd.ObjectiveConfig(), "push"), 30)
    config = configs.replace_at(config, "training.optimizer.learning_rate", 0.01)
    keys = jnp.stack([jax.random.key(0)] * 2)
    data = [
        training.run_data(np.arange(40), 40, 0 * ones, ones, labels=known)
        for known in (np.zeros(40, int), labels)
    ]
    outcome, _ = svdd.train_runs(keys, config, images, images[:4], data=data)
    plain, pushed = np.asarray(outcome.test_distances).mean(axis=1)
    normals = np.asarray(outcome.train_distances)[:, 4:].mean(axis=1)
    assert pushed / normals[1] > 10 * plain / normals[0]


@pytest.mark.slow
def test_streaming_hands_the_labels_on(registered: None) -> None:
    random = np.random.RandomState(1)
    images = random.randn(50, 4).astype(np.float32)
    labels = np.where(np.arange(50) % 7 == 0, -1, np.where(np.arange(50) % 5 == 0, 1, 0))
    ones = np.ones((1,), np.float32)
    data = [training.run_data(np.arange(50), 50, 0 * ones, ones, labels=labels)]
    config, keys = run_config(PushConfig(eta=2.0)), jax.random.key(3)[None]
    resident, _ = svdd.train_runs(keys, config, images, images, data=data)
    streamed, _ = svdd.train_runs(
        keys, config, images, images, data=data, engine=svdd.streaming.engine(1500)
    )
    np.testing.assert_allclose(resident.test_distances, streamed.test_distances, rtol=1e-5)


def test_one_loss_is_the_one_of_numpy(registered: None) -> None:
    """d unlabelled, eta d known normal, eta / d known anomalous; the mean leaves padding out."""
    config = run_config(PushConfig(eta=0.5))
    images = np.random.RandomState(2).randn(5, 4).astype(np.float32)
    state = svdd.init_run(jax.random.key(0), config, jnp.asarray(images))
    network = svdd.build_network(NETWORK, (4,))
    batch = Batch(
        jnp.asarray(images),
        jnp.arange(5) < 4,
        jnp.asarray([0, 1, -1, 0, -1], jnp.int32),
    )
    phase = dataclasses.replace(config.training, weight_decay=0.0)
    _, info = step(state, batch, network, phase)
    codes = np.asarray(network.encode(state.params, state.statistics, images), np.float64)
    d = ((codes - np.asarray(state.center, np.float64)) ** 2).sum(axis=1)
    expected = (d[0] + 0.5 * (d[1] + 1e-6) + 0.5 / (d[2] + 1e-6) + d[3]) / 4
    assert float(info.data_loss) == pytest.approx(expected, rel=1e-5)


def test_its_settings_go_through_json_and_dotted_paths(registered: None) -> None:
    config = configs.replace_at(run_config(svdd.ObjectiveConfig(nu=0.3)), "training.epochs", 7)
    config = configs.replace_at(config, "training.objective.kind", "push")
    config = configs.replace_at(config, "training.objective.eta", 4.0)
    assert config.training.objective == PushConfig(nu=0.3, eta=4.0)
    assert configs.from_json(RunConfig, configs.to_json(config)) == config
    assert "push" in configs.objective_kinds()


def test_a_setting_of_another_objective_is_refused() -> None:
    with pytest.raises(ConfigError, match="eta is no setting of the objective one-class"):
        configs.replace_at(run_config(svdd.ObjectiveConfig()), "training.objective.eta", 1.0)
    with pytest.raises(ConfigError, match="allowed: one-class, soft-boundary, reconstruction"):
        configs.from_dict(PhaseConfig, {"objective": {"kind": "push"}})


def test_a_toy_detector_is_saved_loaded_and_scored(registered: None, tmp_path: Path) -> None:
    x = np.random.RandomState(0).randn(60, 4).astype(np.float32)
    detector = svdd.DeepSVDD(objective="push", epochs=2, random_state=0).fit(x)
    svdd.save_model(tmp_path / "model", detector.model_)
    again = svdd.load_model(tmp_path / "model")
    assert again.config.training.objective.kind == "push"
    np.testing.assert_array_equal(svdd.score_images(again, x), -detector.score_samples(x))


# --- what every objective owes ------------------------------------------------------------------

KINDS = configs.objective_kinds()

TURNED = svdd.NetworkConfig("turned", stages=((3,),), rep_dim=8, kernel_size=3)
MAPS = svdd.NetworkConfig("maps", ((4,), (3,)), batch_norm=False, fully_convolutional=True)


def contract(kind: str, epochs: int = 3, **settings: int) -> tuple[RunConfig, tuple[int, ...]]:
    """Returns a run of an objective and the shape of one of its samples."""
    objective = configs.as_kind(svdd.ObjectiveConfig(**settings), kind)
    phase = PhaseConfig(objective=objective, epochs=epochs, batch_size=20)
    if objective.needs_map:
        return RunConfig(network=MAPS, training=phase), (8, 8, 1)
    if objective.turns_images:
        return RunConfig(network=TURNED, training=phase), (6, 6, 1)
    return RunConfig(network=NETWORK, training=phase), (4,)


def all_kinds(*slow: str) -> list[Any]:
    return [pytest.param(kind, marks=pytest.mark.slow if kind in slow else ()) for kind in KINDS]


# A map compiles for long.
MARKED = all_kinds("fcdd")


@pytest.mark.parametrize("kind", MARKED)
def test_padding_changes_nothing(kind: str) -> None:
    config, shape = contract(kind, warm_up_epochs=0)
    images = np.random.RandomState(0).randn(6, *shape).astype(np.float32)
    state = svdd.init_run(jax.random.key(0), config, jnp.asarray(images))
    network = svdd.build_network(config.network, shape)
    labels = jnp.asarray([0, 1, -1, 0, 0, -1, 0, -1], jnp.int32)
    whole = Batch(jnp.asarray(images), jnp.ones(6, bool), labels[:6])
    padded = Batch(jnp.asarray(np.concatenate([images, images[:2] + 9])), jnp.arange(8) < 6, labels)
    (one, info), (other, padded_info) = (
        step(state, batch, network, config.training) for batch in (whole, padded)
    )
    np.testing.assert_allclose(info.loss, padded_info.loss, rtol=1e-6)
    for left, right in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(left, right, rtol=2e-5, atol=1e-6)


# These are trained, and tell anomalies, in tests of their own too.
@pytest.mark.parametrize("kind", all_kinds("fcdd", "hsc", "bce", "transformations"))
def test_scores_are_never_negative_and_far_is_anomalous(kind: str) -> None:
    config, shape = contract(kind, 20)
    config = configs.replace_at(config, "training.optimizer.learning_rate", 0.01)
    images = np.random.RandomState(0).randn(80, *shape).astype(np.float32)
    # A tenth lies as far away as what is tested; an objective that needs anomalies is told so.
    images[:8] += 30
    labels = np.where(np.arange(80) < 8, -1, 0)
    if not config.training.objective.needs_anomalies:
        images, labels = images[8:], labels[8:]
    ones = np.ones((1,) * len(shape), np.float32)
    count = len(images)
    data = [training.run_data(np.arange(count), count, 0 * ones, ones, labels=labels)]
    far = 30 + np.random.RandomState(1).randn(20, *shape).astype(np.float32)
    outcome, _ = svdd.train_runs(jax.random.key(0)[None], config, images, far, data=data)
    normal = np.asarray(outcome.train_distances)[:, labels == 0]
    assert normal.min() >= 0
    assert np.asarray(outcome.test_distances).min() > normal.max()


@pytest.mark.parametrize("kind", KINDS)
def test_json_and_key_numbers(kind: str) -> None:
    objective = configs.as_kind(svdd.ObjectiveConfig(nu=0.25), kind)
    phase = PhaseConfig(objective=objective)
    assert configs.from_json(PhaseConfig, configs.to_json(phase)) == phase
    made = objectives.objective(objective)
    assert made.key_number == (1 if objective.is_autoencoder else 2)
    assert hash(objective) == hash(configs.as_kind(objective, kind))


# --- what was written before --------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["one-class", "soft-boundary", "reconstruction"])
def test_models_of_before_score_as_they_did(kind: str) -> None:
    expected = np.load(SAMPLES / "scores.npz")
    model = svdd.load_model(SAMPLES / kind)
    assert model.config.training.objective.kind == kind
    scores = svdd.score_images(model, expected["images"])
    np.testing.assert_allclose(scores, expected[kind], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "path", sorted(PUBLISHED.glob("*/config.json")), ids=lambda p: p.parent.name
)
def test_published_settings_load_and_keep_their_keys(path: Path) -> None:
    settings = json.loads(path.read_text(encoding="utf-8"))
    for method in ("deep_svdd", "dcae", "soft_boundary"):
        if settings.get(method) is None:
            continue
        config = configs.from_dict(RunConfig, settings[method])
        assert (
            runs.phase_config(config, "training").epochs == settings[method]["training"]["epochs"]
        )
        again = configs.to_dict(config)["training"]["objective"]
        assert set(settings[method]["training"]["objective"]) <= set(again)
        for name, value in settings[method]["training"]["objective"].items():
            assert again[name] == value


@pytest.mark.parametrize("kind", MARKED)
def test_its_score_is_exported_for_any_number_of_samples(kind: str) -> None:
    config, shape = contract(kind, warm_up_epochs=0)
    samples = np.random.RandomState(0).rand(7, *shape).astype(np.float32)
    model = detectors.untrained_model(DetectorConfig(config), samples)
    exported = jax.export.deserialize(bytearray(svdd.export_model(model, ("cpu",))))
    expected = svdd.score_images(model, samples)
    for count in (1, 7):
        found = exported.call(samples[:count])
        np.testing.assert_allclose(found, expected[:count], rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_its_settings_know_whether_it_has_a_center(kind: str) -> None:
    config = contract(kind)[0].training.objective
    assert objectives.objective(config).has_center == config.has_center
