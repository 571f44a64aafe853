"""The scikit-learn face: scikit-learn's own checks, and what they do not cover."""

import pickle
from io import BytesIO
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import RobustScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import deepsvdd_jax as svdd
from deepsvdd_jax import DeepSVDD, NetworkConfig, PreprocessingConfig
from deepsvdd_jax.configs import ConfigError
from deepsvdd_jax.scoring.calibration import alarm_interval

TINY = NetworkConfig("tiny", stages=(), hidden=(4,), rep_dim=3, batch_norm=False)
SMALL_LENET = NetworkConfig("small", stages=((2,),), rep_dim=2, kernel_size=3)
TABLE = np.random.RandomState(0).randn(60, 3) * [1, 5, 0.2] + [0, 9, -3]
DIGITS = load_digits()
ZEROS = DIGITS.images[DIGITS.target == 0][:60]


def tiny(**settings: Any) -> DeepSVDD:
    return DeepSVDD(**{"epochs": 3, "network": TINY, **settings})


@pytest.fixture(scope="module")
def fitted() -> DeepSVDD:
    return tiny(n_seeds=2, calibration_fraction=0.4).fit(TABLE)


@parametrize_with_checks([tiny()])
def test_scikit_learns_checks(estimator: DeepSVDD, check: Any) -> None:
    check(estimator)


# --- scores -------------------------------------------------------------------------------------


def test_default_network_tells_digits_apart_as_a_table() -> None:
    normal, other = (DIGITS.data[DIGITS.target == label] for label in (0, 1))
    detector = DeepSVDD().fit(normal[:100])
    assert detector.model_.config.network.is_dense
    assert np.mean(detector.predict(other) == -1) > 0.8
    # At most 1 / 21 false alarms are expected: see `calibration.alarm_interval`.
    alarms = np.sum(detector.predict(normal[100:]) == -1)
    assert alarms <= alarm_interval(20, 78, 1 / 21).high


@pytest.mark.parametrize(
    ("samples", "given", "members"),
    [
        (TABLE, {}, 5),
        (TABLE, {"n_seeds": 2}, 2),
        pytest.param(
            TABLE, {"objective": "soft-boundary", "epochs": 11}, 1, marks=pytest.mark.slow
        ),
        (ZEROS, {}, 1),
    ],
)
def test_a_table_has_five_members_unless_told_otherwise(
    samples: np.ndarray, given: dict[str, Any], members: int
) -> None:
    network = TINY if samples.ndim == 2 else SMALL_LENET
    settings = {"epochs": 3, "network": network, "random_state": 3, **given}
    detector = DeepSVDD(**settings).fit(samples)
    assert len(detector.center_) == len(detector.radius_) == members
    assert detector.model_.summary["seeds"] == list(range(3, 3 + members))


def test_signs_and_offset(fitted: DeepSVDD) -> None:
    scores = fitted.score_samples(TABLE)
    np.testing.assert_array_equal(fitted.decision_function(TABLE), scores - fitted.offset_)
    np.testing.assert_array_equal(fitted.predict(TABLE), np.where(scores < fitted.offset_, -1, 1))
    np.testing.assert_array_equal(-scores, svdd.score_images(fitted.model_, TABLE))
    assert fitted.score_samples(TABLE + 100).max() < scores.min()
    assert fitted.center_.shape == (2, 3) and fitted.radius_.shape == (2,)
    assert fitted.history_["training"]["loss"].shape == (2, 3)


def test_probabilities_are_the_p_values_of_held_out_samples(fitted: DeepSVDD) -> None:
    held_out = -fitted.model_.calibration_scores
    scores = fitted.score_samples(TABLE)
    expected = [(1 + np.sum(held_out <= score)) / 25 for score in scores]
    np.testing.assert_allclose(fitted.p_values(TABLE), expected)
    np.testing.assert_allclose(fitted.predict_proba(TABLE)[:, 0], expected)
    np.testing.assert_allclose(fitted.predict_proba(TABLE).sum(axis=1), 1.0)


