"""Detectors: what the parts are fitted to, how scores combine, and what is refused."""

import dataclasses
import json
import warnings
from typing import Any

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import pytest

from deepsvdd_jax import detectors, preprocessing, recipes, runs, scoring
from deepsvdd_jax.configs import (
    ConfigError,
    DetectorConfig,
    NetworkConfig,
    ObjectiveConfig,
    OptimizerConfig,
    PhaseConfig,
    PreprocessingConfig,
    RunConfig,
)
from deepsvdd_jax.datasets import DataError
from deepsvdd_jax.detectors import CollapseWarning, TrainingError
from deepsvdd_jax.detectors.held_out import held_out_mask
from deepsvdd_jax.detectors.members import padded_count
from deepsvdd_jax.io import models

NETWORK = NetworkConfig("tiny", stages=(), hidden=(6,), rep_dim=3, batch_norm=False)
PHASE = PhaseConfig(optimizer=OptimizerConfig("adam", 1e-2), epochs=4, batch_size=32)
RUN = RunConfig(
    preprocessing=PreprocessingConfig(min_max=False, standardize=True),
    network=NETWORK,
    training=PHASE,
)
TABLE = (np.random.RandomState(0).randn(90, 5) * 3 + 1).astype(np.float32)
NEW = (np.random.RandomState(1).randn(300, 5) * 4).astype(np.float32)


def detector(**settings: Any) -> DetectorConfig:
    return DetectorConfig(**{"run": RUN, **settings})


def with_objective(**settings: Any) -> RunConfig:
    objective = dataclasses.replace(PHASE.objective, **settings)
    return dataclasses.replace(RUN, training=dataclasses.replace(PHASE, objective=objective))


# --- fitting ------------------------------------------------------------------------------------


def test_a_detector_is_the_run_of_its_seed_on_the_scaled_training_part() -> None:
    model, history = detectors.fit_detector(detector(seeds=(3,)), TABLE)
    scaled = (TABLE - TABLE.mean(0, dtype=np.float64)) / TABLE.std(0, dtype=np.float64)
    keys = jax.vmap(jax.random.key)(jnp.array([3]))
    outcome, progress = runs.train_runs(keys, RUN, scaled)
    np.testing.assert_allclose(model.center, outcome.state.center, rtol=1e-4, atol=1e-5)
    expected = np.asarray(outcome.train_distances)[0]
    np.testing.assert_allclose(detectors.score_images(model, TABLE), expected, rtol=1e-3, atol=1e-5)
    loss = np.asarray(progress.history["training"].loss)
    np.testing.assert_allclose(history["training"]["loss"], loss, rtol=1e-4)
    assert loss.shape == (1, 4)


def test_members_are_the_detectors_of_their_seeds() -> None:
    both, _ = detectors.fit_detector(detector(seeds=(1, 4)), TABLE)
    alone = [detectors.fit_detector(detector(seeds=(seed,)), TABLE)[0] for seed in (1, 4)]
    distances = detectors.member_distances(both, NEW)
    for member, model in zip(distances, alone, strict=True):
        np.testing.assert_allclose(member, detectors.score_images(model, NEW), rtol=1e-5)
    train = [detectors.score_images(model, TABLE) for model in alone]
    units = np.mean(train, axis=1, dtype=np.float64)
    expected = (np.asarray(distances, np.float64) / units[:, None]).mean(axis=0)
    np.testing.assert_allclose(detectors.score_images(both, NEW), expected, rtol=1e-5)
    np.testing.assert_allclose(both.train_means, np.mean(train, axis=1), rtol=1e-5)


def test_equal_fits_are_equal_to_the_bit() -> None:
    config = detector(seeds=(0, 1), calibration_fraction=0.2)
    (one, _), (other, _) = (detectors.fit_detector(config, TABLE) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, one.params, other.params)
    assert one.threshold == other.threshold


def test_preprocessing_and_training_do_not_see_the_calibration_part() -> None:
    config = detector(seeds=(5,), calibration_fraction=0.3)
    model, _ = detectors.fit_detector(config, TABLE)
    held_out = np.random.RandomState(5).permutation(90)[:27]
    kept = np.delete(TABLE, held_out, axis=0)
    np.testing.assert_allclose(model.shift, kept.mean(0), rtol=1e-5)
    scores = np.sort(detectors.score_images(model, TABLE[held_out]))
    np.testing.assert_array_equal(model.calibration_scores, scores)
    spoiled = TABLE.copy()
    spoiled[held_out] = 1e6
    again, _ = detectors.fit_detector(config, spoiled)
    jax.tree.map(np.testing.assert_array_equal, again.params, model.params)


