"""The command score with maps and in tiles: folders of maps, marked pixels, masks, refusals."""

import errno
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from deepsvdd_jax import detectors
from deepsvdd_jax.cli.commands import fit, score
from deepsvdd_jax.cli.maps import flow
from deepsvdd_jax.cli.maps import folder as map_folder
from deepsvdd_jax.configs import (
    DetectorConfig,
    FCDDConfig,
    NetworkConfig,
    ObjectiveConfig,
    OptimizerConfig,
    PhaseConfig,
    PreprocessingConfig,
    RunConfig,
)
from deepsvdd_jax.datasets.dataset import DataError
from deepsvdd_jax.datasets.formats import pieces
from deepsvdd_jax.datasets.formats.images import read_image
from deepsvdd_jax.datasets.formats.pixels import resize_image
from deepsvdd_jax.detectors import maps as detector_maps
from deepsvdd_jax.io import models
from deepsvdd_jax.io.models import Model
from deepsvdd_jax.scoring import localization
from tests.helpers import rows_of, texture

Call = Callable[..., int]
Calling = Callable[[ModuleType], AbstractContextManager[Call]]
Pixels = npt.NDArray[np.uint8]

SIDE = 16
PLAIN = PreprocessingConfig(contrast="none")


def save(path: Path, pixels: Pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def fitted(network: NetworkConfig, training: PhaseConfig) -> Model:
    images = np.stack([texture(seed, SIDE, SIDE) for seed in range(60)])[..., None]
    run = RunConfig(network=network, preprocessing=PLAIN, training=training)
    config = DetectorConfig(run=run, seeds=(0,), calibration_fraction=0.2, alarm_rate=0.1)
    model = detectors.fit_detector(config, images)[0]
    data = {"image_size": [SIDE, SIDE], "channels": 1, "pixel_range": None}
    return model._replace(summary={**model.summary, "data": data})


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Returns a saved model with a map of its own, and one without."""
    root = tmp_path_factory.mktemp("models")
    own = NetworkConfig(
        "own", ((4,), (6,)), kernel_size=3, bias=True, affine=True, fully_convolutional=True
    )
    adam = OptimizerConfig("adam", 5e-3)
    confetti = PhaseConfig(
        FCDDConfig(), adam, epochs=25, batch_size=16, synthetic_anomalies="confetti"
    )
    models.save_model(root / "fcdd", fitted(own, confetti))
    plain = NetworkConfig("plain", ((4,),), rep_dim=3, kernel_size=3)
    one_class = PhaseConfig(ObjectiveConfig(), adam, epochs=2, batch_size=16)
    without = fitted(plain, one_class)
    models.save_model(root / "one-class", without)
    models.save_model(root / "fixed", without._replace(summary={}))
    return {path.name: path for path in root.iterdir()}


# Of images of 32 x 48: the rows and columns of a defect.
WHERE = slice(20, 26), slice(30, 37)


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """Returns a folder of normal images, some with a defect of known pixels."""
    for number in range(3):
        save(tmp_path / "new" / "good" / f"{number}.png", texture(100 + number, 32, 48))
        odd = texture(200 + number, 32, 48)
        odd[WHERE] = 255
        save(tmp_path / "new" / "defects" / "spot" / f"{number}.png", odd)
    for number in range(20):
        save(tmp_path / "normals" / f"{number}.png", texture(300 + number, 32, 48))
    return tmp_path


def write_masks(folder: Path, sides: tuple[int, int] = (32, 48)) -> None:
    mask = np.zeros(sides, np.uint8)
    mask[WHERE] = 255
    for number in range(3):
        save(folder / "spot" / f"{number}_mask.png", mask)


@pytest.fixture
def call(calling: Calling, saved: dict[str, Path], parts: Path):  # type: ignore[no-untyped-def]
    def run(model: str, *arguments: str, data: str = "new", out: str = "scores.csv") -> int:
        with calling(score) as command:
            return command(
                f"--model={saved[model]}",
                f"--data_dir={parts / data}",
                f"--out={parts / out}",
                *arguments,
            )

    return run


def own_maps(model: Path, paths: list[Path]) -> npt.NDArray[np.float64]:
    """Returns maps as they should be: of the images resized for the model, resized back."""
    loaded = models.load_model(model)
    images = [np.array(Image.open(path)) for path in paths]
    small = np.stack([resize_image(image[..., None], (SIDE, SIDE)) for image in images])
    found = detector_maps.mapper(loaded)(small)
    return np.stack(
        [
            np.asarray(Image.fromarray(one).resize(image.shape[::-1], Image.Resampling.BILINEAR))
            for one, image in zip(found, images, strict=True)
        ]
    )


def test_a_map_of_every_image_is_written(
    call: Call, parts: Path, saved: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("fcdd") == 0
    plain = rows_of(parts / "scores.csv")
    folder = parts / "maps"
    assert call("fcdd", f"--maps={folder}", f"--normals={parts / 'normals'}") == 0
    rows = rows_of(parts / "scores.csv")
    assert list(rows[0]) == [
        *("name", "score", "p_value", "anomalous", "map_row", "map_column", "map_maximum"),
        *("map_p_value", "marked_pixels"),
    ]
    assert [{key: row[key] for key in plain[0]} for row in rows] == plain
    normals = sorted((parts / "normals").iterdir())
    maxima = np.sort(own_maps(saved["fcdd"], normals).max(axis=(1, 2)))
    # 20 maxima carry 1 / 21 at the lowest: the threshold is the highest of them.
    expected = own_maps(saved["fcdd"], [parts / "new" / row["name"] for row in rows])
    for row, values in zip(rows, expected, strict=True):
        stem = folder / row["name"].removesuffix(".png")
        found = np.load(f"{stem}.npy")
        assert found.dtype == np.float32 and found.shape == (32, 48)
        np.testing.assert_allclose(found, values, rtol=1e-4, atol=1e-6)
        place = int(row["map_row"]), int(row["map_column"])
        assert found[place] == found.max() == np.float32(row["map_maximum"])
        p_value = (1 + np.sum(maxima >= found.max() * (1 + 1e-6))) / 21
        assert float(row["map_p_value"]) == pytest.approx(p_value, abs=1e-5)
        marked = int(np.sum(found > maxima[-1] * (1 + 1e-6)))
        assert int(row["marked_pixels"]) == pytest.approx(marked, abs=2)
        assert (marked > 0) == ("spot" in row["name"]) == (float(row["map_p_value"]) < 0.05)
        if "spot" in row["name"]:
            assert 18 <= place[0] <= 27 and 28 <= place[1] <= 38
        overlay = np.array(Image.open(f"{stem}.png"))
        assert overlay.shape == (32, 48, 3)
        assert (overlay == [0, 255, 255]).all(axis=2).any() == (marked > 0)
    described = json.loads((folder / "maps.json").read_text())
    assert described["kind"] == "objective" and described["normal_images"] == 20
    assert described["threshold"] == pytest.approx(maxima[-1], rel=1e-5)
    assert described["false_alarm_rate"] == pytest.approx(1 / 21)
    said = capsys.readouterr().out
    assert "6 maps (objective)" in said and "3 images have marked pixels" in said


def test_every_kind_and_format(call: Call, parts: Path, saved: dict[str, Path]) -> None:
    normals = f"--normals={parts / 'normals'}"
    kinds = {
        "gradient": ("one-class", "--map_format=tif"),
        "occlusion": ("one-class", "--map_kind=occlusion", normals),
    }
    for kind, (model, *arguments) in kinds.items():
        assert call(model, f"--maps={parts / kind}", *arguments) == 0
        assert json.loads((parts / kind / "maps.json").read_text())["kind"] == kind
    with Image.open(parts / "gradient" / "good" / "0.tif") as image:
        values = np.array(image)
    assert values.dtype == np.float32
    expected = own_maps(saved["one-class"], [parts / "new" / "good" / "0.png"])[0]
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-6)
    # Half of the normal images make the mean, the other half the threshold.
    described = json.loads((parts / "occlusion" / "maps.json").read_text())
    assert described["normal_images"] == 10


def test_images_whose_names_differ_in_their_ending_have_a_map_each(call: Call, parts: Path) -> None:
    save(parts / "same" / "a.png", texture(1, 20, 20))
    save(parts / "same" / "a.bmp", texture(2, 20, 20))
    save(parts / "same" / "b.png", texture(3, 20, 20))
    assert call("one-class", f"--maps={parts / 'maps'}", data="same") == 0
    names = {path.name for path in (parts / "maps").iterdir()}
    expected = {"a.png.npy", "a.bmp.npy", "b.npy", "a.png.png", "a.bmp.png", "b.png", "maps.json"}
    assert names == expected


def test_rows_of_an_array_have_maps(call: Call, parts: Path) -> None:
    images = np.stack([texture(seed, SIDE, SIDE) for seed in range(3)])[..., None]
    np.savez(parts / "new.npz", x=images)
    assert call("one-class", f"--maps={parts / 'maps'}", data="new.npz") == 0
    assert np.load(parts / "maps" / "2.npy").shape == (SIDE, SIDE)


def test_maps_are_measured_against_masks(
    call: Call, parts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_masks(parts / "new" / "ground_truth")
    write_masks(parts / "elsewhere")
    assert call("fcdd", f"--maps={parts / 'one'}", f"--normals={parts / 'normals'}") == 0
    said = capsys.readouterr().out
    mask = np.zeros((32, 48), bool)
    mask[WHERE] = True
    found = []
    for row in rows_of(parts / "scores.csv"):
        values = np.load(parts / "one" / row["name"].replace(".png", ".npy"))
        found.append((values, mask & ("spot" in row["name"])))
    figures = localization.localization([localization.evidence(*pair) for pair in found])
    line = (
        f"pixel AUROC {100 * figures.pixel_auroc:.2f}, AUPRO up to 30 % {100 * figures.aupro:.2f}, "
        "maximum inside 100.0 % of the defects"
    )
    assert f"masks of 3 images (3 regions; without a mask: 3): {line}" in said
    mean = np.mean([small(path) for path in sorted((parts / "normals").iterdir())], axis=0)
    trivial = []
    for row, (_, marked) in zip(rows_of(parts / "scores.csv"), found, strict=True):
        far = np.abs(small(parts / "new" / row["name"]) - mean).astype(np.float32)
        large = Image.fromarray(far).resize((48, 32), Image.Resampling.BILINEAR)
        trivial.append(localization.evidence(np.asarray(large), marked))
    beside = localization.localization(trivial)
    assert f"20 normal images|: pixel AUROC {100 * beside.pixel_auroc:.2f}" in said
    # The same masks, given by name.
    (parts / "new" / "ground_truth").rename(parts / "away")
    assert call("fcdd", f"--maps={parts / 'two'}", f"--masks={parts / 'elsewhere'}") == 0
    assert line in capsys.readouterr().out


@pytest.mark.slow
def test_images_of_odd_sides_are_learned_from_with_masks_and_mapped_as_they_are(
    calling: Calling, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sides, data = (25, 15), tmp_path / "data"
    mask = np.zeros(sides, bool)
    mask[19:25, 9:15] = True
    for number in range(24):
        save(data / "good" / f"{number:02d}.png", texture(number, *sides))
    for number in range(4):
        odd = texture(100 + number, *sides)
        odd[mask] = 255
        save(data / "defects" / "spot" / f"{number}.png", odd)
        save(data / "masks" / "spot" / f"{number}.png", (255 * mask).astype(np.uint8))
    with calling(fit) as command:
        settings = ("--objective=fcdd", "--network=fcdd", "--map_masks", "--nocompare", "--seeds=1")
        quick = ("--epochs=2", "--batch_size=16", "--false_alarm_rate=0.2")
        arguments = (f"--data_dir={data}", f"--model={tmp_path / 'model'}", *settings, *quick)
        assert command(*arguments, "--synthetic_anomalies=confetti") == 0
    with calling(score) as command:
        files = (f"--data_dir={data}", f"--masks={data / 'masks'}", f"--out={tmp_path / 's.csv'}")
        maps = tmp_path / "maps"
        assert command(*files, f"--model={tmp_path / 'model'}", f"--maps={maps}") == 0
    model = models.load_model(tmp_path / "model")
    assert model.image_shape == (*sides, 1)
    rows = rows_of(tmp_path / "s.csv")
    assert len(rows) == 28
    images = np.stack([np.array(Image.open(data / row["name"])) for row in rows])[..., None]
    found = np.stack([np.load(maps / row["name"].replace(".png", ".npy")) for row in rows])
    np.testing.assert_allclose(found, detector_maps.mapper(model)(images), rtol=1e-4, atol=1e-6)
    marked = np.stack([mask & ("spot" in row["name"]) for row in rows])
    auroc = roc_auc_score(marked.ravel(), found.ravel())
    assert f"pixel AUROC {100 * auroc:.2f}" in capsys.readouterr().out


def test_the_layout_of_mvtec_is_measured_as_it_is(
    call: Call, parts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = parts / "mvtec"
    save(root / "train" / "good" / "000.png", texture(1, 32, 48))
    (root / "test").mkdir()
    (parts / "new" / "good").rename(root / "test" / "good")
    (parts / "new" / "defects" / "spot").rename(root / "test" / "spot")
    write_masks(root / "ground_truth")
    assert call("fcdd", f"--maps={parts / 'maps'}", data="mvtec") == 0
    assert "masks of 3 images (3 regions; without a mask: 3)" in capsys.readouterr().out
    assert len(list((parts / "maps" / "test").rglob("*.npy"))) == 6
    (root / "ground_truth" / "spot" / "2_mask.png").unlink()
    assert call("fcdd", f"--maps={parts / 'again'}", data="mvtec") == 2
    assert "1 images have no mask (test/spot/2.png)" in capsys.readouterr().err


def small(path: Path) -> npt.NDArray[np.float64]:
    image = Image.open(path).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return np.array(image, np.float64) / 255


def test_a_folder_that_cannot_be_replaced_is_filled(
    call: Call, parts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (parts / "maps").mkdir()
    plain = map_folder.os.replace

    def mounted(source: Path, target: Path) -> None:
        if Path(target).name == "maps":
            raise OSError(errno.EBUSY, "Device or resource busy")
        plain(source, target)

    monkeypatch.setattr(map_folder.os, "replace", mounted)
    assert call("one-class", f"--maps={parts / 'maps'}") == 0
    assert len(list((parts / "maps").rglob("*.npy"))) == 6
    assert not [path for path in parts.iterdir() if path.name.startswith(".")]


# --- tiles ----------------------------------------------------------------------------------------


def test_tiles_are_scored_and_mapped_one_by_one(
    call: Call, parts: Path, saved: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--tile=16", "--overlap=6", f"--maps={parts / 'maps'}")
    assert call("fcdd", *arguments) == 0
    out, err = capsys.readouterr()
    # 32 = 16 + 10 + 6: three rows; 48: starts at 0, 10, 20, 30 and 32.
    assert "90 tiles of 16 pixels, overlapping by 6" in out and "highest tile" in out
    assert "--normals=DIR sets it for tiled images" in err
    model = models.load_model(saved["fcdd"])
    starts = [(i, j) for i in (0, 10, 16) for j in (0, 10, 20, 30, 32)]
    for row in rows_of(parts / "scores.csv"):
        image = np.array(Image.open(parts / "new" / row["name"]))[..., None]
        tiles = np.stack([image[i : i + 16, j : j + 16] for i, j in starts])
        assert float(row["score"]) == pytest.approx(
            detectors.score_images(model, tiles).max(), rel=1e-5
        )
        assert row["p_value"] == ""
        expected = np.full((32, 48), -np.inf)
        for (i, j), values in zip(starts, detector_maps.mapper(model)(tiles), strict=True):
            place = expected[i : i + 16, j : j + 16]
            np.maximum(place, values, out=place)
        found = np.load(parts / "maps" / row["name"].replace(".png", ".npy"))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_normal_images_set_the_threshold_of_tiles(
    call: Call, parts: Path, saved: dict[str, Path]
) -> None:
    assert call("fcdd", "--tile=16", f"--normals={parts / 'normals'}") == 0
    model = models.load_model(saved["fcdd"])

    def highest(path: Path) -> float:
        image = np.array(Image.open(path))[..., None]
        tiles = [image[i : i + 16, j : j + 16] for i in (0, 16) for j in (0, 16, 32)]
        return float(detectors.score_images(model, np.stack(tiles)).max())

    normal = np.array([highest(path) for path in (parts / "normals").iterdir()])
    # The model's rate of 10 %: at most 2 of 21 lie above.
    threshold = np.sort(normal)[18]
    for row in rows_of(parts / "scores.csv"):
        value = float(row["score"])
        assert value == pytest.approx(highest(parts / "new" / row["name"]), rel=1e-5)
        assert row["anomalous"] == str(int(value > threshold))
        p_value = (1 + np.sum(normal >= value * (1 - 1e-6))) / 21
        assert float(row["p_value"]) == pytest.approx(p_value, abs=1e-5)


def test_tiles_of_many_images_are_scored_in_calls_of_one_size(
    call: Call, parts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call("fcdd", "--tile=16") == 0
    whole = (parts / "scores.csv").read_bytes()
    sizes = set()
    plain = detectors.scores.score_images

    def noting(model: Model, images: Pixels) -> npt.NDArray[np.float32]:
        sizes.add(len(images))
        return plain(model, images)

    monkeypatch.setattr(flow, "MOST_PIECES", 7)
    monkeypatch.setattr(detectors, "score_images", noting)
    assert call("fcdd", "--tile=16") == 0
    assert (parts / "scores.csv").read_bytes() == whole and sizes == {7}


def test_a_map_that_is_too_large_for_memory_lies_in_a_file(
    call: Call, parts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call("fcdd", "--tile=16", f"--maps={parts / 'one'}") == 0
    monkeypatch.setattr(flow, "LARGEST_IN_MEMORY", 0)
    assert call("fcdd", "--tile=16", f"--maps={parts / 'two'}") == 0
    for path in (parts / "one").rglob("*.*"):
        other = parts / "two" / path.relative_to(parts / "one")
        assert path.read_bytes() == other.read_bytes()


def test_a_mapped_file_needs_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces.memory, "shortage", lambda needed: "all memory there is")
    image = texture(0, 40, 30)
    save(tmp_path / "large.pgm", image)
    save(tmp_path / "large.png", image)
    box = pieces.Box(5, 7, 20, 10)
    with pieces.open_image(tmp_path / "large.pgm", mapped_from=0) as opened:
        assert opened.sides == (40, 30)
        np.testing.assert_array_equal(opened.cut(box)[..., 0], image[5:25, 7:17])
        assert opened.reduced((4, 3)).shape == (4, 3, 1)
    with (
        pytest.raises(DataError, match="large.png: 30 x 40 pixels take up to"),
        pieces.open_image(tmp_path / "large.png", mapped_from=0),
    ):
        pass


def test_pieces_are_upright_and_as_the_whole_image_is_read(tmp_path: Path) -> None:
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    colour = np.stack([texture(seed, 20, 32) for seed in range(3)], axis=2)
    Image.fromarray(colour).save(path, exif=exif)
    whole = read_image(path)
    assert whole.shape == (32, 20, 3)
    with pieces.open_image(path) as opened:
        assert opened.sides == (32, 20)
        np.testing.assert_array_equal(opened.cut(), whole)
        part = opened.cut(pieces.Box(3, 2, 25, 11))
    np.testing.assert_array_equal(part, whole[3:28, 2:13])


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "arguments", "words"),
    [
        ("one-class", ("--maps={0}/maps", "--map_kind=objective"), "no map of its own"),
        ("one-class", ("--maps={0}/maps", "--map_kind=occlusion"), "--normals=DIR"),
        ("one-class", ("--maps={0}/maps", "--map_false_alarm_rate=0.1"), "--normals=DIR"),
        ("one-class", ("--maps={0}/new",), "is a folder that is read"),
        ("one-class", ("--maps={0}/new/maps",), "lies in"),
        ("one-class", ("--maps={0}/normals",), "is not empty"),
        ("one-class", ("--maps={0}",), "is not empty"),
        ("one-class", ("--map_kind=gradient",), "it is of --maps"),
        ("one-class", ("--masks={0}/normals",), "it is of --maps"),
        ("one-class", ("--normals={0}/normals",), "of --maps and --tile"),
        ("one-class", ("--overlap=3",), "it is of --tile"),
        ("one-class", ("--tile=16", "--overlap=16"), "must be below"),
        ("one-class", ("--tile=33",), "32x48 pixels, smaller than a tile of 33"),
        ("one-class", ("--tile=16", "--false_alarm_rate=0.1"), "--normals=DIR"),
        ("fixed", ("--tile=20",), "give tiles of that size"),
        (
            "one-class",
            ("--maps={0}/maps", "--normals={0}/normals", "--map_false_alarm_rate=0.001"),
            "needs at least 999 calibration scores",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    model: str,
    arguments: tuple[str, ...],
    words: str,
    call: Call,
    parts: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = sorted(parts.rglob("*"))
    capsys.readouterr()
    assert call(model, *(argument.format(parts) for argument in arguments)) == 2
    said = [
        line
        for line in capsys.readouterr().err.splitlines()
        if "images" not in line or words in line
    ]
    assert words in said[-1]
    assert sorted(parts.rglob("*")) == before


def test_masks_that_do_not_fit_are_refused(
    call: Call, parts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    maps, masks = f"--maps={parts / 'maps'}", parts / "masks"
    write_masks(masks, (32, 40))
    assert call("fcdd", maps, f"--masks={masks}") == 2
    assert "32x40 pixels, but its image" in capsys.readouterr().err
    write_masks(masks)
    save(masks / "spot" / "9.png", texture(0, 32, 48))
    assert call("fcdd", maps, f"--masks={masks}") == 2
    assert "9.png: a mask without an image" in capsys.readouterr().err
    (masks / "spot" / "9.png").unlink()
    (masks / "spot" / "1_mask.png").unlink()
    assert call("fcdd", maps, f"--masks={masks}") == 2
    assert "1 images have no mask (defects/spot/1.png)" in capsys.readouterr().err
    save(masks / "1.png", texture(0, 32, 48))
    assert call("fcdd", maps, f"--masks={masks}") == 2
    assert "1.png: a mask of 2 images" in capsys.readouterr().err
    assert not (parts / "maps").exists() and not (parts / "scores.csv").exists()


def test_a_table_has_no_maps(
    calling: Calling, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunConfig(
        network=NetworkConfig("mlp", stages=(), hidden=(4,), rep_dim=2, batch_norm=False),
        preprocessing=PreprocessingConfig(contrast="none", standardize=True, min_max=False),
    )
    table = np.random.default_rng(0).normal(size=(40, 3))
    untrained = detectors.untrained_model(DetectorConfig(run=run, seeds=(0,)), table)
    models.save_model(tmp_path / "model", untrained)
    np.savetxt(tmp_path / "t.csv", table, delimiter=",", header="a,b,c", comments="")
    arguments = (f"--model={tmp_path / 'model'}", f"--data_dir={tmp_path / 't.csv'}")
    with calling(score) as command:
        for wanted in (f"--maps={tmp_path / 'maps'}", "--tile=4"):
            assert command(*arguments, f"--out={tmp_path / 's.csv'}", wanted) == 2
            assert "trained on a table" in capsys.readouterr().err


def test_a_damaged_image_leaves_nothing_behind(
    call: Call,
    parts: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    (parts / "new" / "good" / "2.png").write_bytes(b"no image")
    before = sorted(parts.rglob("*"))
    assert call("fcdd", f"--maps={parts / 'maps'}") == 2
    assert "2.png" in capsys.readouterr().err
    assert sorted(parts.rglob("*")) == before
    assert call("fcdd", f"--maps={parts / 'maps'}", "--skip_unreadable") == 0
    assert "1 unreadable files left out" in capsys.readouterr().out
    assert len(list((parts / "maps").rglob("*.npy"))) == 5
    # Images are gone through again for the overlays; the file is told of once.
    assert caplog.text.count("skipped") == 1
