"""Saved models: what goes in comes out, and damage is refused by name."""

import json
from pathlib import Path

import numpy as np
import pytest

from deepsvdd_jax import checkpoints
from deepsvdd_jax.checkpoints import Model, ModelError
from deepsvdd_jax.configs import RunConfig


def make_model() -> Model:
    random = np.random.RandomState(0)
    kernel = random.rand(3, 3, 1, 2).astype(np.float32)
    return Model(
        config=RunConfig(preset="custom"),
        image_shape=(8, 8, 1),
        params={"encoder": {"stage0_0": {"kernel": kernel}}},
        statistics={"encoder": {"stage0_0": {"norm": {"mean": np.zeros(2, np.float32)}}}},
        center=random.rand(4).astype(np.float32),
        squared_radius=0.25,
        shift=np.zeros((1, 1, 1), np.float32),
        scale=np.ones((1, 1, 1), np.float32),
        whitening_mean=np.zeros(0),
        whitening_matrix=np.zeros((0, 0)),
        threshold=0.5,
        summary={"epochs": 3},
    )


def test_round_trip(tmp_path: Path) -> None:
    model = make_model()
    checkpoints.save_model(tmp_path / "deep" / "model", model)
    loaded = checkpoints.load_model(tmp_path / "deep" / "model")
    assert loaded.config == model.config and loaded.image_shape == model.image_shape
    assert (loaded.squared_radius, loaded.threshold, loaded.summary) == (0.25, 0.5, {"epochs": 3})
    np.testing.assert_array_equal(
        loaded.params["encoder"]["stage0_0"]["kernel"],
        model.params["encoder"]["stage0_0"]["kernel"],
    )
    assert set(loaded.statistics["encoder"]["stage0_0"]["norm"]) == {"mean"}
    np.testing.assert_array_equal(loaded.center, model.center)


def test_saving_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    checkpoints.save_model(folder, make_model())
    checkpoints.save_model(folder, make_model()._replace(threshold=0.75))
    assert checkpoints.load_model(folder).threshold == 0.75
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_flipped_byte_is_refused(tmp_path: Path) -> None:
    checkpoints.save_model(tmp_path / "model", make_model())
    path = tmp_path / "model" / "arrays.npz"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelError, match="arrays.npz: damaged"):
        checkpoints.load_model(tmp_path / "model")


@pytest.mark.parametrize("name", ["model.json", "arrays.npz"])
def test_missing_file_is_named(tmp_path: Path, name: str) -> None:
    checkpoints.save_model(tmp_path / "model", make_model())
    (tmp_path / "model" / name).unlink()
    with pytest.raises(ModelError, match=name):
        checkpoints.load_model(tmp_path / "model")


def test_newer_format_and_garbage_are_refused(tmp_path: Path) -> None:
    checkpoints.save_model(tmp_path / "model", make_model())
    path = tmp_path / "model" / "model.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "format": 99}))
    with pytest.raises(ModelError, match="newer than 1"):
        checkpoints.load_model(tmp_path / "model")
    incomplete = {key: value for key, value in values.items() if key != "threshold"}
    for text in ("{", "[]", "{}", json.dumps(incomplete)):
        path.write_text(text)
        with pytest.raises(ModelError):
            checkpoints.load_model(tmp_path / "model")


def test_unwritable_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="cannot write model"):
        checkpoints.save_model(tmp_path / "file" / "model", make_model())
