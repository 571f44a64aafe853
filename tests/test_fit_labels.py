"""fit with labelled defects: what is trained on, what it is compared with, what is refused."""

import csv
import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from deepsvdd_jax import detectors, recipes
from deepsvdd_jax.cli.commands import fit
from deepsvdd_jax.cli.fitting import comparison, known, samples
from deepsvdd_jax.cli.fitting.known import Share, Wanted
from deepsvdd_jax.cli.fitting.samples import Defects, Samples
from deepsvdd_jax.configs import DetectorConfig, NetworkConfig
from deepsvdd_jax.datasets import DataError
from deepsvdd_jax.io import models

Call = Callable[..., int]
Calling = Callable[[ModuleType], AbstractContextManager[Call]]

QUICK = ("--epochs=2", "--seeds=1", "--batch_size=16", "--false_alarm_rate=0.2")


def numbered(test: str, train: str = "", has_test_part: bool = False) -> Samples:
    """Samples whose value is their number, tests with a kind a letter ("." is normal)."""
    tests = np.arange(len(test), dtype=np.float32)[:, None]
    defects = Defects(100 + np.arange(len(train), dtype=np.float32)[:, None], tuple(train))
    kinds = tuple("" if kind == "." else kind for kind in test)
    return Samples(
        images=-np.ones((5, 1)),
        test_images=tests,
        test_kinds=kinds,
        normal="good",
        has_test_part=has_test_part,
        read_defects=lambda: defects,
    )


def test_half_of_each_kind_is_trained_on_and_the_rest_tested_on() -> None:
    samples = numbered("..aaaaaaabb.c")
    divided, trained = known.divide(samples, Wanted(), 0)
    # 7 / 2 is rounded to even, 4; of a single one none, it is tested on.
    assert Counter(trained.kinds) == {"a": 4, "b": 1}
    assert Counter(divided.test_kinds) == {"": 3, "a": 3, "b": 1, "c": 1}
    both = [*divided.test_images[:, 0], *trained.images[:, 0]]
    assert sorted(both) == list(range(13))
    named = dict(zip(range(13), "..aaaaaaabb.c", strict=True))
    assert all(
        named[int(v)] == kind for v, kind in zip(trained.images[:, 0], trained.kinds, strict=True)
    )
    assert known.shares(samples, divided, trained)["a"] == Share(4, 3, 0)


def test_the_draw_depends_on_the_seed_and_on_nothing_but_the_kind() -> None:
    of_a = [
        known.divide(numbered(test), Wanted(), seed)[1]
        for test, seed in (("aaaaaaaaaa", 0), ("aaaaaaaaaabbb", 0), ("aaaaaaaaaa", 1))
    ]
    first, beside_b, other = (
        set(defects.images[np.array(defects.kinds) == "a", 0]) for defects in of_a
    )
    assert first == beside_b != other


def test_a_test_part_stays_as_it_is() -> None:
    samples = numbered(".ab", train="aaab", has_test_part=True)
    divided, trained = known.divide(samples, Wanted(), 0)
    np.testing.assert_array_equal(trained.images[:, 0], [100, 101, 102, 103])
    assert divided.test_kinds == samples.test_kinds
    _, some = known.divide(samples, Wanted(kinds=("a",), per_kind=2), 0)
    assert some.kinds == ("a", "a") and min(some.images[:, 0]) >= 100
    assert known.shares(samples, divided, some) == {"a": Share(2, 1, 1), "b": Share(0, 1, 1)}


@pytest.mark.parametrize(
    ("samples", "wanted", "words"),
    [
        (numbered("abc"), Wanted(), "too few labelled defects"),
        (numbered(".aa"), Wanted(kinds=("good",)), "good is the normal class"),
        (numbered(".aa"), Wanted(kinds=("x",)), r"known_kinds is 'x'; .* a \(2\)"),
        (numbered(".aaab"), Wanted(per_kind=1), "there are 1 of b, one of which"),
        (numbered("..."), Wanted(fraction=0.5), "no labelled defects"),
    ],
)
def test_what_cannot_be_divided_is_refused(samples: Samples, wanted: Wanted, words: str) -> None:
    with pytest.raises(DataError, match=words):
        known.divide(samples, wanted, 0)


def test_nearest_neighbors_are_those_of_the_normals_that_are_trained_on() -> None:
    random = np.random.default_rng(0)
    train, normals, defects = random.normal(size=(30, 4)), *random.normal(size=(2, 9, 4))
    tried = comparison.Trial(train, normals, defects + 0.7, False)
    config = DetectorConfig()
    config = dataclasses.replace(
        config,
        run=dataclasses.replace(
            config.run,
            network=dataclasses.replace(config.run.network, stages=(), hidden=(8,)),
            preprocessing=dataclasses.replace(
                config.run.preprocessing, min_max=False, standardize=True
            ),
        ),
    )
    rows = comparison.nothing_trained(config, tried)
    mean, std = train.mean(0), train.std(0)

    def score(point: np.ndarray) -> float:
        gaps = np.sqrt((((train - point) / std) ** 2).sum(1))
        return float(np.sort(gaps)[:5].mean())

    assert mean.shape == (4,)
    pairs = [(score(d), score(n)) for d in tried.defects for n in normals]
    expected = np.mean([(d > n) + 0.5 * (d == n) for d, n in pairs])
    assert rows[1].name == "5 nearest neighbors"
    assert rows[1].auroc == pytest.approx(expected, abs=1e-9)
    assert rows[0].name == "untrained network" and 0 <= rows[0].auroc <= 1


