"""Images of more than 8 bits a pixel: their values are kept, and their range is the model's."""

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from deepsvdd_jax import datasets
from deepsvdd_jax.cli import model_images, settings
from deepsvdd_jax.cli.commands import score
from deepsvdd_jax.configs import ConfigError, DataConfig
from deepsvdd_jax.datasets import DataError
from deepsvdd_jax.datasets.formats.pixels import PixelError, resize_image, unit_pixels
from deepsvdd_jax.io.models import load_model
from tests.helpers import rows_of

ROOT = Path(__file__).parents[1]


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def load(folder: Path, **settings: object) -> datasets.Dataset:
    return datasets.load(DataConfig("folder", data_dir=str(folder), **settings))  # type: ignore[arg-type]


# A camera of 10 bits, one of 12 bits, bytes in a file of 16 bits, floats around a large offset.
DEPTHS = [
    (np.uint16, "png", [300, 700, 1023]),
    (np.uint16, "tif", [0, 4095, 2000]),
    (np.uint16, "png", [0, 255, 7]),
    (np.float32, "tif", [1e6, 1e6 + 0.5, 1e6 + 2]),
    (np.int32, "tif", [-5, 100_000, 20]),
]


@pytest.mark.parametrize(("dtype", "ending", "values"), DEPTHS)
def test_the_range_of_the_training_images_becomes_the_unit(
    tmp_path: Path, dtype: type, ending: str, values: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    train = np.array([values, values[::-1]], dtype)
    for name in ("a", "b"):
        write(tmp_path / "train" / f"{name}.{ending}", train)
    write(tmp_path / "test" / "defect" / f"c.{ending}", (train * 2).astype(dtype))
    data = load(tmp_path)
    low, high = min(values), max(values)
    assert data.pixel_range == (low, high)
    expected = (train.astype(np.float64) - low) / (high - low)
    np.testing.assert_allclose(data.x_train[0, ..., 0], expected, rtol=1e-6)
    np.testing.assert_allclose(
        data.x_test[0, ..., 0], (2.0 * train - low) / (high - low), rtol=1e-6
    )
    assert f"{low:g} to {high:g} of the training images become 0 to 1" in caplog.text


def test_a_range_can_be_stated_for_any_depth(tmp_path: Path) -> None:
    write(tmp_path / "deep" / "train" / "a.png", np.array([[1000, 3000]], np.uint16))
    write(tmp_path / "bytes" / "train" / "a.png", np.array([[50, 100]], np.uint8))
    deep = load(tmp_path / "deep", pixel_range=(0.0, 4000.0))
    assert deep.x_train.ravel().tolist() == [0.25, 0.75]
    assert load(tmp_path / "bytes", pixel_range=(0.0, 200.0)).x_train.ravel().tolist() == [
        0.25,
        0.5,
    ]
    plain = load(tmp_path / "bytes")
    assert plain.x_train.dtype == np.uint8 and plain.pixel_range is None
    with pytest.raises(ConfigError, match="LOW < HIGH"):
        DataConfig("folder", pixel_range=(3.0, 3.0))


def test_two_depths_in_one_folder_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "train" / "a.png", np.array([[1000, 3000]], np.uint16))
    write(tmp_path / "train" / "b.png", np.array([[50, 100]], np.uint8))
    with pytest.raises(DataError, match=r"a\.png: more than 8 bits a pixel, but .*b\.png has 8"):
        load(tmp_path)


def test_resizing_keeps_values_and_offset() -> None:
    deep = np.array([[1000, 1001], [1002, 1003]], np.uint16)[..., None]
    np.testing.assert_allclose(resize_image(deep, (1, 1)), [[[1001.5]]])
    large = deep.astype(np.float64) + 1e9
    np.testing.assert_allclose(resize_image(large, (1, 1)) - 1e9, [[[1001.5]]], atol=1e-3)


def test_a_model_without_a_range_takes_eight_bits_as_it_did() -> None:
    wide = np.array([[0, 255, 256, 65535]], np.uint16)[..., None]
    assert unit_pixels(wide, None).ravel().tolist() == [0, 0, 1, 255]
    with pytest.raises(PixelError, match="the model was trained on 8 bits"):
        unit_pixels(wide.astype(np.float32), None)


