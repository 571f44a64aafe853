"""npz files: what comes in comes out, and nothing else comes in."""

import io

import numpy as np
import pytest

from deepsvdd_jax.io import npz
from deepsvdd_jax.io.npz import NpzError

ARRAYS: dict[str, np.ndarray] = {
    "a/b": np.arange(6.0).reshape(2, 3),
    "none": np.zeros((0, 4), np.float32),
    "one": np.array(True),
    "fortran": np.asfortranarray(np.arange(6, dtype=">i2").reshape(2, 3)),
}


def read(data: bytes, **settings: object) -> dict[str, np.ndarray]:
    return npz.read_npz(io.BytesIO(data), **settings)  # type: ignore[arg-type]


def test_arrays_come_back() -> None:
    found = read(npz.npz_bytes(ARRAYS))
    assert list(found) == list(ARRAYS)
    for name, values in ARRAYS.items():
        np.testing.assert_array_equal(found[name], values)
        assert found[name].dtype == values.dtype.newbyteorder("=") and found[name].flags.writeable


def test_only_what_is_asked_for_is_read() -> None:
    data = npz.npz_bytes({**ARRAYS, "pickled": np.array([{}])})
    assert list(read(data, names=("one", "gone", "a/b"))) == ["one", "a/b"]
    with pytest.raises(NpzError, match="pickled: pickled objects are refused"):
        read(data)


def test_text_is_read_where_it_is_allowed() -> None:
    data = npz.npz_bytes({"words": np.array(["über", "x"])})
    with pytest.raises(NpzError, match="words: type <U4"):
        read(data)
    assert read(data, kinds=npz.NUMBERS + npz.TEXT)["words"].tolist() == ["über", "x"]


def test_the_limit_is_one_of_all_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    data = npz.npz_bytes({"a": np.zeros(60, np.uint8), "b": np.zeros(60, np.uint8)})
    monkeypatch.setattr(npz, "MAX_BYTES", 120)
    assert len(read(data)) == 2
    monkeypatch.setattr(npz, "MAX_BYTES", 119)
    with pytest.raises(NpzError, match="b: 60 bytes, at most 119 are read of a file"):
        read(data)


@pytest.mark.parametrize("place", ["member", "directory"])
def test_a_flipped_byte_is_seen(place: str) -> None:
    data = bytearray(npz.npz_bytes({"a": np.zeros(1000, np.uint8)}))
    data[-30 if place == "directory" else 600] ^= 1
    with pytest.raises(NpzError):
        read(bytes(data))