def write_images(folder: Path, level: int, count: int, seed: int) -> None:
    folder.mkdir(parents=True)
    random = np.random.RandomState(seed)
    for number in range(count):
        pixels = np.full((12, 12), 60) + random.randint(0, 30, (12, 12))
        pixels[:, 6:] += level
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number:02d}.png")


def spy(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Notes what is trained on."""
    calls: list[dict[str, Any]] = []
    fit_detector = detectors.fit_detector

    def note(config: DetectorConfig, images: Any, **given: Any) -> Any:
        calls.append({"config": config, "images": np.asarray(images), **given})
        return fit_detector(config, images, **given)

    monkeypatch.setattr(detectors, "fit_detector", note)
    return calls


@pytest.mark.slow
def test_a_folder_of_defects_is_learned_from_beside_a_model_without(
    calling: Calling,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_images(tmp_path / "d" / "good", 120, 24, 0)
    write_images(tmp_path / "d" / "defects" / "dark", 100, 6, 1)
    write_images(tmp_path / "d" / "defects" / "flat", 0, 4, 2)
    calls = spy(monkeypatch)
    path = tmp_path / "model"
    with calling(fit) as command:
        data = (f"--data_dir={tmp_path / 'd'}", f"--model={path}")
        assert command(*data, "--objective=deep-sad", "--calibration_fraction=0.25", *QUICK) == 0
    printed = capsys.readouterr()
    assert (
        "labelled defects: 5 of 10 (50 %) trained on, 0 to calibrate, 5 of 10 (50 %) to test on; "
        "by kind dark 3 + 3, flat 2 + 2" in printed.err
    )
    with_labels, without = calls
    assert [int((call["labels"] == -1).sum()) for call in calls[:1]] == [5]
    assert len(without["images"]) == 24 and without.get("labels") is None
    assert with_labels["config"] == without["config"]

    # Figures again, from the saved model and the images that it was not trained on.
    model = models.load_model(path)
    assert model.summary["calibration_samples"] == 6 and model.summary["known_anomalies"] == 5
    trained = {image.tobytes() for image in with_labels["images"]}
    files = sorted((tmp_path / "d" / "defects").rglob("*.png"))
    defects = [np.array(Image.open(file))[..., None] for file in files]
    tested = np.stack([image for image in defects if image.tobytes() not in trained])
    scores = detectors.score_images(model, tested)
    pairs = scores[:, None] - model.calibration_scores[None, :]
    auroc = 100 * np.mean((pairs > 0) + 0.5 * (pairs == 0))
    lines = [line for line in printed.out.splitlines() if line.startswith("deep-sad")]
    assert f"{auroc:.2f}" in lines[0] and "5 labelled defects" in lines[0]
    assert "without labels" in lines[1]
    assert "untrained network" in printed.out and "5 nearest neighbors" in printed.out
    assert model.summary["labels"]["shares"]["dark"] == {"trained": 3, "tested": 3, "unused": 0}
    assert model.summary["labels"]["comparison"]["rows"][0]["auroc"] == pytest.approx(auroc / 100)


@pytest.mark.slow
def test_masks_beside_labelled_defects_are_learned_from(
    calling: Calling,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_images(tmp_path / "d" / "good", 120, 24, 0)
    write_images(tmp_path / "d" / "defects" / "dark", 100, 4, 1)
    places = {}
    for number in range(3):
        marked = np.zeros((12, 12), np.uint8)
        marked[2 * number : 2 * number + 2, 4:10] = 255
        path = tmp_path / "d" / "masks" / "dark" / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(marked).save(path)
        image = Image.open(tmp_path / "d" / "defects" / "dark" / f"{number:02d}.png")
        places[np.array(image).tobytes()] = marked > 0
    small = NetworkConfig("small", ((3,),), bias=True, batch_norm=False, fully_convolutional=True)
    monkeypatch.setitem(recipes.NETWORKS, "fcdd", small)
    calls = spy(monkeypatch)
    settings = ("--objective=fcdd", "--network=fcdd", "--map_masks", "--known_per_kind=3")
    data = (f"--data_dir={tmp_path / 'd'}", f"--model={tmp_path / 'm'}", "--nocompare")
    with calling(fit) as command:
        assert command(*data, *settings, *QUICK) == 0
    (call,) = calls
    known_images = call["images"][call["labels"] == -1]
    expected = [places.get(image.tobytes(), np.zeros((12, 12), bool)) for image in known_images]
    np.testing.assert_array_equal(call["regions"], expected)
    masked = sum(region.any() for region in expected)
    assert f"masks: of {masked} of the 3 labelled defects" in capsys.readouterr().err
    Image.fromarray(np.zeros((9, 12), np.uint8)).save(path)
    with calling(fit) as command:
        assert command(*data, *settings, *QUICK) == 2
    assert "9x12 pixels, but its image defects/dark/02.png has 12x12" in capsys.readouterr().err


def test_no_marked_pixel_is_lost_at_another_size() -> None:
    region = np.random.default_rng(0).random((9, 14)) < 0.1
    region[4, 7] = True
    small = samples.resized_region(region, (3, 5))
    for row, column in itertools.product(range(9), range(14)):
        if region[row, column]:
            assert small[row * 3 // 9, column * 5 // 14]
    assert small.sum() <= region.sum()
    np.testing.assert_array_equal(
        samples.resized_region(region, (18, 28)), region.repeat(2, 0).repeat(2, 1)
    )


@pytest.mark.slow
def test_columns_of_labels_are_learned_from(
    calling: Calling, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    random = np.random.RandomState(0)
    rows = [[*random.randn(3), 0] for _ in range(60)]
    rows += [[*(random.randn(3) + 4), 1 + number % 2] for number in range(20)]
    with (tmp_path / "t.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("a", "b", "c", "state"))
        writer.writerows(rows)
    data = ("--dataset=csv", f"--data_dir={tmp_path / 't.csv'}", "--label_column=state")
    path = tmp_path / "model"
    with calling(fit) as command:
        assert command(*data, f"--model={path}", "--objective=hsc", *QUICK) == 0
    printed = capsys.readouterr()
    # Every fifth of a class is to test on: 2 of 10.
    assert "16 of 20 (80 %) trained on, 0 to calibrate, 4 of 20 (20 %)" in printed.err
    assert "hsc with 16 labelled defects" in printed.out
    assert "one-class, without labels" in printed.out
    assert "of 12" in printed.out  # false alarms of the test part's normals
    summary = models.load_model(path).summary
    assert summary["train_samples"] + summary["calibration_samples"] == 48


def refused(tmp_path: Path) -> dict[str, tuple[str, ...]]:
    write_images(tmp_path / "good_only" / "good", 120, 12, 0)
    write_images(tmp_path / "d" / "good", 120, 12, 0)
    write_images(tmp_path / "d" / "crack", 0, 1, 1)
    (tmp_path / "text.csv").write_text("a,b,label\n1,2,0\n2,1,0\n3,3,broken\n")
    only, both = f"--data_dir={tmp_path / 'good_only'}", f"--data_dir={tmp_path / 'd'}"
    table = ("--dataset=csv", f"--data_dir={tmp_path / 'text.csv'}")
    sad = "--objective=deep-sad"
    return {
        "there are no labelled defects to learn from": (only, sad),
        "crack (1): too few labelled defects": (both, sad),
        "good is the normal class": (both, sad, "--known_kinds=good"),
        "expected whole numbers from 0 (normal)": (*table, sad),
        "known_fraction is 1.0": (both, sad, "--known_fraction=1"),
        "objective one-class does not learn from labels": (both, "--known_per_kind=1"),
        "--outliers has no effect here": (both, "--outliers=digits"),
        "give one": (both, sad, "--known_fraction=0.5", "--known_per_kind=1"),
    }


def test_what_cannot_be_learned_from_is_one_line_and_leaves_nothing(
    calling: Calling, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with calling(fit) as command:
        for expected, arguments in refused(tmp_path).items():
            capsys.readouterr()
            assert command(*arguments, f"--model={tmp_path / 'm'}", *QUICK) == 2, expected
            lines = capsys.readouterr().err.splitlines()
            assert expected in lines[-1], (expected, lines)
            assert not (tmp_path / "m").exists()


@pytest.mark.slow
def test_outliers_are_trained_on_and_nothing_is_divided(
    calling: Calling,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_images(tmp_path / "good", 120, 20, 0)
    np.savez(tmp_path / "o.npz", x_train=np.zeros((7, 12, 12, 1), np.uint8))
    calls = spy(monkeypatch)
    with calling(fit) as command:
        outliers = (f"--outliers={tmp_path / 'o.npz'}", "--outlier_count=4", "--objective=deep-sad")
        data = (f"--data_dir={tmp_path / 'good'}", f"--model={tmp_path / 'm'}")
        assert command(*data, *outliers, *QUICK) == 0
    (call,) = calls
    np.testing.assert_array_equal(call["labels"], [0] * 20 + [-1] * 4)
    assert not call["images"][20:].any()
    assert "20 normal samples and 4 known anomalies" in capsys.readouterr().err
    assert models.load_model(tmp_path / "m").summary["labels"]["outliers"] == 4
