"""Baselines against scikit-learn's own estimators and plain numpy, on small synthetic data."""

import dataclasses

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.neighbors import KernelDensity
from sklearn.svm import OneClassSVM

from deepsvdd_jax.detectors import baselines, kde
from deepsvdd_jax.detectors import features as detectors_features
from deepsvdd_jax.detectors.baselines import KNNConfig
from deepsvdd_jax.detectors.features import pca_features, squared_distances, to_features
from deepsvdd_jax.detectors.isolation_forest import IsolationForestConfig
from deepsvdd_jax.detectors.kde import KDEConfig
from deepsvdd_jax.detectors.ocsvm import OneClassSVMConfig

PAPER = OneClassSVMConfig(selection="paper")
# One leaf makes scikit-learn sum every kernel. Its bounds on tree nodes are subtracted in
# logarithms, which costs far points all their digits at small bandwidths.
ONE_LEAF = 10_000
ALL_CONFIGS = [OneClassSVMConfig(), PAPER, KDEConfig(), IsolationForestConfig(), KNNConfig()]


@pytest.fixture(scope="module")
def data():
    """120 normal points for training, 60 normal and 90 wider ones for test, 6 features."""
    generator = np.random.default_rng(0)
    train = generator.normal(0.5, 0.2, size=(120, 6))
    normal = generator.normal(0.5, 0.2, size=(60, 6))
    anomalous = generator.normal(0.5, 0.4, size=(90, 6))
    labels = np.repeat([0, 1], [60, 90])
    order = generator.permutation(150)
    return train, np.concatenate([normal, anomalous])[order], labels[order]


@pytest.mark.parametrize("config", ALL_CONFIGS)
def test_every_method_has_one_result(config, data):
    train, test, labels = data
    result = baselines.fit_and_score(config, train, test, 3, labels)
    assert result.train_scores.shape == (120,) and result.test_scores.shape == (150,)
    assert result.train_scores.dtype == result.test_scores.dtype == np.float64
    assert result.train_scores.min() >= 0 and result.test_scores.min() >= 0
    assert result.train_scores.mean() > 0
    assert roc_auc_score(labels, result.test_scores) > 0.75
    again = baselines.fit_and_score(config, train, test, 3, labels)
    np.testing.assert_array_equal(again.test_scores, result.test_scores)


@pytest.mark.parametrize("config", [c for c in ALL_CONFIGS if c is not PAPER])
def test_all_test_points_count_where_no_label_was_used(config, data):
    train, test, _ = data
    result = baselines.fit_and_score(config, train, test, 0)
    np.testing.assert_array_equal(result.test_indices, np.arange(150))
    assert result.selection != "paper"


def svm_scores(gamma, nu, train, points):
    """The documented positive score, from scikit-learn's RBF machine."""
    machine = OneClassSVM(kernel="rbf", gamma=gamma, nu=nu).fit(train)
    return -np.log(machine.score_samples(points) / machine.dual_coef_.sum())


def test_plain_svm_is_scikit_learns_with_its_defaults(data):
    train, test, _ = data
    result = baselines.fit_and_score(OneClassSVMConfig(), train, test, 0)
    assert result.parameters == {"nu": 0.1, "gamma": pytest.approx(1 / (6 * train.var()))}
    np.testing.assert_allclose(
        result.test_scores, svm_scores("scale", 0.1, train, test), rtol=1e-9, atol=1e-12
    )


def test_svm_ranks_as_the_negated_decision_function(data):
    train, test, _ = data
    result = baselines.fit_and_score(OneClassSVMConfig(), train, test, 0)
    decisions = OneClassSVM(gamma="scale", nu=0.1).fit(train).decision_function(test)
    np.testing.assert_array_equal(np.argsort(result.test_scores), np.argsort(-decisions))


def test_paper_svm_on_its_distance_matrix_is_the_rbf_machine(data):
    train, test, labels = data
    result = baselines.fit_and_score(PAPER, train, test, 0, labels)
    nu, gamma = result.parameters["nu"], result.parameters["gamma"]
    for points, scores in [(train, result.train_scores), (test, result.test_scores)]:
        np.testing.assert_allclose(
            scores, svm_scores(gamma, nu, train, points), rtol=1e-6, atol=1e-9
        )


