"""What every data set owes, over all that are registered; and that a new one is a function and a
line."""

import gzip
import io
import struct
import tarfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from deepsvdd_jax.cli.commands import sweep
from deepsvdd_jax.configs import DataConfig
from deepsvdd_jax.datasets import LOADERS, DataError, Dataset, load, one_class_split

Calling = Callable[[ModuleType], AbstractContextManager[Callable[..., int]]]

RANDOM = np.random.RandomState(0)
SAMPLES_A_CLASS = 3


def pixels(*shape: int) -> np.ndarray:
    return RANDOM.randint(0, 256, shape).astype(np.uint8)


def idx(array: np.ndarray) -> bytes:
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return gzip.compress(header + array.tobytes())


def write_idx(root: Path, name: str) -> DataConfig:
    labels = np.repeat(np.arange(10, dtype=np.uint8), SAMPLES_A_CLASS)
    for part in ("train", "t10k"):
        (root / f"{part}-images-idx3-ubyte.gz").write_bytes(idx(pixels(len(labels), 28, 28)))
        (root / f"{part}-labels-idx1-ubyte.gz").write_bytes(idx(labels))
    return DataConfig(name, str(root))


def write_cifar(root: Path, name: str) -> DataConfig:
    folder = root / "cifar-10-batches-bin"
    folder.mkdir()
    names = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]
    for file in names:
        records = np.concatenate([np.arange(10, dtype=np.uint8)[:, None], pixels(10, 3072)], axis=1)
        (folder / file).write_bytes(records.tobytes())
    (folder / "batches.meta.txt").write_text("\n".join(f"class{n}" for n in range(10)) + "\n")
    return DataConfig(name, str(root))


def write_gtsrb(root: Path, name: str) -> DataConfig:
    header = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId\n"
    with tarfile.open(root / "gtsrb.tar", "w") as archive:

        def add(path: str, data: bytes) -> None:
            member = tarfile.TarInfo(f"GTSRB/{path}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))

        def sign() -> bytes:
            stream = io.BytesIO()
            Image.fromarray(pixels(40, 40, 3)).save(stream, "ppm")
            return stream.getvalue()

        for label in (0, 14):
            folder = f"Final_Training/Images/{label:05}"
            rows = [f"{n:05}.ppm;40;40;5;5;34;34;{label}" for n in range(SAMPLES_A_CLASS)]
            add(f"{folder}/GT-{label:05}.csv", (header + "\n".join(rows)).encode())
            for number in range(SAMPLES_A_CLASS):
                add(f"{folder}/{number:05}.ppm", sign())
        rows = [f"{n:05}.ppm;40;40;5;5;34;34;{14 * n}" for n in range(2)]
        add("Final_Test/Images/GT-final_test.csv", (header + "\n".join(rows)).encode())
        for number in range(2):
            add(f"Final_Test/Images/{number:05}.ppm", sign())
    return DataConfig(name, str(root))


def write_npz(root: Path, name: str) -> DataConfig:
    labels = np.arange(8) % 2
    arrays = {"x_train": RANDOM.randn(8, 4), "x_test": RANDOM.randn(8, 4)}
    np.savez(root / "table.npz", y_train=labels, y_test=labels, **arrays)
    return DataConfig(name, str(root / "table.npz"))


def write_csv(root: Path, name: str) -> DataConfig:
    rows = [f"{number % 2},{number},{-number}" for number in range(20)]
    (root / "table.csv").write_text("label,a,b\n" + "\n".join(rows) + "\n")
    return DataConfig(name, str(root / "table.csv"))


def write_folder(root: Path, name: str) -> DataConfig:
    for number in range(14):
        path = root / ("good" if number % 2 else "crack") / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels(8, 6, 3)).save(path)
    return DataConfig(name, str(root))


WRITERS: dict[str, Callable[[Path, str], DataConfig]] = {
    "digits": lambda root, name: DataConfig(name),
    **dict.fromkeys(("mnist", "fashion_mnist", "kmnist"), write_idx),
    "cifar10": write_cifar,
    "gtsrb": write_gtsrb,
    "npz": write_npz,
    "csv": write_csv,
    "folder": write_folder,
}


def test_every_data_set_is_held_to_the_contract() -> None:
    assert set(WRITERS) == set(LOADERS)


@pytest.mark.parametrize("name", LOADERS)
def test_contract(name: str, tmp_path: Path) -> None:
    config = WRITERS[name](tmp_path, name)
    found = load(config)
    assert found.name == name
    assert found.x_train.dtype == found.x_test.dtype and len(found.x_train) and len(found.x_test)
    assert found.x_train.dtype in (np.uint8, np.float32, np.float64)
    assert found.x_train.shape[1:] == found.x_test.shape[1:]
    assert found.x_train.ndim in (2, 4) and np.isfinite(found.x_train.astype(float)).all()
    for images, labels in ((found.x_train, found.y_train), (found.x_test, found.y_test)):
        assert labels.dtype == np.int64 and labels.shape == (len(images),)
        assert labels.min() >= 0 and labels.max() < len(found.class_names)
    assert not found.feature_names or len(found.feature_names) == found.x_train.shape[1]
    again = load(config)
    np.testing.assert_array_equal(again.x_train, found.x_train)
    np.testing.assert_array_equal(again.y_test, found.y_test)
    normal = int(found.y_train[0])
    split = one_class_split(found, normal)
    assert set(found.y_train[split.train_indices]) == {normal}
    expected = found.y_test[split.test_indices] != normal
    np.testing.assert_array_equal(split.test_labels, expected)


@pytest.mark.parametrize("name", sorted(set(LOADERS) - {"digits"}))
def test_what_is_not_there_is_one_line(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load(DataConfig(name, str(tmp_path / "nowhere")))
    assert "nowhere" in str(caught.value) and "\n" not in str(caught.value)


# --- one of one's own ---------------------------------------------------------------------------


def load_waves(config: DataConfig) -> Dataset:
    steps = np.linspace(0, 6, 16)
    draws = np.random.RandomState(0)
    sines = np.sin(steps[None] + draws.uniform(0, 6, (40, 1)))
    rows, labels = np.concatenate([sines, np.sign(sines)]), np.repeat([0, 1], 40)
    rows = rows.astype(np.float32)
    return Dataset(
        name="waves",
        x_train=rows,
        y_train=labels,
        x_test=rows,
        y_test=labels,
        class_names=("sine", "square"),
    )


@pytest.fixture
def registered() -> Iterator[None]:
    LOADERS["waves"] = load_waves
    yield
    del LOADERS["waves"]


def test_a_toy_data_set_is_a_function_and_a_line(
    registered: None, calling: Calling, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with calling(sweep) as call:
        assert call("--dataset=waves", "--methods=knn", f"--out={tmp_path / 'out'}") == 0
    assert (tmp_path / "out" / "summary.csv").read_text().count("waves") == 3
    assert "mean" in capsys.readouterr().out


def test_a_data_set_of_ones_own_is_given_its_folder(
    calling: Calling, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[object] = []

    def load_from_folder(config: DataConfig) -> Dataset:
        given.append(config.data_dir)
        return load_waves(config)

    monkeypatch.setitem(LOADERS, "waves", load_from_folder)
    with calling(sweep) as call:
        arguments = ("--dataset=waves", f"--data_dir={tmp_path}", "--methods=knn")
        assert call(*arguments, f"--out={tmp_path / 'out'}") == 0
    assert given == [str(tmp_path)]
