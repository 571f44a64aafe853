import gzip
import struct

import numpy as np
import pytest

from deepsvdd_jax.configs import DataConfig
from deepsvdd_jax.datasets import load
from deepsvdd_jax.datasets.idx import parse_idx, read_idx

FILES = {
    "train-images-idx3-ubyte": (6, 28, 28),
    "train-labels-idx1-ubyte": (6,),
    "t10k-images-idx3-ubyte": (3, 28, 28),
    "t10k-labels-idx1-ubyte": (3,),
}


def idx_bytes(array):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {
        name: rng.integers(0, 10 if len(shape) == 1 else 256, shape, np.uint8)
        for name, shape in FILES.items()
    }


def write(folder, arrays, compress=True, dotted=False):
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        if dotted:
            name = name.replace("-idx", ".idx")
        data = idx_bytes(array)
        path = folder / (name + ".gz" if compress else name)
        path.write_bytes(gzip.compress(data) if compress else data)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "kmnist"])
@pytest.mark.parametrize("own_folder", [True, False])
@pytest.mark.parametrize("compress, dotted", [(True, False), (False, False), (False, True)])
def test_the_four_files_become_a_data_set(tmp_path, arrays, name, own_folder, compress, dotted):
    write(tmp_path / name if own_folder else tmp_path, arrays, compress, dotted)
    dataset = load(DataConfig(name, str(tmp_path)))
    np.testing.assert_array_equal(dataset.x_train[..., 0], arrays["train-images-idx3-ubyte"])
    np.testing.assert_array_equal(dataset.y_train, arrays["train-labels-idx1-ubyte"])
    np.testing.assert_array_equal(dataset.x_test[..., 0], arrays["t10k-images-idx3-ubyte"])
    np.testing.assert_array_equal(dataset.y_test, arrays["t10k-labels-idx1-ubyte"])
    assert dataset.x_train.dtype == np.uint8 and dataset.y_train.dtype == np.int64
    assert len(dataset.class_names) == 10


def test_a_file_named_gz_that_is_not_compressed_is_read(tmp_path, arrays):
    write(tmp_path, arrays)
    plain = idx_bytes(arrays["t10k-labels-idx1-ubyte"])
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(plain)
    dataset = load(DataConfig("mnist", str(tmp_path)))
    np.testing.assert_array_equal(dataset.y_test, arrays["t10k-labels-idx1-ubyte"])


@pytest.mark.parametrize("missing", FILES)
def test_a_missing_file_is_named(tmp_path, arrays, missing, refuses):
    write(tmp_path, arrays)
    (tmp_path / f"{missing}.gz").unlink()
    refuses([missing, "not found"], load, DataConfig("mnist", str(tmp_path)))


def test_a_truncated_gzip_is_named(tmp_path, arrays, refuses):
    write(tmp_path, arrays)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-20])
    refuses([path.name, "truncated"], load, DataConfig("mnist", str(tmp_path)))


@pytest.mark.parametrize("position", [15, 100, -6])
def test_a_damaged_gzip_is_named(tmp_path, arrays, position, refuses):
    write(tmp_path, arrays)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    data = bytearray(path.read_bytes())
    data[position] ^= 0xFF
    path.write_bytes(data)
    refuses([path.name], load, DataConfig("mnist", str(tmp_path)))


@pytest.mark.parametrize(
    "name, array, words",
    [
        ("train-images-idx3-ubyte", np.zeros((6, 27, 28), np.uint8), ["(n, 28, 28)"]),
        ("train-images-idx3-ubyte", np.zeros((0, 28, 28), np.uint8), ["empty", "(0, 28, 28)"]),
        ("train-labels-idx1-ubyte", np.zeros((6, 1), np.uint8), ["(n,)"]),
        ("train-labels-idx1-ubyte", np.zeros(5, np.uint8), ["5 labels", "6 images"]),
        ("t10k-labels-idx1-ubyte", np.array([0, 10, 3], np.uint8), ["label 10", "0 to 9"]),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path, arrays, name, array, words, refuses):
    write(tmp_path, arrays | {name: array})
    refuses([name, *words], load, DataConfig("mnist", str(tmp_path)))


@pytest.mark.parametrize(
    "data, words",
    [
        (b"", ["truncated", "0 bytes"]),
        (b"\x00\x00\x08", ["truncated"]),
        (b"\x00\x00\x08\x03\x00\x00", ["truncated", "header"]),
        (b"\x89PNG\r\n\x1a\n", ["89504e47", "00000803"]),
        (b"\x00\x00\x0d\x01\x00\x00\x00\x00", ["00000d01"]),
        (b"\x00\x00\x08\x00", ["00000800"]),
        (b"\x00\x00\x08\xff" + bytes(2000), ["000008ff"]),
        (struct.pack(">BBBBI", 0, 0, 8, 1, 3) + b"ab", ["truncated", "3 bytes", "holds 2"]),
        (struct.pack(">BBBBI", 0, 0, 8, 1, 3) + b"abcd", ["too long", "3 bytes"]),
        (struct.pack(">BBBBI", 0, 0, 8, 1, 0), ["empty", "(0,)"]),
        # numpy's own "cannot reshape" for these sizes, whose product is 0 only in the end.
        (struct.pack(">BBBBIII", 0, 0, 8, 3, 255 << 24, 255 << 24, 0), ["empty", "4278190080"]),
    ],
)
def test_parse_idx_refusals(data, words, refuses):
    refuses(["some.idx", *words], parse_idx, data, "some.idx")


def test_parse_idx_reads_rows_last_dimension_fastest():
    data = struct.pack(">BBBBII", 0, 0, 8, 2, 2, 3) + bytes([1, 2, 3, 4, 5, 6])
    np.testing.assert_array_equal(parse_idx(data, ""), [[1, 2, 3], [4, 5, 6]])


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("count", [12_000_000, 1_000_000])
def test_a_header_that_promises_gigabytes_costs_no_memory(tmp_path, compress, count, refuses):
    import tracemalloc

    data = struct.pack(">BBBB3I", 0, 0, 8, 3, count, 28, 28) + bytes(1000)
    path = tmp_path / "huge"
    path.write_bytes(gzip.compress(data) if compress else data)
    tracemalloc.start()
    refuses(["huge", str(count * 784)], read_idx, path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


def test_a_gzip_bomb_is_read_no_further_than_its_header_promises(tmp_path, refuses):
    import tracemalloc

    data = struct.pack(">BBBBI", 0, 0, 8, 1, 10) + bytes(64 << 20)
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(data))
    tracemalloc.start()
    refuses(["bomb.gz", "too long"], read_idx, path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20