def test_paper_selection_is_the_best_of_the_grid_on_the_labelled_part(data):
    train, test, labels = data
    result = baselines.fit_and_score(PAPER, train, test, 5, labels)
    labelled = np.setdiff1d(np.arange(150), result.test_indices)
    aurocs = {
        (nu, gamma): roc_auc_score(
            labels[labelled],
            -OneClassSVM(gamma=gamma, nu=nu).fit(train).decision_function(test[labelled]),
        )
        for gamma in PAPER.gammas
        for nu in PAPER.nus
    }
    assert (result.parameters["nu"], result.parameters["gamma"]) == max(aurocs, key=aurocs.get)
    assert result.selection == "paper"


def test_labelled_part_is_a_tenth_of_each_label_drawn_from_the_seed(data):
    train, test, labels = data
    rest = [
        baselines.fit_and_score(PAPER, train, test, seed, labels).test_indices for seed in (0, 0, 1)
    ]
    assert np.bincount(labels[rest[0]]).tolist() == [54, 81]
    np.testing.assert_array_equal(rest[0], rest[1])
    assert not np.array_equal(rest[0], rest[2])


def test_labelled_part_leaves_something_of_rare_labels():
    labels = np.array([0, 0, 0, 1, 1])
    config = OneClassSVMConfig("paper", labelled_fraction=0.9)
    points = np.random.default_rng(0).normal(size=(25, 2))
    rest = baselines.fit_and_score(config, points[:20], points[20:], 0, labels).test_indices
    assert set(labels[rest]) == set(np.delete(labels, rest)) == {0, 1}


def test_svm_scores_of_far_points_do_not_underflow(data):
    train, _, _ = data
    far = train[:3] + np.array([[50.0], [500.0], [5000.0]])
    scores = baselines.fit_and_score(OneClassSVMConfig(gamma=1.0), train, far, 0).test_scores
    assert np.isfinite(scores).all() and (np.diff(scores) > 0).all()


def test_svm_takes_constant_features():
    result = baselines.fit_and_score(OneClassSVMConfig(), np.ones((9, 2)), np.zeros((1, 2)), 0)
    assert result.parameters["gamma"] == 1.0
    np.testing.assert_allclose(result.train_scores, 0.0, atol=1e-12)


def test_bandwidths_are_the_papers():
    bandwidths = KDEConfig().bandwidths
    assert len(bandwidths) == 20
    np.testing.assert_allclose(bandwidths, 2.0 ** np.arange(-4.5, 5.01, 0.5))


@pytest.mark.parametrize("scale", [0.3, 1.0, 8.0])
@pytest.mark.parametrize("count", [60, 63])
def test_kde_selects_the_bandwidth_that_scikit_learn_selects(scale, count):
    train = np.random.default_rng(2).normal(size=(count, 4)) * scale
    folds = KFold(5, shuffle=True, random_state=7)
    grid = {"bandwidth": KDEConfig().bandwidths}
    search = GridSearchCV(KernelDensity(leaf_size=ONE_LEAF), grid, cv=folds)
    expected = search.fit(train).best_params_["bandwidth"]
    result = baselines.fit_and_score(KDEConfig(), train, train[:2], 7)
    assert result.parameters["bandwidth"] == expected
    likelihoods = kde.cross_validated_likelihoods(KDEConfig(), train, 7)
    np.testing.assert_allclose(
        likelihoods, search.cv_results_["mean_test_score"] * 5 / count, rtol=1e-5
    )


@pytest.mark.parametrize("bandwidth", KDEConfig().bandwidths)
def test_kde_scores_are_the_peak_less_the_log_density(bandwidth, data):
    train, test, _ = data
    config = KDEConfig(bandwidths=(bandwidth,))
    result = baselines.fit_and_score(config, train, test, 0)
    peak = -0.5 * train.shape[1] * np.log(2 * np.pi * bandwidth**2)
    density = KernelDensity(bandwidth=bandwidth, leaf_size=ONE_LEAF).fit(train)
    expected = peak - density.score_samples(test)
    np.testing.assert_allclose(result.test_scores, expected, rtol=1e-5, atol=2e-6)


