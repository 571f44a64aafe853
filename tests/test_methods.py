"""A method of one's own is a file and a line; and what every method owes."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from deepsvdd_jax import configs, recipes
from deepsvdd_jax.cli.commands import sweep
from deepsvdd_jax.cli.reporting import tables
from deepsvdd_jax.cli.sweeps import methods
from deepsvdd_jax.cli.sweeps.methods.base import DeepMethod, Method, ShallowConfig, ShallowMethod
from deepsvdd_jax.cli.sweeps.records import Summary
from deepsvdd_jax.configs import ConfigError
from deepsvdd_jax.detectors.features import BaselineResult
from tests.helpers import rows_of

Calling = Callable[[ModuleType], AbstractContextManager[Callable[..., int]]]


# --- one's own ----------------------------------------------------------------------------------


def distances_to_mean(
    config: None, train: np.ndarray, test: np.ndarray, seed: int, test_labels: np.ndarray
) -> BaselineResult:
    center = train.mean(axis=0)
    scores = [np.linalg.norm(part - center, axis=1) for part in (train, test)]
    return BaselineResult(scores[0], scores[1], {}, "none", np.arange(len(test)))


MEAN = ShallowMethod(
    "mean_distance",
    "distance to the mean",
    config=lambda config: None,
    score=distances_to_mean,
    describe_cost=lambda config, n_train, n_test, n_features: f"mean of {n_train} points",
)
WIDE = DeepMethod(
    "wide",
    "Deep SVDD, 5 wide",
    config=lambda base: configs.replace_at(base, "network.rep_dim", 5),
)


@pytest.fixture
def registered() -> Iterator[None]:
    with mock.patch.dict(methods.METHODS):
        methods.register(MEAN, WIDE)
        yield


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, np.ndarray, Path]:
    random = np.random.RandomState(0)
    labels = np.arange(60) % 2
    features = random.randn(60, 3).astype(np.float32) + 0.7 * labels[:, None]
    path = tmp_path_factory.mktemp("data") / "table.npz"
    np.savez(path, x_train=features, y_train=labels, x_test=features, y_test=labels)
    return features, labels, path


def test_toy_methods_are_swept_stored_and_shown(
    registered: None,
    calling: Calling,
    table: tuple[np.ndarray, np.ndarray, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    features, labels, path = table
    out = tmp_path / "out"
    arguments = (
        *("--dataset=npz", f"--data_dir={path}", "--normal_classes=0", "--seeds=2", "--epochs=2"),
        *("--milestones=", "--hidden=4", "--rep_dim=2", f"--out={out}"),
    )
    with calling(sweep) as call:
        assert call(*arguments, "--methods=wide,mean_distance") == 0
        printed = capsys.readouterr()
        assert "mean of 30 points; 1 such runs" in printed.err
        assert "\nmean   mean_distance " in printed.out and "\nmean   wide one-class" in printed.out
        before = {file: file.read_bytes() for file in out.rglob("*.*") if file.is_file()}
        assert call(*arguments, "--methods=wide,mean_distance") == 0
        assert {file: file.read_bytes() for file in out.rglob("*.*") if file.is_file()} == before

    rows = {(row["method"], row["seed"]): row for row in rows_of(out / "runs.csv")}
    # What does not depend on the seed has one run.
    assert set(rows) == {("wide", "0"), ("wide", "1"), ("mean_distance", "0")}
    normal = features[labels == 0].astype(np.float64)
    standardized = (features - normal.mean(axis=0)) / normal.std(axis=0)
    expected = roc_auc_score(labels, np.linalg.norm(standardized, axis=1))
    assert float(rows["mean_distance", "0"]["auroc"]) == pytest.approx(expected, abs=1e-6)
    stored = json.loads((out / "config.json").read_text())
    # Of the method, not of --rep_dim.
    assert stored["wide"]["network"]["rep_dim"] == 5


def test_a_flag_that_only_other_methods_read_is_refused(
    registered: None,
    calling: Calling,
    table: tuple[np.ndarray, np.ndarray, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = ("--dataset=npz", f"--data_dir={table[2]}", f"--out={tmp_path / 'out'}")
    with calling(sweep) as call:
        assert call(*data, "--methods=mean_distance", "--epochs=2") == 2
        assert "--epochs has no effect here: mean_distance" in capsys.readouterr().err
        assert call(*data, "--methods=wide", "--knn_neighbors=2") == 2
        assert "it is for knn; add one to --methods" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_is_not_registered_is_unknown() -> None:
    with pytest.raises(ConfigError, match="methods is 'wide'; allowed: any of deep_svdd,dcae"):
        methods.parse("wide")


def test_a_markdown_table_leaves_no_method_out() -> None:
    own = (("deep_svdd", "deep-sad"), ("of_somebody", None), ("kde", None))
    own += (("deep_svdd", "one-class"),)
    summary = [
        Summary(
            dataset="digits",
            normal_class=label,
            method=method,
            objective=objective,
            runs=1,
            auroc_mean=0.5,
        )
        for method, objective in own
        for label in (0, None)
    ]
    text = tables.markdown_table(summary, "auto", "one-vs-rest")
    titles = [line.split("**")[1] for line in text.splitlines()[2:]]
    assert titles == ["KDE", "Deep SVDD, one-class", "Deep SVDD, deep-sad", "of_somebody"]


# --- what every method owes ---------------------------------------------------------------------

ALL: list[Method] = methods.in_tables()
SHALLOW = list(methods.shallow().values())


@pytest.fixture(scope="module")
def blob() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    random = np.random.RandomState(0)
    yield random.randn(60, 4), np.concatenate([random.randn(30, 4), 8 + random.randn(30, 4)])


@pytest.mark.parametrize("method", ALL, ids=lambda method: method.name)
def test_a_method_has_a_name_for_flags_and_a_title_for_readers(method: Method) -> None:
    assert method.name.isidentifier() and methods.parse(method.name) == (method.name,)
    titles = [method.title_of(kind) for kind in ("", *configs.objective_kinds())]
    assert all(title and title != method.name for title in titles)


@pytest.mark.parametrize("method", SHALLOW, ids=lambda method: method.name)
def test_higher_is_more_anomalous_and_no_score_is_negative(
    method: ShallowMethod, blob: tuple[np.ndarray, np.ndarray]
) -> None:
    train, test = blob
    labels = np.repeat([0, 1], 30)
    config = method.config(ShallowConfig())
    result: Any = method.score(config, train, test, 0, labels)
    assert result.train_scores.shape == (60,) and result.test_scores.shape == (60,)
    assert min(result.train_scores.min(), result.test_scores.min()) >= 0
    assert result.test_scores[:30].max() < result.test_scores[30:].min()
    # Seeds matter where a method says so, and nowhere else.
    again: Any = method.score(config, train, test, 1, labels)
    differs = not np.array_equal(result.test_scores, again.test_scores)
    assert differs == (method.name == "isolation_forest" and method.is_random(ShallowConfig()))


@pytest.mark.parametrize("method", SHALLOW, ids=lambda method: method.name)
def test_a_cost_is_one_line(method: ShallowMethod) -> None:
    line = method.describe_cost(method.config(ShallowConfig()), 100, 50, 4)
    assert line and "\n" not in line


@pytest.mark.parametrize("method", methods.deep().values(), ids=lambda method: method.name)
def test_settings_of_a_deep_method_go_through_json(method: DeepMethod) -> None:
    base = recipes.preset("icml2018", "mnist", (28, 28, 1))
    config = method.config(base)
    assert configs.from_json(configs.RunConfig, configs.to_json(config)) == config
    assert config.preset == base.preset and hash(config) == hash(dataclasses.replace(config))
