import io
import json
import time

import numpy as np
import pytest

from deepsvdd_jax.configs import DataConfig
from deepsvdd_jax.datasets import load
from deepsvdd_jax.datasets.formats import prepared


def example_bytes(image, label):
    """A record as TFDS writes it: a serialized tf.train.Example with the image as PNG."""
    from PIL import Image
    from tensorflow_datasets.proto import tf_example_pb2

    stream = io.BytesIO()
    Image.fromarray(image[..., 0]).save(stream, "png")
    record = tf_example_pb2.Example()
    record.features.feature["image"].bytes_list.value.append(stream.getvalue())
    record.features.feature["label"].int64_list.value.append(label)
    return record.SerializeToString()


def write_tree(root, images, labels, name="mnist", version="3.0.1", file_format="array_record"):
    """Writes what TFDS leaves behind after preparing."""
    tfds = pytest.importorskip("tensorflow_datasets")
    module = pytest.importorskip("array_record.python.array_record_module")
    folder = root / name / version
    folder.mkdir(parents=True)
    shape = images["train"].shape[1:]
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=shape),
            "label": tfds.features.ClassLabel(num_classes=10),
        }
    )
    (folder / "features.json").write_text(json.dumps(features.to_json()))
    splits = []
    for split, array in images.items():
        path = folder / f"{name}-{split}.{file_format}-00000-of-00001"
        writer = module.ArrayRecordWriter(str(path), "group_size:1")
        for image, label in zip(array, labels[split], strict=True):
            writer.write(example_bytes(image, int(label)))
        writer.close()
        splits.append(
            {
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "name": split,
                "numBytes": str(path.stat().st_size),
                "shardLengths": [str(len(array))],
            }
        )
    info = {"fileFormat": file_format, "name": name, "splits": splits, "version": version}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return folder


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    images = {
        "train": rng.integers(0, 256, (7, 28, 28, 1), np.uint8),
        "test": rng.integers(0, 256, (3, 28, 28, 1), np.uint8),
    }
    return images, {"train": np.arange(7), "test": np.array([9, 0, 3])}


@pytest.mark.parametrize("name", ["mnist", "kmnist"])
def test_a_prepared_tree_is_read_without_tensorflow(tmp_path, arrays, name):
    images, labels = arrays
    write_tree(tmp_path, images, labels, name)
    dataset = load(DataConfig(name, str(tmp_path)))
    np.testing.assert_array_equal(dataset.x_train, images["train"])
    np.testing.assert_array_equal(dataset.x_test, images["test"])
    np.testing.assert_array_equal(dataset.y_train, labels["train"])
    np.testing.assert_array_equal(dataset.y_test, labels["test"])
    assert dataset.y_train.dtype == np.int64


def test_the_default_folder_of_tfds_is_looked_into(tmp_path, arrays, monkeypatch):
    write_tree(tmp_path, *arrays)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert len(load(DataConfig("mnist")).x_train) == 7


def test_the_newest_version_is_found(tmp_path):
    for version in ("3.0.1", "3.0.10", "3.0.9", "incomplete.4.0.0"):
        folder = tmp_path / "mnist" / version
        folder.mkdir(parents=True)
        (folder / "dataset_info.json").write_text("{}")
    (tmp_path / "mnist" / "9.9.9").mkdir()
    assert prepared.find_prepared(tmp_path, "mnist") == tmp_path / "mnist" / "3.0.10"
    assert prepared.find_prepared(tmp_path, "cifar10") is None


def test_a_tree_in_tfrecord_format_is_named_as_such(tmp_path, arrays, refuses):
    write_tree(tmp_path, *arrays, file_format="tfrecord")
    refuses(["3.0.1", "tfrecord", "array_record"], load, DataConfig("mnist", str(tmp_path)))


@pytest.mark.parametrize("content", ["", "[]", "{", '{"splits": 3}', '"text"'])
def test_a_damaged_description_is_refused(tmp_path, arrays, content, refuses):
    folder = write_tree(tmp_path, *arrays)
    (folder / "dataset_info.json").write_text(content)
    refuses(["3.0.1"], load, DataConfig("mnist", str(tmp_path)))


def test_damaged_and_missing_records_are_refused(tmp_path, arrays, refuses):
    folder = write_tree(tmp_path, *arrays)
    record = folder / "mnist-test.array_record-00000-of-00001"
    record.unlink()
    refuses(["3.0.1"], load, DataConfig("mnist", str(tmp_path)))


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "kmnist", "cifar10"])
@pytest.mark.parametrize("given", [True, False])
def test_nothing_there_fails_at_once_and_says_what_to_do(
    tmp_path, monkeypatch, name, given, refuses
):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    start = time.monotonic()
    config = DataConfig(name, str(tmp_path) if given else None)
    refuses([name, str(tmp_path), "--data_dir", "--prepare"], load, config)
    assert time.monotonic() - start < 1


def test_preparing_without_tensorflow_says_what_to_install(tmp_path, monkeypatch, refuses):
    monkeypatch.setattr(prepared.importlib.util, "find_spec", lambda name: None)
    config = DataConfig("mnist", str(tmp_path / "new"), prepare=True)
    refuses(["tensorflow", "pip install 'deepsvdd_jax[tfds]'"], load, config)


def test_preparing_is_asked_for_with_the_archives_at_hand(tmp_path, arrays, monkeypatch):
    calls = []

    def fake_prepare(root, name, archives):
        calls.append((root, name, archives))
        write_tree(root, *arrays)

    monkeypatch.setattr(prepared, "prepare", fake_prepare)
    (tmp_path / "mnist").mkdir()
    config = DataConfig("mnist", str(tmp_path), prepare=True)
    assert len(load(config).x_train) == 7
    assert len(load(config).x_train) == 7
    assert calls == [(tmp_path, "mnist", tmp_path / "mnist")]


def test_mock_data_of_tfds_is_read():
    tfds = pytest.importorskip("tensorflow_datasets")
    with tfds.testing.mock_data(num_examples=4):
        builder = tfds.builder("cifar10", file_format="array_record")
        train, test = (builder.as_data_source(split) for split in ("train", "test"))
        names = tuple("abcdefghij")
        dataset = prepared.read_sources(train, test, "cifar10", names, "mock")
    assert dataset.x_train.shape == (4, 32, 32, 3) and dataset.x_test.dtype == np.uint8


class Source(list):
    def __getitems__(self, keys):
        return [self[key] for key in keys]


def example(label=0, shape=(2, 2, 1), dtype=np.uint8):
    return {"image": np.zeros(shape, dtype), "label": label}


@pytest.mark.parametrize(
    "train, words",
    [
        ([], ["train", "no examples"]),
        ([example(), example(2)], ["label 2", "example 1"]),
        ([example(), example(shape=(2, 3, 1))], ["example 1", "(2, 3, 1)"]),
        ([example(dtype=np.float32)], ["float32"]),
        ([example(shape=(3, 3, 1))], ["(3, 3, 1)", "(2, 2, 1)"]),
    ],
)
def test_examples_that_do_not_fit_are_refused(train, words, refuses):
    refuses(
        words,
        prepared.read_sources,
        Source(train),
        Source([example()]),
        "mnist",
        ("0", "1"),
        "tree",
    )
