"""The benchmark on tables: its problems and its arithmetic, not its figures."""

import importlib.util
import math

import numpy as np
import pytest

from benchmarks import tabular
from benchmarks.tabular import BenchmarkError, Measured, Row


def test_every_normal_is_trained_on_or_scored_and_no_anomaly_trained_on() -> None:
    values = np.arange(40.0).reshape(20, 2)
    is_normal = np.arange(20) % 4 > 0
    problem = tabular.make_problem("made up", values, is_normal)
    assert len(problem.train) == 9 and len(problem.test) == 11
    np.testing.assert_array_equal(problem.test[problem.labels == 1], values[~is_normal])
    normals = np.concatenate([problem.train, problem.test[problem.labels == 0]])
    np.testing.assert_array_equal(normals[normals[:, 0].argsort()], values[is_normal])


def test_problems_of_the_data_sets() -> None:
    assert [problem.name for problem in tabular.load_problems("wine")] == [
        "wine 0",
        "wine 1",
        "wine 2",
    ]
    (cancer,) = tabular.load_problems("breast_cancer")
    # 357 benign and 212 malignant.
    assert len(cancer.train) == round(0.6 * 357) and cancer.labels.sum() == 212
    with pytest.raises(BenchmarkError, match="'iris' is unknown; allowed: breast_cancer"):
        next(tabular.load_problems("iris"))


def measured(aurocs: list[float], first: float) -> Measured:
    return Measured(aurocs, aurocs[0], first, first / 2)


def test_means_over_problems_then_over_data_sets() -> None:
    rows = [
        Row("a 0", measured([0.5, 0.7], 1.0), measured([1.0, 1.0], 4.0)),
        Row("a 1", measured([0.7, 0.9], 2.0), measured([0.0, 0.0], 4.0)),
        Row("b 0", measured([1.0, 0.0], 3.0), measured([0.5, 0.5], 9.0)),
    ]
    first, second, every = tabular.group_means(rows)
    assert (first.problem, second.problem, every.problem) == ("a", "b", "all")
    np.testing.assert_allclose(first.ours.aurocs, [0.6, 0.8])
    np.testing.assert_allclose(every.ours.aurocs, [0.8, 0.4])
    assert every.ours.first == 6.0 and every.theirs.first == 17.0
    table = tabular.format_rows([every]).splitlines()
    assert len(table) == 3
    # Sample deviation of 80 and 40: 40 / sqrt(2).
    assert f"60.0 ± {40 / math.sqrt(2):.1f}" in table[2] and "| 2.8 | 5.7 |" in table[2]


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BenchmarkError, match=r"pip install 'deepsvdd_jax\[tabular\]'"):
        tabular.import_pyod(1)
