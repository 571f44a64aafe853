"""The command that watches and kills: what it counts as lost, doubled and another score."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import deepsvdd_jax as svdd
from benchmarks import watching
from benchmarks.watching import Survived
from deepsvdd_jax.io import models


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    images = np.random.RandomState(0).randint(0, 256, (40, 8, 8, 1)).astype(np.uint8)
    detector = svdd.DeepSVDD(epochs=1, batch_size=16, preprocessing="none", false_alarm_rate=0.2)
    path = tmp_path_factory.mktemp("watching") / "model"
    svdd.save_model(path, detector.fit(images).model_)
    return path


def put(folder: Path, count: int) -> None:
    folder.mkdir()
    for number in range(count):
        pixels = np.random.RandomState(number).randint(0, 256, (8, 8)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")


@pytest.mark.slow
def test_rows_are_lost_doubled_or_other_ones(model: Path, tmp_path: Path) -> None:
    put(tmp_path / "camera", 4)
    loaded, out = models.load_model(model), tmp_path / "watched.csv"
    images = np.stack([np.array(Image.open(tmp_path / f"camera/{n}.png")) for n in range(4)])
    scores = svdd.score_images(loaded, images[..., None]).astype(float).tolist()
    rows = [f"{number}.png,{score!r}" for number, score in enumerate(scores)]
    out.write_text("\n".join(["name,score", *rows]) + "\n")
    assert watching.survived(loaded, tmp_path, out) == Survived(4, 0, 0, 0)
    out.write_text("\n".join(["name,score", rows[0], rows[0], "1.png,0.5", rows[3]]) + "\n")
    assert watching.survived(loaded, tmp_path, out) == Survived(4, 1, 1, 1)


def test_images_a_second_are_those_of_the_fastest_round_but_the_first(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "camera", 6)
    # Start and end of watch and of score, of three rounds.
    ends = [0, 1, 0, 1, 0, 30, 0, 20, 0, 20, 0, 15]
    clock = iter(float(end) for end in ends)
    monkeypatch.setattr(watching, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    found = watching.rates(models.load_model(model), tmp_path, 2)
    assert found == watching.Rates(6 / 20, 6 / 15)


@pytest.mark.slow
def test_a_watch_that_is_killed_twice_comes_to_all_rows(model: Path, tmp_path: Path) -> None:
    put(tmp_path / "images", 5)
    out = watching.watch_and_kill(model, tmp_path / "images", tmp_path, 30, 0.05)
    assert watching.survived(models.load_model(model), tmp_path, out) == Survived(30, 0, 0, 0)