def test_kde_leaves_a_training_point_out_of_its_own_density(data):
    train, test, _ = data
    result = baselines.fit_and_score(KDEConfig(bandwidths=(0.1,)), train, test, 0)
    for index in (0, 57, 119):
        density = KernelDensity(bandwidth=0.1, leaf_size=ONE_LEAF)
        others = density.fit(np.delete(train, index, axis=0))
        peak = -0.5 * train.shape[1] * np.log(2 * np.pi * 0.1**2)
        expected = peak - others.score_samples(train[index : index + 1])[0]
        assert result.train_scores[index] == pytest.approx(expected, rel=1e-5)


def test_kde_is_stable_where_every_kernel_underflows():
    generator = np.random.default_rng(3)
    train, test = generator.random((40, 784)), generator.random((20, 784))
    bandwidth = KDEConfig().bandwidths[0]
    scores = baselines.fit_and_score(KDEConfig((bandwidth,)), train, test, 0).test_scores
    exponents = -cdist(test, train, "sqeuclidean") / (2 * bandwidth**2)
    top = exponents.max(axis=1)
    sums = np.exp(exponents - top[:, None]).sum(axis=1)
    assert np.exp(top).max() == 0.0
    np.testing.assert_allclose(scores, -(top + np.log(sums / 40)), rtol=1e-9)


def test_blocks_do_not_show(monkeypatch, data):
    train, test, labels = data
    whole = [baselines.fit_and_score(config, train, test, 0, labels) for config in ALL_CONFIGS]
    monkeypatch.setattr(detectors_features, "BLOCK_ROWS", 32)
    for config, expected in zip(ALL_CONFIGS, whole, strict=True):
        result = baselines.fit_and_score(config, train, test, 0, labels)
        np.testing.assert_allclose(result.train_scores, expected.train_scores, rtol=1e-5)
        np.testing.assert_allclose(result.test_scores, expected.test_scores, rtol=1e-5)


def test_squared_distances_keep_their_digits():
    generator = np.random.default_rng(4)
    rows, columns = generator.random((7, 50)), generator.random((9, 50))
    distances = squared_distances(rows, columns)
    np.testing.assert_allclose(distances, cdist(rows, columns, "sqeuclidean"), rtol=1e-12)
    assert squared_distances(rows, rows).min() >= 0


@pytest.mark.parametrize("contamination", [0.1, "auto"])
def test_forest_is_scikit_learns(data, contamination):
    train, test, _ = data
    config = IsolationForestConfig(contamination=contamination)
    result = baselines.fit_and_score(config, train, test, 42)
    forest = IsolationForest(max_samples=120, contamination=contamination, random_state=42)
    np.testing.assert_array_equal(result.test_scores, -forest.fit(train).score_samples(test))
    assert result.test_scores.max() <= 1
    other = baselines.fit_and_score(config, train, test, 43)
    assert not np.array_equal(other.test_scores, result.test_scores)


def test_features_of_images():
    images = np.arange(24, dtype=np.float32).reshape(2, 3, 4, 1)
    features = to_features(images)
    assert features.dtype == np.float32
    np.testing.assert_array_equal(features, np.arange(24).reshape(2, 12))
    assert to_features(np.empty((0, 3, 4))).shape == (0, 12)


def test_pca_keeps_the_variance_of_the_training_set():
    generator = np.random.default_rng(5)
    scales = np.array([4.0, 3.0, 2.0, 0.1, 0.1])
    train, test = generator.normal(1.0, scales, (200, 5)), generator.normal(1.0, scales, (30, 5))
    train_features, test_features = pca_features(train, test)
    centred = train - train.mean(axis=0)
    variances, directions = np.linalg.eigh(centred.T @ centred)
    assert train_features.shape == (200, 3) and variances[2:].sum() / variances.sum() > 0.95
    expected = np.abs((test - train.mean(axis=0)) @ directions[:, :1:-1])
    np.testing.assert_allclose(np.abs(test_features), expected, rtol=1e-9, atol=1e-9)


def test_pca_of_fewer_points_than_features():
    generator = np.random.default_rng(6)
    train, test = generator.normal(size=(8, 20)), generator.normal(size=(5, 20))
    train_features, test_features = pca_features(train, test, 0.9)
    components = train_features.shape[1]
    variances = np.linalg.svd(train - train.mean(axis=0), compute_uv=False) ** 2
    kept = np.cumsum(variances) / variances.sum()
    assert components == np.searchsorted(kept, 0.9) + 1
    assert test_features.shape == (5, components)
    np.testing.assert_allclose((train_features**2).sum(axis=0), variances[:components])


