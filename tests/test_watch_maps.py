"""Maps of images as they arrive: the files and columns of score --maps, through restarts."""

import json
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from deepsvdd_jax import detectors
from deepsvdd_jax.cli.commands import score, watch
from deepsvdd_jax.cli.reporting import drift_section, score_report
from deepsvdd_jax.cli.reporting.called import NamedModel
from deepsvdd_jax.configs import (
    DetectorConfig,
    NetworkConfig,
    ObjectiveConfig,
    OptimizerConfig,
    PhaseConfig,
    PreprocessingConfig,
    RunConfig,
)
from deepsvdd_jax.io import atomic, models
from deepsvdd_jax.scoring import drift
from tests import helpers
from tests.helpers import rows_of

Call = Callable[..., int]
Calling = Callable[[ModuleType], AbstractContextManager[Call]]

SIDE = 16
HEIGHT, WIDTH = 24, 40
QUICK = ("--poll_seconds=0.02", "--stop_after_idle=0.1")


def texture(seed: int) -> np.ndarray:
    return helpers.texture(seed, HEIGHT, WIDTH)


def put(folder: Path, name: str, seed: int) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(texture(seed)).save(path)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    images = np.stack([texture(seed)[:SIDE, :SIDE] for seed in range(60)])[..., None]
    network = NetworkConfig("plain", ((4,),), rep_dim=3, kernel_size=3)
    training = PhaseConfig(ObjectiveConfig(), OptimizerConfig("adam", 5e-3), epochs=2)
    run = RunConfig(
        network=network, preprocessing=PreprocessingConfig(contrast="none"), training=training
    )
    config = DetectorConfig(run=run, seeds=(0,), calibration_fraction=0.2, alarm_rate=0.1)
    fitted = detectors.fit_detector(config, images)[0]
    data = {"image_size": [SIDE, SIDE], "channels": 1, "pixel_range": None}
    path = tmp_path_factory.mktemp("watched") / "model"
    models.save_model(path, fitted._replace(summary={**fitted.summary, "data": data}))
    return path


@pytest.fixture
def call(calling: Calling, model: Path, tmp_path: Path):  # type: ignore[no-untyped-def]
    def run(command: ModuleType, out: str, *arguments: str) -> int:
        more = QUICK if command is watch else ()
        with calling(command) as called:
            return called(
                f"--model={model}",
                f"--data_dir={tmp_path / 'camera'}",
                f"--out={tmp_path / out}",
                *more,
                *arguments,
            )

    return run


@pytest.fixture
def camera(tmp_path: Path) -> Path:
    """Returns a folder with three images, a folder of normal ones beside it."""
    for number in range(3):
        put(tmp_path / "camera", f"belt/{number}.png", 100 + number)
    for number in range(12):
        put(tmp_path / "normals", f"{number}.png", 300 + number)
    return tmp_path / "camera"


@pytest.mark.parametrize("ending", ["npy", "tif"])
def test_maps_and_columns_are_those_of_score(
    call: Call, camera: Path, tmp_path: Path, ending: str
) -> None:
    more = (f"--normals={tmp_path / 'normals'}", f"--map_format={ending}")
    assert call(score, "scores.csv", f"--maps={tmp_path / 'one'}", *more) == 0
    assert call(watch, "watched.csv", f"--maps={tmp_path / 'two'}", *more) == 0
    scored = {row["name"]: row for row in rows_of(tmp_path / "scores.csv")}
    watched = rows_of(tmp_path / "watched.csv")
    assert list(watched[0]) == [
        *("name", "score", "p_value", "anomalous", "drift"),
        *("map_row", "map_column", "map_maximum", "map_p_value", "marked_pixels"),
    ]
    assert len(watched) == 3
    for row in watched:
        del row["drift"]
        assert row == scored[row["name"]]
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")
    for name in files_of(tmp_path / "one"):
        if name.endswith(ending):
            assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    told, kept = (
        json.loads((tmp_path / part / "maps.json").read_text()) for part in ("one", "two")
    )
    for name in ("kind", "threshold", "false_alarm_rate", "normal_images"):
        assert told[name] == kept[name]
    # The colours are those of the normal images: from their median to their highest value.
    overlay = np.array(Image.open(tmp_path / "two" / "belt" / "0.png"))
    assert overlay.shape == (HEIGHT, WIDTH, 3)
    assert kept["scale"][1] > kept["scale"][0]


