"""The adversarial examples on toy signs: a bright quarter, the class says which."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepsvdd_jax.cli.adversarial import arrays, configs
from deepsvdd_jax.cli.adversarial import attack as adversarial
from deepsvdd_jax.cli.adversarial.attack import (
    Adversarials,
    generate_adversarials,
    l2_distances,
    rounded,
)
from deepsvdd_jax.cli.adversarial.classifier import logits, predict, train_classifier
from deepsvdd_jax.io import atomic

STOP = 1
SIDE = 16
CONFIG = configs.ClassifierConfig(epochs=3, batch_size=16, stop_class=STOP)


def toy_signs(count, seed):
    """Images whose class is the quarter (of three) that is bright, with noise."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    images = generator.integers(0, 90, (count, SIDE, SIDE, 3))
    half = SIDE // 2
    for image, label in zip(images, labels, strict=True):
        row, column = divmod(int(label), 2)
        image[row * half : (row + 1) * half, column * half : (column + 1) * half] += 120
    return images.astype(np.uint8), labels


@pytest.fixture(scope="module")
def toy():
    return (*toy_signs(192, seed=0), *toy_signs(60, seed=1))


@pytest.fixture(scope="module")
def classifier(toy):
    return train_classifier(CONFIG, *toy, seed=0)


@pytest.fixture(scope="module")
def made(toy, classifier):
    pytest.importorskip("foolbox", reason="the Boundary Attack needs Foolbox")
    return generate(toy, classifier)


def generate(toy, classifier, progress=None, **settings):
    x_train, y_train, x_test, y_test = toy
    config = configs.AttackConfig(**({"count": 4, "steps": 40, "candidates": 5} | settings))
    stops, others = x_test[y_test == STOP], x_train[y_train != STOP]
    return generate_adversarials(config, classifier, stops, others, progress)


def hand_made():
    generator = np.random.default_rng(0)
    originals = generator.integers(0, 256, (3, 8, 8, 3)).astype(np.uint8)
    images = originals.copy()
    images[:, 0, 0, 0] = 255 - originals[:, 0, 0, 0]
    return Adversarials(
        images=images,
        originals=originals,
        original_indices=np.array([5, 0, 2]),
        distances_l2=l2_distances(images, originals),
        predicted=np.array([1, 2, 3]),
        success=np.array([True, True, True]),
    )


# --- classifier ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_classifier_learns_separable_signs(toy, classifier):
    _, _, x_test, y_test = toy
    assert classifier.test_accuracy == pytest.approx(np.mean(predict(classifier, x_test) == y_test))
    assert classifier.test_accuracy > 0.95
    assert classifier.stop_accuracy > 0.95


def test_logits_of_scaled_pixels_agree_with_predict(toy, classifier):
    images = toy[2]
    outputs = jax.jit(logits)(classifier.params, jnp.asarray(images, jnp.float32) / 255)
    assert outputs.shape == (60, 3)
    np.testing.assert_array_equal(np.argmax(outputs, 1), predict(classifier, images))


def test_training_is_a_function_of_the_seed_and_reports_epochs(toy, classifier):
    seen = []
    again = train_classifier(CONFIG, *toy, seed=0, progress=lambda *args: seen.append(args))
    other = train_classifier(CONFIG, *toy, seed=1)
    assert seen == [(1, 3), (2, 3), (3, 3)]
    np.testing.assert_array_equal(classifier.params[0].kernel, again.params[0].kernel)
    assert not np.array_equal(classifier.params[0].kernel, other.params[0].kernel)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x.astype(np.float32), y), "training images: float32"),
        (lambda x, y: (x[:, :4], y), "at least 8 a side"),
        (lambda x, y: (x, y[:-1]), "one whole number for each"),
        (lambda x, y: (x, np.zeros_like(y)), "class 1, which is to be attacked, is missing"),
        (lambda x, y: (x, y - 1), "class 1|negative"),
    ],
)
def test_unusable_training_data_is_named(toy, change, message):
    x_train, y_train, x_test, y_test = toy
    with pytest.raises(ValueError, match=message) as caught:
        train_classifier(CONFIG, *change(x_train, y_train), x_test, y_test, seed=0)
    assert "\n" not in str(caught.value)


# --- attack -------------------------------------------------------------------------------------


def test_adversarials_are_misclassified_as_stored(toy, classifier, made):
    stops = toy[2][toy[3] == STOP]
    assert made.images.dtype == np.uint8 and made.images.shape == (4, SIDE, SIDE, 3)
    np.testing.assert_array_equal(made.originals, stops[made.original_indices])
    assert len(set(made.original_indices.tolist())) == 4
    scores = np.asarray(logits(classifier.params, made.images.astype(np.float32) / 255))
    np.testing.assert_array_equal(scores.argmax(1), made.predicted)
    assert (made.predicted != STOP).all() and made.success.all()
    assert (predict(classifier, made.originals) == STOP).all()


def test_distances_are_those_of_the_stored_images(made):
    for image, original, distance in zip(
        made.images, made.originals, made.distances_l2, strict=True
    ):
        total = sum(
            ((int(a) - int(b)) / 255) ** 2
            for a, b in zip(image.ravel(), original.ravel(), strict=True)
        )
        assert distance == pytest.approx(total**0.5, rel=1e-12)


def test_starting_point_is_nearer_than_every_starting_image(toy, classifier, made):
    others = toy[0][toy[1] != STOP]
    for original, distance in zip(made.originals, made.distances_l2, strict=True):
        assert distance < l2_distances(others, original[None]).min()


