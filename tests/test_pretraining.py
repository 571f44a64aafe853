"""Autoencoders shared by the methods of a sweep: trained once, kept, checked when read."""

import csv
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType

import jax
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from deepsvdd_jax import configs, datasets, preprocessing, recipes, runs
from deepsvdd_jax.cli.commands import sweep
from deepsvdd_jax.cli.sweeps import deep, pools, pretraining, records
from deepsvdd_jax.cli.sweeps.records import RunName
from deepsvdd_jax.networks import build_network
from tests.helpers import rows_of

Command = Callable[..., int]
Calling = Callable[[ModuleType], AbstractContextManager[Command]]

ARGUMENTS = ("--normal_classes=3", "--seeds=2", "--pretrain_epochs=2")
TRAINING = ("--epochs=2", "--milestones=1")
METHODS = ("deep_svdd", "dcae", "soft_boundary")


@pytest.fixture(scope="module")
def command(calling: Calling) -> Iterator[Command]:
    with calling(sweep) as call:
        # A DCAE alone has no training phase to set.
        yield lambda out, methods, *more: call(
            *ARGUMENTS,
            *(() if methods == "dcae" else TRAINING),
            *(("--warm_up_epochs=1",) if "soft_boundary" in methods else ()),
            f"--methods={methods}",
            f"--out={out}",
            *more,
        )


