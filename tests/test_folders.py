"""Folders of one's own images as fit, score, report and sweep take them."""

import csv
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from deepsvdd_jax import datasets
from deepsvdd_jax.cli.commands import fit, score, sweep
from deepsvdd_jax.configs import DataConfig
from deepsvdd_jax.io import models

Call = Callable[..., int]
Calling = Callable[[ModuleType], AbstractContextManager[Call]]

QUICK = ("--epochs=2", "--milestones=1", "--seeds=1", "--batch_size=16", "--false_alarm_rate=0.2")


def save(path: Path, value: int = 0, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.RandomState(seed).randint(0, 30, (10, 10)) + value
    pixels[:, 5:] += 100
    Image.fromarray(pixels.astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 normal images, 4 and 2 of defects, and their masks."""
    root = tmp_path_factory.mktemp("tiles")
    for i in range(30):
        save(root / "good" / f"{i:02}.png", seed=i)
    for kind, count in (("crack", 4), ("hole", 2)):
        for i in range(count):
            save(root / "defects" / kind / f"{i}.png", 100, 50 + i)
            save(root / "masks" / kind / f"{i}.png", 120, 90 + i)
    return root


@pytest.fixture(scope="module")
def mvtec(tiles: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same images in MVTec's layout, six of the normals in the test part."""
    root = tmp_path_factory.mktemp("mvtec")
    shutil.copytree(tiles / "defects", root / "test")
    shutil.copytree(tiles / "good", root / "train" / "good")
    (root / "test" / "good").mkdir()
    for i in range(24, 30):
        (root / "train" / "good" / f"{i}.png").rename(root / "test" / "good" / f"{i}.png")
    for path in (tiles / "masks").rglob("*.png"):
        target = root / "ground_truth" / path.parent.name / f"{path.stem}_mask.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return root


def names(path: Path) -> list[str]:
    with path.open(newline="", encoding="utf-8") as file:
        return [row["name"] for row in csv.DictReader(file)]


def samples(model: Path) -> int:
    summary = models.load_model(model).summary
    return summary["train_samples"] + summary["calibration_samples"]


@pytest.mark.slow
def test_defects_and_masks_are_not_trained_on(
    calling: Calling, tiles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = tmp_path / "model", tmp_path / "scores.csv"
    with calling(fit) as command:
        assert command(f"--data_dir={tiles}", f"--model={model}", *QUICK) == 0
    said = capsys.readouterr()
    assert samples(model) == 30
    assert "30 images: good (30)" in said.err and "masks: of 6 images" in said.err
    assert "6 images: defects/crack (4), defects/hole (2)" in said.err
    assert "of 6 anomalies raise an alarm" in said.out
    with calling(score) as command:
        assert command(f"--model={model}", f"--data_dir={tiles}", f"--out={out}") == 0
    assert "36 images: good (30), defects/crack (4), defects/hole (2)" in capsys.readouterr().err
    assert len(names(out)) == 36 and not any("mask" in name for name in names(out))


@pytest.mark.slow
def test_the_layout_of_mvtec(
    calling: Calling,
    mvtec: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    model, out = tmp_path / "model", tmp_path / "scores.csv"
    with calling(fit) as command:
        assert command(f"--data_dir={mvtec}", f"--model={model}", *QUICK) == 0
    said = capsys.readouterr()
    assert samples(model) == 24
    assert "of 6 normals raise an alarm" in said.out and "of 6 anomalies do" in said.out
    with calling(score) as command:
        assert command(f"--model={model}", f"--data_dir={mvtec}", f"--out={out}") == 0
    expected = {path.relative_to(mvtec).as_posix() for path in (mvtec / "test").rglob("*.png")}
    assert set(names(out)) == expected and len(expected) == 12
    assert "24 files left out: 24 the training part" in caplog.text


def test_the_normal_class_is_honoured(
    calling: Calling, tiles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(tiles / "defects", tmp_path / "kinds")
    save(tmp_path / "kinds" / "hole" / "2.png", 100)
    many = ("--calibration_fraction=0", "--threshold=quantile", *QUICK[:-1])
    for name, count in (("hole", 3), ("0", 4), ("1", 3)):
        model = tmp_path / f"model-{name}"
        with calling(fit) as command:
            data = (f"--data_dir={tmp_path / 'kinds'}", f"--normal_class={name}")
            assert command(*data, f"--model={model}", *many) == 0
        assert samples(model) == count
    capsys.readouterr()
    with calling(fit) as command:
        data = (f"--data_dir={tmp_path / 'kinds'}", "--normal_class=bird")
        assert command(*data, f"--model={tmp_path / 'm'}", *QUICK) == 2
        assert "'bird'" in capsys.readouterr().err
        for given in ("bird", "10", "-1"):
            digits = ("--dataset=digits", f"--normal_class={given}")
            assert command(*digits, f"--model={tmp_path / 'm'}", *QUICK) == 2
            assert f"'{given}'; allowed are 0 to 9" in capsys.readouterr().err


def test_defects_without_normals_beside_them_are_refused(
    calling: Calling, tiles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(tiles / "defects", tmp_path / "data" / "defects")
    shutil.copytree(tiles / "good", tmp_path / "data" / "belt")
    with calling(fit) as command:
        data = f"--data_dir={tmp_path / 'data'}"
        assert command(data, f"--model={tmp_path / 'm'}", *QUICK) == 2
        assert "holds defects/ and no folder named normal, good, ok" in capsys.readouterr().err
        assert command(data, "--normal_class=belt", f"--model={tmp_path / 'm'}", *QUICK) == 0
    assert samples(tmp_path / "m") == 30


def test_what_is_left_out_is_said(
    calling: Calling, tiles: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "in"
    shutil.copytree(tiles / "good", folder)
    (folder / "notes.txt").write_text("no image")
    shutil.copy(folder / "00.png", folder / "30.heic")
    (folder / "more").symlink_to(tiles / "good")
    Image.open(folder / "00.png").save(folder / "31.jfif", "JPEG")
    with calling(fit) as command:
        assert command(f"--data_dir={folder}", f"--model={tmp_path / 'm'}", *QUICK) == 0
    assert samples(tmp_path / "m") == 61
    assert "2 files left out: 2 no image by its ending (30.heic, notes.txt)" in caplog.text
    caplog.clear()
    out = tmp_path / "scores.csv"
    with calling(score) as command:
        arguments = (f"--model={tmp_path / 'm'}", f"--data_dir={folder}", f"--out={out}")
        assert command(*arguments) == 0
    assert len(names(out)) == 61 and "2 files left out" in caplog.text


def test_one_image_and_endings_in_any_case(
    calling: Calling, tiles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, table = tmp_path / "s.csv", tmp_path / "new.CSV"
    with calling(fit) as command:
        assert command(f"--data_dir={tiles}", f"--model={tmp_path / 'm'}", *QUICK) == 0
        table.write_text("a,b\n" + "".join(f"{i},{i % 7}\n" for i in range(30)))
        csv_data = ("--dataset=csv", f"--data_dir={table}", f"--model={tmp_path / 't'}")
        assert command(*csv_data, *QUICK) == 0
    arrays = np.stack([np.array(Image.open(path)) for path in sorted((tiles / "good").iterdir())])
    np.savez(tmp_path / "x.npz", x=arrays)
    (tmp_path / "x.npz").rename(tmp_path / "x.NPZ")
    (tmp_path / "y.txt").write_text("a,b\n1,2\n")
    image = tiles / "defects" / "crack" / "0.png"
    with calling(score) as command:
        for model, data, expected in (("m", image, 1), ("t", table, 30), ("m", "x.NPZ", 30)):
            given = (f"--model={tmp_path / model}", f"--data_dir={tmp_path / data}")
            assert command(*given, f"--out={out}") == 0
            assert len(names(out)) == expected
        assert command(f"--model={tmp_path / 'm'}", f"--data_dir={image}", f"--out={out}") == 0
        assert names(out) == ["0.png"]
        capsys.readouterr()
        for data, expected in (
            ("gone.png", "gone.png: no such file or folder"),
            ("y.txt", "y.txt: by its ending no image, npz file or csv file"),
        ):
            given = (f"--model={tmp_path / 'm'}", f"--data_dir={tmp_path / data}")
            assert command(*given, f"--out={out}") == 2
            assert expected in capsys.readouterr().err


def test_messages_name_what_was_given(
    calling: Calling, tiles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    shutil.copytree(tiles / "masks", tmp_path / "only" / "masks")
    (tmp_path / "t.csv").write_text("a\n1\n")
    for data, expected in (
        ("nonexistent", "nonexistent: no such folder"),
        ("t.csv", "t.csv: a file, not a folder of images; add --dataset=csv"),
        ("empty", "empty: no images in it"),
        ("only", "only: holds masks (masks/crack/0.png, ...) and no images"),
        (tiles / "good" / "00.png", "00.png: a file, not a folder of images"),
    ):
        with calling(fit) as command:
            given = f"--data_dir={tmp_path / data}"
            assert command(given, f"--model={tmp_path / 'm'}", *QUICK) == 2
        message = capsys.readouterr().err
        assert message.count("\n") == 1 and message.rstrip().endswith(expected)


@pytest.mark.slow
def test_a_sweep_takes_every_layout(
    calling: Calling, tiles: Path, mvtec: Path, tmp_path: Path
) -> None:
    quick = ("--epochs=2", "--milestones=1", "--seeds=1", "--batch_size=16")
    for data, tested in ((tiles, 12), (mvtec, 12)):
        out = tmp_path / data.name
        with calling(sweep) as command:
            assert command("--dataset=folder", f"--data_dir={data}", f"--out={out}", *quick) == 0
        (scores,) = (out / "scores").glob("*.npz")
        # Every fifth of the 30 normals, or the six that the folder sets apart, and six defects.
        assert len(np.load(scores)["labels"]) == tested
        assert np.load(scores)["labels"].sum() == 6


def test_folders_of_classes_are_a_data_set(tiles: Path, tmp_path: Path) -> None:
    dataset = datasets.load(DataConfig("folder", str(tiles / "defects" / "..")))
    assert dataset.class_names == ("crack", "good", "hole")
    for name in ("dog", "cat"):
        for i in range(10):
            save(tmp_path / "pets" / name / f"{i}.png", seed=i + len(name) * (name == "dog") * 9)
    dataset = datasets.load(DataConfig("folder", str(tmp_path / "pets")))
    assert dataset.class_names == ("cat", "dog")
    np.testing.assert_array_equal(np.bincount(dataset.y_train), [8, 8])
    assert dataset.test_names == ("cat/4.png", "cat/9.png", "dog/4.png", "dog/9.png")
    plain = DataConfig("folder", str(tiles / "good"))
    with pytest.raises(datasets.DataError, match="good: nothing tells its images apart"):
        datasets.load(plain)
    save(tmp_path / "pets" / "stray.png")
    with pytest.raises(datasets.DataError, match=r"stray\.png: an image without a class"):
        datasets.load(DataConfig("folder", str(tmp_path / "pets")))


def test_test_images_that_are_trained_on_are_told(
    calling: Calling, mvtec: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(mvtec, tmp_path / "data")
    datasets.load(DataConfig("folder", str(tmp_path / "data")))
    assert "training images too" not in caplog.text
    image = Image.open(tmp_path / "data" / "train" / "good" / "00.png")
    image.save(tmp_path / "data" / "test" / "crack" / "again.bmp")
    datasets.load(DataConfig("folder", str(tmp_path / "data")))
    assert "1 of 13 test images are training images too (crack/again.bmp)" in caplog.text
    caplog.clear()
    with calling(fit) as command:
        arguments = (f"--data_dir={tmp_path / 'data'}", f"--model={tmp_path / 'm'}")
        assert command(*arguments, *QUICK) == 0
    assert "1 of 13 test images are training images too (test/crack/again.bmp)" in caplog.text


def test_masks_of_what_is_taken_for_normal_are_told(
    calling: Calling, tiles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(tiles / "good", tmp_path / "data" / "images")
    (tmp_path / "data" / "masks").mkdir()
    shutil.copy(tiles / "masks" / "hole" / "0.png", tmp_path / "data" / "masks" / "07.png")
    with calling(fit) as command:
        data = f"--data_dir={tmp_path / 'data'}"
        assert command(data, f"--model={tmp_path / 'm'}", *QUICK) == 0
    said = capsys.readouterr().err
    assert "1 of the normal images have a mask, as defects do: images/07.png" in said
    assert samples(tmp_path / "m") == 30


@pytest.mark.slow
def test_large_images_are_read_if_asked(
    calling: Calling,
    tiles: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # Pillow refuses images of twice as many pixels; a tile has 100.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)
    data, model, out = f"--data_dir={tiles}", tmp_path / "m", tmp_path / "s.csv"
    allowed = "--max_megapixels=1"
    calls = {
        fit: (data, f"--model={model}", *QUICK),
        score: (data, f"--model={model}", f"--out={out}"),
        sweep: (
            *("--dataset=folder", data, f"--out={tmp_path / 'sweep'}", *QUICK[:4]),
            "--milestones=1",
        ),
    }
    for module, arguments in calls.items():
        with calling(module) as command:
            assert command(*arguments) == 2
            message = capsys.readouterr().err.splitlines()[-1]
            assert "too many pixels" in message and "--max_megapixels" in message
            assert command(*arguments, allowed) == 0


def test_what_is_logged_is_plain_lines(tmp_path: Path) -> None:
    (tmp_path / "good").mkdir()
    (tmp_path / "good" / "broken.png").write_bytes(b"\x89PNG nothing")
    (tmp_path / "notes.txt").write_text("no image")
    root = Path(__file__).parents[1]
    command = [sys.executable, "-m", "experiments.fit", f"--data_dir={tmp_path}", "--model=m"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    first, second, last = done.stderr.splitlines()
    assert first == "normal: 1 images: good (1)"
    assert second == "1 file left out: 1 no image by its ending (notes.txt)"
    assert last.startswith("fit: ") and "broken.png: damaged" in last


def test_pipes_are_refused(
    calling: Calling, tiles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("x.png", "x.csv", "x.npz"):
        os.mkfifo(tmp_path / name)
    model = f"--model={tmp_path / 'm'}"
    with calling(fit) as command:
        assert command(f"--data_dir={tiles}", model, *QUICK) == 0
        for name in ("csv", "npz"):
            data = (f"--dataset={name}", f"--data_dir={tmp_path / 'x'}.{name}")
            assert command(*data, f"--model={tmp_path / 'n'}", *QUICK) == 2
            assert "no regular file" in capsys.readouterr().err
    with calling(score) as command:
        for name in ("x.png", "x.csv", "x.npz"):
            data = (f"--data_dir={tmp_path / name}", f"--out={tmp_path / 'out.csv'}")
            assert command(model, *data) == 2
            assert "no regular file" in capsys.readouterr().err
