"""The sweep command: files, figures, taking up again, and every kind of bad input."""

import gzip
import json
import re
import shutil
import struct
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from deepsvdd_jax import datasets, detectors
from deepsvdd_jax.cli import run_settings
from deepsvdd_jax.cli.commands import sweep
from deepsvdd_jax.cli.sweeps import passes, records
from deepsvdd_jax.configs import DataConfig
from deepsvdd_jax.detectors import baselines, kde
from deepsvdd_jax.io import models
from tests.helpers import rows_of

Call = Callable[..., int]
Calling = Callable[[ModuleType], AbstractContextManager[Call]]


@pytest.fixture(scope="module")
def command(calling: Calling) -> Iterator[Call]:
    with calling(sweep) as call:
        yield call


SMALL = ("--normal_classes=0,1", "--seeds=2", "--epochs=2", "--milestones=1")
# So that more runs are trained by the program of the first.
PAIRS = "--runs_per_program=2"


@pytest.fixture(scope="module")
def swept(command: Call, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sweep") / "out"
    assert command(*SMALL, PAIRS, f"--out={out}", "--save_models") == 0
    return out


def test_folder_holds_what_the_interface_promises(swept: Path) -> None:
    rows = rows_of(swept / "runs.csv")
    promised = (
        "dataset,protocol,normal_class,method,objective,seed,auroc,average_precision,fpr95,"
        "auroc_untrained,threshold,accuracy,precision,recall,f1,epochs,train_seconds,collapsed"
    )
    assert list(rows[0])[:18] == promised.split(",")
    assert [(row["normal_class"], row["seed"]) for row in rows] == [
        ("0", "0"),
        ("0", "1"),
        ("1", "0"),
        ("1", "1"),
    ]
    summary = rows_of(swept / "summary.csv")
    promised = "dataset,normal_class,method,objective,runs,auroc_mean,auroc_std,auroc_ensemble"
    assert list(summary[0])[:8] == promised.split(",")
    assert [row["normal_class"] for row in summary] == ["0", "1", "mean"]
    config = json.loads((swept / "config.json").read_text())
    assert config["deep_svdd"]["training"]["epochs"] == 2
    assert config["versions"]["jax"] and config["device"]["platform"] == "cpu"


def test_scores_give_the_row_and_the_ensemble(swept: Path) -> None:
    rows = rows_of(swept / "runs.csv")
    for row in rows:
        stem = f"deep_svdd-class{row['normal_class']}-seed{row['seed']}"
        stored = np.load(swept / "scores" / f"{stem}.npz")
        assert stored["scores"].dtype == np.float32 and stored["labels"].dtype == np.uint8
        assert roc_auc_score(stored["labels"], stored["scores"]) == pytest.approx(
            float(row["auroc"]), abs=1e-12
        )
        above = stored["scores"] > float(row["threshold"])
        assert np.mean(above == stored["labels"]) == pytest.approx(float(row["accuracy"]))
        history = rows_of(swept / "history" / f"{stem}.csv")
        assert [line["epoch"] for line in history] == ["1", "2"] and "radius" in history[0]
        assert float(history[1]["learning_rate"]) == pytest.approx(1e-4)
        assert (swept / "models" / stem / "model.json").exists()
    one, two = (np.load(swept / "scores" / f"deep_svdd-class0-seed{s}.npz") for s in (0, 1))
    together = one["scores"] / one["train_mean"] + two["scores"] / two["train_mean"]
    summary = rows_of(swept / "summary.csv")
    assert roc_auc_score(one["labels"], together) == pytest.approx(
        float(summary[0]["auroc_ensemble"]), abs=1e-9
    )
    aurocs = [float(row["auroc"]) for row in rows if row["normal_class"] == "0"]
    assert float(summary[0]["auroc_mean"]) == pytest.approx(np.mean(aurocs))
    assert float(summary[0]["auroc_std"]) == pytest.approx(np.std(aurocs, ddof=1))


@pytest.mark.slow
def test_figures_do_not_depend_on_the_other_runs(
    command: Call, swept: Path, tmp_path: Path
) -> None:
    out = tmp_path / "alone"
    alone = ("--normal_classes=1", "--seeds=1,", "--epochs=2", "--milestones=1")
    assert command(*alone, f"--out={out}", "--runs_per_program=1") == 0
    name = records.RunName("deep_svdd", 1, 1)
    together, lone = (records.read_scores(folder, name)["scores"] for folder in (swept, out))
    # Another number of runs per program and of devices: equal up to rounding.
    np.testing.assert_allclose(together, lone, rtol=1e-5)


@pytest.mark.slow
def test_passes_on_the_way_have_the_same_bytes_in_programs_of_other_widths(
    command: Call, tmp_path: Path
) -> None:
    recipe = ("--methods=dcae,deep_svdd", "--epochs=2", "--pretrain_epochs=2", "--milestones=")
    problem = ("--normal_classes=0", "--seeds=4", "--evaluate_every=1", *recipe)
    # With two devices: two runs a device, and one.
    for width in (4, 2):
        out = f"--out={tmp_path / str(width)}"
        assert command(*problem, f"--runs_per_program={width}", out) == 0
    for stem in [
        f"{method}-class0-seed{seed}" for method in ("dcae", "deep_svdd") for seed in range(4)
    ]:
        four, two = (tmp_path / width / "history" / f"{stem}.csv" for width in ("4", "2"))
        assert four.read_bytes() == two.read_bytes()
        four, two = (tmp_path / width / "scores" / f"{stem}.npz" for width in ("4", "2"))
        with np.load(four) as wide, np.load(two) as narrow:
            assert "pass_distances" in wide.files
            for name in wide.files:
                assert wide[name].tobytes() == narrow[name].tobytes(), (stem, name)


@pytest.mark.slow
def test_a_sweep_that_is_streamed_has_the_same_rows(
    command: Call, swept: Path, tmp_path: Path
) -> None:
    out = tmp_path / "streamed"
    # The pool alone, 1,300 images of 256 bytes and more, is larger.
    assert command(*SMALL, f"--out={out}", "--memory_budget=100KB") == 0
    for ours, theirs in zip(rows_of(out / "runs.csv"), rows_of(swept / "runs.csv"), strict=True):
        for name in ("auroc", "average_precision", "auroc_untrained", "threshold"):
            assert float(ours[name]) == pytest.approx(float(theirs[name]), rel=1e-5), name
    assert json.loads((out / "config.json").read_text())["memory_budget"] == 100_000


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--memory_budget=lots", "memory budget 'lots'; give bytes, or a size as 500MB or 2GiB"),
        ("--data_devices=3", "data_devices is 3; there are 2 devices"),
        ("--data_devices=2 --batch_size=25", "the batch size must be a multiple of 2"),
    ],
)
def test_budgets_and_devices_that_cannot_be_are_refused(
    command: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: str, message: str
) -> None:
    assert command(*flag.split(), f"--out={tmp_path / 'out'}") == 2
    lines = capsys.readouterr().err.splitlines()
    assert message in lines[-1] and not (tmp_path / "out").exists()


