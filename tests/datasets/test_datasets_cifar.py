import io
import tarfile

import numpy as np
import pytest

from deepsvdd_jax.configs import DataConfig
from deepsvdd_jax.datasets import load
from deepsvdd_jax.datasets.cifar import parse_cifar_names, parse_cifar_records
from deepsvdd_jax.datasets.formats import archives

PARTS = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
NAMES = b"a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n\n"


def make_files(count=2):
    rng = np.random.default_rng(0)
    files = {}
    for part in PARTS:
        records = rng.integers(0, 256, (count, 3073), np.uint8)
        records[:, 0] %= 10
        files[part] = records.tobytes()
    return files | {"batches.meta.txt": NAMES}


def write_tar(path, files, prefix="cifar-10-batches-bin/", extra=()):
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(prefix + name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        for member in extra:
            archive.addfile(member)


def write_folder(path, files):
    path.mkdir(parents=True)
    for name, data in files.items():
        (path / name).write_bytes(data)


@pytest.mark.parametrize(
    "place",
    [
        "cifar-10-binary.tar.gz",
        "cifar-10-binary.tar",
        "cifar10/cifar-10-binary.tar.gz",
        "cifar-10-batches-bin",
        "cifar10/cifar-10-batches-bin",
        "cifar10",
    ],
)
def test_archive_and_folder_give_rows_columns_channels(tmp_path, place):
    files = make_files()
    path = tmp_path / place
    path.parent.mkdir(exist_ok=True)
    if ".tar" in place:
        write_tar(path, files)
    else:
        write_folder(path, files)
    dataset = load(DataConfig("cifar10", str(tmp_path)))
    assert dataset.x_train.shape == (10, 32, 32, 3) and dataset.x_test.shape == (2, 32, 32, 3)
    assert dataset.class_names == tuple("abcdefghij")
    record = files["data_batch_3.bin"][3073:]
    assert dataset.y_train[5] == record[0]
    for row, column, channel in [(0, 0, 0), (3, 31, 1), (31, 7, 2)]:
        pixel = record[1 + channel * 1024 + row * 32 + column]
        assert dataset.x_train[5, row, column, channel] == pixel


def test_without_a_meta_file_the_known_names_serve(tmp_path):
    files = make_files()
    del files["batches.meta.txt"]
    write_tar(tmp_path / "cifar-10-binary.tar.gz", files, prefix="./cifar-10-batches-bin/")
    assert load(DataConfig("cifar10", str(tmp_path))).class_names[3] == "cat"


def test_a_missing_batch_is_named(tmp_path, refuses):
    files = make_files()
    del files["data_batch_4.bin"]
    write_tar(tmp_path / "cifar-10-binary.tar.gz", files)
    refuses(["data_batch_4.bin"], load, DataConfig("cifar10", str(tmp_path)))


def test_a_truncated_archive_is_named(tmp_path, refuses):
    path = tmp_path / "cifar-10-binary.tar.gz"
    write_tar(path, make_files())
    path.write_bytes(path.read_bytes()[:9000])
    refuses([path.name, "truncated"], load, DataConfig("cifar10", str(tmp_path)))


@pytest.mark.parametrize("data", [b"not a tar archive", b"\x1f\x8bnor gzip", b"", bytes(2000)])
def test_a_foreign_archive_is_named(tmp_path, data, refuses):
    path = tmp_path / "cifar-10-binary.tar.gz"
    path.write_bytes(data)
    refuses([path.name], load, DataConfig("cifar10", str(tmp_path)))


def special(name, kind=tarfile.SYMTYPE, target="/etc/passwd"):
    member = tarfile.TarInfo(name)
    member.type = kind
    member.linkname = target
    return member


@pytest.mark.parametrize(
    "member, word",
    [
        (special("cifar-10-batches-bin/link"), "link"),
        (special("cifar-10-batches-bin/hard", tarfile.LNKTYPE), "link"),
        (special("cifar-10-batches-bin/pipe", tarfile.FIFOTYPE), "device"),
        (special("../escape.bin", tarfile.REGTYPE, ""), "outside"),
        (special("a/../../escape.bin", tarfile.REGTYPE, ""), "outside"),
        (special("/absolute.bin", tarfile.REGTYPE, ""), "outside"),
    ],
)
def test_links_and_escaping_members_are_refused_and_nothing_is_written(
    tmp_path, member, word, refuses
):
    folder = tmp_path / "data"
    folder.mkdir()
    write_tar(folder / "cifar-10-binary.tar.gz", make_files(), extra=[member])
    refuses([member.name, word], load, DataConfig("cifar10", str(folder)))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["cifar-10-binary.tar.gz", "data"]


def test_a_member_whose_name_no_file_can_have_is_refused(tmp_path, refuses):
    # Only an extended header can hold it, and tarfile writes one for a name of over 100 characters.
    member = special("a" * 101 + "\0b", tarfile.REGTYPE, "")
    write_tar(tmp_path / "cifar-10-binary.tar.gz", make_files(), extra=[member])
    refuses(["a\\x00b", "no file name"], load, DataConfig("cifar10", str(tmp_path)))


def test_a_member_that_promises_gigabytes_is_refused(tmp_path, refuses):
    member = tarfile.TarInfo("cifar-10-batches-bin/data_batch_1.bin")
    member.size = 10 << 30
    path = tmp_path / "cifar-10-binary.tar"
    path.write_bytes(member.tobuf() + bytes(1024))
    refuses([member.name, str(10 << 30)], load, DataConfig("cifar10", str(tmp_path)))


def test_an_extended_header_that_promises_gigabytes_is_refused(tmp_path, refuses):
    member = tarfile.TarInfo("x")
    member.type = tarfile.XHDTYPE
    member.size = 1 << 30
    path = tmp_path / "cifar-10-binary.tar"
    path.write_bytes(member.tobuf() + bytes(1024))
    refuses([path.name, "promises"], load, DataConfig("cifar10", str(tmp_path)))


def test_an_archive_beyond_the_size_limit_is_refused(tmp_path, monkeypatch, refuses):
    monkeypatch.setattr(archives, "MAX_ARCHIVE_BYTES", 20_000)
    write_tar(tmp_path / "cifar-10-binary.tar.gz", make_files())
    refuses(["more than 20000 bytes"], load, DataConfig("cifar10", str(tmp_path)))


@pytest.mark.parametrize("length", [0, 1, 3072, 3074, 6145])
def test_partial_records_are_refused(length, refuses):
    refuses(["batch", str(length), "3073"], parse_cifar_records, bytes(length), "batch")


def test_a_label_above_nine_is_refused(refuses):
    data = bytes(3073) + b"\x0a" + bytes(3072)
    refuses(["label 10", "record 1"], parse_cifar_records, data, "batch")


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"a\nb\n"])
def test_class_names_must_be_ten(data, refuses):
    refuses(["meta", "ten"], parse_cifar_names, data, "meta")