def test_groups_are_held_out_whole() -> None:
    groups = np.array(["a", "b", "c", "d", "e", "f"]).repeat([5, 25, 10, 20, 20, 10])
    marked = TABLE.copy()
    marked[:, 0] = np.unique(groups, return_inverse=True)[1]
    for seed in range(4):
        config = detector(seeds=(seed,), calibration_fraction=0.3)
        apart = held_out_mask(config, groups)
        train, held_out = marked[~apart], marked[apart]
        assert not set(train[:, 0]) & set(held_out[:, 0])
        assert len(train) + len(held_out) == 90
        sizes = [np.sum(held_out[:, 0] == group) for group in set(held_out[:, 0])]
        # Enough, and without any one of them it may not be: the last that was drawn.
        assert 27 <= len(held_out) < 27 + max(sizes)
    with pytest.raises(ConfigError, match="leaves 90 for calibration and 0 for training"):
        held_out_mask(detector(calibration_fraction=0.3), np.zeros(90))


def test_progress_ends_with_all_epochs() -> None:
    told: list[tuple[int, int]] = []
    compiled: list[tuple[int, int]] = []
    detectors.fit_detector(
        detector(),
        TABLE,
        on_progress=lambda done, total: told.append((done, total)),
        on_compiled=lambda done, total: compiled.append((done, total)),
    )
    # The first report comes after an epoch; how many there are is a matter of time.
    assert told[0] == (1, 4) and told[-1] == (4, 4)
    assert sorted(set(told)) == told
    # First state, epochs, end.
    assert compiled[0] == (0, 3) and compiled[-1] == (3, 3)


@pytest.mark.parametrize("count", [2, 63, 64, 65, 1000, 1025, 54321])
def test_padding_is_small_and_shared(count: int) -> None:
    padded = padded_count(count, is_table=False)
    assert count <= padded <= max(64, count * 9 / 8 + 64)
    assert padded_count(padded, is_table=False) == padded


def test_small_tables_have_few_numbers_of_rows() -> None:
    found = {padded_count(count, is_table=True) for count in range(2, 8193)}
    assert found == {1024, 2048, 4096, 8192}
    assert 54321 <= padded_count(54321, is_table=True) <= 54321 * 9 / 8


# --- threshold ----------------------------------------------------------------------------------


def alarms(model: models.Model, images: np.ndarray) -> int:
    return int(np.sum(detectors.score_images(model, images) > model.threshold))


def test_thresholds_by_rule() -> None:
    # One program: only the quantile and the share differ.
    for rule, above in (("quantile", 1), ("contamination", 18), ("radius", 9)):
        config = detector(threshold_rule=rule, contamination=0.2)
        model, _ = detectors.fit_detector(config, TABLE)
        assert alarms(model, TABLE) == above == model.summary["train_alarms"]
    assert model.threshold == model.squared_radius[0]
    config = detector(threshold_rule="conformal", calibration_fraction=0.5, alarm_rate=0.1)
    model, _ = detectors.fit_detector(config, TABLE)
    # ceil(46 * 0.9) = 42 of 45.
    assert model.threshold == model.calibration_scores[41]
    assert "0.1 at most" in model.summary["threshold_rule"]


def test_scores_of_a_soft_boundary_are_zero_on_the_sphere() -> None:
    run = with_objective(kind="soft-boundary", nu=0.2, warm_up_epochs=1)
    model, _ = detectors.fit_detector(detector(run=run, threshold_rule="radius"), TABLE)
    scores = detectors.score_images(model, TABLE)
    assert model.threshold == 0.0 and np.min(np.abs(scores)) == 0.0
    assert np.sum(scores > 0) == 18
    distances = detectors.member_distances(model, TABLE)[0]
    np.testing.assert_allclose(scores, distances - model.squared_radius[0], rtol=1e-6)


# --- images -------------------------------------------------------------------------------------