@pytest.fixture(scope="module")
def together(command: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("together") / "out"
    assert command(out, ",".join(METHODS)) == 0
    return out


def scores(out: Path, method: str, seed: int) -> np.ndarray:
    return records.read_scores(out, RunName(method, 3, seed))["distances"]


def autoencoder_epochs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Notes how many runs each call trains an autoencoder for."""
    trained: list[int] = []
    train = deep.train_jobs

    def note(
        config: configs.RunConfig,
        dataset: object,
        jobs: list[pools.Job],
        *rest: object,
        **keywords: object,
    ):
        if config.training.objective.kind == "reconstruction":
            trained.append(len(jobs))
        return train(config, dataset, jobs, *rest, **keywords)

    monkeypatch.setattr(deep, "train_jobs", note)
    return trained


@pytest.mark.slow
def test_methods_are_what_they_are_alone(command: Command, together: Path, tmp_path: Path) -> None:
    for method in METHODS:
        out = tmp_path / method
        assert command(out, method) == 0
        for seed in (0, 1):
            np.testing.assert_array_equal(
                scores(out, method, seed), scores(together, method, seed), err_msg=method
            )


@pytest.mark.slow
def test_a_run_of_a_sweep_is_the_run_of_the_library(together: Path) -> None:
    dataset = datasets.load(configs.DataConfig("digits"))
    base = recipes.preset("auto", "digits", (8, 8, 1))
    training = configs.replace_at(base, "training.optimizer.milestones", (1,))
    training = configs.replace_at(training, "training.epochs", 2)
    phase = recipes.default_autoencoder(base.training)
    config = configs.replace_at(training, "pretraining", phase)
    config = configs.replace_at(config, "pretraining.epochs", 2)
    split = datasets.one_class_split(dataset, 3)
    fitted = preprocessing.fit(config.preprocessing, dataset.x_train[split.train_indices])
    train = preprocessing.apply(fitted, dataset.x_train[split.train_indices])
    test = preprocessing.apply(fitted, dataset.x_test)
    keys = jax.numpy.stack([pools.run_key(seed, 3) for seed in (0, 1)])
    outcome, progress = runs.train_runs(keys, config, train, test)
    for seed in (0, 1):
        np.testing.assert_allclose(
            outcome.test_distances[seed], scores(together, "deep_svdd", seed), rtol=1e-4
        )
    history = records.read_history(together, RunName("deep_svdd", 3, 0))
    assert list(history["phase"]) == ["pretraining"] * 2 + ["training"] * 2
    for phase_name in runs.PHASES:
        np.testing.assert_allclose(
            history["loss"][history["phase"] == phase_name],
            progress.history[phase_name].loss[0],
            rtol=1e-4,
        )
    with (together / "runs.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["method"] != "dcae"]
    # A seed's methods start from the same network before any training.
    for row in rows:
        drawn = progress.untrained_distances[int(row["seed"])]
        expected = roc_auc_score(dataset.y_test != 3, drawn)
        assert float(row["auroc_untrained"]) == pytest.approx(expected, abs=1e-5)
    assert len({row["auroc_untrained"] for row in rows}) == 2 < len(rows)


@pytest.mark.slow
def test_pretraining_is_done_once_and_kept(
    command: Command, together: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = autoencoder_epochs(monkeypatch)
    out = tmp_path / "out"
    assert command(out, "deep_svdd") == 0
    assert command(out, "soft_boundary") == 0
    assert trained == [2, 0]
    np.testing.assert_array_equal(
        scores(out, "soft_boundary", 1), scores(together, *METHODS[2:], 1)
    )


@pytest.mark.slow
def test_a_lost_or_damaged_autoencoder_is_trained_again(
    command: Command,
    together: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    assert command(out, "deep_svdd") == 0
    first, second = (pretraining.path_of(out, RunName("dcae", 3, seed)) for seed in (0, 1))
    intact = first.read_bytes()
    first.write_bytes(intact[:-1] + b"!")
    second.unlink()
    trained = autoencoder_epochs(monkeypatch)
    assert command(out, "soft_boundary") == 0
    assert f"{first}: damaged" in capsys.readouterr().err and trained == [2]
    assert first.read_bytes() == intact
    np.testing.assert_array_equal(
        scores(out, "soft_boundary", 0), scores(together, *METHODS[2:], 0)
    )


@pytest.mark.slow
def test_a_failed_autoencoder_fails_its_runs_by_name(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    wild = ("--pretrain_optimizer=sgd", "--pretrain_learning_rate=1e30")
    assert command(out, "deep_svdd,dcae", *wild) == 1
    assert "deep_svdd-class3-seed0: the loss was not finite" in capsys.readouterr().err
    rows = rows_of(out / "runs.csv")
    assert len(rows) == 4
    assert all(row["auroc"] == "" and row["failed_epoch"] in ("1", "2") for row in rows)


@pytest.mark.slow
def test_a_file_of_another_network_is_refused(
    together: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = pretraining.path_of(together, RunName("dcae", 3, 0))
    base = recipes.preset("auto", "digits", (8, 8, 1)).network
    ours = build_network(base, (8, 8, 1))
    found = pretraining.read(path, ours)
    assert found is not None
    copy = tmp_path / "copy.bin"
    pretraining.write(copy, found)
    assert copy.read_bytes() == path.read_bytes()
    other = build_network(configs.replace_at(base, "rep_dim", 16), (8, 8, 1))
    assert pretraining.read(path, other) is None
    assert "this autoencoder is trained again" in capsys.readouterr().err
    assert pretraining.read(tmp_path / "nothing.bin", ours) is None


def test_a_run_takes_of_its_autoencoder_what_it_has_itself() -> None:
    """With a decoder everything, without one neither the decoder nor what the encoder has in an
    autoencoder only."""
    network = configs.NetworkConfig("wide", ((2,),), (5,), rep_dim=3, autoencoder_norm=True)
    init = build_network(network, (8, 8, 1)).init

    def init_shapes(decoder: bool) -> tuple[dict, dict]:
        return jax.eval_shape(lambda: init(jax.random.key(0), decoder))

    start = pretraining.Pretrained(*init_shapes(True), 0, {})
    for penalty in (0.0, 0.5):
        config = configs.replace_at(
            configs.RunConfig(network=network), "training.objective.reconstruction_penalty", penalty
        )
        weights = pretraining.starting_weights(config, start)
        statistics = weights.pop("statistics")
        wanted = init_shapes(config.needs_decoder)
        assert (weights, statistics) == wanted
