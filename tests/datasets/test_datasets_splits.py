import numpy as np
import pytest

from deepsvdd_jax.configs import DataConfig
from deepsvdd_jax.datasets import LOADERS, DataError, Dataset, load, one_class_split
from deepsvdd_jax.datasets.dataset import class_labels, every_fifth

Y_TRAIN = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 0, 0])
Y_TEST = np.array([2, 0, 1, 0, 2])


@pytest.fixture
def three() -> Dataset:
    x_train = np.zeros((12, 2, 2, 1), np.uint8)
    return Dataset(
        name="three",
        x_train=x_train,
        y_train=Y_TRAIN,
        x_test=x_train[:5],
        y_test=Y_TEST,
        class_names=("zero", "one", "two", "none"),
    )


def test_one_vs_rest_takes_the_class_and_labels_the_others(three):
    split = one_class_split(three, 0)
    np.testing.assert_array_equal(split.train_indices, [0, 3, 6, 9, 10, 11])
    np.testing.assert_array_equal(split.test_indices, [0, 1, 2, 3, 4])
    np.testing.assert_array_equal(split.test_labels, [1, 0, 1, 0, 1])
    assert split.train_indices.dtype == split.validation_indices.dtype == np.int32
    assert split.test_indices.dtype == np.int32
    assert split.test_labels.dtype == np.uint8


def test_rest_vs_one_takes_the_others_and_labels_the_class(three):
    split = one_class_split(three, 1, "rest-vs-one")
    np.testing.assert_array_equal(split.train_indices, [0, 2, 3, 5, 6, 8, 9, 10, 11])
    np.testing.assert_array_equal(split.test_labels, [0, 0, 1, 0, 0])


def test_anomalous_classes_restrict_the_test_set_and_keep_its_order(three):
    split = one_class_split(three, 0, anomalous_classes=(2,))
    np.testing.assert_array_equal(split.test_indices, [0, 1, 3, 4])
    np.testing.assert_array_equal(split.test_labels, [1, 0, 0, 1])


@pytest.mark.parametrize("fraction, expected", [(0.0, 0), (0.25, 2), (0.4, 4), (0.5, 6)])
def test_pollution_makes_up_the_fraction_of_the_training_set(three, fraction, expected):
    split = one_class_split(three, 0, outlier_fraction=fraction)
    labels = Y_TRAIN[split.train_indices]
    assert (labels == 0).sum() == 6
    assert (labels != 0).sum() == expected
    assert np.unique(split.train_indices).size == split.train_indices.size


def test_pollution_draws_only_from_the_anomalous_classes(three):
    split = one_class_split(three, 0, anomalous_classes=(2,), outlier_fraction=0.3)
    polluting = Y_TRAIN[split.train_indices]
    assert sorted(polluting[polluting != 0]) == [2, 2, 2]


def test_validation_is_disjoint_normal_and_deterministic(three):
    first = one_class_split(three, 0, validation_fraction=0.5, outlier_fraction=0.25, seed=3)
    again = one_class_split(three, 0, validation_fraction=0.5, outlier_fraction=0.25, seed=3)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert first.validation_indices.size == 3
    assert (Y_TRAIN[first.validation_indices] == 0).all()
    assert not set(first.validation_indices) & set(first.train_indices)
    assert first.train_indices.size == 3 + 1
    others = [one_class_split(three, 0, validation_fraction=0.5, seed=s) for s in range(20)]
    assert len({tuple(split.validation_indices) for split in others}) > 1
    np.testing.assert_array_equal(first.validation_indices, others[3].validation_indices)


@pytest.mark.parametrize(
    "words, arguments",
    [
        (["class 7", "0 to 3"], {"normal_class": 7}),
        (["class -1", "0 to 3"], {"normal_class": -1}),
        (["class 9", "0 to 3"], {"normal_class": 0, "anomalous_classes": (9,)}),
        (["class 0 is normal"], {"normal_class": 0, "anomalous_classes": (0, 1)}),
        (
            ["class 2 is normal"],
            {"normal_class": 0, "protocol": "rest-vs-one", "anomalous_classes": (2,)},
        ),
        (["no training images", "3 (none)", "0 (zero)"], {"normal_class": 3}),
        (["no anomalous test images"], {"normal_class": 0, "anomalous_classes": (3,)}),
        (["one-vs-all", "one-vs-rest"], {"normal_class": 0, "protocol": "one-vs-all"}),
        (["outlier_fraction", "1.0"], {"normal_class": 0, "outlier_fraction": 1.0}),
        (["outlier_fraction", "nan"], {"normal_class": 0, "outlier_fraction": float("nan")}),
        (["validation_fraction", "-0.1"], {"normal_class": 0, "validation_fraction": -0.1}),
        (["24 anomalies", "there are 6"], {"normal_class": 0, "outlier_fraction": 0.8}),
        (["nothing to train on"], {"normal_class": 0, "validation_fraction": 0.99}),
        (["seed"], {"normal_class": 0, "seed": -1}),
    ],
)
def test_refusals(three, refuses, words, arguments):
    refuses(words, one_class_split, three, **arguments)


def test_a_missing_test_set_is_refused_unless_allowed(three, refuses):
    empty = three._replace(x_test=three.x_test[:0], y_test=three.y_test[:0])
    refuses(["no normal test images"], one_class_split, empty, 0)
    split = one_class_split(empty, 0, require_test=False)
    assert split.test_indices.size == 0 and split.train_indices.size == 6


def test_every_fifth_takes_the_fifth_of_each_class_in_file_order():
    labels = np.array([0, 1, 0, 0, 0, 0, 1, 1, 1, 1, 1])
    train, test = every_fifth(labels)
    np.testing.assert_array_equal(test, [5, 9])
    np.testing.assert_array_equal(train, [0, 1, 2, 3, 4, 6, 7, 8, 10])


@pytest.mark.parametrize(
    "values", [[0.5, 1.0], [-1.0, 0.0], [np.nan, 0.0], [np.inf, 0.0], [1e6, 0.0], [0.0]]
)
def test_class_labels_refuses_what_is_no_class(values, refuses):
    refuses(["here", "label"], class_labels, np.array(values), 2, "here")


def test_digits_keeps_all_images_and_scales_their_intensity():
    from sklearn.datasets import load_digits

    dataset = load(DataConfig("digits"))
    original = load_digits()
    assert dataset.x_train.shape == (1442, 8, 8, 1) and dataset.x_test.shape == (355, 8, 8, 1)
    assert dataset.x_train.dtype == np.uint8 and dataset.y_train.dtype == np.int64
    for digit in range(10):
        images = original.images[original.target == digit] / 16
        expected = np.delete(images, np.s_[4::5], axis=0)
        found = dataset.x_train[dataset.y_train == digit][..., 0] / 255
        np.testing.assert_allclose(found, expected, atol=0.5 / 255 + 1e-12)


def test_an_unknown_name_lists_the_known_ones(refuses):
    config = DataConfig()
    object.__setattr__(config, "name", "svhn")
    refuses(["svhn", *LOADERS], load, config)


def test_messages_stay_on_one_line():
    assert str(DataError("a\nb\r\nc")) == "a b c"
