"""The command that shows what thresholds find among labelled samples and chooses one."""

import csv
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

import deepsvdd_jax as svdd
from deepsvdd_jax.cli import thresholds
from deepsvdd_jax.cli.commands import score, threshold
from deepsvdd_jax.configs import ConfigError
from tests.helpers import rows_of

Calling = Callable[[ModuleType], AbstractContextManager[Callable[..., int]]]
SIDE = 8


def pixels(seed: int, dark: int = 0) -> np.ndarray:
    random = np.random.RandomState(seed)
    image = random.randint(0, 60, (SIDE, SIDE)) + 120
    image[:3, :3] -= dark
    return image.astype(np.uint8)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    images = np.stack([pixels(seed) for seed in range(80)])
    detector = svdd.DeepSVDD(epochs=3, batch_size=16, preprocessing="none", false_alarm_rate=0.1)
    svdd.save_model(tmp_path / "model", detector.fit(images).model_)
    return tmp_path / "model"


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    root = tmp_path / "labelled"
    for kind, dark, count in (("good", 0, 30), ("spot", 60, 8), ("hole", 110, 6)):
        (root / kind).mkdir(parents=True)
        for number in range(count):
            seed = 1000 + 100 * dark + number
            Image.fromarray(pixels(seed, dark)).save(root / kind / f"{number:02d}.png")
    return root


def scores_of(model: Path, folder: Path) -> np.ndarray:
    images = np.stack([np.array(Image.open(path)) for path in sorted(folder.iterdir())])
    return svdd.score_images(svdd.load_model(model), images[..., None])


def test_without_a_choice_the_table_is_shown_and_nothing_changes(
    calling: Calling,
    model: Path,
    labelled: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = svdd.load_model(model)
    with calling(threshold) as command:
        out = tmp_path / "out"
        assert command(f"--model={model}", f"--data_dir={labelled}", f"--out={out}") == 0
    said = capsys.readouterr().out
    assert "30 normals, 14 defects" in said and "the model's own" in said
    assert svdd.load_model(model).threshold == before.threshold
    rows = rows_of(out / "thresholds.csv")
    good = scores_of(model, labelled / "good")
    bad = np.concatenate([scores_of(model, labelled / kind) for kind in ("spot", "hole")])
    for row in rows:
        assert int(row["false_alarms"]) == (good > float(row["threshold"])).sum()
        assert int(row["defects_found"]) == (bad > float(row["threshold"])).sum()
    assert (out / "thresholds.png").read_bytes().startswith(b"\x89PNG")


def test_a_choice_by_false_alarms_is_kept_in_the_model_with_its_evidence(
    calling: Calling, model: Path, labelled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = svdd.load_model(model).threshold
    with calling(threshold) as command:
        rate = "--false_alarm_rate=0.1"
        assert command(f"--model={model}", f"--data_dir={labelled}", rate) == 0
    loaded = svdd.load_model(model)
    good = scores_of(model, labelled / "good")
    assert (good > loaded.threshold).sum() <= 3
    choice = loaded.summary["threshold_choice"]
    assert choice["threshold_before"] == old
    assert (choice["normals"], choice["defects"]) == (30, 14)
    for kind in ("spot", "hole"):
        found = (scores_of(model, labelled / kind) > loaded.threshold).sum()
        assert choice["kinds"][kind] == {
            "defects": len(scores_of(model, labelled / kind)),
            "found": int(found),
        }
    assert "0.1 of the labelled normals" in loaded.summary["threshold_rule"]
    assert f"was {old:.6g}" in capsys.readouterr().out


def test_costs_choose_the_cheapest_threshold(calling: Calling, model: Path, labelled: Path) -> None:
    with calling(threshold) as command:
        costs = ("--cost_missed=100", "--cost_false_alarm=1")
        assert command(f"--model={model}", f"--data_dir={labelled}", *costs) == 0
    chosen = svdd.load_model(model).threshold
    good = scores_of(model, labelled / "good")
    bad = np.concatenate([scores_of(model, labelled / kind) for kind in ("spot", "hole")])

    def cost(limit: float) -> float:
        return 100.0 * (bad <= limit).sum() + (good > limit).sum()

    candidates = np.concatenate([good, bad, [good.min() - 1]])
    assert cost(chosen) <= min(map(cost, candidates))


def test_a_labelled_table_is_taken(
    calling: Calling, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    random = np.random.RandomState(0)
    detector = svdd.DeepSVDD(epochs=3, n_seeds=1, false_alarm_rate=0.1).fit(random.randn(100, 3))
    svdd.save_model(tmp_path / "table", detector.model_)
    rows = np.concatenate([random.randn(20, 3), random.randn(5, 3) + 9])
    labels = np.repeat([0, 2], [20, 5])
    np.savez(tmp_path / "new.npz", x=rows, y=labels)
    with (tmp_path / "new.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [
                ["a", "b", "c", "kind"],
                *([*row, label] for row, label in zip(rows, labels, strict=True)),
            ]
        )
    with calling(threshold) as command:
        for name, label in (("new.npz", ()), ("new.csv", ("--label_column=kind",))):
            data = f"--data_dir={tmp_path / name}"
            assert command(f"--model={tmp_path / 'table'}", data, *label) == 0
            assert "20 normals, 5 defects" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--cost_missed=1",), "cost_missed needs --cost_false_alarm"),
        (("--threshold=1", "--false_alarm_rate=0.1"), "both choose the threshold"),
        (("--threshold=inf",), "finite"),
        (("--defect_rate=0.1",), "defect_rate is for costs"),
        (("--false_alarm_rate=2",), "must lie in [0, 1]"),
        (("--cost_missed=-1", "--cost_false_alarm=1"), "must not be negative"),
    ],
)
def test_wrong_flags_are_one_line_and_the_model_stays(
    calling: Calling,
    model: Path,
    labelled: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    expected: str,
) -> None:
    before = svdd.load_model(model)
    with calling(threshold) as command:
        assert command(f"--model={model}", f"--data_dir={labelled}", *arguments) == 2
    assert expected in capsys.readouterr().err
    assert svdd.load_model(model).threshold == before.threshold


