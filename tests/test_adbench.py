"""The benchmark over tables: splits, detectors, taking up again, what it prints and refuses."""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.metrics import roc_auc_score

from benchmarks import adbench, peers
from tests.helpers import rows_of

Call = Callable[..., int]


@pytest.fixture(scope="module")
def command(calling: Callable[[ModuleType], AbstractContextManager[Call]]) -> Iterator[Call]:
    with calling(adbench) as call:
        yield call


def write_table(folder: Path, name: str, seed: int, rows: int = 60) -> None:
    random = np.random.RandomState(seed)
    values = random.randn(rows, 3) * [1.0, 10.0, 0.1] + [0.0, 5.0, 1.0]
    labels = (np.arange(rows) % 6 == 0).astype(int)
    values[labels == 1] += [3.0, 0.0, 0.3]
    np.savez(folder / f"{name}.npz", X=values, y=labels)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "tables"
    folder.mkdir()
    for seed, name in enumerate(("a", "b", "c")):
        write_table(folder, name, seed)
    return folder


FAST = "--detectors=knn,lof,ocsvm,iforest"


def test_a_split_trains_on_half_of_the_normal_rows_and_scores_all_others(folder: Path) -> None:
    table = adbench.read_table(folder / "a.npz")
    problem = adbench.make_problem(table, 0, 1000)
    assert problem.train.shape == (25, 3) and problem.labels.tolist() == [0] * 25 + [1] * 10
    every = np.concatenate([problem.train, problem.test])
    np.testing.assert_array_equal(np.sort(every, axis=0), np.sort(table.values, axis=0))
    normal = {tuple(row) for row in table.values[table.labels == 0]}
    assert all(tuple(row) in normal for row in problem.train)
    again, other = (adbench.make_problem(table, split, 1000) for split in (0, 1))
    np.testing.assert_array_equal(again.train, problem.train)
    assert not np.array_equal(other.train, problem.train)


def test_half_of_the_anomalous_rows_can_be_known_and_are_then_not_scored(folder: Path) -> None:
    table = adbench.read_table(folder / "a.npz")
    problem, plain = (adbench.make_problem(table, 3, 1000, known) for known in (True, False))
    np.testing.assert_array_equal(problem.train, plain.train)
    assert len(problem.known) == 5 and problem.labels.tolist() == [0] * 25 + [1] * 5
    anomalous = np.concatenate([problem.known, problem.test[problem.labels == 1]])
    expected = table.values[table.labels == 1]
    np.testing.assert_array_equal(np.sort(anomalous, axis=0), np.sort(expected, axis=0))
    assert len(plain.known) == 0


def test_deep_sad_is_trained_on_its_share_of_the_known_rows(
    command: Call, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, int, np.ndarray]] = []

    class Noted:
        def __init__(self, *, objective: str = "one-class", **settings: object) -> None:
            self.objective = objective

        def fit(self, rows: np.ndarray, labels: np.ndarray) -> "Noted":
            seen.append((self.objective, int(np.sum(labels == 0)), rows[labels == -1]))
            return self

        def score_samples(self, rows: np.ndarray) -> np.ndarray:
            return -rows[:, 0]

    monkeypatch.setattr(adbench, "DeepSVDD", Noted)
    out = tmp_path / "out"
    asked = (f"--data_dir={folder}", f"--out={out}", "--detectors=knn", "--splits=1")
    assert command(*asked, "--labelled_ratios=0.04,0.1,0.5") == 0
    # Of 25 normal rows 1 / 24, 1 / 9 and 1, of the latter the 5 rows that there are.
    assert [(name, normal, len(known)) for name, normal, known in seen[:3]] == [
        ("deep-sad", 25, 1),
        ("deep-sad", 25, 3),
        ("deep-sad", 25, 5),
    ]
    table = adbench.read_table(folder / "a.npz")
    anomalous = {tuple(row) for row in table.values[table.labels == 1]}
    assert all(tuple(row) in anomalous for _, _, known in seen[:3] for row in known)
    named = {row["detector"] for row in rows_of(out / "runs.csv")}
    assert named == {"knn", "deep_sad_0.04", "deep_sad_0.1", "deep_sad_0.5"}


