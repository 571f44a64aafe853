"""Cross-conformal calibration of small sets: fitting, saving, scoring, and its false alarms."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from deepsvdd_jax import detectors, preprocessing
from deepsvdd_jax.cli.commands import fit, score
from deepsvdd_jax.configs import ConfigError, DetectorConfig, NetworkConfig, PhaseConfig, RunConfig
from deepsvdd_jax.configs import PreprocessingConfig as Scaled
from deepsvdd_jax.io import models
from deepsvdd_jax.scoring import cross_calibration

Call = Callable[..., int]
Calling = Callable[[ModuleType], AbstractContextManager[Call]]

RUN = RunConfig(
    preprocessing=Scaled(min_max=False, standardize=True),
    network=NetworkConfig("mlp", stages=(), hidden=(8,), rep_dim=4, batch_norm=False),
    training=PhaseConfig(epochs=2, batch_size=16),
)


def config(members: int = 3, rate: float = 0.05) -> DetectorConfig:
    seeds = tuple(range(4, 4 + members))
    return DetectorConfig(RUN, seeds, 0.2, "conformal", alarm_rate=rate, calibration="cross")


def test_a_member_is_trained_on_all_but_its_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    table = np.random.RandomState(0).randn(50, 3)
    seen: list[np.ndarray] = []
    train_runs = detectors.deep_svdd.runs.train_runs

    def note(*given: object, **named: object) -> object:
        data = named["data"]
        assert isinstance(data, list)
        seen.extend(np.sort(one.indices[: int(one.count)]) for one in data)
        return train_runs(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(detectors.deep_svdd.runs, "train_runs", note)
    model, _ = detectors.fit_detector(config(), table)
    folds = detectors.held_out.cross_folds(config(), np.arange(50))
    # A fifth scales: the other 40 are dealt into 14, 13 and 13.
    assert sorted(np.bincount(folds + 1)) == [10, 13, 13, 14]
    for member, indices in enumerate(seen):
        np.testing.assert_array_equal(indices, np.flatnonzero(folds != member))
    base = table[folds < 0]
    fitted = preprocessing.fit(RUN.preprocessing, base)
    np.testing.assert_allclose(fitted.scaling.shift, base.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(model.shift, fitted.scaling.shift)

    # Calibration scores: d by the member that has not seen the sample, in units of its own mean.
    distances = np.float64(detectors.member_distances(model, table))
    scores = [
        distances[fold, place] / distances[fold, folds != fold].mean()
        for place, fold in enumerate(folds)
        if fold >= 0
    ]
    np.testing.assert_allclose(model.calibration_scores, np.sort(scores), rtol=1e-5)
    assert model.summary["calibration_samples"] == 40


def test_p_values_are_counted_under_the_member_that_has_not_seen_the_sample() -> None:
    random = np.random.RandomState(0)
    table, new = random.randn(50, 3), 2 * random.randn(30, 3)
    model, _ = detectors.fit_detector(config(rate=0.1), table)
    judged = detectors.judge(model, new)
    units = detectors.member_distances(model, new) / model.train_means[:, None]
    units = units.astype(np.float32)
    counts = [
        sum(
            score >= units[fold, place]
            for score, fold in zip(model.calibration_scores, model.calibration_folds, strict=True)
        )
        for place in range(30)
    ]
    p_values = np.array([(1 + count) / 41 for count in counts])
    np.testing.assert_allclose(judged.p_values, p_values, rtol=1e-12)
    # 0.1 * 41 = 4.1: up to four count.
    np.testing.assert_array_equal(judged.anomalous, np.array(counts) + 1 <= 4)
    assert 0 < judged.anomalous.sum() < 30
    np.testing.assert_array_equal(judged.scores, detectors.score_images(model, new))


def test_too_few_members_or_samples_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least 2 seeds"):
        config(members=1)
    with pytest.raises(ConfigError, match="needs at least 99 calibration scores; there are 40"):
        detectors.fit_detector(config(rate=0.01), np.random.RandomState(0).randn(50, 3))
    with pytest.raises(ConfigError, match="at least 7 samples"):
        detectors.fit_detector(config(7, 0.3), np.random.RandomState(0).randn(7, 3))


def test_a_hundred_samples_carry_two_in_a_hundred(
    calling: Calling, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    random = np.random.RandomState(0)
    np.savez(tmp_path / "good.npz", x_train=random.randn(100, 3))
    new = np.concatenate([random.randn(40, 3), random.randn(10, 3) + 9])
    np.savez(tmp_path / "new.npz", x=new)
    path, data = f"--model={tmp_path / 'm'}", f"--data_dir={tmp_path / 'good.npz'}"
    given = ("--dataset=npz", data, path, "--epochs=4", "--false_alarm_rate=0.02")
    with calling(fit) as command:
        assert command(*given) == 2
        assert "needs at least 49 calibration scores; there are 20" in capsys.readouterr().err
        assert command(*given, "--calibration=cross", "--calibration_fraction=0.5") == 2
        assert "it is of --calibration=held-out" in capsys.readouterr().err
        assert command(*given, "--calibration=cross") == 0
    said = capsys.readouterr().out
    assert "80 of which are held out of one member each" in said
    # 2 * 0.02 + min(2 * 0.8 / 17, (1 - 5 / 80) / 6).
    assert "0.13 at most, which is proved" in said
    model = models.load_model(tmp_path / "m")
    assert len(model.calibration_folds) == 80

    out = tmp_path / "scores.csv"
    judged = detectors.judge(model, new)
    with calling(score) as command:
        scored = (path, f"--data_dir={tmp_path / 'new.npz'}", f"--out={out}")
        for flags_, expected in (
            ((), judged.anomalous),
            (("--false_alarm_rate=0.2",), judged.p_values <= 0.2),  # type: ignore[operator]
            (("--threshold=1.5",), judged.scores > 1.5),
        ):
            assert command(*scored, *flags_) == 0
            rows = [line.split(",") for line in out.read_text().splitlines()[1:]]
            assert [row[3] for row in rows] == [str(int(one)) for one in expected]
            np.testing.assert_allclose([float(row[2]) for row in rows], judged.p_values, rtol=1e-5)
    assert judged.anomalous[40:].all()

    with calling(fit) as command:
        recalibrate = ("--dataset=npz", f"--data_dir={tmp_path / 'good.npz'}", "--recalibrate")
        assert command(*recalibrate, path) == 0
    assert not len(models.load_model(tmp_path / "m").calibration_folds)


@pytest.mark.parametrize(("members", "rate"), [(2, 0.02), (5, 0.02), (5, 0.1), (10, 0.1)])
def test_false_alarms_stay_below_the_bound_over_many_splits(members: int, rate: float) -> None:
    """Members that differ as networks do: random features, a center that each learns by itself."""
    random = np.random.default_rng(5)
    alarms = []
    for split in range(200):
        samples, new = random.standard_t(5, (80, 12)), random.standard_t(5, (100, 12))
        folds = cross_calibration.deal_folds(np.random.RandomState(split), np.arange(80), members)
        known, scores = np.empty(80), np.empty((members, 100))
        for member in range(members):
            weights = random.normal(size=(12, 24)) / np.sqrt(12)
            train, out, test = (
                np.tanh(part @ weights)
                for part in (samples[folds != member], samples[folds == member], new)
            )
            center = train.mean(0)
            unit = np.square(train - center).sum(1).mean()
            known[folds == member] = np.square(out - center).sum(1) / unit
            scores[member] = np.square(test - center).sum(1) / unit
        p_values = cross_calibration.cross_p_values(known, folds, scores)
        alarms.append((p_values <= rate).mean())
    seen, error = np.mean(alarms), np.std(alarms) / np.sqrt(len(alarms))
    assert seen <= rate + 3 * error
    assert seen + 3 * error < 2 * rate + cross_calibration.bound_excess(80, members)
    assert seen > 0
