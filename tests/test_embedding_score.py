"""Models that compare an embedding with the training embeddings, not with the center."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf

import deepsvdd_jax as svdd
from deepsvdd_jax import detectors
from deepsvdd_jax.cli.commands import fit, score
from deepsvdd_jax.configs import ConfigError, DetectorConfig, NetworkConfig
from deepsvdd_jax.detectors import maps
from deepsvdd_jax.io import models
from deepsvdd_jax.io.models import Model

Calling = Callable[[ModuleType], AbstractContextManager[Callable[..., int]]]

RANDOM = np.random.RandomState(3)
NORMAL = RANDOM.randn(90, 4) @ RANDOM.randn(4, 4)
NEW = np.concatenate([RANDOM.randn(140, 4), RANDOM.randn(9, 4) + 4])
KINDS = ("neighbors", "mahalanobis")


def fitted(kind: str, **settings: object) -> svdd.DeepSVDD:
    network = NetworkConfig(
        "mlp", stages=(), hidden=(6,), hidden_style="activation", rep_dim=3, batch_norm=False
    )
    return svdd.DeepSVDD(
        **{"network": network, "epochs": 3, "n_seeds": 2, "embedding_score": kind} | settings
    ).fit(NORMAL)


@pytest.fixture(scope="module", params=KINDS)
def detector(request: pytest.FixtureRequest) -> svdd.DeepSVDD:
    return fitted(request.param)


@pytest.fixture(scope="module", params=KINDS)
def trained_on_all(request: pytest.FixtureRequest) -> svdd.DeepSVDD:
    return fitted(request.param, calibration_fraction=0.0, contamination=0.1)


def embedded(model: Model, rows: np.ndarray) -> np.ndarray:
    """Returns `[members, n, rep_dim]`, the network's formula written anew in float64."""
    encoder = model.params["encoder"]
    hidden, last = encoder["hidden0"]["linear"]["dense"], encoder["representation"]["dense"]
    values = (rows - model.shift) * model.scale
    found = []
    for member in range(len(model.center)):
        layer = values @ hidden["kernel"][member].astype(np.float64)
        layer = np.where(layer > 0, layer, model.config.network.leaky_slope * layer)
        found.append(layer @ last["kernel"][member].astype(np.float64))
    return np.array(found)


def by_hand(kind: str, points: np.ndarray, known: np.ndarray, own: bool = False) -> np.ndarray:
    """Returns the scores of one member's embeddings; with `own` the points are the known ones."""
    if kind == "neighbors":
        distances = np.sqrt(((points[:, None] - known[None]) ** 2).sum(axis=2))
        return np.sort(distances, axis=1)[:, own : own + 5].mean(axis=1)
    covariance, _ = ledoit_wolf(known)
    centered = points - known.mean(axis=0)
    return np.einsum("ni,ij,nj->n", centered, np.linalg.inv(covariance), centered)


def test_scores_and_threshold_are_those_of_the_formula(trained_on_all: svdd.DeepSVDD) -> None:
    kind, model = trained_on_all.embedding_score, trained_on_all.model_
    known, points = embedded(model, NORMAL), embedded(model, NEW)
    own = np.array([by_hand(kind, one, one, own=True) for one in known])
    new = np.array([by_hand(kind, *pair) for pair in zip(points, known, strict=True)])
    units = own.mean(axis=1)
    found = -trained_on_all.score_samples(NEW)
    np.testing.assert_allclose(found, (new / units[:, None]).mean(axis=0), rtol=2e-4)
    # A tenth of the training samples, none of which is its own neighbor, lies above.
    of_training = (own / units[:, None]).mean(axis=0)
    assert np.sum(of_training > model.threshold) == 9
    np.testing.assert_allclose(
        trained_on_all.reference_scores_, np.sort(of_training), rtol=2e-4, atol=1e-6
    )


def test_held_out_samples_calibrate_as_new_ones_score(detector: svdd.DeepSVDD) -> None:
    scores = -detector.score_samples(NORMAL)
    held_out = detector.model_.calibration_scores
    assert len(held_out) == 18 and np.isin(held_out.astype(np.float32), scores).all()
    p_values = detector.p_values(NEW)
    assert np.median(p_values[140:]) < np.median(p_values[:140])


def test_scores_of_parts_are_scores_of_the_whole(detector: svdd.DeepSVDD) -> None:
    whole = detector.score_samples(NEW)
    parts = [detector.score_samples(NEW[start : start + 47]) for start in range(0, len(NEW), 47)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_a_saved_model_scores_alike(detector: svdd.DeepSVDD, tmp_path: Path) -> None:
    svdd.save_model(tmp_path / "model", detector.model_)
    loaded = svdd.load_model(tmp_path / "model")
    np.testing.assert_array_equal(svdd.score_images(loaded, NEW), -detector.score_samples(NEW))
    described = json.loads((tmp_path / "model" / "model.json").read_text())
    # A version that does not know the score must not score with it.
    assert described["format"] == models.FORMAT_VERSION
    svdd.save_model(tmp_path / "plain", fitted("center", epochs=1).model_)
    assert json.loads((tmp_path / "plain" / "model.json").read_text())["format"] == 2


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            {"objective": "soft-boundary", "epochs": 11},
            "the score of objective soft-boundary is d - R",
        ),
        ({"embedding_score": "nearest"}, "embedding_score is 'nearest'; allowed: center,"),
    ],
)
def test_a_score_without_a_meaning_is_refused(settings: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        fitted("neighbors", **settings)


def test_folds_have_no_common_embeddings() -> None:
    config = DetectorConfig(
        fitted("center", epochs=1).model_.config,
        (0, 1),
        threshold_rule="conformal",
        alarm_rate=0.1,
        calibration="cross",
        embedding_score="mahalanobis",
    )
    with pytest.raises(ConfigError, match="calibration cross, whose folds"):
        detectors.fit_detector(config, NORMAL)


def test_five_neighbors_need_six_samples() -> None:
    with pytest.raises(ConfigError, match="6 training samples at least, not 5"):
        svdd.DeepSVDD(embedding_score="neighbors", calibration_fraction=0).fit(NORMAL[:5])


def test_an_export_and_a_map_say_that_they_need_the_center(detector: svdd.DeepSVDD) -> None:
    with pytest.raises(ConfigError, match="an export takes a model that scores by its center"):
        svdd.export_model(detector.model_)
    image = detector.model_._replace(image_shape=(8, 8, 1))
    with pytest.raises(ConfigError, match=f"this one has embedding_score {image.embedding_score}"):
        maps.mapper(image)


def test_fit_and_score_know_it(
    calling: Calling, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "normal.csv"
    np.savetxt(table, NORMAL, delimiter=",", header="a,b,c,d", comments="")
    flags = ("--dataset=csv", f"--data_dir={table}", "--epochs=1", "--milestones=", "--seeds=2")
    with calling(fit) as call:
        assert call(f"--model={tmp_path / 'm'}", *flags, "--embedding_score=neighbors") == 0
    model = svdd.load_model(tmp_path / "m")
    assert model.embedding_score == "neighbors"
    assert "| embedding score | neighbors |" in (tmp_path / "m" / "MODEL.md").read_text()
    with calling(score) as call:
        out = tmp_path / "scores.csv"
        assert call(f"--model={tmp_path / 'm'}", f"--data_dir={table}", f"--out={out}") == 0
    found = np.genfromtxt(out, delimiter=",", names=True, dtype=None, encoding="utf-8")["score"]
    np.testing.assert_allclose(found, svdd.score_images(model, NORMAL), rtol=1e-4)