def test_without_calibration_probabilities_come_from_the_training() -> None:
    detector = tiny(calibration_fraction=0.0).fit(TABLE)
    normal = detector.predict_proba(TABLE)[:, 0]
    ranks = (-detector.score_samples(TABLE)).argsort().argsort()
    np.testing.assert_allclose(normal, (61 - ranks) / 61)
    with pytest.raises(ValueError, match="set calibration_fraction above 0"):
        detector.p_values(TABLE)


@pytest.mark.parametrize("share", [0.05, 0.25])
def test_contamination(share: float) -> None:
    labels = tiny(contamination=share).fit_predict(TABLE)
    assert np.sum(labels == -1) == share * 60


def test_thresholds_that_are_not_a_share_of_the_training() -> None:
    soft = tiny(objective="soft-boundary", nu=0.3, epochs=12, calibration_fraction=0.0).fit(TABLE)
    assert soft.offset_ == 0.0 and np.sum(soft.predict(TABLE) == -1) == 18
    share = tiny(calibration_fraction=0.0).fit(TABLE)
    assert np.sum(share.predict(TABLE) == -1) == 1
    few = tiny().fit(TABLE)
    assert -few.offset_ == few.model_.calibration_scores[-1]  # 1 % would need 99
    bound = tiny(false_alarm_rate=0.1, calibration_fraction=0.5).fit(TABLE)
    assert -bound.offset_ == bound.model_.calibration_scores[27]  # ceil(31 * 0.9) = 28
    assert "at most" in bound.model_.summary["threshold_rule"]


# --- scikit-learn's tools -----------------------------------------------------------------------


def test_copies_score_alike(fitted: DeepSVDD, tmp_path: Path) -> None:
    scores = fitted.score_samples(TABLE)
    buffer = BytesIO()
    joblib.dump(fitted, buffer)
    buffer.seek(0)
    for copy in (pickle.loads(pickle.dumps(fitted)), joblib.load(buffer), clone(fitted).fit(TABLE)):
        np.testing.assert_array_equal(copy.score_samples(TABLE), scores)
    svdd.save_model(tmp_path / "model", fitted.model_)
    loaded = svdd.load_model(tmp_path / "model")
    np.testing.assert_array_equal(svdd.score_images(loaded, TABLE), -scores)


def test_members_have_the_seeds_after_the_random_state() -> None:
    both = tiny(n_seeds=2, random_state=4, calibration_fraction=0.0).fit(TABLE)
    assert both.model_.summary["seeds"] == [4, 5]
    alone = tiny(random_state=np.int64(5), calibration_fraction=0.0).fit(TABLE)
    np.testing.assert_allclose(both.center_[1], alone.center_[0], rtol=1e-5)
    drawn = [tiny(random_state=np.random.RandomState(7)).fit(TABLE) for _ in range(2)]
    np.testing.assert_array_equal(drawn[0].center_, drawn[1].center_)


@pytest.mark.slow
def test_grid_search_in_a_pipeline() -> None:
    order = np.random.RandomState(1).permutation(80)
    values = np.concatenate([TABLE, TABLE[:20] + 30])[order]
    labels = np.where(order < 60, 1, -1)
    pipeline = make_pipeline(RobustScaler(), tiny(objective="soft-boundary", epochs=11))
    grid = {
        "deepsvdd__nu": [0.1, 0.5],
        "deepsvdd__network": [TINY, NetworkConfig("other", (), (), rep_dim=2, batch_norm=False)],
    }
    search = GridSearchCV(pipeline, grid, scoring="roc_auc", cv=2, error_score="raise")
    search.fit(values, labels)
    assert len(search.cv_results_["params"]) == 4
    # Trained on both, the share of normals being three to one.
    assert np.all(np.isfinite(search.cv_results_["mean_test_score"]))
    assert set(search.predict(values)) <= {-1, 1}


def test_column_names_reach_the_model() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(TABLE, columns=["a", "b", "c"])
    detector = tiny().fit(frame)
    assert detector.model_.feature_names == ("a", "b", "c")
    with pytest.raises(ValueError, match="feature names should match"):
        detector.predict(frame[["b", "a", "c"]])
    assert tiny().fit(TABLE).model_.feature_names == ()


# --- images -------------------------------------------------------------------------------------