IMAGE_RUN = RunConfig(
    preprocessing=PreprocessingConfig(contrast="l1", zca=True),
    network=NetworkConfig("small", stages=((2,),), rep_dim=2, kernel_size=3),
    training=dataclasses.replace(PHASE, epochs=1),
)
PIXELS = np.random.RandomState(2).randint(0, 256, (40, 4, 4, 1)).astype(np.uint8)


@pytest.mark.slow
def test_members_that_do_not_fill_the_devices_are_those_of_their_seeds() -> None:
    """Three on two devices: a fourth is trained and thrown away."""
    config = detector(run=IMAGE_RUN, seeds=(5, 6, 7))
    model, history = detectors.fit_detector(config, PIXELS)
    assert len(model.center) == 3 and history["training"]["loss"].shape[0] == 3
    distances = detectors.member_distances(model, PIXELS)
    last, _ = detectors.fit_detector(detector(run=IMAGE_RUN, seeds=(7,)), PIXELS)
    np.testing.assert_allclose(distances[2], detectors.member_distances(last, PIXELS)[0], rtol=1e-5)


def test_images_of_any_type_and_a_saved_model(tmp_path: Any) -> None:
    model, _ = detectors.fit_detector(detector(run=IMAGE_RUN), PIXELS)
    scores = detectors.score_images(model, PIXELS)
    assert scores.dtype == np.float32 and scores.shape == (40,)
    for same in (PIXELS.astype(int), PIXELS / 255, jnp.asarray(PIXELS)):
        np.testing.assert_allclose(detectors.score_images(model, same), scores, rtol=1e-5)
    models.save_model(tmp_path / "model", model)
    loaded = models.load_model(tmp_path / "model")
    np.testing.assert_array_equal(detectors.score_images(loaded, PIXELS), scores)
    assert json.loads(json.dumps(loaded.summary)) == model.summary
    # By the parts, in float64 where it is numpy's turn.
    fitted = preprocessing.fit(IMAGE_RUN.preprocessing, PIXELS)
    state = jax.tree.map(lambda leaf: leaf[0], detectors.states_of(model))
    expected = scoring.anomaly_scores(
        IMAGE_RUN, state, jnp.asarray(preprocessing.apply(fitted, PIXELS))
    )
    np.testing.assert_allclose(scores, expected, rtol=1e-5)


def test_scores_do_not_depend_on_the_batching(compilations: list[float]) -> None:
    model, _ = detectors.fit_detector(detector(seeds=(0, 1)), TABLE)
    scores = detectors.score_images(model, NEW)
    order = np.random.RandomState(3).permutation(300)
    np.testing.assert_array_equal(detectors.score_images(model, NEW[order]), scores[order])
    alone = np.concatenate([detectors.score_images(model, NEW[i : i + 1]) for i in range(250, 260)])
    np.testing.assert_array_equal(alone, scores[250:260])
    assert detectors.score_images(model, NEW[:0]).shape == (0,)
    compilations.clear()
    detectors.score_images(model, np.concatenate([NEW, NEW]))
    assert not compilations


@pytest.mark.parametrize("signs", [[1, 1, 1], [1, -1, -1]])
def test_values_whose_sum_overflows_are_finite(signs: list[int]) -> None:
    large = np.full((3, 5), 3e38, np.float32) * np.float32(signs)[:, None]
    np.testing.assert_array_equal(detectors.network_values(large), large)


# --- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (TABLE[:, :4], r"samples of shape \(4,\); this model was trained on \(5,\)"),
        (TABLE[:, None], r"an image is \(height, width, channels\)"),
        (np.full((3, 5), "a"), "must be numbers"),
        (np.where(np.arange(90)[:, None] == 7, np.nan, TABLE), "1 of 90 .* first is sample 7"),
        (np.full((2, 5), 1e300), "too large for float32"),
    ],
)
def test_unusable_images_are_named(images: np.ndarray, message: str) -> None:
    model, _ = detectors.fit_detector(detector(), TABLE)
    with pytest.raises(DataError, match=message):
        detectors.score_images(model, images)