def test_a_large_set_is_thinned_out_with_its_share_of_anomalies() -> None:
    labels = (np.arange(4000) % 20 == 0).astype(int)
    table = adbench.Table("large", np.random.RandomState(0).randn(4000, 2), labels)
    problem = adbench.make_problem(table, 0, 1000)
    assert len(problem.train) == 475 and problem.labels.sum() == 50 and len(problem.labels) == 525


def test_rows_are_standardized_by_the_training_half(folder: Path) -> None:
    problem = adbench.make_problem(adbench.read_table(folder / "a.npz"), 0, 1000)
    scaled = adbench.standardized(problem)
    np.testing.assert_allclose(scaled.train.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(scaled.train.std(axis=0), 1)
    deviation = problem.train.std(axis=0)
    np.testing.assert_allclose(scaled.test, (problem.test - problem.train.mean(axis=0)) / deviation)
    constant = problem._replace(train=np.full((4, 3), 0.1), test=np.full((2, 3), 2.1))
    np.testing.assert_allclose(adbench.standardized(constant).test, 2.0)


def test_the_distance_to_the_fifth_neighbor(folder: Path) -> None:
    problem = adbench.standardized(
        adbench.make_problem(adbench.read_table(folder / "a.npz"), 0, 99)
    )
    expected = np.sort(cdist(problem.test, problem.train), axis=1)[:, 4]
    np.testing.assert_allclose(peers.fit_knn(problem.train, 0)(problem.test), expected)


def test_pyods_detectors_and_scikit_learns_score_alike(folder: Path) -> None:
    pytest.importorskip("pyod")
    problem = adbench.standardized(
        adbench.make_problem(adbench.read_table(folder / "a.npz"), 0, 99)
    )
    ours = {"knn": peers.fit_knn, "lof": peers.fit_lof, "ocsvm": peers.fit_ocsvm}
    found = peers.available()
    for name, fit in (ours | {"iforest": peers.fit_iforest}).items():
        assert found[name].source == "pyod"
        one, other = fit(problem.train, 3), found[name].fit(problem.train, 3)
        aurocs = [roc_auc_score(problem.labels, score(problem.test)) for score in (one, other)]
        assert aurocs[0] == pytest.approx(aurocs[1], abs=1e-9), name


def test_it_prints_and_writes_what_was_measured(
    command: Call, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    asked = (f"--data_dir={folder}", f"--out={out}", FAST, "--splits=2")
    assert command(*asked) == 0
    printed = capsys.readouterr().out
    rows = rows_of(out / "runs.csv")
    assert len(rows) == 3 * 2 * 4 and {row["set"] for row in rows} == {"a", "b", "c"}
    knn = [float(row["auroc"]) for row in rows if row["detector"] == "knn"]
    (line,) = (line for line in printed.splitlines() if line.startswith("knn "))
    assert f"{100 * np.mean(knn):.2f}" in line and line.split()[1] == "2"
    ranks = [float(line["rank"]) for line in rows_of(out / "summary.csv")]
    assert sum(ranks) == pytest.approx(1 + 2 + 3 + 4, abs=0.02) and ranks == sorted(ranks)
    assert "3 data sets" in printed and "Friedman" in printed and (out / "ranks.png").exists()
    assert set(json.loads((out / "sets.json").read_text())) == {"a", "b", "c"}


def test_it_goes_on_with_the_sets_that_are_missing(
    command: Call, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    asked = (f"--data_dir={folder}", f"--out={out}", "--detectors=knn", "--splits=1")
    assert command(*asked) == 0
    first = rows_of(out / "runs.csv")
    write_table(folder, "d", 9)
    measured: list[str] = []
    measure = adbench.measure

    def noted(table: adbench.Table, *rest: object) -> object:
        measured.append(table.name)
        return measure(table, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(adbench, "measure", noted)
    assert command(*asked) == 0
    assert measured == ["d"]
    second = rows_of(out / "runs.csv")
    assert [row["set"] for row in second] == ["a", "b", "c", "d"]
    assert [row["auroc"] for row in second[:3]] == [row["auroc"] for row in first]


def test_our_estimator_is_compared_with_the_others(
    command: Call, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    asked = ("--detectors=ours,knn", "--splits=1", "--members=1")
    assert command(f"--data_dir={folder}", f"--out={out}", *asked) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("knn "))
    aurocs = {
        (row["set"], row["detector"]): float(row["auroc"]) for row in rows_of(out / "runs.csv")
    }
    change = [aurocs[name, "ours"] - aurocs[name, "knn"] for name in "abc"]
    wins, losses, difference = line.split()[4:7]
    # Equal rankings may differ in the last bit of their AUROC.
    assert int(wins) == sum(one > 1e-9 for one in change)
    assert int(losses) == sum(one < -1e-9 for one in change)
    assert float(difference) == pytest.approx(100 * np.mean(change), abs=0.006)


def test_a_users_mistake_is_one_line(
    command: Call, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*arguments: str) -> str:
        assert command(*arguments) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        return line

    out, data = f"--out={tmp_path / 'out'}", f"--data_dir={folder}"
    assert "give --data_dir" in refused(out)
    assert "is no folder" in refused(f"--data_dir={folder / 'none'}", out)
    assert "holds no npz file" in refused(f"--data_dir={tmp_path}", out)
    assert "'svm' is not here; there are ours, knn" in refused(data, out, "--detectors=svm")
    assert "not of this command" in refused(data, f"--out={folder}", FAST)
    for share in ("1", "0", "few"):
        line = refused(data, out, f"--labelled_ratios=0.1,{share}")
        assert f"labelled_ratios: '{share}' is no share" in line
    assert command(data, out, "--detectors=knn", "--splits=1") == 0
    capsys.readouterr()
    assert "has splits 1, asked for is 2" in refused(data, out, "--detectors=knn", "--splits=2")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"X": np.zeros((9, 2))}, "has the arrays X and y"),
        ({"X": np.zeros((9, 2)), "y": np.zeros(8)}, "and y [n]"),
        ({"X": np.full((9, 2), np.nan), "y": np.zeros(9)}, "X must be finite"),
        ({"X": np.zeros((9, 2)), "y": np.zeros(9)}, "1 for anomalies"),
        ({"X": np.zeros((9, 2)), "y": np.arange(9)}, "y must be 0"),
    ],
)
def test_an_unusable_table_is_named(
    command: Call,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arrays: dict[str, np.ndarray],
    message: str,
) -> None:
    folder = tmp_path / "tables"
    folder.mkdir()
    np.savez(folder / "odd.npz", **arrays)  # type: ignore[arg-type]
    assert command(f"--data_dir={folder}", f"--out={tmp_path / 'out'}", "--detectors=knn") == 2
    found = capsys.readouterr().err.strip().splitlines()[-1]
    assert "odd.npz" in found and message in found


@pytest.mark.slow
def test_other_scores_of_the_embedding_are_measured_where_they_are_asked_for(
    command: Call, folder: Path, tmp_path: Path
) -> None:
    names = "ours,ours_neighbors,ours_mahalanobis"
    for extra in "bc":
        (folder / f"{extra}.npz").unlink()
    arguments = (f"--data_dir={folder}", f"--out={tmp_path / 'out'}", "--splits=1")
    assert command(*arguments, f"--detectors={names}", "--members=2") == 0
    rows = rows_of(tmp_path / "out" / "runs.csv")
    assert [row["detector"] for row in rows] == names.split(",")
    problem = adbench.make_problem(adbench.read_table(folder / "a.npz"), 0, 10_000)
    detector = adbench.DeepSVDD(
        n_seeds=2, calibration_fraction=0.0, random_state=0, embedding_score="neighbors"
    ).fit(problem.train)
    expected = roc_auc_score(problem.labels, -detector.score_samples(problem.test))
    assert float(rows[1]["auroc"]) == pytest.approx(expected, abs=1e-9)
