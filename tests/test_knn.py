"""Nearest neighbors against scikit-learn's exhaustive search and differences in float64."""

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from deepsvdd_jax.detectors import baselines, knn
from deepsvdd_jax.detectors.knn import KNNConfig, knn_scores, nearest_distances

Floats = np.ndarray


def expected_distances(points: Floats, train: Floats, k: int) -> Floats:
    """Euclidean distances to the k nearest, every difference taken by itself."""
    differences = points[:, None, :] - train[None, :, :]
    return np.sort(np.sqrt(np.square(differences).sum(axis=2)), axis=1)[:, :k]


@pytest.fixture
def points() -> tuple[Floats, Floats]:
    generator = np.random.default_rng(0)
    return generator.normal(size=(70, 4)), generator.normal(size=(90, 4))


def test_distances_are_scikit_learns(points: tuple[Floats, Floats]) -> None:
    queries, train = points
    search = NearestNeighbors(n_neighbors=5, algorithm="kd_tree").fit(train)
    expected, _ = search.kneighbors(queries)
    np.testing.assert_allclose(nearest_distances(queries, train, 5), expected, rtol=1e-13)
    mean, largest = KNNConfig(), KNNConfig(distance="largest")
    np.testing.assert_allclose(knn_scores(mean, queries, train), expected.mean(axis=1), rtol=1e-13)
    np.testing.assert_array_equal(
        knn_scores(largest, queries, train), nearest_distances(queries, train, 5)[:, -1]
    )


def test_a_training_point_is_not_its_own_neighbor(points: tuple[Floats, Floats]) -> None:
    _, train = points
    # Without a query, scikit-learn leaves each training point out of its own neighbors.
    expected, _ = NearestNeighbors(n_neighbors=3, algorithm="kd_tree").fit(train).kneighbors()
    found = nearest_distances(train, train, 3, leave_one_out=True)
    np.testing.assert_allclose(found, expected, rtol=1e-13)


def test_blocks_do_not_show(points: tuple[Floats, Floats], monkeypatch: pytest.MonkeyPatch) -> None:
    queries, train = points
    expected = expected_distances(queries, train, 5)
    own = NearestNeighbors(n_neighbors=5, algorithm="kd_tree").fit(train).kneighbors()[0]
    monkeypatch.setattr(knn, "BLOCK_ELEMENTS", 7 * len(train))
    np.testing.assert_allclose(nearest_distances(queries, train, 5), expected, rtol=1e-13)
    found = nearest_distances(train, train, 5, leave_one_out=True)
    np.testing.assert_allclose(found, own, rtol=1e-13)


def test_near_duplicates_far_from_the_others_keep_their_digits() -> None:
    """In squares of 1e16 a difference of 1e-3 is lost; the distances are told all the same."""
    generator = np.random.default_rng(1)
    near = generator.normal(size=(40, 3))
    far = 1e8 + 1e-3 * np.arange(1, 21)[:, None] * np.ones((1, 3))
    train = np.concatenate([near, far])
    queries = np.concatenate([near[:5] + 1e-9, far[:5] + 4e-4])
    expected = expected_distances(queries, train, 4)
    products = np.square(queries).sum(1)[:, None] + np.square(train).sum(1) - 2 * queries @ train.T
    naive = np.sqrt(np.maximum(np.sort(products, axis=1)[:, :4], 0.0))
    assert np.abs(naive[5:] / expected[5:] - 1).max() > 0.9, "the case asks for nothing"
    np.testing.assert_allclose(nearest_distances(queries, train, 4), expected, rtol=1e-12)


def test_ties_and_equal_points() -> None:
    grid = np.array([[x, y] for x in range(5) for y in range(5)], np.float64)
    train = np.concatenate([grid, grid])
    expected = expected_distances(grid, train, 7)
    np.testing.assert_array_equal(nearest_distances(grid, train, 7), expected)
    same = np.ones((9, 2))
    np.testing.assert_array_equal(nearest_distances(same, same, 8, leave_one_out=True), 0.0)


def test_baseline_scores_by_others_in_training_and_by_all_in_test(
    points: tuple[Floats, Floats],
) -> None:
    queries, train = points
    result = baselines.fit_and_score(KNNConfig(3), train, queries, 0)
    np.testing.assert_allclose(
        result.test_scores, expected_distances(queries, train, 3).mean(axis=1), rtol=1e-12
    )
    others = expected_distances(train, train, 4)[:, 1:].mean(axis=1)
    np.testing.assert_allclose(result.train_scores, others, rtol=1e-12)
    assert result.parameters == {"n_neighbors": 3} and result.selection == "none"
    line = baselines.describe_cost(KNNConfig(), 6000, 10000, 784)
    assert "5 of 6000 points" in line and "GFLOP" in line and "\n" not in line


def test_what_is_out_of_range_is_named() -> None:
    with pytest.raises(ValueError, match="n_neighbors must be at least 1, got 0"):
        KNNConfig(0)
    with pytest.raises(ValueError, match="'mean' or 'largest', got 'median'"):
        KNNConfig(distance="median")  # type: ignore[arg-type]
    train = np.zeros((5, 2))
    assert nearest_distances(train, train, 5).shape == (5, 5)
    with pytest.raises(ValueError, match="5 nearest neighbors need 6 training points .* got 5"):
        nearest_distances(train, train, 5, leave_one_out=True)