def test_attack_is_a_function_of_the_seed_and_leaves_numpys_generator(toy, classifier, made):
    np.random.seed(7)
    expected = np.random.random()
    np.random.seed(7)
    again = generate(toy, classifier)
    assert np.random.random() == expected
    for first, second in zip(made, again, strict=True):
        np.testing.assert_array_equal(first, second)
    assert not np.array_equal(made.images, generate(toy, classifier, seed=1).images)


def test_progress_counts_queries(toy, classifier, made):
    seen = []
    generate(toy, classifier, lambda *args: seen.append(args))
    assert seen == [(query, 45) for query in range(1, 46)]


def test_examples_that_do_not_survive_storing_are_replaced(toy, classifier, made, monkeypatch):
    attack_all, calls = adversarial.attack_all, []

    def spoilt(foolbox, config, classifier, images, *rest):
        found = attack_all(foolbox, config, classifier, images, *rest)
        calls.append(len(images))
        if len(calls) == 1:
            found[1] = images[1]
        return found

    monkeypatch.setattr(adversarial, "attack_all", spoilt)
    replaced = generate(toy, classifier)
    assert calls == [4, 1]
    assert replaced.success.all() and len(set(replaced.original_indices.tolist())) == 4
    np.testing.assert_array_equal(replaced.original_indices[0], made.original_indices[0])
    assert made.original_indices[1] not in replaced.original_indices


def test_too_few_images_are_an_error(toy, classifier, made):
    with pytest.raises(ValueError, match="20 adversarial examples found, 21 wanted: only 20 of 20"):
        generate(toy, classifier, count=21, steps=1)


def test_rounding_is_the_same_in_both_precisions():
    halves = (np.arange(255, dtype=np.float32) + np.float32(0.5)) / np.float32(255)
    np.testing.assert_array_equal(rounded(halves), rounded(halves.astype(np.float64)))


def test_starting_images_of_the_attacked_class_are_an_error(toy, classifier, made):
    stops = toy[2][toy[3] == STOP]
    with pytest.raises(ValueError, match="no starting image"):
        generate_adversarials(configs.AttackConfig(count=1, steps=1), classifier, stops, stops)


def test_missing_extra_says_how_to_install_it(toy, classifier, monkeypatch):
    monkeypatch.setitem(sys.modules, "foolbox", None)
    with pytest.raises(ImportError, match=r"pip install 'deepsvdd_jax\[adversarial\]'") as caught:
        generate(toy, classifier)
    assert "\n" not in str(caught.value)


# --- settings and files -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (configs.ClassifierConfig, {"epochs": 0}),
        (configs.ClassifierConfig, {"batch_size": 0}),
        (configs.ClassifierConfig, {"learning_rate": float("nan")}),
        (configs.ClassifierConfig, {"dropout": 1.0}),
        (configs.ClassifierConfig, {"shift": -1}),
        (configs.ClassifierConfig, {"stop_class": -1}),
        (configs.AttackConfig, {"count": 0}),
        (configs.AttackConfig, {"steps": 0}),
        (configs.AttackConfig, {"spherical_step": 0.0}),
        (configs.AttackConfig, {"source_step": float("inf")}),
        (configs.AttackConfig, {"candidates": 0}),
        (configs.AttackConfig, {"seed": 2**32}),
    ],
)
def test_bad_settings_are_named(kind, settings):
    (name,) = settings
    with pytest.raises(ValueError, match=f"^{name} is .*; it must") as caught:
        kind(**settings)
    assert "\n" not in str(caught.value)


def test_l2_distance_of_one_changed_pixel():
    images = np.zeros((2, 8, 8, 3), np.uint8)
    changed = images.copy()
    changed[0, 0, 0] = (51, 102, 102)
    np.testing.assert_allclose(l2_distances(images, changed), [0.6, 0.0], rtol=1e-12)


def test_saved_adversarials_come_back(tmp_path):
    pytest.importorskip("matplotlib")
    examples = hand_made()
    arrays.save_adversarials(tmp_path / "new" / "folder", examples)
    folder = tmp_path / "new" / "folder"
    assert sorted(path.name for path in folder.iterdir()) == [
        "adversarials.npz",
        "adversarials.png",
    ]
    assert (folder / "adversarials.png").read_bytes().startswith(b"\x89PNG")
    for saved, loaded in zip(examples, arrays.load_adversarials(folder), strict=True):
        np.testing.assert_array_equal(saved, loaded)
        assert saved.dtype == loaded.dtype


def test_interrupted_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    with pytest.raises(OSError, match="disk full"), atomic.writing(path) as file:
        file.write(b"half")
        raise OSError("disk full")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def _save_arrays(path, **changes):
    np.savez(path, **(hand_made()._asdict() | changes))


def _truncate(path):
    _save_arrays(path)
    path.write_bytes(path.read_bytes()[:-100])


def _flip_a_byte(path):
    _save_arrays(path)
    data = bytearray(path.read_bytes())
    data[300] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: None,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"PK\x03\x04 no archive"),
        _truncate,
        _flip_a_byte,
        lambda path: np.savez(path, images=hand_made().images),
        lambda path: _save_arrays(path, predicted=np.array([None] * 3, object)),
        lambda path: _save_arrays(path, predicted=np.zeros(2, np.int64)),
        lambda path: _save_arrays(path, images=np.zeros((3, 8, 8, 3), np.float32)),
        lambda path: _save_arrays(path, images=np.zeros((3, 8, 8), np.uint8)),
    ],
)
def test_damaged_file_is_one_line(tmp_path, damage):
    damage(tmp_path / "adversarials.npz")
    with pytest.raises(ValueError, match=r"adversarials\.npz: ") as caught:
        arrays.load_adversarials(tmp_path)
    assert "\n" not in str(caught.value)
