"""Free memory, as the operating system tells it, and what is refused because it is short."""

import dataclasses
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import deepsvdd_jax as svdd
from deepsvdd_jax import configs, datasets, recipes
from deepsvdd_jax.cli import exits, settings
from deepsvdd_jax.configs import ConfigError
from deepsvdd_jax.datasets import DataError, iter_images
from deepsvdd_jax.io import memory, npz
from deepsvdd_jax.io.memory import available_memory
from deepsvdd_jax.runs import memory as runs_memory


def test_the_smaller_of_machine_and_container_counts(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:       9000 kB\nMemAvailable:   2000 kB\n")
    assert available_memory(meminfo, tmp_path) == 2000 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("5000\n")
    assert available_memory(meminfo, tmp_path) == 2000 * 1024
    (tmp_path / "memory.max").write_text("6000\n")
    assert available_memory(meminfo, tmp_path) == 1000
    assert available_memory(tmp_path / "none", tmp_path) == 1000
    (tmp_path / "memory.max").write_text("4000\n")
    assert available_memory(meminfo, tmp_path) == 0


def test_nothing_is_made_up(tmp_path: Path) -> None:
    assert available_memory(tmp_path / "none", tmp_path) is None
    (tmp_path / "meminfo").write_text("MemFree: 1 kB\n")
    assert available_memory(tmp_path / "meminfo", tmp_path) is None


def test_this_machine_has_some() -> None:
    assert (available_memory() or 1) > 0


def test_files_that_a_container_keeps_are_free(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("6000")
    (tmp_path / "memory.current").write_text("5000")
    (tmp_path / "memory.stat").write_text("anon 1000\ninactive_file 3000\n")
    assert available_memory(tmp_path / "none", tmp_path) == 4000


def test_containers_of_the_first_version_have_limits_too(tmp_path: Path) -> None:
    folder = tmp_path / "memory"
    folder.mkdir()
    (folder / "memory.limit_in_bytes").write_text("6000")
    (folder / "memory.usage_in_bytes").write_text("5000")
    assert available_memory(tmp_path / "none", tmp_path) == 1000


# --- what is refused ----------------------------------------------------------------------------


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> int:
    """A machine with ten million bytes free."""
    monkeypatch.setattr(memory, "available_memory", lambda: 10**7)
    return 10**7


def packed(count: int) -> bytes:
    """An npz file of zeros, which takes a thousandth of their memory."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, x=np.zeros(count, np.uint8))
    return buffer.getvalue()


def test_an_array_is_compared_with_free_memory_before_it_is_unpacked(
    little: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = zipfile.ZipExtFile.read
    taken = []

    def counting(self: zipfile.ZipExtFile, size: int = -1) -> bytes:
        data = read(self, size)
        taken.append(len(data))
        return data

    monkeypatch.setattr(zipfile.ZipExtFile, "read", counting)
    large = packed(8 * 10**6)
    assert len(large) < 10**5
    with pytest.raises(npz.NpzError, match="0.0 GB are free"):
        npz.read_npz(io.BytesIO(large))
    assert sum(taken) < 10**5
    assert npz.read_npz(io.BytesIO(packed(4 * 10**6)))["x"].shape == (4 * 10**6,)


def test_networks_and_batches_are_compared_with_free_memory(little: int) -> None:
    """4 x 32 x 10^4 weights of 4 bytes, beside their gradient, are 10 MB for a run and more."""
    config = recipes.preset("auto", "digits", (8, 8, 1))
    runs_memory.check_memory(config, (8, 8, 1))
    wide = configs.replace_at(config, "network.rep_dim", 10**6)
    with pytest.raises(ConfigError, match=r"1 networks of \d+ parameters take at least"):
        runs_memory.check_memory(wide, (8, 8, 1))
    with pytest.raises(ConfigError, match=r"1000000 networks of \d+ parameters"):
        runs_memory.check_memory(config, (8, 8, 1), 10**6)
    batch = configs.replace_at(config, "training.batch_size", 10**5)
    with pytest.raises(ConfigError, match="a batch of 100000 images"):
        runs_memory.check_memory(batch, (8, 8, 1))


def test_images_are_not_resized_to_what_memory_cannot_hold(little: int, tmp_path: Path) -> None:
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    paths = [tmp_path / "a.png"]
    assert len(list(iter_images(paths, (8, 8)))) == 1
    with pytest.raises(DataError, match="image_size 4000,4000"):
        list(iter_images(paths, (4000, 4000)))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("training.epochs", 2**31),
        ("training.batch_size", 10**12),
        ("network.rep_dim", 10**20),
        ("network.kernel_size", 10**20),
        ("network.hidden", (10**12,)),
        ("training.objective.center_batches", 10**20),
        ("training.objective.warm_up_epochs", 10**12),
        ("training.objective.radius_every", 10**12),
        ("training.optimizer.milestones", (10**12,)),
        ("training.optimizer.decay_after_epoch", 10**12),
    ],
)
def test_no_program_counts_beyond_32_bits(path: str, value: object) -> None:
    config = recipes.preset("auto", "digits", (8, 8, 1))
    with pytest.raises(ConfigError, match="at most 2147483647"):
        configs.replace_at(config, path, value)


@pytest.mark.parametrize("text", ["1000000000", "99999999999999999999", "9" * 4000, "0"])
def test_seeds_are_bounded(text: str) -> None:
    with pytest.raises(ConfigError, match="give a count of 1 to 100000") as caught:
        settings.seed_list(text)
    assert len(str(caught.value)) < 200
    assert len(settings.seed_list("100000")) == 100_000


def test_members_of_an_estimator_are_bounded() -> None:
    with pytest.raises(ValueError, match="n_seeds is 1000000000; it must be at most 100000"):
        svdd.DeepSVDD(n_seeds=10**9).fit(np.zeros((20, 3)) + np.arange(20)[:, None])


@pytest.mark.parametrize(
    "error",
    [MemoryError(), MemoryError("5 GiB"), RuntimeError("RESOURCE_EXHAUSTED: 5 GiB of the device")],
)
def test_out_of_memory_says_what_was_done(
    error: Exception, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*_: str) -> None:
        raise error

    monkeypatch.setattr(settings, "integer_list", exhausted)
    assert exits.exit_code(lambda: print(settings.seed_list("1")), ["sweep"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "out of memory in seed_list (settings.py)" in line and line.endswith(str(error))


def test_other_failures_of_jax_are_not_hidden() -> None:
    def main() -> None:
        raise RuntimeError("INTERNAL: a fault of ours")

    with pytest.raises(RuntimeError, match="a fault of ours"):
        exits.exit_code(main, ["sweep"])


def test_a_folder_is_compared_with_free_memory_after_its_first_images(
    little: int, tmp_path: Path
) -> None:
    for number in range(300):
        path = tmp_path / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("L", (150, 150)).save(path)
    data = configs.DataConfig("folder", str(tmp_path))
    # Twice 300 x 150 x 150 bytes; what a quarter of the pixels takes fits.
    with pytest.raises(DataError, match="300 images of 150 x 150 x 1 take 0.0 GB.*--image_size"):
        datasets.load(data)
    assert len(datasets.load(dataclasses.replace(data, image_size=(75, 75))).x_train) == 240


def test_values_of_a_first_layer_are_compared_with_free_memory(little: int) -> None:
    network = configs.NetworkConfig(stages=((128,), (4,)), rep_dim=2)
    config = configs.RunConfig(
        network=network, training=configs.PhaseConfig(batch_size=64), pretraining=None
    )
    # 64 images of 32 x 32 are 0.3 MB, their 16 x 16 x 128 values 8.4 MB.
    runs_memory.check_memory(config, (32, 32, 1))
    with pytest.raises(ConfigError, match="first layer's values of a batch of 64 images"):
        runs_memory.check_memory(config, (40, 40, 1))
