"""The script beside an exported scorer reads images as `score` does."""

import csv
import importlib.util
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
from deepsvdd_jax.cli.commands import export, fit, score

Call = Callable[..., int]
Calling = Callable[[ModuleType], AbstractContextManager[Call]]

QUICK = ("--epochs=2", "--milestones=1", "--seeds=2", "--batch_size=16", "--false_alarm_rate=0.2")
ALONE = """
import runpy, sys
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
assert not any(name.startswith(("deepsvdd_jax", "flax", "absl")) for name in sys.modules)
"""


def photo(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    random = np.random.RandomState(seed)
    pixels = random.randint(0, 60, shape)
    pixels[: shape[0] // 3] += 150
    pixels[:, : shape[1] // 4] += 40
    return pixels.astype(np.uint8)


def write_photos(folder: Path) -> list[str]:
    """Writes images of every kind that is easily read otherwise; returns their names, sorted."""
    folder.mkdir()
    rgb = Image.fromarray(photo(0, (24, 40, 3)))
    exif = Image.Exif()
    for orientation in (3, 6, 8):
        exif[0x0112] = orientation
        rgb.save(folder / f"turned{orientation}.jpg", exif=exif)
    rgba = np.dstack([np.asarray(rgb), photo(1, (24, 40))])
    Image.fromarray(rgba).save(folder / "transparent.png")
    rgb.quantize(8).save(folder / "palette.gif", transparency=3)
    rgb.convert("CMYK").save(folder / "print.jpg")
    Image.fromarray(photo(2, (24, 40, 2))).save(folder / "gray-transparent.png")
    rgb.convert("1").save(folder / "bits.png")
    rgb.convert("L").save(folder / "gray.jfif", "JPEG")
    rgb.save(folder / "plain.png")
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def normals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("normals")
    for i in range(30):
        Image.fromarray(photo(10 + i, (24, 40, 3))).save(folder / f"{i}.png")
    return folder


def exported(calling: Calling, normals: Path, tmp_path: Path, *flags: str) -> tuple[Path, Path]:
    """Returns a fitted model and the script beside its export."""
    model, out = tmp_path / "model", tmp_path / "scorer.jaxexport"
    with calling(fit) as command:
        assert command(f"--data_dir={normals}", f"--model={model}", *QUICK, *flags) == 0
    with calling(export) as command:
        assert command(f"--model={model}", f"--out={out}", "--platforms=cpu") == 0
    return model, tmp_path / "scorer.py"


def load(script: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("exported_scorer", script)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 3])
def test_its_scores_are_those_of_score(
    calling: Calling, normals: Path, tmp_path: Path, channels: int
) -> None:
    flags = ("--image_size=16,16", f"--channels={channels}")
    model, script = exported(calling, normals, tmp_path, *flags)
    names = write_photos(tmp_path / "photos")
    table = tmp_path / "scores.csv"
    with calling(score) as command:
        arguments = (f"--model={model}", f"--data_dir={tmp_path / 'photos'}", f"--out={table}")
        assert command(*arguments) == 0
    with table.open(newline="", encoding="utf-8") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert sorted(rows) == names
    paths = [str(tmp_path / "photos" / name) for name in names]
    called = [sys.executable, "-c", ALONE, str(script), *paths]
    done = subprocess.run(called, check=True, cwd=tmp_path, capture_output=True, text=True)
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert [line[2] for line in lines] == paths
    for name, (found, verdict, _) in zip(names, lines, strict=True):
        expected = float(rows[name]["score"])
        assert float(found) == pytest.approx(expected, rel=2e-4), name
        assert verdict == ("anomalous" if rows[name]["anomalous"] == "1" else "normal"), name
    # The pixels are the same to the last bit.
    reader = load(script)
    for _, images in datasets.iter_images([Path(paths[0])], (16, 16), channels):
        np.testing.assert_array_equal(
            reader.read_image(paths[0]), images[0].astype(np.float32) / np.float32(255)
        )


@pytest.mark.slow
def test_images_of_another_size_and_damaged_ones_are_one_line(
    calling: Calling, normals: Path, tmp_path: Path
) -> None:
    _, script = exported(calling, normals, tmp_path)
    Image.fromarray(photo(0, (8, 8, 3))).save(tmp_path / "small.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG nothing")
    for name, words in (("small.png", "(8, 8, 3)"), ("broken.png", "identify"), ("no.png", "No")):
        called = [sys.executable, str(script), name]
        done = subprocess.run(called, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 1 and done.stderr.count("\n") == 1
        assert done.stderr.startswith(f"{name}: ") and words in done.stderr


@pytest.mark.slow
def test_a_script_of_something_else_is_not_replaced(
    calling: Calling, normals: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, script = exported(calling, normals, tmp_path)
    out = (f"--model={model}", f"--out={tmp_path / 'scorer.jaxexport'}", "--platforms=cpu")
    with calling(export) as command:
        assert command(*out) == 0
        script.write_text("print('mine')\n")
        capsys.readouterr()
        assert command(*out) == 2
        message = capsys.readouterr().err
        assert "scorer.py" in message and message.count("\n") == 1
        assert script.read_text() == "print('mine')\n"
        assert command(*out, "--noscript") == 0


@pytest.mark.slow
def test_a_table_needs_no_script(calling: Calling, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("a,b\n" + "".join(f"{i % 7},{i % 5}\n" for i in range(40)))
    with calling(fit) as command:
        data = ("--dataset=csv", f"--data_dir={table}", f"--model={tmp_path / 'model'}")
        assert command(*data, *QUICK) == 0
    with calling(export) as command:
        out = f"--out={tmp_path / 'scorer'}"
        assert command(f"--model={tmp_path / 'model'}", out, "--platforms=cpu") == 0
    assert not list(tmp_path.glob("*.py"))