def files_of(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*"))


def test_after_a_restart_only_new_images_are_mapped_on_the_same_scale(
    call: Call, camera: Path, tmp_path: Path
) -> None:
    maps = tmp_path / "maps"
    assert call(watch, "watched.csv", f"--maps={maps}") == 0
    before = {name: (maps / name).stat().st_mtime_ns for name in files_of(maps)}
    assert len(before) == 7
    # Its name differs in nothing but the ending.
    put(camera, "belt/0.bmp", 7)
    put(camera, "belt/9.png", 8)
    assert call(watch, "watched.csv", f"--maps={maps}") == 0
    after = {name: (maps / name).stat().st_mtime_ns for name in files_of(maps)}
    assert {name: after[name] for name in before} == before
    new = {"belt/0.bmp.npy", "belt/0.bmp.png", "belt/9.npy", "belt/9.png"}
    assert set(after) - set(before) == new
    rows = rows_of(tmp_path / "watched.csv")
    assert [row["name"] for row in rows[:3]] == [f"belt/{number}.png" for number in range(3)]
    assert sorted(row["name"] for row in rows[3:]) == ["belt/0.bmp", "belt/9.png"]
    for row in rows:
        stem = row["name"] if row["name"].endswith("bmp") else row["name"].removesuffix(".png")
        values = np.load(maps / f"{stem}.npy")
        assert values.max() == np.float32(row["map_maximum"])
        assert values[int(row["map_row"]), int(row["map_column"])] == values.max()


def test_what_was_not_written_is_tried_again(
    call: Call,
    model: Path,
    camera: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    loaded = models.load_model(model)
    maps = growing(loaded, tmp_path)
    watched = watch.Watch(loaded, loaded.threshold, camera, 0.01, maps)
    write = atomic.write_bytes

    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    with watch.open_log(tmp_path / "watched.csv", maps.columns) as log:
        seen = watch.look(watched, log, watch.resume(watched, log.rows))
        monkeypatch.setattr(atomic, "write_bytes", full)
        for _ in range(2):
            seen = watch.look(watched, log, seen)
        assert log.rows == [] and capsys.readouterr().err.count("No space left") == 1
        monkeypatch.setattr(atomic, "write_bytes", write)
        seen = watch.look(watched, log, seen)
        assert len(log.rows) == 3 and len(list((tmp_path / "maps").rglob("*.npy"))) == 3
        # A folder of maps that vanishes comes back with the next image.
        shutil.rmtree(tmp_path / "maps")
        put(camera, "late.png", 5)
        for _ in range(2):
            seen = watch.look(watched, log, seen)
        assert files_of(tmp_path / "maps") == ["late.npy", "late.png", "maps.json"]


def test_an_image_whose_map_cannot_be_written_is_named_and_the_others_go_on(
    call: Call, camera: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The map of x.png would have the name of the folder of the other image's.
    put(camera, "x.npy/1.png", 5)
    put(camera, "x.png", 6)
    maps = tmp_path / "maps"
    assert call(watch, "watched.csv", f"--maps={maps}") == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "no map" in line]
    assert len(said) == 1 and "cannot write" in said[0]
    named = {row["name"]: row for row in rows_of(tmp_path / "watched.csv")}
    assert len(named) == 5 and "x.png" in named and named["x.png"]["map_maximum"]
    assert sum(path.is_file() for path in maps.rglob("*.npy")) == 4
    assert not list(maps.rglob(".trial"))


@pytest.mark.parametrize("with_maps", [False, True])
def test_tiles_have_the_rows_and_maps_of_score(
    call: Call,
    camera: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    with_maps: bool,
) -> None:
    more = [f"--normals={tmp_path / 'normals'}", "--tile=16", "--overlap=4"]
    first, second = ([f"--maps={tmp_path / name}"] if with_maps else [] for name in ("1", "2"))
    assert call(score, "scores.csv", *more, *first) == 0
    Image.fromarray(texture(1)[:12]).save(camera / "small.png")
    assert call(watch, "watched.csv", *more, *second) == 0
    said = capsys.readouterr().err
    assert "small.png: 12x40 pixels, smaller than a tile of 16" in said and "left out" in said
    scored = {row["name"]: row for row in rows_of(tmp_path / "scores.csv")}
    watched = rows_of(tmp_path / "watched.csv")
    assert len(watched) == 3 and all(row["p_value"] for row in watched)
    for row in watched:
        assert float(row.pop("drift")) > 0
        assert row == scored[row["name"]]
    if with_maps:
        for name in (f"belt/{number}.npy" for number in range(3)):
            one, two = (np.load(tmp_path / folder / name) for folder in ("1", "2"))
            np.testing.assert_array_equal(one, two)
            assert one.shape == (HEIGHT, WIDTH)
        assert json.loads((tmp_path / "2" / "maps.json").read_text())["overlap"] == 4


def growing(loaded: models.Model, folder: Path) -> watch.GrowingMaps:
    wish = watch.arriving.Wish(
        maps=folder / "maps", kind="gradient", ending="npy", normals=None, map_rate=None
    )
    prepared = watch.run.prepare(wish, loaded, folder)
    return watch.arriving.open_maps(wish, prepared, folder / "watched.csv")


def test_few_large_images_are_held_at_once(
    model: Path, camera: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = models.load_model(model)
    maps = growing(loaded, tmp_path)
    watched = watch.Watch(loaded, loaded.threshold, camera, 0.01, maps)
    monkeypatch.setattr(watch, "_BYTES_AT_ONCE", HEIGHT * WIDTH + SIDE * SIDE)
    counts = []
    plain = maps.write

    def noting(images: dict[str, watch.Arrived], taken: np.ndarray) -> dict[str, tuple[str, ...]]:
        counts.append(len(images))
        return plain(images, taken)

    monkeypatch.setattr(maps, "write", noting)
    with watch.open_log(tmp_path / "watched.csv", maps.columns) as log:
        seen = watch.resume(watched, log.rows)
        for _ in range(2):
            seen = watch.look(watched, log, seen)
        assert len(log.rows) == 3 and counts == [2, 1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--map_kind=gradient",), "--map_kind has no effect here: it is of --maps"),
        (("--normals={0}/normals",), "--normals has no effect here: it is of --maps and --tile"),
        (("--overlap=3",), "--overlap has no effect here: it is of --tile"),
        (("--tile=16", "--false_alarm_rate=0.1"), "needs normal images in tiles: --normals=DIR"),
        (("--maps={0}/begun", "--tile=16"), "its maps have tile None, and 16 is asked for"),
        (("--maps={0}/camera/maps",), "lies in"),
        (("--maps={0}/normals",), "is not empty and was not written by this command"),
        (("--maps={0}/maps", "--map_kind=objective"), "no map of its own"),
        (("--maps={0}/maps", "--map_kind=occlusion"), "--normals=DIR"),
        (("--maps={0}/begun", "--map_format=tif"), "its maps have format 'npy'"),
        (("--maps={0}/begun", "--normals={0}/normals"), "its maps have normal_images 0"),
        (("--maps={0}/begun", "--out={0}/other.csv"), "its maps have scores"),
        (("--maps={0}/maps", "--out={0}/plain.csv"), "another file is there"),
        (("--maps={0}/scored",), "its maps have scores None"),
    ],
)
def test_what_cannot_go_on_is_refused_in_one_line(
    call: Call,
    camera: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    words: str,
) -> None:
    for number in range(2):
        (camera / "belt" / f"{number}.png").unlink()
    begun, scored = tmp_path / "begun", tmp_path / "scored"
    assert call(watch, "watched.csv", f"--maps={begun}") == 0
    assert call(watch, "plain.csv") == 0
    assert call(score, "scores.csv", f"--maps={scored}") == 0
    before = sorted(tmp_path.rglob("*"))
    capsys.readouterr()
    given = [argument.format(tmp_path) for argument in arguments]
    assert call(watch, "watched.csv", *given) in (1, 2)
    said = capsys.readouterr().err.splitlines()
    assert words in said[-1] and "Traceback" not in "".join(said)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
def test_the_report_of_a_log_shows_its_drift(tmp_path: Path) -> None:
    lines = ["name,score,p_value,anomalous,drift"]
    capital = [1.0, 0.9, 20.0, 150.0, 140.0]
    lines += [f"{place}.png,1.5,0.5,0,{value}" for place, value in enumerate(capital)]
    path = tmp_path / "watched.csv"
    path.write_text("\n".join(lines) + "\n")
    rows = score_report.read_scores(path)
    page = score_report.build_page(rows, score_report.Images(tmp_path), 2)
    assert "reaches 100 after 4 of 5 samples, in the order in which they came" in page.html
    assert "150 at the most" in page.html and "drift.png" in page.pictures
    page = score_report.build_page(rows[:3], score_report.Images(tmp_path), 2)
    assert "No drift alarm: the evidence is 20 after 3 samples" in page.html
    plain = [row._replace(drift=None) for row in rows]
    page = score_report.build_page(plain, score_report.Images(tmp_path), 2)
    assert "drift.png" not in page.pictures


def test_the_report_draws_the_drift_alarm_that_watch_was_given(tmp_path: Path) -> None:
    lines = ["name,score,p_value,anomalous,drift,drift_alarm"]
    lines += [f"{place}.png,1.5,0.5,0,{value},20" for place, value in enumerate([1.0, 25.0, 7.0])]
    (tmp_path / "watched.csv").write_text("\n".join(lines) + "\n")
    rows = score_report.read_scores(tmp_path / "watched.csv")
    page = score_report.build_page(rows, score_report.Images(tmp_path), 2)
    assert "reaches 20 after 2 of 3 samples, in the order in which they came" in page.html
    assert "at most 5 % ever reach 20" in page.html


def test_the_drift_of_scores_that_were_not_watched_is_computed_where_a_model_is_given(
    model: Path,
) -> None:
    loaded = models.load_model(model)
    named = NamedModel("model", loaded)
    scores = np.linspace(0.5, 3.0, 9).tolist()
    found = drift_section.capital_of([None] * 9, scores, named, False)
    np.testing.assert_allclose(found, drift.watch(loaded.calibration_scores, scores))
    # Samples that lie kind by kind are no stream.
    assert drift_section.capital_of([None] * 9, scores, named, True) == []
    assert drift_section.capital_of([None] * 9, scores, None, False) == []
    logged = [1.0] * 9
    assert drift_section.capital_of(logged, scores, None, True) == logged


def test_maps_of_a_log_are_shown_in_the_report(call: Call, camera: Path, tmp_path: Path) -> None:
    assert call(watch, "watched.csv", f"--maps={tmp_path / 'maps'}") == 0
    put(camera, "belt/0.bmp", 7)
    assert call(watch, "watched.csv", f"--maps={tmp_path / 'maps'}") == 0
    rows = score_report.read_scores(tmp_path / "watched.csv")
    images = score_report.Images(camera, maps=tmp_path / "maps")
    page = score_report.build_page(rows, images, 9)
    for row in rows:
        assert f"Image {row.name} and its map" in page.html
