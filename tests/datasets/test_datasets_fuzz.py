"""No parser lets anything but a DataError out, whatever the bytes."""

import contextlib
import gzip
import io
import tarfile
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from deepsvdd_jax.datasets import DataError
from deepsvdd_jax.datasets.archives import tar_files
from deepsvdd_jax.datasets.arrays import parse_npy, read_npz
from deepsvdd_jax.datasets.cifar import parse_cifar_names, parse_cifar_records
from deepsvdd_jax.datasets.gtsrb import parse_gtsrb_annotations
from deepsvdd_jax.datasets.idx import parse_idx, read_idx
from deepsvdd_jax.datasets.images import decode_image
from deepsvdd_jax.datasets.tables import parse_csv

fuzz = settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def image_bytes(name):
    stream = io.BytesIO()
    pixels = np.arange(16 * 16 * 3, dtype=np.uint32).astype(np.uint8).reshape(16, 16, 3)
    Image.fromarray(pixels).save(stream, name)
    return stream.getvalue()


def npy_bytes():
    stream = io.BytesIO()
    np.save(stream, np.arange(12.0).reshape(3, 4))
    return stream.getvalue()


def npz_bytes():
    stream = io.BytesIO()
    np.savez_compressed(stream, x_train=np.arange(12.0).reshape(3, 4))
    return stream.getvalue()


def tar_bytes(pack_format):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=pack_format) as archive:
        for name in ("a" * 120 + "/é", "b"):
            member = tarfile.TarInfo(name)
            member.size = 700
            archive.addfile(member, io.BytesIO(bytes(700)))
    return stream.getvalue()[:6000]


def idx_bytes():
    return b"\x00\x00\x08\x03" + b"".join(n.to_bytes(4, "big") for n in (2, 3, 4)) + bytes(24)


def mutations(original):
    """Strategies over damaged copies of a valid file, and over arbitrary bytes."""
    edits = st.lists(st.tuples(st.integers(0, len(original) - 1), st.integers(0, 255)), max_size=8)

    def damage(edits, end):
        data = bytearray(original)
        for position, value in edits:
            data[position] = value
        return bytes(data[:end])

    return st.one_of(
        st.builds(damage, edits, st.integers(0, len(original))),
        st.builds(damage, edits, st.just(len(original))),
        st.binary(max_size=300),
        st.binary(max_size=100).map(lambda tail: original[:8] + tail),
    )


def only_data_errors(function, *arguments):
    with contextlib.suppress(DataError):
        function(*arguments)


@fuzz
@given(mutations(idx_bytes()))
def test_idx(data):
    only_data_errors(parse_idx, data, "source")


@fuzz
@given(mutations(gzip.compress(idx_bytes())))
def test_idx_file(tmp_path, data):
    path = tmp_path / "file"
    path.write_bytes(data)
    only_data_errors(read_idx, path)


@fuzz
@given(st.binary(max_size=100) | st.binary(min_size=3073, max_size=3073))
def test_cifar(data):
    only_data_errors(parse_cifar_records, data, "source")
    only_data_errors(parse_cifar_names, data, "source")


ROW = b"Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId\na.ppm;9;9;1;2;3;4;5\n"


@fuzz
@given(mutations(ROW))
def test_gtsrb_annotations(data):
    only_data_errors(parse_gtsrb_annotations, data.decode("utf-8", "replace"), "source")


@fuzz
@given(mutations(b'a,"b",label\n1,2.5,0\n3,4,1\n'))
def test_csv(data):
    only_data_errors(parse_csv, data.decode("utf-8", "replace"), "source")


@fuzz
@given(mutations(npy_bytes()))
def test_npy(data):
    only_data_errors(parse_npy, data, "source")


@fuzz
@given(mutations(npz_bytes()))
def test_npz(tmp_path, data):
    path = tmp_path / "file.npz"
    path.write_bytes(data)
    only_data_errors(read_npz, path)


@pytest.mark.parametrize("name", ["png", "jpeg", "bmp", "gif", "tiff", "ppm", "webp"])
def test_images(name):
    @settings(fuzz, max_examples=25)
    @given(mutations(image_bytes(name)))
    def check(data):
        only_data_errors(decode_image, data, "source", (8, 8), 3)

    check()


@pytest.mark.parametrize("pack_format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_tar(tmp_path, pack_format):
    path = tmp_path / "file.tar"

    @settings(fuzz, max_examples=25)
    @given(mutations(tar_bytes(pack_format)))
    def check(data):
        path.write_bytes(data)
        only_data_errors(lambda: list(tar_files(path, lambda name: True)))

    check()


def test_the_valid_files_that_are_damaged_above_are_valid(tmp_path):
    assert parse_idx(idx_bytes(), "").shape == (2, 3, 4)
    assert len(parse_gtsrb_annotations(ROW.decode(), "")) == 1
    assert parse_npy(npy_bytes(), "").shape == (3, 4)
    assert zipfile.is_zipfile(io.BytesIO(npz_bytes()))
    path = tmp_path / "a.tar"
    path.write_bytes(tar_bytes(tarfile.PAX_FORMAT))
    assert len(list(tar_files(path, lambda name: True))) == 2
    assert decode_image(image_bytes("webp"), "").shape == (16, 16, 3)