def test_a_set_without_defects_is_refused(
    calling: Calling, model: Path, labelled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with calling(threshold) as command:
        assert command(f"--model={model}", f"--data_dir={labelled / 'good'}") == 2
    said = capsys.readouterr().err
    assert said.strip().count("\n") == 0 and "30 normal and 0 defective samples" in said


def test_score_takes_another_threshold_of_a_saved_model(
    calling: Calling, model: Path, labelled: Path, tmp_path: Path
) -> None:
    loaded = svdd.load_model(model)
    good = scores_of(model, labelled / "good")
    for flag, limit in (
        ("--threshold=0.123", 0.123),
        ("--false_alarm_rate=0.5", thresholds.chosen_threshold(loaded, 0.5)),
    ):
        out = tmp_path / "scores.csv"
        with calling(score) as command:
            data = f"--data_dir={labelled / 'good'}"
            assert command(f"--model={model}", data, f"--out={out}", flag) == 0
        with out.open(newline="") as file:
            called = [int(row["anomalous"]) for row in csv.DictReader(file)]
        assert called == (good > limit).astype(int).tolist()
    # Half of the held-out scores lie above, the ceil((n + 1) / 2)-th smallest itself does not.
    held_out = np.sort(loaded.calibration_scores)
    rank = int(np.ceil((len(held_out) + 1) * 0.5))
    assert thresholds.chosen_threshold(loaded, 0.5) == held_out[rank - 1]


def test_a_model_without_held_out_scores_has_no_rate_to_offer(model: Path) -> None:
    bare = svdd.load_model(model)._replace(calibration_scores=np.zeros(0, np.float32))
    with pytest.raises(ConfigError, match="held-out scores"):
        thresholds.chosen_threshold(bare, 0.1)
    assert thresholds.chosen_threshold(bare, None, 2.0) == 2.0
