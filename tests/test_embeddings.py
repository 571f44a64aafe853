"""Scores of embeddings by what lies around them, and the command that compares them."""

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from deepsvdd_jax.cli.commands import embeddings as command
from deepsvdd_jax.cli.commands import sweep
from deepsvdd_jax.detectors import embeddings
from deepsvdd_jax.io import models
from tests.helpers import rows_of

Calling = Callable[[ModuleType], AbstractContextManager[Callable[..., int]]]

RANDOM = np.random.RandomState(0)


def test_the_nearest_are_averaged() -> None:
    train, points = RANDOM.randn(40, 3), RANDOM.randn(7, 3)
    distances = np.sqrt(((points[:, None] - train[None]) ** 2).sum(axis=2))
    expected = np.sort(distances, axis=1)[:, :5].mean(axis=1)
    np.testing.assert_allclose(embeddings.nearest_scores(points, train), expected, rtol=1e-12)


def test_mahalanobis_is_that_of_the_covariance_where_samples_are_many() -> None:
    mixing = np.array([[2.0, 0, 0], [1, 1, 0], [0, 0, 1]])
    train = RANDOM.randn(20_000, 3) @ mixing
    points = RANDOM.randn(7, 3)
    centered = points - train.mean(axis=0)
    inverse = np.linalg.inv(np.cov(train.T, bias=True))
    expected = np.einsum("ni,ij,nj->n", centered, inverse, centered)
    found = embeddings.mahalanobis_scores(points, train)
    # What is shrunk is some ten-thousandths of the covariance.
    np.testing.assert_allclose(found, expected, rtol=2e-3)
    assert np.array_equal(np.argsort(found), np.argsort(expected))


def test_a_direction_without_spread_counts_most() -> None:
    train = np.concatenate([RANDOM.randn(50, 2), np.zeros((50, 30))], axis=1)
    along, across = np.zeros(32), np.zeros(32)
    along[0], across[5] = 1, 1
    inside, outside = embeddings.mahalanobis_scores([along, across], train)
    assert np.isfinite(outside) and outside > 5 * inside


def test_embeddings_that_are_all_equal_are_refused() -> None:
    with pytest.raises(ValueError, match="all 9 training embeddings are equal"):
        embeddings.mahalanobis_scores(np.ones((2, 3)), np.ones((9, 3)))


# --- the command --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(calling: Calling, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("embeddings")
    draws = np.random.RandomState(1)
    table, labels = draws.randn(80, 5), np.arange(80) % 2
    test = draws.randn(60, 5) + 2 * (np.arange(60) % 2)[:, None]
    data = folder / "table.npz"
    np.savez(data, x_train=table, y_train=labels, x_test=test, y_test=np.arange(60) % 2)
    with calling(sweep) as call:
        settings = ("--network=mlp", "--hidden=6", "--epochs=2", "--milestones=", "--batch_size=20")
        what = ("--dataset=npz", f"--data_dir={data}", "--normal_classes=0", "--seeds=2")
        out = f"--out={folder / 'sweep'}"
        assert call(*what, *settings, "--methods=deep_svdd,knn", "--save_models", out) == 0
    return folder


@pytest.mark.slow
def test_embeddings_of_a_sweep_are_compared(
    calling: Calling, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    with calling(command) as call:
        assert call(f"--out={finished / 'sweep'}") == 0
    rows = rows_of(finished / "sweep" / "embeddings" / "embeddings.csv")
    assert [(row["class"], row["runs"]) for row in rows] == [("0", "2"), ("mean", "2")]
    runs = rows_of(finished / "sweep" / "runs.csv")
    of_sweep = [float(run["auroc"]) for run in runs if run["method"] == "deep_svdd"]
    assert float(rows[0]["of the sweep"]) == pytest.approx(100 * np.mean(of_sweep), abs=0.006)
    # The sweep's own nearest neighbors are those of the network's input.
    (inputs,) = [float(run["auroc"]) for run in runs if run["method"] == "knn"]
    assert float(rows[0]["untrained: nearest inputs"]) == pytest.approx(100 * inputs, abs=0.006)
    assert float(rows[0]["nearest"]) == pytest.approx(100 * by_hand(finished), abs=0.006)
    assert rows[0]["mahalanobis"] in capsys.readouterr().out


def by_hand(finished: Path) -> float:
    """Returns the mean AUROC of the nearest embeddings, the network's formula written anew."""
    with np.load(finished / "table.npz") as data:
        train = data["x_train"][data["y_train"] == 0]
        test, labels = data["x_test"], data["y_test"]
    found = []
    for seed in range(2):
        model = models.load_model(finished / "sweep" / "models" / f"deep_svdd-class0-seed{seed}")
        encoder = model.params["encoder"]
        first, last = encoder["hidden0"]["linear"]["dense"], encoder["representation"]["dense"]
        codes = []
        for values in (train, test):
            layer = ((values - model.shift) * model.scale) @ first["kernel"][0]
            layer = np.where(layer > 0, layer, model.config.network.leaky_slope * layer)
            codes.append(layer @ last["kernel"][0])
        distances = np.sqrt(((codes[1][:, None] - codes[0][None]) ** 2).sum(axis=2))
        found.append(roc_auc_score(labels, np.sort(distances, axis=1)[:, :5].mean(axis=1)))
    return float(np.mean(found))


@pytest.mark.parametrize("what", ["no sweep", "no models"])
def test_what_cannot_be_compared_is_one_line(
    what: str,
    calling: Calling,
    finished: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "sweep"
    if what == "no models":
        shutil.copytree(finished / "sweep", folder, ignore=shutil.ignore_patterns("models"))
    with calling(command) as call:
        assert call(f"--out={folder}", f"--to={tmp_path / 'to'}") == 2
    told = capsys.readouterr().err
    assert "Traceback" not in told and ("--save_models" in told) == (what == "no models")
    assert not (tmp_path / "to").exists()
