"""Known anomalies: counts, classes and draws of a semi-supervised split."""

import numpy as np
import pytest

from deepsvdd_jax.configs import ConfigError, SplitConfig
from deepsvdd_jax.datasets import DataError, Dataset, one_class_split
from deepsvdd_jax.datasets.labelled import labelled_count


def _dataset(per_class: int = 1000, classes: int = 10) -> Dataset:
    labels = np.tile(np.arange(classes), per_class)
    images = np.arange(len(labels), dtype=np.float32).reshape(-1, 1, 1, 1)
    names = tuple(map(str, range(classes)))
    return Dataset(
        name="made",
        x_train=images,
        y_train=labels,
        x_test=images[:100],
        y_test=labels[:100],
        class_names=names,
    )


# Of 1000 normals, by hand: unlabelled anomalies p / (1 - p) * 1000, labelled ones r / (1 - r) of
# both kinds of unlabelled images.
@pytest.mark.parametrize(
    ("ratio", "pollution", "unlabelled_anomalies", "labelled"),
    [
        (0.0, 0.0, 0, 0),
        (0.01, 0.0, 0, 10),
        (0.05, 0.0, 0, 53),
        (0.1, 0.1, 111, 123),
        (0.2, 0.05, 53, 263),
    ],
)
def test_counts(ratio: float, pollution: float, unlabelled_anomalies: int, labelled: int) -> None:
    data = _dataset()
    split = one_class_split(
        data,
        3,
        outlier_fraction=pollution,
        known_anomalous_classes=(7,),
        labelled_ratio=ratio,
    )
    labels = data.y_train[split.train_indices]
    assert np.sum(labels == 3) == 1000
    assert np.sum(labels != 3) == unlabelled_anomalies
    assert len(split.known_anomalies) == labelled
    assert set(data.y_train[split.known_anomalies]) <= {7}
    assert not set(split.known_anomalies) & set(split.train_indices)
    assert np.all(np.diff(split.known_anomalies) > 0)


def test_shares_are_what_was_asked_for() -> None:
    split = one_class_split(_dataset(), 0, outlier_fraction=0.1, labelled_ratio=0.2)
    labelled, unlabelled = len(split.known_anomalies), len(split.train_indices)
    assert labelled / (labelled + unlabelled) == pytest.approx(0.2, abs=1e-3)
    assert (unlabelled - 1000) / unlabelled == pytest.approx(0.1, abs=1e-3)


def test_all_anomalous_classes_are_known_by_default_and_seeds_differ() -> None:
    data = _dataset()
    first = one_class_split(data, 0, labelled_ratio=0.1, seed=0)
    second = one_class_split(data, 0, labelled_ratio=0.1, seed=1)
    assert set(data.y_train[first.known_anomalies]) == set(range(1, 10))
    assert set(first.known_anomalies) != set(second.known_anomalies)


def test_labels_leave_the_unlabelled_images_alone() -> None:
    data = _dataset()
    without = one_class_split(data, 0, outlier_fraction=0.1)
    with_labels = one_class_split(data, 0, outlier_fraction=0.1, labelled_ratio=0.1)
    np.testing.assert_array_equal(without.train_indices, with_labels.train_indices)
    np.testing.assert_array_equal(without.test_indices, with_labels.test_indices)


def test_the_known_class_is_tested_too() -> None:
    data = _dataset()
    split = one_class_split(data, 0, known_anomalous_classes=(4,), labelled_ratio=0.05)
    assert set(data.y_test[split.test_indices]) == set(range(10))


@pytest.mark.parametrize("ratio", [-0.1, 1.0, float("nan")])
def test_a_ratio_outside_the_interval_is_refused(ratio: float) -> None:
    with pytest.raises(DataError, match="labelled_ratio"):
        labelled_count(10, ratio)
    with pytest.raises(ConfigError, match="labelled_ratio"):
        SplitConfig(labelled_ratio=ratio)


@pytest.mark.parametrize(
    ("known", "message"), [((0,), "class 0 is normal"), ((10,), "class 10 does not exist")]
)
def test_a_class_that_cannot_be_known_is_refused(known: tuple[int, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        one_class_split(_dataset(20), 0, known_anomalous_classes=known, labelled_ratio=0.1)


def test_too_few_known_anomalies_are_named() -> None:
    # 20 normals at a ratio of 0.6 want 30 of the 20 images of class 4.
    with pytest.raises(DataError, match="asks for 30 known anomalies .* there are 20 of 4; lower"):
        one_class_split(_dataset(20), 0, known_anomalous_classes=(4,), labelled_ratio=0.6)


def test_known_classes_without_a_ratio_are_refused() -> None:
    with pytest.raises(ConfigError, match="needs a labelled_ratio"):
        SplitConfig(known_anomalous_classes=(1,))
