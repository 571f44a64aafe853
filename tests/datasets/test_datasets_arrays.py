import io
import zipfile

import numpy as np
import pytest

from deepsvdd_jax.configs import DataConfig
from deepsvdd_jax.datasets import load, one_class_split
from deepsvdd_jax.datasets.arrays import parse_npy
from deepsvdd_jax.io import npz

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 4, 5), np.uint8)


@pytest.fixture
def save(tmp_path):
    def write(**values):
        path = tmp_path / "data.npz"
        np.savez_compressed(path, **values)
        return DataConfig("npz", str(path))

    return write


def test_without_training_labels_zero_is_normal_and_the_rest_anomalous(save):
    dataset = load(save(x_train=IMAGES, x_test=IMAGES[:3], y_test=[0, -1, 5], other=[1]))
    np.testing.assert_array_equal(dataset.x_train, IMAGES[..., None])
    assert dataset.x_train.dtype == np.uint8
    np.testing.assert_array_equal(dataset.y_train, np.zeros(6))
    assert dataset.class_names == ("normal", "anomalous")
    np.testing.assert_array_equal(one_class_split(dataset, 0).test_labels, [0, 1, 1])


def test_training_labels_are_classes(save):
    y_train = [2, 0, 2, 0, 0, 2]
    dataset = load(save(x_train=IMAGES, y_train=y_train, x_test=IMAGES[:2], y_test=[3.0, 0.0]))
    np.testing.assert_array_equal(dataset.y_train, y_train)
    np.testing.assert_array_equal(dataset.y_test, [3, 0])
    assert dataset.class_names == ("0", "1", "2", "3")
    assert dataset.y_test.dtype == np.int64


def test_x_and_y_are_split_every_fifth(save):
    x = np.arange(22, dtype=np.float64).reshape(11, 2)
    dataset = load(save(x=x, y=[0, 1, 0, 0, 0, 0, 1, 1, 1, 1, 1]))
    np.testing.assert_array_equal(dataset.x_test, x[[5, 9]])
    assert dataset.x_train.shape == (9, 2) and dataset.x_train.dtype == np.float64


def test_a_test_part_may_be_left_out(save):
    dataset = load(save(x_train=IMAGES))
    assert dataset.x_test.shape == (0, 4, 5, 1)
    assert one_class_split(dataset, 0, require_test=False).train_indices.size == 6


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("f8", np.float64), (">f8", np.float64), (">f4", np.float32), ("f2", np.float32), ("?", "f4")],
)
def test_other_types_become_floats_that_hold_their_values(save, dtype, expected):
    x = (IMAGES / 7 if np.dtype(dtype).kind == "f" else IMAGES % 7).astype(dtype)
    dataset = load(save(x_train=x))
    assert dataset.x_train.dtype == expected and dataset.x_train.dtype.isnative
    np.testing.assert_array_equal(dataset.x_train[..., 0], x.astype(np.float64))


@pytest.mark.parametrize("dtype", ["f8", "i8", "u8", "i4"])
def test_rows_keep_digits_that_float32_has_not(save, dtype):
    x = np.array([[16_777_217, 1], [2_000_000_001, 2]], dtype)
    dataset = load(save(x_train=x, x_test=x.astype(np.float32), y_test=[0, 1]))
    assert dataset.x_train.tolist() == [[16_777_217.0, 1.0], [2_000_000_001.0, 2.0]]
    assert dataset.x_test[0, 0] == 16_777_216


@pytest.mark.parametrize("dtype", ["i2", "u2", "i8"])
def test_whole_numbers_are_grey_levels_as_bytes_are(save, dtype):
    x = IMAGES.astype(dtype)
    dataset = load(save(x_train=x))
    assert dataset.x_train.dtype == (np.float64 if dtype == "i8" else np.float32)
    np.testing.assert_allclose(dataset.x_train[..., 0], x / 255.0, rtol=1e-6)


def test_rows_of_bytes_are_tabular_and_float32(save):
    dataset = load(save(x_train=IMAGES[0]))
    assert dataset.x_train.shape == (4, 5) and dataset.x_train.dtype == np.float32


def test_fortran_order_is_kept_apart(save):
    x = np.asfortranarray(np.arange(24.0).reshape(2, 3, 4))
    np.testing.assert_array_equal(load(save(x_train=x)).x_train[..., 0], x)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_named(save, bad, refuses):
    x = np.ones((3, 4, 5))
    x[1, 2, 3] = bad
    refuses(["x_train", "(1, 2, 3)", str(bad)], load, save(x_train=x))


