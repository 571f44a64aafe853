"""Metrics against pair counting, brute force and hand-made numbers."""

import math

import numpy as np
import pytest

from deepsvdd_jax.scoring import metrics


@pytest.fixture
def scored():
    """Scores with ties, and labels, of 80 points."""
    generator = np.random.default_rng(0)
    labels = (generator.random(80) < 0.4).astype(np.uint8)
    scores = np.round(generator.normal(size=80) + labels, 1)
    return scores, labels


def called_anomalous(scores, labels, threshold):
    """True positives, false positives, false negatives, true negatives, by a loop."""
    counts = {(called, label): 0 for called in (False, True) for label in (0, 1)}
    for score, label in zip(scores, labels, strict=True):
        counts[bool(score > threshold), int(label)] += 1
    return counts[True, 1], counts[True, 0], counts[False, 1], counts[False, 0]


def test_auroc_counts_pairs(scored):
    scores, labels = scored
    anomalous, normal = scores[labels == 1], scores[labels == 0]
    pairs = [(a > n) + 0.5 * (a == n) for a in anomalous for n in normal]
    assert metrics.evaluate(scores, labels, 0.0).auroc == pytest.approx(np.mean(pairs), abs=1e-12)
    assert metrics.auroc(scores, labels) == metrics.evaluate(scores, labels, 0.0).auroc


def test_average_precision_sums_steps_of_recall(scored):
    scores, labels = scored
    expected, last_recall = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        called = scores >= threshold
        recall = labels[called].sum() / labels.sum()
        expected += (recall - last_recall) * labels[called].mean()
        last_recall = recall
    result = metrics.evaluate(scores, labels, 0.0).average_precision
    assert result == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("tpr", [0.5, 0.95, 1.0])
def test_fpr_at_tpr_is_the_smallest_of_all_thresholds(scored, tpr):
    scores, labels = scored
    reached = [
        (scores[labels == 0] >= threshold).mean()
        for threshold in scores
        if (scores[labels == 1] >= threshold).mean() >= tpr
    ]
    assert metrics.fpr_at_tpr(scores, labels, tpr) == pytest.approx(min(reached), abs=1e-12)
    if tpr == 0.95:
        assert metrics.evaluate(scores, labels, 0.0).fpr95 == pytest.approx(min(reached))


def test_fpr_at_tpr_counts_a_recall_that_is_just_reached():
    anomalous, normal = np.arange(1.0, 21.0), np.array([0.5, 1.5, 30.0])
    scores = np.concatenate([anomalous, normal])
    labels = np.repeat([1, 0], [20, 3])
    # 19 of 20 anomalies score 2 or more, and so does one normal point of three.
    assert metrics.fpr_at_tpr(scores, labels, 0.95) == pytest.approx(1 / 3)


def test_fpr_at_tpr_keeps_intermediate_thresholds():
    # On the straight part of the curve the operating point at recall 1/2 is not a corner.
    scores, labels = np.array([4.0, 3.0, 2.0, 1.0]), np.array([1, 1, 1, 0])
    assert metrics.fpr_at_tpr(scores, labels, 0.5) == 0.0
    scores, labels = np.repeat([3.0, 2.0, 1.0], 2), np.array([1, 0, 1, 0, 1, 0])
    assert metrics.fpr_at_tpr(scores, labels, 0.5) == pytest.approx(2 / 3)


def test_calls_at_the_threshold(scored):
    scores, labels = scored
    result = metrics.evaluate(scores, labels, 0.5)
    tp, fp, fn, tn = called_anomalous(scores, labels, 0.5)
    assert result.threshold == 0.5
    assert result.accuracy == pytest.approx((tp + tn) / len(labels))
    assert result.precision == pytest.approx(tp / (tp + fp))
    assert result.recall == pytest.approx(tp / (tp + fn))
    assert result.f1 == pytest.approx(2 * tp / (2 * tp + fp + fn))


def test_a_score_equal_to_the_threshold_is_normal():
    result = metrics.evaluate([1.0, 2.0, 3.0], [0, 0, 1], 2.0)
    assert result.accuracy == 1.0