def test_repeating_and_extending_keeps_finished_rows(
    command: Call, swept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (swept / "runs.csv").read_bytes()
    assert command(*SMALL, f"--out={swept}") == 0
    assert (swept / "runs.csv").read_bytes() == before
    more = ("--normal_classes=1,2", "--seeds=2", "--epochs=2", "--milestones=1")
    assert command(*more, PAIRS, f"--out={swept}") == 0
    assert "2 to go" in capsys.readouterr().err
    lines = (swept / "runs.csv").read_bytes().splitlines()
    assert set(before.splitlines()) < set(lines) and len(lines) == 7
    assert json.loads((swept / "config.json").read_text())["normal_classes"] == [0, 1, 2]


def test_parts_trained_elsewhere_are_copied_in(
    command: Call, swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = [tmp_path / "class0", tmp_path / "class1"]
    for label, part in enumerate(parts):
        for path in swept.rglob(f"*-class{label}-*"):
            target = part / path.relative_to(swept)
            target.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if path.is_dir() else shutil.copy)(path, target)
        shutil.copy(swept / "config.json", part)
    first, other = parts
    for name in ("rows", "scores", "history", "models"):
        shutil.copytree(other / name, first / name, dirs_exist_ok=True)
    assert command(*SMALL, f"--out={first}", "--save_models") == 0
    said = capsys.readouterr().err
    assert "0 to go" in said
    last = f"written to {first}; as a page: python -m experiments.report --out={first}"
    assert said.splitlines()[-1] == last
    together = [row for row in rows_of(swept / "runs.csv") if row["normal_class"] in "01"]
    assert rows_of(first / "runs.csv") == together and len(together) == 4
    assert [row["runs"] for row in rows_of(first / "summary.csv")] == ["2", "2", "4"]


def test_other_settings_in_the_same_folder_are_refused_and_named(
    command: Call, swept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def content() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in swept.rglob("*") if path.is_file()}

    before = content()
    assert command("--epochs=3", "--milestones=1", f"--out={swept}") == 2
    message = capsys.readouterr().err
    assert "deep_svdd.training.epochs is 2 there, 3 here" in message
    assert message.count("\n") == 1
    assert content() == before


@pytest.mark.slow
def test_full_passes_note_single_images_and_those_held_out(command: Call, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with_passes = ("--evaluate_every=1", "--validation_fraction=0.25", "--save_models")
    small = ("--normal_classes=3", "--seeds=4,", "--epochs=2", "--milestones=1")
    assert command(*small, *with_passes, f"--out={out}") == 0
    name = records.RunName("deep_svdd", 3, 4)
    stored = records.read_scores(out, name)
    dataset = datasets.load(DataConfig("digits"))
    split = datasets.one_class_split(dataset, 3, validation_fraction=0.25, seed=4)
    assert stored["pass_epochs"].tolist() == [1, 2]
    noted = split.train_indices[: passes.PASS_IMAGES]
    np.testing.assert_array_equal(stored["pass_images"], noted)
    model = models.load_model(out / "models" / name.stem)
    for indices, found in (
        (split.train_indices, stored["train_distances"]),
        (noted, stored["pass_distances"][-1]),
    ):
        expected = detectors.score_images(model, dataset.x_train[indices])
        np.testing.assert_allclose(found, expected, rtol=1e-4)
    (row,) = rows_of(out / "runs.csv")
    held_out = detectors.score_images(model, dataset.x_train[split.validation_indices])
    history = records.read_history(out, name)
    assert history["held_out_mean_distance"][-1] == pytest.approx(held_out.mean(), rel=1e-4)
    assert stored["train_distances"].max() == pytest.approx(float(row["train_maximum"]))


@pytest.mark.slow
def test_methods_stand_in_one_summary(command: Call, tmp_path: Path) -> None:
    out = tmp_path / "out"
    methods = "--methods=ocsvm,kde,isolation_forest,dcae"
    assert command("--normal_classes=3", "--seeds=2", "--epochs=2", methods, f"--out={out}") == 0
    summary = {row["method"]: row for row in rows_of(out / "summary.csv")}
    assert set(summary) == {"ocsvm", "kde", "isolation_forest", "dcae"}
    rows = rows_of(out / "runs.csv")
    counts = {name: sum(row["method"] == name for row in rows) for name in summary}
    assert counts == {"ocsvm": 1, "kde": 1, "isolation_forest": 2, "dcae": 2}
    assert all(float(row["auroc"]) > 0.9 for row in rows if row["method"] != "dcae")


def test_nearest_neighbors_see_what_the_networks_see_and_extend_a_folder(
    command: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    asked = ("--normal_classes=3", "--seeds=2", f"--out={out}")
    assert command("--methods=kde", *asked) == 0
    settings = json.loads((out / "config.json").read_text())
    del settings["knn"]  # As in a folder from before there was the method.
    (out / "config.json").write_text(json.dumps(settings))
    assert command("--methods=knn", "--knn_neighbors=3", *asked) == 0
    assert "nearest neighbors: 3 of" in capsys.readouterr().err
    rows = rows_of(out / "runs.csv")
    assert [row["method"] for row in rows] == ["kde", "knn"]  # One seed is enough for both.

    dataset = datasets.load(DataConfig("digits"))
    split = datasets.one_class_split(dataset, 3)
    images = dataset.x_train[split.train_indices].astype(np.float64)
    tested = dataset.x_test[split.test_indices].astype(np.float64)

    def contrast(values: np.ndarray) -> np.ndarray:
        values = values - values.mean(axis=(1, 2, 3), keepdims=True)
        return values / np.abs(values).mean(axis=(1, 2, 3), keepdims=True)

    train, test = contrast(images), contrast(tested)
    low, high = train.min(), train.max()
    train, test = ((part - low) / (high - low) for part in (train, test))
    differences = test.reshape(len(test), 1, -1) - train.reshape(1, len(train), -1)
    distances = np.sort(np.sqrt(np.square(differences).sum(axis=2)), axis=1)[:, :3].mean(axis=1)
    expected = roc_auc_score(split.test_labels, distances)
    assert float(rows[1]["auroc"]) == pytest.approx(expected, rel=1e-6)

    assert command("--methods=knn", "--knn_neighbors=5", *asked) == 2
    assert "knn.n_neighbors is 3 there, 5 here" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_that_diverges_has_a_row_without_figures(
    command: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    wild = ("--optimizer=sgd", "--learning_rate=1e30", "--epochs=3", "--milestones=1")
    assert command("--normal_classes=0", "--seeds=1", *wild, f"--out={out}") == 1
    assert "deep_svdd-class0-seed0" in capsys.readouterr().err
    (row,) = rows_of(out / "runs.csv")
    assert row["auroc"] == "" and row["failed_epoch"] in ("1", "2")


TABLE_FLAGS = ("--dataset=npz", "--normal_classes=0", "--runs_per_program=2")


def save_table(path: Path, scale: float) -> str:
    """Writes a table of two classes, the second with values of that size."""
    values = np.random.RandomState(0).randn(160, 4).astype(np.float32)
    labels = np.arange(160) % 2
    values[labels == 1] = scale * (values[labels == 1] + 3)
    np.savez(path, x_train=values, y_train=labels, x_test=values, y_test=labels)
    return f"--data_dir={path}"


def test_a_run_that_diverges_disturbs_no_neighbour_in_its_program(
    command: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = save_table(tmp_path / "table.npz", 1e17)
    # Steps that suit the first class and throw the second, a hundred thousand million million
    # times as large, out of all bounds.
    steps = ("--nostandardize", "--optimizer=sgd", "--learning_rate=1e-3", "--epochs=3")
    flags = (*TABLE_FLAGS, data, *steps, "--seeds=1")
    alone, both = tmp_path / "alone", tmp_path / "both"
    assert command(*flags, "--milestones=2", f"--out={alone}") == 0
    assert command(*flags, "--milestones=2", "--normal_classes=0,1", f"--out={both}") == 1
    assert "deep_svdd-class1-seed0: the loss was not finite" in capsys.readouterr().err
    (healthy,) = rows_of(alone / "runs.csv")
    neighbour, failed = rows_of(both / "runs.csv")
    assert failed["auroc"] == "" and failed["failed_epoch"] in ("1", "2")
    same = set(healthy) - {"train_seconds"}
    assert {name: neighbour[name] for name in same} == {name: healthy[name] for name in same}
    name = "scores/deep_svdd-class0-seed0.npz"
    assert (both / name).read_bytes() == (alone / name).read_bytes()


@pytest.mark.slow
def test_a_collapse_is_flagged_and_a_healthy_run_is_not(
    command: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = save_table(tmp_path / "table.npz", 1.0)
    small = ("--hidden=8", "--rep_dim=4", "--batch_size=16", "--seeds=2", "--weight_decay=0.01")
    steps = ("--epochs=100", "--milestones=90", "--learning_rate=0.03")
    flags = (*TABLE_FLAGS, data, *small, *steps)
    for bias, verdict in (("--bias", "1"), ("--nobias", "0")):
        out = tmp_path / bias
        assert command(*flags, bias, f"--out={out}") == 0
        rows = rows_of(out / "runs.csv")
        assert [row["collapsed"] for row in rows] == [verdict] * 2, bias
        told = "collapsed, all inputs are mapped to nearly one point; try --nobias"
        assert (told in capsys.readouterr().err) == (verdict == "1")


def test_a_run_that_blows_up_in_its_last_step_fails_each_time(
    command: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wild = ("--optimizer=sgd", "--learning_rate=1e9", "--epochs=1", "--milestones=")
    more = ("--normal_classes=0", "--seeds=1", "--batch_size=1000", "--nobatch_norm")
    for _ in range(2):
        assert command(*more, *wild, f"--out={tmp_path / 'out'}") == 1
        message = capsys.readouterr().err
        assert "deep_svdd-class0-seed0: the loss was not finite" in message
    (row,) = rows_of(tmp_path / "out" / "runs.csv")
    assert row["auroc"] == "" and "not finite" in row["failure"]


def test_a_baseline_whose_scores_are_all_equal_is_told_of(
    command: Call,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    score = baselines.fit_and_score

    def flat(config: object, *rest: object) -> object:
        result = score(config, *rest)  # type: ignore[arg-type]
        if not isinstance(config, kde.KDEConfig):
            return result
        return result._replace(test_scores=0.0 * result.test_scores + 0.25)

    monkeypatch.setattr(baselines, "fit_and_score", flat)
    methods = ("--methods=kde,isolation_forest", "--normal_classes=0", "--seeds=1")
    assert command(*methods, f"--out={tmp_path / 'out'}") == 0
    said = capsys.readouterr().err
    assert said.count("all test samples have the same score") == 1
    assert "kde-class0-seed0: all test samples" in said


def test_a_baseline_that_fails_harms_no_other(
    command: Call,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    score = baselines.fit_and_score

    def fail_kde(config: object, *rest: object) -> object:
        if isinstance(config, kde.KDEConfig):
            raise ValueError("too few points\nfor the folds")
        return score(config, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(baselines, "fit_and_score", fail_kde)
    methods = ("--methods=kde,isolation_forest", "--normal_classes=0,1", "--seeds=1")
    assert command(*methods, f"--out={tmp_path / 'out'}") == 1
    assert "kde-class0-seed0: too few points for the folds" in capsys.readouterr().err
    rows = rows_of(tmp_path / "out" / "runs.csv")
    assert [(row["method"], bool(row["auroc"])) for row in rows] == [
        *[("isolation_forest", True)] * 2,
        *[("kde", False)] * 2,
    ]


def test_help_explains_every_flag(command: Call, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--help") == 0
    printed = capsys.readouterr().out
    flags = ["dataset", "normal_classes", "selection", "platform", "evaluate_every", "config"]
    for name in [*flags, *(setting.flag for setting in run_settings.run_settings())]:
        assert re.search(rf"^ +--(\[no\])?{name}:", printed, flags=re.MULTILINE), name


# --- bad input ----------------------------------------------------------------------------------


def idx_bytes(array: np.ndarray) -> bytes:
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


def write_mnist(folder: Path, damage: dict[str, bytes] | None = None) -> None:
    folder.mkdir(parents=True)
    for part, count in (("train", 40), ("t10k", 20)):
        images = np.random.RandomState(0).randint(0, 255, (count, 28, 28))
        files = {
            f"{part}-images-idx3-ubyte.gz": gzip.compress(idx_bytes(images)),
            f"{part}-labels-idx1-ubyte.gz": gzip.compress(idx_bytes(np.arange(count) % 10)),
        }
        for name, data in (files | (damage or {})).items():
            (folder / name).write_bytes(data)


BAD_FLAGS = {
    "dataset": (("--dataset=nonsense",), "digits|mnist"),
    "class": (("--normal_classes=10",), "classes 0 to 9"),
    "class text": (("--normal_classes=zero",), "whole numbers"),
    "method": (("--methods=deep_svdd,lof",), "deep_svdd,dcae,ocsvm,kde,isolation_forest,knn"),
    "no seeds": (("--seeds=0",), "give a count of 1 to"),
    "seed text": (("--seeds=a",), "whole numbers"),
    "negative seed": (("--seeds=1,-2",), "between 0 and"),
    "nu": (("--nu=1.5",), "(0, 1]"),
    "nu text": (("--nu=high",), "nu"),
    "epochs": (("--epochs=0",), "epochs is 0; it must be positive"),
    "batch": (("--batch_size=-1",), "batch_size is -1; it must be positive"),
    "rate": (("--learning_rate=nan",), "learning_rate is nan"),
    "optimizer": (("--optimizer=lion",), "amsgrad"),
    "preset": (("--preset=best",), "icml2018"),
    "network": (("--network=resnet",), "mnist_lenet"),
    "network for tables": (("--network=mlp",), "takes tables"),
    "too small": (("--preset=itu", "--kernel_size=5"), "pixels are too few"),
    "cannot mirror": (
        ("--padding=valid", "--kernel_size=2", "--pretrain_epochs=1"),
        "no decoder can mirror its 'valid' convolutions",
    ),
    "unknown flag": (("--speed=11",), "speed"),
    "stray word": (("digits",), "unknown argument 'digits'"),
    "runs": (("--runs_per_program=0",), "runs_per_program"),
    "outliers": (("--outlier_fraction=1",), "outlier_fraction is 1.0"),
    "pretraining is off": (("--pretrain_learning_rate=0.1",), "--pretrain_epochs"),
    "warm-up": (("--warm_up_epochs=-1",), "warm_up_epochs is -1"),
    "no radius": (
        ("--objective=soft-boundary", "--epochs=5"),
        "warm_up_epochs=10 and trains for epochs=5: give epochs above 10",
    ),
    "no radius of a method": (("--methods=soft_boundary", "--epochs=5"), "warm_up_epochs=10"),
    "no first radius": (
        ("--objective=soft-boundary", "--radius_rule=block-coordinate", "--warm_up_epochs=0"),
        "radius_every=5: give warm_up_epochs of at least 1",
    ),
    "radius_every": (("--radius_every=0",), "radius_every is 0"),
    "radius_rate": (("--radius_rate=0",), "radius_rate is 0"),
    "bandwidths": (("--kde_bandwidths=1,wide",), "kde_bandwidths is '1,wide'"),
    "bandwidth": (("--kde_bandwidths=0",), "bandwidths must be positive"),
    "neighbors": (("--methods=knn", "--knn_neighbors=0"), "n_neighbors must be at least 1, got 0"),
    "neighbors of none": (
        ("--knn_neighbors=3",),
        "--knn_neighbors has no effect here: it is for knn",
    ),
    "gamma": (("--svm_gamma=0",), "svm_gamma is 0.0; it must be positive"),
    "no config": (("--config=nowhere/config.json",), "nowhere/config.json: No such file"),
    "two recipes": (("--config=c.json", "--preset=itu"), "--preset or --config, not both"),
    "twice": (
        ("--objective=soft-boundary", "--methods=deep_svdd,soft_boundary"),
        "soft_boundary is deep_svdd with",
    ),
    "passes": (("--evaluate_every=0",), "evaluate_every"),
    "same class": (("--normal_classes=3", "--anomalous_classes=3"), "3"),
    "of another phase": (
        ("--methods=dcae", "--pretrain_epochs=2", "--learning_rate=0.5"),
        "dcae takes --pretrain_learning_rate",
    ),
    "dictionary": (
        ("--first_layer=dictionary", "--kernel_size=9"),
        "no larger than the images: kernel_size is 9",
    ),
    "initial model": (("--initial_model=nowhere",), "nowhere/model.json: No such file"),
    "whole batches": (("--batch_size=500", "--whole_batches"), "at least 500 are needed"),
    "known class": (
        (
            *("--objective=deep-sad", "--normal_classes=3", "--labelled_ratio=0.1"),
            "--known_anomalous_classes=3",
        ),
        "class 3 is normal here, so that it cannot be a known anomalous class",
    ),
    "labelled ratio": (("--objective=deep-sad", "--labelled_ratio=1"), "labelled_ratio is 1.0"),
    "negative ratio": (("--objective=deep-sad", "--labelled_ratio=-0.1"), "labelled_ratio is -0.1"),
    "pollution": (("--pollution_ratio=1",), "pollution_ratio is 1.0"),
    "masks of nothing": (
        ("--objective=fcdd", "--network=fcdd", "--labelled_ratio=0.1", "--map_masks"),
        "map_masks learns from the masks of synthetic anomalies",
    ),
}


@pytest.mark.parametrize("case", BAD_FLAGS)
def test_bad_flags_end_in_one_line(
    command: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    arguments, expected = BAD_FLAGS[case]
    out = tmp_path / "out"
    assert command(*arguments, f"--out={out}") == 2
    message = capsys.readouterr().err
    assert expected in message and message.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize(
    ("shape", "count", "expected"),
    [((4, 6, 8, 1), 4, "shape (6, 8, 1)"), ((4, 8, 8, 1), 5, "5 are asked for, there are 4")],
)
def test_outliers_that_do_not_suit_are_one_line(
    command: Call,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    shape: tuple[int, ...],
    count: int,
    expected: str,
) -> None:
    np.savez(tmp_path / "o.npz", x_train=np.zeros(shape, np.uint8))
    outliers = (f"--outliers={tmp_path / 'o.npz'}", f"--outlier_count={count}")
    out = tmp_path / "out"
    assert command("--objective=hsc", "--network=lenet", *outliers, f"--out={out}") == 2
    message = capsys.readouterr().err
    assert expected in message and message.count("\n") == 1
    assert not out.exists()


DAMAGE: dict[str, tuple[dict[str, bytes], str]] = {
    "magic": (
        {"train-images-idx3-ubyte.gz": gzip.compress(b"\0\0\x08\x05" + bytes(2000))},
        "train-images-idx3-ubyte.gz",
    ),
    "truncated": (
        {"t10k-images-idx3-ubyte.gz": gzip.compress(idx_bytes(np.zeros((20, 28, 28)))[:-100])},
        "t10k-images-idx3-ubyte.gz",
    ),
    "not gzip": ({"train-labels-idx1-ubyte.gz": b"hello"}, "train-labels-idx1-ubyte.gz"),
    "cut gzip": (
        {"train-labels-idx1-ubyte.gz": gzip.compress(idx_bytes(np.arange(40) % 10))[:-9]},
        "train-labels-idx1-ubyte.gz",
    ),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_archives_are_named(
    command: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    damage, expected = DAMAGE[case]
    write_mnist(tmp_path / "mnist", damage)
    out = tmp_path / "out"
    assert command("--dataset=mnist", f"--data_dir={tmp_path}", f"--out={out}") == 2
    message = capsys.readouterr().err
    assert expected in message and message.count("\n") == 1
    assert not out.exists()


def test_missing_data_say_what_to_do(
    command: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert command("--dataset=mnist", f"--data_dir={tmp_path / 'no'}", f"--out={out}") == 2
    message = capsys.readouterr().err
    assert "--data_dir" in message and message.count("\n") == 1 and not out.exists()


def test_bad_pixels_and_empty_classes_are_named(
    command: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = np.random.RandomState(0).rand(30, 8, 8, 1).astype(np.float32)
    labels = np.arange(30) % 3
    for name, value in (("nan", np.nan), ("infinite", np.inf)):
        bad = good.copy()
        bad[7, 3, 3, 0] = value
        path = tmp_path / f"{name}.npz"
        np.savez(path, x_train=bad, y_train=labels, x_test=good, y_test=labels)
        assert command("--dataset=npz", f"--data_dir={path}", f"--out={tmp_path / 'out'}") == 2
        message = capsys.readouterr().err
        assert "x_train" in message and message.count("\n") == 1
    path = tmp_path / "hole.npz"
    hole = np.where(labels == 1, 2, labels)
    np.savez(path, x_train=good, y_train=hole, x_test=good, y_test=labels)
    arguments = ("--dataset=npz", f"--data_dir={path}", "--normal_classes=1")
    assert command(*arguments, f"--out={tmp_path / 'out'}") == 2
    assert "1" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_images_of_different_shapes_are_named(
    command: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place, size in (
        ("train/a.png", (8, 8)),
        ("train/b.png", (9, 8)),
        ("test/bad/c.png", (8, 8)),
    ):
        path = tmp_path / "data" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", size).save(path)
    out = tmp_path / "out"
    assert command("--dataset=folder", f"--data_dir={tmp_path / 'data'}", f"--out={out}") == 2
    message = capsys.readouterr().err
    assert "b.png" in message and "--image_size" in message and not out.exists()


def test_folder_that_cannot_be_used(
    command: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_text("in the way")
    assert command(f"--out={file / 'out'}") == 2
    assert "cannot write" in capsys.readouterr().err
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("mine")
    assert command(f"--out={foreign}") == 2
    assert "holds no sweep" in capsys.readouterr().err
    assert [path.name for path in foreign.iterdir()] == ["thesis.txt"]