@pytest.mark.parametrize(
    "values, words",
    [
        ({"other": IMAGES}, ["none of the arrays", "x_train"]),
        ({"x_test": IMAGES, "y_test": np.zeros(6)}, ["x_train"]),
        ({"x": IMAGES}, ["x_train", "x and y"]),
        ({"x_train": IMAGES, "x_test": IMAGES}, ["y_test is missing"]),
        ({"x_train": IMAGES, "y_test": np.zeros(6)}, ["x_test is missing"]),
        ({"x_train": np.zeros(3)}, ["x_train", "(3,)"]),
        ({"x_train": np.zeros((0, 3))}, ["x_train", "(0, 3)"]),
        ({"x_train": np.zeros((2, 3, 32, 32))}, ["channels first", "moveaxis"]),
        ({"x_train": IMAGES, "y_train": np.zeros(5)}, ["y_train", "(5,)", "(6,)"]),
        ({"x_train": IMAGES, "y_train": np.full(6, 0.5)}, ["y_train", "0.5"]),
        ({"x_train": IMAGES, "y_train": np.full(6, -1)}, ["y_train", "-1"]),
        ({"x_train": IMAGES, "x_test": IMAGES[:, :3], "y_test": np.zeros(6)}, ["(3, 5, 1)"]),
        ({"x_train": IMAGES, "x_test": IMAGES / 255, "y_test": np.zeros(6)}, ["float64", "uint8"]),
        ({"x_train": IMAGES, "x_test": IMAGES, "y_test": list("abcdef")}, ["y_test", "type <U1"]),
        ({"x_train": np.array([{}, None])}, ["x_train", "pickled"]),
        ({"x_train": np.zeros((2, 2), complex)}, ["x_train", "complex128"]),
        ({"x_train": np.zeros((2, 2), "M8[s]")}, ["x_train", "datetime64"]),
    ],
)
def test_refusals(save, values, words, refuses):
    refuses(words, load, save(**values))


def test_missing_and_foreign_files(tmp_path, refuses):
    refuses(["--data_dir"], load, DataConfig("npz"))
    refuses(["none.npz", "not found"], load, DataConfig("npz", str(tmp_path / "none.npz")))
    path = tmp_path / "a.npz"
    for data in (b"", b"PK\x03\x04 and no more", bytes(100)):
        path.write_bytes(data)
        refuses(["a.npz"], load, DataConfig("npz", str(path)))


def npy_header(shape, dtype="|u1"):
    stream = io.BytesIO()
    description = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, description)
    return stream.getvalue()


def test_a_header_that_promises_gigabytes_is_refused_before_memory_is_spent(tmp_path, refuses):
    import tracemalloc

    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x_train.npy", npy_header((10_000, 1000, 1000)) + bytes(100))
    tracemalloc.start()
    refuses(["x_train", "promises 10000000000"], load, DataConfig("npz", str(path)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


def test_a_directory_that_lies_about_a_members_size_costs_no_memory(tmp_path, refuses):
    path = tmp_path / "a.npz"
    header = npy_header((1000, 1000, 1000))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x_train.npy", header + bytes(100))
    claimed = (len(header) + 1_000_000_000).to_bytes(4, "little")
    real = (len(header) + 100).to_bytes(4, "little")
    data = path.read_bytes()
    assert data.count(real) == 4
    path.write_bytes(data.replace(real, claimed))
    refuses(["a.npz"], load, DataConfig("npz", str(path)))


def test_an_array_beyond_the_limit_is_refused(save, monkeypatch, refuses):
    monkeypatch.setattr(npz, "MAX_BYTES", 100)
    refuses(["x_train", "at most 100"], load, save(x_train=IMAGES))


@pytest.mark.parametrize("cut", [0, 3, 20, 90, -1])
def test_truncated_members_are_refused(cut, refuses):
    data = npy_header((10,)) + bytes(10)
    assert parse_npy(data, "").shape == (10,)
    refuses(["a.npy"], parse_npy, data[:cut], "a.npy")


def test_negative_sides_are_refused(refuses):
    refuses(["a.npy"], parse_npy, npy_header((-2, -3)) + bytes(6), "a.npy")


def test_members_packed_in_a_way_that_numpy_never_writes_are_refused(tmp_path, refuses):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("x_train.npy", npy_header((10, 10)) + bytes(100))
    refuses(["a.npz", "x_train"], load, DataConfig("npz", str(path)))


def test_the_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    np.savez(tmp_path / "a.npz", x_train=IMAGES)
    assert len(load(DataConfig("npz", "~/a.npz")).x_train) == 6
