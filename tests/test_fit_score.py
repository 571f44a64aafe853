"""From a folder of one's own to a table of scores: the commands fit, score and export."""

import contextlib
import csv
import html
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from deepsvdd_jax import datasets, detectors
from deepsvdd_jax.cli.commands import export, fit, score, sweep
from deepsvdd_jax.cli.reporting import score_report
from deepsvdd_jax.configs import DataConfig
from deepsvdd_jax.io import models
from deepsvdd_jax.scoring import calibration
from tests.helpers import rows_of

Call = Callable[..., int]
Calling = Callable[[ModuleType], AbstractContextManager[Call]]

RATE = ("--false_alarm_rate=0.2",)
QUICK = ("--epochs=3", "--milestones=2", "--seeds=2", "--batch_size=16")


@pytest.fixture
def commands(calling: Calling) -> Iterator[SimpleNamespace]:
    def call_one(module: ModuleType) -> Call:
        def call(*arguments: str) -> int:
            with calling(module) as command:
                return command(*arguments)

        return call

    with ExitStack():
        yield SimpleNamespace(fit=call_one(fit), score=call_one(score), export=call_one(export))


def write_images(folder: Path, count: int, seed: int, size: int = 12, odd: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.RandomState(seed)
    for number in range(count):
        pixels = np.full((size, size, 3), 60) + random.randint(0, 30, (size, size, 3))
        pixels[:, size // 2 :] += 0 if odd else 120
        name = f"{'odd' if odd else 'part'}{number:03d}.png"
        Image.fromarray(pixels.astype(np.uint8)).save(folder / name)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("parts")
    write_images(root / "good", 40, 0)
    write_images(root / "new", 6, 1)
    write_images(root / "new" / "belt", 4, 2, odd=True)
    return root


@pytest.fixture
def model(commands: SimpleNamespace, parts: Path) -> Path:
    path = parts / "model"
    if not path.exists():
        rate = "--false_alarm_rate=0.2"
        assert commands.fit(f"--data_dir={parts / 'good'}", f"--model={path}", rate, *QUICK) == 0
    return path


def test_a_folder_is_fitted_and_scored(
    commands: SimpleNamespace, parts: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    out = parts / "scores.csv"
    assert commands.score(f"--model={model}", f"--data_dir={parts / 'new'}", f"--out={out}") == 0
    rows = rows_of(out)
    assert list(rows[0]) == ["name", "score", "p_value", "anomalous"]
    assert [row["name"] for row in rows] == [
        *(f"belt/odd{number:03d}.png" for number in range(4)),
        *(f"part{number:03d}.png" for number in range(6)),
    ]
    loaded = models.load_model(model)
    images = np.stack([np.array(Image.open(parts / "new" / row["name"])) for row in rows])
    scores = detectors.score_images(loaded, images)
    np.testing.assert_array_equal([float(row["score"]) for row in rows], scores)
    p_values = calibration.conformal_p_values(loaded.calibration_scores, scores)
    np.testing.assert_allclose([float(row["p_value"]) for row in rows], p_values, rtol=1e-5)
    assert [row["anomalous"] for row in rows] == [str(int(s > loaded.threshold)) for s in scores]
    # A part without its bright half is far from all that was seen.
    assert [row["anomalous"] for row in rows[:4]] == ["1"] * 4
    assert "10 samples" in capsys.readouterr().out
    assert loaded.summary["calibration_samples"] == 8 and len(loaded.center) == 2


def test_a_small_set_gets_the_rate_that_it_carries_and_is_told(
    commands: SimpleNamespace, parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model"
    assert commands.fit(f"--data_dir={parts / 'good'}", f"--model={model}", *QUICK) == 0
    loaded = models.load_model(model)
    # A fifth of 40 is held out; with 8 scores the largest bounds a ninth of the normals.
    assert loaded.summary["alarm_rate"] == 1 / 9
    assert loaded.threshold == loaded.calibration_scores.max()
    said = capsys.readouterr().err
    assert "8 held-out samples carry a false-alarm rate of 0.111" in said
    assert "--calibration_fraction" in said


def test_images_of_a_group_are_held_out_together(
    commands: SimpleNamespace, parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = (f"--data_dir={parts / 'good'}", "--false_alarm_rate=0.2", *QUICK)
    model = tmp_path / "model"
    # part000 to part039 in tens, of which a fifth is to be held out: one.
    assert commands.fit(*data, "--groups=part0.", f"--model={model}") == 0
    loaded = models.load_model(model)
    assert loaded.summary["calibration_samples"] == 10
    images = np.stack([np.array(Image.open(path)) for path in sorted((parts / "good").iterdir())])
    scores = detectors.score_images(loaded, images).reshape(4, 10)
    assert any(np.array_equal(np.sort(ten), loaded.calibration_scores) for ten in scores)
    for groups, expected in (
        ("part(", "no regular expression"),
        ("odd", "does not match 'part000.png'"),
        (".*", "needs at least 4 calibration scores"),
    ):
        rate = ("--calibration_fraction=0.05",) if groups == ".*" else ()
        capsys.readouterr()
        assert commands.fit(*data, *rate, f"--groups={groups}", f"--model={tmp_path / 'm'}") == 2
        assert expected in capsys.readouterr().err
    table = ("--dataset=digits", "--groups=a", "--false_alarm_rate=0.2")
    assert commands.fit(*table, f"--model={tmp_path / 'm'}") == 2
    assert "these data have no names" in capsys.readouterr().err


def test_scoring_batches_do_not_matter(
    commands: SimpleNamespace, parts: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = (f"--model={model}", f"--data_dir={parts / 'new'}")
    assert commands.score(*arguments, f"--out={parts / 'whole.csv'}") == 0
    whole = score.datasets.iter_images

    def small(*given: object, **named: object) -> object:
        return whole(*given, **named, batch_size=3)  # type: ignore[arg-type]

    monkeypatch.setattr(score.datasets, "iter_images", small)
    assert commands.score(*arguments, f"--out={parts / 'parts.csv'}") == 0
    assert (parts / "parts.csv").read_bytes() == (parts / "whole.csv").read_bytes()


@pytest.mark.parametrize("kinds, is_told", [((0, 1), True), ((0, 0), False)], ids=["two", "one"])
def test_equal_scores_of_a_whole_file_are_told(
    commands: SimpleNamespace,
    parts: Path,
    model: Path,
    kinds: tuple[int, int],
    is_told: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    loaded = models.load_model(model)
    blind = loaded._replace(params=jax.tree.map(np.zeros_like, loaded.params))
    models.save_model(tmp_path / "blind", blind)
    # One sample a batch: no batch by itself tells that its scores are equal.
    monkeypatch.setattr(score, "ROWS_AT_ONCE", 1)
    draws = [np.random.RandomState(kind) for kind in kinds]
    images = np.stack([draw.randint(0, 256, (12, 12, 3), np.uint8) for draw in draws])
    np.savez(tmp_path / "new.npz", x=images)
    files = (f"--model={tmp_path / 'blind'}", f"--data_dir={tmp_path / 'new.npz'}")
    assert commands.score(*files, f"--out={tmp_path / 'scores.csv'}") == 0
    assert ("all 2 scores are equal" in capsys.readouterr().err) == is_told
    # The model as it was trained tells the two apart, and nothing is said.
    files = (f"--model={model}", *files[1:])
    assert commands.score(*files, f"--out={tmp_path / 'scores.csv'}") == 0
    assert "are equal" not in capsys.readouterr().err


@pytest.mark.slow
def test_images_are_resized_as_in_training(
    commands: SimpleNamespace, parts: Path, tmp_path: Path
) -> None:
    arguments = ("--image_size=8,8", "--channels=1", "--calibration_fraction=0")
    path = tmp_path / "model"
    good = f"--data_dir={parts / 'good'}"
    assert commands.fit(good, f"--model={path}", "--threshold=quantile", *arguments, *QUICK) == 0
    write_images(tmp_path / "large", 3, 5, size=20)
    out = tmp_path / "s.csv"
    large = f"--data_dir={tmp_path / 'large'}"
    assert commands.score(f"--model={path}", large, f"--out={out}") == 0
    assert [row["p_value"] for row in rows_of(out)] == [""] * 3
    assert models.load_model(path).image_shape == (8, 8, 1)


def test_tables_are_fitted_and_scored(commands: SimpleNamespace, tmp_path: Path) -> None:
    random = np.random.RandomState(0)
    normal = random.randn(80, 3)
    header = "flow,heat,noise"
    np.savetxt(tmp_path / "normal.csv", normal, delimiter=",", header=header, comments="")
    new = np.concatenate([random.randn(5, 3), np.full((2, 3), 9.0)])
    np.savetxt(tmp_path / "new.csv", new, delimiter=",", header=header, comments="")
    path, out = tmp_path / "model", tmp_path / "scores.csv"
    table = ("--dataset=csv", f"--data_dir={tmp_path / 'normal.csv'}")
    assert commands.fit(*table, f"--model={path}", "--false_alarm_rate=0.1", *QUICK) == 0
    data = f"--data_dir={tmp_path / 'new.csv'}"
    assert commands.score(f"--model={path}", data, f"--out={out}") == 0
    rows = rows_of(out)
    assert [row["name"] for row in rows] == [str(number) for number in range(7)]
    assert [row["anomalous"] for row in rows[5:]] == ["1", "1"]
    assert models.load_model(path).feature_names == ("flow", "heat", "noise")


def write_table(path: Path, columns: dict[str, list[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def test_columns_of_a_table_keep_their_roles(
    commands: SimpleNamespace,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    random = np.random.RandomState(0)
    a, b = random.randn(80).tolist(), random.randn(80).tolist()
    parts = [f"A-{number}" for number in range(80)]
    table = {"part": parts, "Class": [0] * 70 + [1] * 10, "a": a, "note": ["x,y"] * 80, "b": b}
    write_table(tmp_path / "train.csv", table)
    model, out = tmp_path / "model", tmp_path / "scores.csv"
    roles = ("--label_column=Class", "--ignore_columns=note", "--id_column=part")
    data = ("--dataset=csv", f"--data_dir={tmp_path / 'train.csv'}", f"--model={model}")
    assert commands.fit(*data, *roles, *RATE, *QUICK) == 0
    loaded = models.load_model(model)
    assert loaded.feature_names == ("a", "b")
    # 70 normals, every fifth of which is to test on.
    assert loaded.summary["train_samples"] + loaded.summary["calibration_samples"] == 56
    assert "features" not in caplog.text

    # Other order, other columns, a class that is text: the features are found by their names.
    new = {"b": b[:9], "extra": ["?"] * 9, "a": a[:9], "Class": ["bad"] * 9, "part": parts[9:18]}
    write_table(tmp_path / "new.csv", new)
    given = (f"--model={model}", f"--data_dir={tmp_path / 'new.csv'}", f"--out={out}")
    capsys.readouterr()
    assert commands.score(*given) == 0
    assert "not trained on: extra" in capsys.readouterr().err
    rows = rows_of(out)
    assert [row["name"] for row in rows] == parts[9:18]
    expected = detectors.score_images(loaded, np.column_stack([a[:9], b[:9]]).astype(np.float32))
    np.testing.assert_allclose([float(row["score"]) for row in rows], expected, rtol=1e-6)

    assert commands.score(*given, "--id_column=extra") == 0
    assert {row["name"] for row in rows_of(out)} == {"?"}
    write_table(tmp_path / "new.csv", {"a": a[:9], "b": b[:9]})
    capsys.readouterr()
    assert commands.score(*given) == 0
    assert "no column 'part'; rows are numbered" in capsys.readouterr().err
    assert [row["name"] for row in rows_of(out)] == [str(number) for number in range(9)]
    write_table(tmp_path / "new.csv", {"a": a[:9]})
    for flags_, words in (
        ((), "'b' is missing; there are a"),
        (("--id_column=nowhere",), "'nowhere' is missing"),
    ):
        assert commands.score(*given, *flags_) == 2
        assert words in capsys.readouterr().err


@pytest.mark.slow
def test_a_sweep_takes_roles_of_columns_and_is_taken_up(
    calling: Calling, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = np.random.RandomState(0).randn(60).tolist()
    kinds = [number % 3 for number in range(60)]
    parts = [f"A-{number}" for number in range(60)]
    table = {"part": parts, "Class": kinds, "a": values, "b": values[::-1]}
    write_table(tmp_path / "t.csv", table)
    data = ("--dataset=csv", f"--data_dir={tmp_path / 't.csv'}", f"--out={tmp_path / 'out'}")
    settings = ("--normal_classes=1", "--epochs=2", "--milestones=1", "--batch_size=16")
    roles = ("--label_column=Class", "--id_column=part")
    with calling(sweep) as command:
        assert command(*data, *settings, *roles, "--seeds=1") == 0
        assert command(*data, *settings, *roles, "--seeds=2") == 0
        assert command(*data, *settings, "--label_column=Class", "--seeds=2") == 2
        assert "'A-0' is not a number" in capsys.readouterr().err
    labels = np.load(tmp_path / "out" / "scores" / "deep_svdd-class1-seed1.npz")["labels"]
    # Every fifth of 20 rows of each of three classes.
    assert len(labels) == 12 and labels.sum() == 8


def test_flags_of_columns_are_for_csv_files(
    commands: SimpleNamespace,
    parts: Path,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    images = f"--data_dir={parts / 'good'}"
    for flag in ("--label_column=a", "--ignore_columns=a", "--id_column=a"):
        assert commands.fit(images, flag, f"--model={tmp_path / 'm'}", *QUICK) == 2
        assert f"{flag[2:-2]} is for csv files" in capsys.readouterr().err
        out = f"--out={tmp_path / 'out'}"
        assert commands.score(f"--model={model}", images, flag, out) == 2
        assert "no csv file" in capsys.readouterr().err
    table = ("--dataset=csv", f"--data_dir={tmp_path / 't.csv'}", f"--model={tmp_path / 'm'}")
    assert commands.fit(*table, "--label_column=a", "--id_column=a", *QUICK) == 2
    assert "'a' is in both label_column and id_column" in capsys.readouterr().err
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    out = f"--out={tmp_path / 'out'}"
    assert commands.score(f"--model={model}", f"--data_dir={tmp_path / 't.csv'}", out) == 2
    assert "t.csv: a table, but the model was trained on images" in capsys.readouterr().err


def test_labelled_data_are_fitted_on_one_class_and_tried(
    commands: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model"
    arguments = ("--dataset=digits", "--normal_class=3", "--false_alarm_rate=0.05")
    assert commands.fit(*arguments, f"--model={path}", *QUICK) == 0
    printed = capsys.readouterr().out
    normals = (datasets.load(DataConfig("digits")).y_test == 3).sum()
    assert f"of {normals} normals raise an alarm" in printed and "AUROC" in printed
    assert "0.05 asked for" in printed


def test_unreadable_files(
    commands: SimpleNamespace,
    parts: Path,
    model: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_images(tmp_path / "in", 2, 3)
    (tmp_path / "in" / "broken.png").write_bytes(b"\x89PNG nothing")
    out = tmp_path / "scores.csv"
    arguments = (f"--model={model}", f"--data_dir={tmp_path / 'in'}", f"--out={out}")
    assert commands.score(*arguments) == 2
    message = capsys.readouterr().err
    assert "broken.png" in message and not out.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert commands.score(*arguments, "--skip_unreadable") == 0
    assert len(rows_of(out)) == 2 and "broken.png" in caplog.text
    assert "1 unreadable files left out" in capsys.readouterr().out


NAMES = (
    *('comma, and "quote"', "line\nfeed", "carriage\rreturn", "=1+1", "<script>alert(1)</script>"),
    *('x"><img src=x onerror=alert(1)>', "größe\u2028", " space "),
)


def test_names_of_files_harm_neither_the_table_nor_the_report(
    commands: SimpleNamespace, model: Path, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    folder = tmp_path / "named"
    write_images(folder, 1, 4)
    image = (folder / "part000.png").read_bytes()
    names = sorted(f"{name.replace('/', '')}.png" for name in NAMES)
    for name in names:
        (folder / name).write_bytes(image)
    with contextlib.suppress(OSError):  # Not every file system takes such a name.
        Path(os.fsdecode(os.fsencode(folder) + b"/\xff.png")).write_bytes(image)
    out = tmp_path / "scores.csv"
    assert commands.score(f"--model={model}", f"--data_dir={folder}", f"--out={out}") == 0
    found = [row["name"] for row in rows_of(out)]
    assert set(found) - {"part000.png", r"\udcff.png"} == set(names)
    assert b"\r\n" not in out.read_bytes()
    page = score_report.build_page(
        score_report.read_scores(out), score_report.Images(folder), 64
    ).html
    assert page.count('<img class="photo"') == len(names) + 1
    assert page.count("<script") == 1 and "<img src=x" not in page
    for name in names:
        assert html.escape(name) in page
    page.encode("utf-8")


def bad_inputs(parts: Path, model: Path, tmp_path: Path) -> dict[str, tuple[str, tuple[str, ...]]]:
    write_images(tmp_path / "large", 2, 3, size=20)
    (tmp_path / "empty").mkdir()
    (tmp_path / "hole.csv").write_text("a,b\n1,2\n3,\n")
    Image.new("L", (12, 12)).save(tmp_path / "one.png")
    lone = tmp_path / "lone"
    lone.mkdir()
    Image.new("RGB", (12, 12)).save(lone / "a.png")
    equal = tmp_path / "equal"
    equal.mkdir()
    for number in range(4):
        Image.new("RGB", (12, 12)).save(equal / f"{number}.png")
    good = f"--data_dir={parts / 'good'}"
    fresh = f"--model={tmp_path / 'fresh'}"
    return {
        "no --model": ("fit", (good,)),
        "trained on (12, 12, 3)": ("score", (f"--model={model}", f"--data_dir={tmp_path}/large")),
        "no images in it": ("score", (f"--model={model}", f"--data_dir={tmp_path}/empty")),
        "nowhere": ("score", (f"--model={model}", f"--data_dir={tmp_path}/nowhere")),
        "--data_dir is not given": ("score", (f"--model={model}",)),
        "model.json": ("score", (f"--model={tmp_path}/no", good)),
        "at least 2": ("fit", (fresh, f"--data_dir={lone}", *QUICK)),
        "are equal": (
            "fit",
            (
                fresh,
                f"--data_dir={equal}",
                "--calibration_fraction=0.5",
                "--false_alarm_rate=0.4",
                *QUICK,
            ),
        ),
        "needs at least 99": ("fit", (fresh, good, "--false_alarm_rate=0.01", *QUICK)),
        "line 3": ("fit", (fresh, "--dataset=csv", f"--data_dir={tmp_path}/hole.csv", *QUICK)),
        "alarm_rate is 1.5": ("fit", (fresh, good, "--false_alarm_rate=1.5", *QUICK)),
        "platforms": ("export", (f"--model={model}", "--platforms=abacus")),
    }


def test_bad_input_is_one_line_and_leaves_nothing(
    commands: SimpleNamespace,
    parts: Path,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for expected, (command, arguments) in bad_inputs(parts, model, tmp_path).items():
        out = () if command == "fit" else (f"--out={tmp_path / 'out'}",)
        capsys.readouterr()
        assert getattr(commands, command)(*arguments, *out) == 2, expected
        lines = capsys.readouterr().err.splitlines()
        wanted = expected.removeprefix("no --")
        assert wanted in lines[-1], (expected, lines)
        assert not any("Traceback" in line for line in lines)
        assert not (tmp_path / "fresh").exists() and not (tmp_path / "out").exists()


def test_a_damaged_model_is_refused(
    commands: SimpleNamespace,
    parts: Path,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (arrays,) = model.glob("arrays-*.npz")
    for name, damage in ((arrays.name, b"?"), ("model.json", b"{")):
        path = tmp_path / name
        path.mkdir()
        for file in model.iterdir():
            data = file.read_bytes()
            (path / file.name).write_bytes(
                data[:100] + damage + data[101:] if file.name == name else data
            )
        data = f"--data_dir={parts / 'new'}"
        assert commands.score(f"--model={path}", data, f"--out={tmp_path / 's.csv'}") == 2
        message = capsys.readouterr().err
        assert name in message and "damaged" in message and message.count("\n") == 1


def test_arrays_of_new_samples(commands: SimpleNamespace, tmp_path: Path) -> None:
    pixels = np.random.RandomState(0).randint(0, 256, (40, 8, 8, 1))
    np.savez(tmp_path / "train.npz", x_train=pixels.astype(np.uint8))
    model, out = tmp_path / "model", tmp_path / "scores.csv"
    data = ("--dataset=npz", f"--data_dir={tmp_path / 'train.npz'}", "--contrast=none")
    assert commands.fit(*data, f"--model={model}", "--false_alarm_rate=0.2", *QUICK) == 0
    expected = detectors.score_images(models.load_model(model), pixels.astype(np.uint8))
    labels = np.arange(40) % 2
    for arrays in (
        {"x": pixels.astype(np.uint8)},
        {"x_test": pixels.astype(np.int64)},
        {"x": pixels.astype(np.uint16), "y": labels},
    ):
        np.savez(tmp_path / "new.npz", **arrays)
        new = f"--data_dir={tmp_path / 'new.npz'}"
        assert commands.score(f"--model={model}", new, f"--out={out}") == 0
        scores = [float(row["score"]) for row in rows_of(out)]
        np.testing.assert_allclose(scores, expected, rtol=1e-5)


def test_a_folder_of_something_else_is_never_replaced(
    commands: SimpleNamespace, parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "images"
    write_images(images, 20, 0)
    (tmp_path / "file").write_text("mine")
    for path, expected in ((images, "holds other files and no model"), (tmp_path / "file", "file")):
        capsys.readouterr()
        assert commands.fit(f"--data_dir={images}", f"--model={path}", *RATE, *QUICK) == 2
        assert expected in capsys.readouterr().err
    assert len(list(images.iterdir())) == 20 and (tmp_path / "file").read_text() == "mine"


def test_a_class_that_is_named_good_is_the_normal_one(
    commands: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(tmp_path / "data" / "train" / "bad", 8, 0, odd=True)
    write_images(tmp_path / "data" / "train" / "good", 20, 1)
    model = tmp_path / "model"
    assert commands.fit(f"--data_dir={tmp_path / 'data'}", f"--model={model}", *RATE, *QUICK) == 0
    assert "normal: class 1, good" in capsys.readouterr().err
    assert models.load_model(model).summary["train_samples"] == 16


def test_too_few_images_for_a_whole_batch_are_refused(
    commands: SimpleNamespace, parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = (f"--data_dir={parts / 'good'}", f"--model={tmp_path / 'model'}")
    assert commands.fit(*data, *RATE, *QUICK, "--whole_batches", "--batch_size=64") == 2
    assert "32 training images; at least 64 are needed" in capsys.readouterr().err


def test_a_missing_extra_of_the_export_is_one_line(
    commands: SimpleNamespace,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    capsys.readouterr()
    assert commands.export(f"--model={model}", f"--out={tmp_path / 'scorer'}") == 2
    message = capsys.readouterr().err
    assert "pip install 'deepsvdd_jax[export]'" in message and message.count("\n") == 1


def test_export_writes_what_exports_makes(
    commands: SimpleNamespace, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    out = tmp_path / "scorer"
    assert commands.export(f"--model={model}", f"--out={out}", "--platforms=cpu") == 0
    assert "float32 [n, 12, 12, 3] to scores [n]" in capsys.readouterr().out
    assert out.stat().st_size > 1000


def test_fit_says_what_it_trains_on_and_where_before_it_does(
    commands: SimpleNamespace, parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    model = f"--model={tmp_path / 'model'}"
    assert commands.fit(f"--data_dir={parts / 'good'}", model, *RATE, *QUICK) == 0
    said = capsys.readouterr().err
    line = "40 normal samples of 12 x 12 x 3; 2 members, 3 epochs each, on "
    assert line in said and "device" in said
    assert said.index(line) < said.index("fit:")