def test_images_with_and_without_channels() -> None:
    detector = DeepSVDD(epochs=3, network=SMALL_LENET).fit(ZEROS)
    scores = detector.score_samples(ZEROS)
    assert detector.n_features_in_ == 64 and detector.model_.image_shape == (8, 8, 1)
    for same in (ZEROS[..., None], jnp.asarray(ZEROS), ZEROS.astype(np.float32)):
        np.testing.assert_array_equal(detector.score_samples(same), scores)
    pixels = (ZEROS * 15).astype(np.uint8)
    detector.fit(pixels)
    scores = detector.score_samples(pixels)
    np.testing.assert_allclose(detector.score_samples(pixels.astype(int)), scores, rtol=1e-5)
    for wrong, message in (
        (ZEROS[:, :7], r"images of shape \(7, 8, 1\), but DeepSVDD is expecting .*\(8, 8, 1\)"),
        (np.repeat(ZEROS[..., None], 3, axis=3), r"\(8, 8, 3\), but DeepSVDD is expecting"),
        (np.full((2, 8, 8), np.nan), "Input X contains NaN"),
        (ZEROS.reshape(60, -1), r"this model was trained on \(8, 8, 1\)"),
        (ZEROS[:0], "minimum of 1 is required"),
    ):
        with pytest.raises(ValueError, match=message):
            detector.score_samples(wrong)


def test_network_is_chosen_by_shape() -> None:
    configs = {
        shape: DeepSVDD(pretrain_epochs=7, rep_dim=5, epochs=10)._detector_config(50, shape).run
        for shape in ((3,), (8, 8, 1), (64, 64, 3))
    }
    assert configs[(3,)].network.is_dense and configs[(3,)].preprocessing.standardize
    assert len(configs[(64, 64, 3)].network.stages) == 3
    image = configs[(8, 8, 1)]
    assert image.network.rep_dim == 5 and not image.network.is_dense
    assert image.pretraining is not None and image.pretraining.epochs == 7
    # Four fifths of the way, as in 50 epochs.
    assert image.training.optimizer.milestones == (8,) and image.training.epochs == 10


# --- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"nu": 0.0}, "nu is 0.0"),
        ({"calibration_fraction": 0.99}, "leaves 59 for calibration and 1 for training"),
        ({"nu": "high"}, "nu is 'high'; it must be a number"),
        ({"objective": "two-class"}, "allowed: one-class, soft-boundary"),
        ({"epochs": 1.5}, "epochs is 1.5; it must be a whole number of 1 or more"),
        ({"objective": "soft-boundary", "epochs": 5}, "warm_up_epochs=10 .*epochs=5: give epochs"),
        ({"n_seeds": 0}, "n_seeds is 0"),
        ({"pretrain_epochs": -1}, "pretrain_epochs is -1; .* 0 or more"),
        ({"contamination": 0.8}, "contamination is 0.8"),
        ({"contamination": 0.1, "false_alarm_rate": 0.1}, "give one"),
        (
            {"false_alarm_rate": 0.1, "calibration_fraction": 0.0},
            "needs a calibration_fraction",
        ),
        ({"false_alarm_rate": 0.01, "calibration_fraction": 0.5}, "at least 99 calibration scores"),
        ({"network": "resnet"}, "network is 'resnet'; allowed"),
        ({"preprocessing": "robust"}, "allowed: auto, none, min_max, standardize, contrast"),
    ],
)
def test_wrong_parameters_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny(**settings).fit(TABLE)


def test_equal_samples_and_a_negative_seed_are_refused() -> None:
    with pytest.raises(ValueError, match="all 9 samples are equal"):
        tiny().fit(np.ones((9, 2)))
    with pytest.raises(ValueError, match="Seed must be between 0"):
        tiny(random_state=-1).fit(TABLE)


def test_preprocessing_by_name_or_configuration() -> None:
    named = DeepSVDD(preprocessing="min_max")._detector_config(50, (3,)).run.preprocessing
    assert named == PreprocessingConfig(min_max=True)
    own = PreprocessingConfig(zca=True)
    assert DeepSVDD(preprocessing=own)._detector_config(50, (3,)).run.preprocessing == own


def test_progress_is_shown_where_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    tiny().fit(TABLE)
    assert capsys.readouterr().err == ""
    tiny(verbose=True).fit(TABLE)
    assert "3/3" in capsys.readouterr().err