@pytest.mark.parametrize(
    ("config", "parts"),
    [
        (PAPER, ["20 fits", "6742 points", "GFLOP", "MB"]),
        (OneClassSVMConfig(), ["1 fit ", "6742 points", "GFLOP"]),
        (KDEConfig(), ["20 bandwidths", "5 folds", "GFLOP", "MB"]),
        (IsolationForestConfig(), ["100 trees of 256 points"]),
    ],
)
def test_cost_is_told_in_one_line(config, parts):
    line = baselines.describe_cost(config, 6742, 10000, 784)
    assert "\n" not in line
    for part in parts:
        assert part in line


@pytest.mark.parametrize("config", ALL_CONFIGS)
def test_configs_are_frozen_and_hashable(config):
    assert hash(config) == hash(dataclasses.replace(config))
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.nu = 0.5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OneClassSVMConfig(nu=0.0), r"nu must lie in \(0, 1\], got 0.0"),
        (lambda: OneClassSVMConfig(nus=(0.1, 1.5)), r"nu must lie in \(0, 1\], got 1.5"),
        (lambda: OneClassSVMConfig(gamma=-1.0), "gamma must be positive"),
        (lambda: OneClassSVMConfig(gamma="auto"), "gamma must be positive or 'scale'"),
        (lambda: OneClassSVMConfig(gammas=("scale",)), "gammas must be positive"),
        (lambda: OneClassSVMConfig(gammas=()), "at least one candidate"),
        (lambda: OneClassSVMConfig(selection="best"), "'none' or 'paper'"),
        (lambda: OneClassSVMConfig(labelled_fraction=1.0), "labelled_fraction"),
        (lambda: KDEConfig(bandwidths=()), "at least one candidate"),
        (lambda: KDEConfig(bandwidths=(0.0,)), "bandwidths must be positive"),
        (lambda: KDEConfig(folds=1), "folds must be at least 2"),
        (lambda: IsolationForestConfig(n_estimators=0), "at least 1"),
        (lambda: IsolationForestConfig(contamination=0.6), "contamination"),
    ],
)
def test_settings_out_of_range_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


POINTS = np.zeros((10, 2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: (KDEConfig(), POINTS[:4], POINTS, 0), "5 folds need .* got 4"),
        (lambda: (KDEConfig(), POINTS * np.nan, POINTS, 0), "x_train holds values that are NaN"),
        (lambda: (KDEConfig(), POINTS, POINTS * np.nan, 0), "x_test holds values that are NaN"),
        (lambda: (KDEConfig(), POINTS, POINTS[:, :1], 0), "2 features but x_test has 1"),
        (lambda: (KDEConfig(), POINTS[0], POINTS, 0), r"\[n, features\]"),
        (lambda: (KDEConfig(), POINTS[:0], POINTS, 0), "x_train is empty"),
        (lambda: (PAPER, POINTS, POINTS, 0), "needs test_labels"),
        (lambda: (PAPER, POINTS, POINTS, 0, np.zeros(9)), r"test_labels must be \[10\]"),
        (lambda: (PAPER, POINTS, POINTS, 0, np.full(10, 2)), "0 .normal. or 1 .anomalous."),
        (lambda: (PAPER, POINTS, POINTS, 0, np.arange(10) < 1), "two test points of each label"),
    ],
)
def test_unusable_input_is_named_in_one_line(call, message):
    with pytest.raises(ValueError, match=message) as error:
        baselines.fit_and_score(*call())
    assert "\n" not in str(error.value)


def test_other_unusable_arguments():
    with pytest.raises(TypeError, match="type dict"):
        baselines.fit_and_score({}, POINTS, POINTS, 0)
    with pytest.raises(TypeError, match="type dict"):
        baselines.describe_cost({}, 1, 1, 1)
    with pytest.raises(ValueError, match=r"images must be \[n, ...\]"):
        to_features(np.zeros(3))
    with pytest.raises(ValueError, match=r"variance must lie in \(0, 1\)"):
        pca_features(POINTS, POINTS, 1.0)