def test_too_few_equal_or_wrong_samples_are_refused_before_training() -> None:
    for images, message in (
        (TABLE[:1], "n_samples=1"),
        (np.ones((9, 5)), "all 9 samples are equal"),
    ):
        with pytest.raises(DataError, match=message):
            detectors.fit_detector(detector(), images)
    conformal = detector(threshold_rule="conformal", calibration_fraction=0.5, alarm_rate=0.01)
    with pytest.raises(ConfigError, match="needs at least 99 calibration scores; there are 45"):
        detectors.fit_detector(conformal, TABLE)
    with pytest.raises(ConfigError, match="leaves 3 for calibration and 1 for training"):
        detectors.fit_detector(detector(calibration_fraction=0.8), TABLE[:4])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seeds": ()}, "seeds is empty"),
        ({"seeds": (1, 1)}, "distinct"),
        ({"seeds": (-1,)}, "not negative"),
        ({"calibration_fraction": 1.0}, "calibration_fraction"),
        ({"threshold_rule": "conformal"}, "needs a calibration_fraction"),
        ({"threshold_rule": "best"}, "threshold_rule"),
        ({"contamination": 0.7}, "contamination"),
        ({"alarm_rate": 0.0}, "alarm_rate"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        detector(**settings)


# --- failures -----------------------------------------------------------------------------------


def test_diverged_members_are_named() -> None:
    phase = dataclasses.replace(PHASE, optimizer=OptimizerConfig("sgd", 1e30))
    config = detector(run=dataclasses.replace(RUN, training=phase), seeds=(2, 6))
    with pytest.raises(TrainingError, match="seeds 2, 6: the loss was not finite; lower the"):
        detectors.fit_detector(config, TABLE)


def test_a_collapsed_sphere_is_told_of() -> None:
    # So much decay that the weights vanish.
    phase = dataclasses.replace(
        PHASE, weight_decay=1e3, epochs=60, optimizer=OptimizerConfig("sgd", 5e-4)
    )
    config = detector(run=dataclasses.replace(RUN, training=phase), seeds=(8,))
    with pytest.warns(CollapseWarning, match="seed 8: the hypersphere collapsed"):
        detectors.fit_detector(config, TABLE)


@pytest.mark.slow
def test_a_network_with_biases_collapses_where_one_without_does_not() -> None:
    """Proposition 2 of Ruff et al. 2018: with a bias the center is reached by no weights at all."""
    phase = dataclasses.replace(PHASE, epochs=200, optimizer=OptimizerConfig("adam", 3e-2))
    for bias in (True, False):
        network = dataclasses.replace(NETWORK, hidden_style="activation", bias=bias)
        run = dataclasses.replace(RUN, network=network, training=phase)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always", CollapseWarning)
            model, _ = detectors.fit_detector(detector(run=run, seeds=(3,)), TABLE)
        texts = [str(one.message) for one in told if one.category is CollapseWarning]
        assert bool(texts) == bias
        # All is within a hundredth of the center's length, or it is not.
        distance = np.sqrt(model.train_means[0]) / np.linalg.norm(model.center[0])
        assert distance < 1e-2 if bias else distance > 5e-2
        assert all("seed 3" in text and "network without bias" in text for text in texts)


@pytest.mark.slow
def test_biases_that_bring_the_training_samples_to_the_center_are_told_of() -> None:
    """Here noise is still told apart, so that its spread alone would say nothing."""
    normal = np.random.RandomState(0).randn(200, 2)
    recipe = recipes.preset("auto", "array", (2,))
    assert recipe.network.has_bias_terms
    for epochs, message in ((50, None), (1000, "nearly every training sample is mapped")):
        run = dataclasses.replace(
            recipe, training=dataclasses.replace(recipe.training, epochs=epochs)
        )
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always", CollapseWarning)
            model, history = detectors.fit_detector(DetectorConfig(run=run, seeds=(0,)), normal)
        texts = [str(one.message) for one in told if one.category is CollapseWarning]
        relative = model.train_means[0] / np.sum(np.square(model.center[0]))
        if message is None:
            assert not texts and relative > 1e-3
        else:
            assert history["training"]["loss"][0, -1] < 2e-4 and relative < 1e-4
            (text,) = texts
            assert text.startswith("seed 0: the hypersphere collapsed") and message in text


@pytest.mark.slow
def test_an_autoencoder_scores_by_its_error() -> None:
    run = with_objective(kind="reconstruction")
    model, _ = detectors.fit_detector(detector(run=run), TABLE)
    assert np.all(detectors.score_images(model, NEW) > 0)
    assert model.config.training.objective == ObjectiveConfig(kind="reconstruction")