def test_outliers_are_in_units_of_the_data_and_not_of_their_own_range(tmp_path: Path) -> None:
    write(tmp_path / "a.png", np.array([[1000, 3000]], np.uint16))
    images = np.zeros((2, 1, 2, 1), np.float32)
    data = datasets.Dataset(
        name="folder",
        x_train=images,
        y_train=np.zeros(2, int),
        x_test=images[:0],
        y_test=np.zeros(0, int),
        class_names=("a",),
    )
    data = data._replace(pixel_range=(0.0, 4000.0))
    flags: Any = SimpleNamespace(
        outliers=str(tmp_path), outlier_count=None, max_megapixels=None, data_dir=None
    )
    found = settings.load_outliers(flags, data)
    assert found is not None and found.ravel().tolist() == [0.25, 0.75]
    write(tmp_path / "a.png", np.array([[100, 200]], np.uint8))
    with pytest.raises(DataError, match="8 bits a pixel, beside images of 0 to 4000"):
        settings.load_outliers(flags, data)


def test_every_image_of_a_folder_of_outliers_is_taken_whatever_its_folders(tmp_path: Path) -> None:
    """Five of them lie apart as a test part would, and one as defects do."""
    for number in range(5):
        write(tmp_path / "good" / f"{number}.png", np.array([[number, 0]], np.uint8))
    write(tmp_path / "crack" / "a.png", np.array([[5, 0]], np.uint8))
    write(tmp_path / "mask" / "a.png", np.array([[99, 0]], np.uint8))
    write(tmp_path / "6.png", np.array([[6, 0]], np.uint8))
    found = datasets.folder.load_every_image(DataConfig("folder", str(tmp_path)))
    assert sorted(found[:, 0, 0, 0].tolist()) == list(range(7))


@pytest.mark.parametrize("ending", ["csv", "npz"])
@pytest.mark.parametrize(
    ("reading", "name"),
    [
        (score.Reading(skip_unreadable=True), "skip_unreadable"),
        (score.Reading(megapixels=3), "max_"),
    ],
)
def test_flags_of_image_files_are_refused_for_tables_and_arrays(
    tmp_path: Path, ending: str, reading: score.Reading, name: str
) -> None:
    path = tmp_path / f"x.{ending}"
    path.touch()
    model: Any = None
    with pytest.raises(ConfigError, match=f"--{name}.* has no effect here"):
        score.open_source(path, model, reading, datasets.Columns())


@pytest.mark.parametrize(
    ("pixel_range", "dtype", "words"),
    [
        ([909, 3175], np.uint8, "x.png: 8 bits a pixel, and the model was trained on .* 909 to"),
        (None, np.uint16, "x.png: more than 8 bits a pixel, of which the model takes the upper 8"),
        ([909, 3175], np.uint16, None),
        ([0, 200], np.uint8, None),
        (None, np.uint8, None),
    ],
)
def test_another_depth_than_that_of_the_training_is_told(
    pixel_range: list[int] | None, dtype: type, words: str | None
) -> None:
    model: Any = SimpleNamespace(
        image_shape=(1, 2, 1), summary={"data": {"pixel_range": pixel_range}}
    )
    other = model_images.has_other_depth(model, np.zeros((1, 1, 2, 1), dtype))
    assert other == (words is not None)
    if words is not None:
        assert re.match(words, model_images.depth_warning(model, "x.png"))


def command(name: str, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-m", f"experiments.{name}", *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.slow
def test_faint_defects_of_a_deep_camera_are_found(tmp_path: Path) -> None:
    """Of its upper eight bits nothing is left: every pixel is 7."""
    random = np.random.RandomState(0)
    normal = np.round(1900 + 4 * random.randn(80, 16, 16)).astype(np.uint16)
    defects = normal[60:].copy()
    defects[:, 4:8, 4:8] += 40
    assert len(np.unique(np.concatenate([normal, defects]) >> 8)) == 1
    for number, image in enumerate(normal[:60]):
        write(tmp_path / "good" / f"{number:02}.png", image)
    for number, (image, defect) in enumerate(zip(normal[60:], defects, strict=True)):
        write(tmp_path / "new" / f"normal-{number:02}.png", image)
        write(tmp_path / "new" / f"defect-{number:02}.png", defect)
    model, out = tmp_path / "model", tmp_path / "scores.csv"
    told = command(
        *("fit", f"--data_dir={tmp_path / 'good'}", f"--model={model}", "--seeds=1", "--epochs=3"),
        "--false_alarm_rate=0.1",
    )
    low, high = int(normal[:60].min()), int(normal[:60].max())
    assert f"{low} to {high} of the training images become 0 to 1" in told
    assert load_model(model).summary["data"]["pixel_range"] == [low, high]
    command("score", f"--model={model}", f"--data_dir={tmp_path / 'new'}", f"--out={out}")
    rows = rows_of(out)
    labels = [row["name"].startswith("defect") for row in rows]
    assert roc_auc_score(labels, [float(row["score"]) for row in rows]) == 1.0