def test_nothing_called_anomalous_is_no_error():
    result = metrics.evaluate([1.0, 2.0], [0, 1], 5.0)
    assert (result.precision, result.recall, result.f1) == (0.0, 0.0, 0.0)
    assert all(isinstance(value, float) for value in result)


def test_float32_scores_are_taken_as_they_are(scored):
    scores, labels = scored
    single = scores.astype(np.float32)
    threshold = metrics.training_threshold(single, 1.0)
    assert metrics.evaluate(single, labels, threshold).recall == 0.0


def test_training_threshold_interpolates():
    assert metrics.training_threshold(np.arange(101.0)) == pytest.approx(99.0)
    assert metrics.training_threshold([0.0, 1.0], 0.25) == pytest.approx(0.25)


def test_summary_of_scores():
    assert metrics.summarize_scores([4.0, 1.0, 2.0, 9.0]) == (1.0, 9.0, 4.0, 3.0)


def test_mean_and_std_over_runs():
    mean, std, count = metrics.mean_and_std([1.0, 3.0, float("nan"), 8.0])
    assert (mean, count) == (4.0, 3)
    assert std == pytest.approx(math.sqrt((9 + 1 + 16) / 2))
    assert metrics.mean_and_std([0.7]) == (0.7, 0.0, 1)


@pytest.mark.parametrize("values", [[], [float("nan")]])
def test_mean_and_std_of_no_finished_run(values):
    mean, std, count = metrics.mean_and_std(values)
    assert math.isnan(mean) and math.isnan(std) and count == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.evaluate([1.0, np.nan], [0, 1], 0.0), "scores holds 1 values of 2"),
        (lambda: metrics.evaluate([1.0, np.inf], [0, 1], 0.0), "NaN or infinite"),
        (lambda: metrics.evaluate([1.0, 2.0, 3.0], [0, 1], 0.0), "3 scores but 2 labels"),
        (lambda: metrics.evaluate([1.0, 2.0], [1, 1], 0.0), "every label is 1"),
        (lambda: metrics.evaluate([1.0, 2.0], [0, 0], 0.0), "every label is 0"),
        (lambda: metrics.evaluate([1.0, 2.0], [-1, 1], 0.0), "0 .normal. or 1 .anomalous."),
        (lambda: metrics.evaluate([[1.0, 2.0]], [0, 1], 0.0), "one-dimensional"),
        (lambda: metrics.evaluate([], [], 0.0), "scores is empty"),
        (lambda: metrics.evaluate([1.0, 2.0], [0, 1], np.nan), "threshold is NaN"),
        (lambda: metrics.auroc([1.0, np.nan], [0, 1]), "scores holds 1 values of 2"),
        (lambda: metrics.fpr_at_tpr([1.0, 2.0], [0, 1], 0.0), r"\(0, 1\]"),
        (lambda: metrics.training_threshold([np.nan]), "train_scores holds 1"),
        (lambda: metrics.training_threshold([1.0], 99), r"\[0, 1\]"),
        (lambda: metrics.summarize_scores([]), "empty"),
        (lambda: metrics.mean_and_std([[1.0]]), "one-dimensional"),
    ],
)
def test_unusable_input_is_named_in_one_line(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_roc_points_by_hand() -> None:
    # From the highest score down: anomalous, normal, then a tie of both, normal.
    scores, labels = [0.9, 0.7, 0.5, 0.5, 0.1], [1, 0, 1, 0, 0]
    fprs, tprs = metrics.roc_points(scores, labels)
    expected = [(0, 0), (0, 0.5), (1 / 3, 0.5), (2 / 3, 1), (1, 1)]
    np.testing.assert_allclose(np.stack([fprs, tprs], 1), expected)


def test_roc_points_need_both_labels() -> None:
    with pytest.raises(ValueError, match="both labels"):
        metrics.roc_points([0.1, 0.2], [1, 1])


def test_training_samples_at_the_center_are_a_collapse() -> None:
    center = np.array([3.0, 4.0])
    # Of ||c|| = 5 a hundredth is 0.05, squared 0.0025.
    assert metrics.is_collapsed_on_training([0.001, 0.0039], center)
    assert not metrics.is_collapsed_on_training([0.001, 0.0041], center)
    assert not metrics.is_collapsed_on_training([0.0], np.zeros(2))
