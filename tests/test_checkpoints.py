"""Saved models: what goes in comes out, and damage is refused by name."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from deepsvdd_jax.configs import RunConfig
from deepsvdd_jax.io import atomic, models
from deepsvdd_jax.io.archives import ModelError
from deepsvdd_jax.io.models import Model


def make_model() -> Model:
    random = np.random.RandomState(0)
    kernel = random.rand(2, 3, 3, 1, 2).astype(np.float32)
    return Model(
        config=RunConfig(preset="custom"),
        image_shape=(8, 8, 1),
        feature_names=(),
        params={"encoder": {"stage0_0": {"kernel": kernel}}},
        statistics={"encoder": {"stage0_0": {"norm": {"mean": np.zeros((2, 2), np.float32)}}}},
        center=random.rand(2, 4).astype(np.float32),
        squared_radius=np.array([0.25, 0.5], np.float32),
        train_means=np.array([0.1, 0.3]),
        shift=np.zeros((1, 1, 1), np.float32),
        scale=np.ones((1, 1, 1), np.float32),
        whitening_mean=np.zeros(0),
        whitening_matrix=np.zeros((0, 0)),
        calibration_scores=np.array([0.1, 0.2, 0.2], np.float32),
        threshold=0.5,
        summary={"epochs": 3, "threshold_rule": "by hand"},
    )


def test_round_trip(tmp_path: Path) -> None:
    model = make_model()
    models.save_model(tmp_path / "deep" / "model", model)
    loaded = models.load_model(tmp_path / "deep" / "model")
    assert loaded.config == model.config and loaded.image_shape == model.image_shape
    assert (loaded.threshold, loaded.summary) == (model.threshold, model.summary)
    assert set(loaded.statistics["encoder"]["stage0_0"]["norm"]) == {"mean"}
    np.testing.assert_array_equal(
        loaded.params["encoder"]["stage0_0"]["kernel"],
        model.params["encoder"]["stage0_0"]["kernel"],
    )
    for name in ("center", "squared_radius", "train_means", "calibration_scores"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(model, name))
        assert getattr(loaded, name).dtype == getattr(model, name).dtype


def test_column_names_and_members_are_readable(tmp_path: Path) -> None:
    model = make_model()._replace(image_shape=(2,), feature_names=("größe", "weight / kg"))
    models.save_model(tmp_path / "model", model)
    assert models.load_model(tmp_path / "model").feature_names == model.feature_names
    described = json.loads((tmp_path / "model" / "model.json").read_text())
    assert described["members"] == 2 and described["summary"]["threshold_rule"] == "by hand"


def test_saving_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    models.save_model(folder, make_model())
    models.save_model(folder, make_model()._replace(threshold=0.75))
    assert models.load_model(folder).threshold == 0.75
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_flipped_byte_is_refused(tmp_path: Path) -> None:
    models.save_model(tmp_path / "model", make_model())
    (path,) = (tmp_path / "model").glob("arrays-*.npz")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"arrays-\w+.npz: damaged"):
        models.load_model(tmp_path / "model")


@pytest.mark.parametrize("name", ["model.json", "arrays-*.npz"])
def test_missing_file_is_named(tmp_path: Path, name: str) -> None:
    models.save_model(tmp_path / "model", make_model())
    (path,) = (tmp_path / "model").glob(name)
    path.unlink()
    with pytest.raises(ModelError, match=path.name):
        models.load_model(tmp_path / "model")


def test_other_formats_and_garbage_are_refused(tmp_path: Path) -> None:
    models.save_model(tmp_path / "model", make_model())
    path = tmp_path / "model" / "model.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "format": 99}))
    with pytest.raises(ModelError, match="format 99 is newer than 3.*upgrade"):
        models.load_model(tmp_path / "model")
    path.write_text(json.dumps({**values, "format": 1}))
    with pytest.raises(ModelError, match="format 1 is older than 2.*train the model again"):
        models.load_model(tmp_path / "model")
    incomplete = {key: value for key, value in values.items() if key != "threshold"}
    endless = {**values, "image_shape": [float("inf"), 8, 1]}
    del endless["digest"]
    endless["digest"] = hashlib.sha256(json.dumps(endless, sort_keys=True).encode()).hexdigest()
    for text in ("{", "[]", "{}", json.dumps(incomplete), json.dumps(endless)):
        path.write_text(text)
        with pytest.raises(ModelError):
            models.load_model(tmp_path / "model")


@pytest.mark.parametrize("draft", [False, True])
def test_a_save_that_was_killed_is_in_nobodys_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, draft: bool
) -> None:
    folder = tmp_path / "model"
    write = atomic.write_bytes

    def stop_before_the_description(path: Path, data: bytes) -> None:
        if path.name == "model.json":
            if draft:
                atomic.draft_of(path).write_bytes(data[:10])
            raise KeyboardInterrupt
        write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(atomic, "write_bytes", stop_before_the_description)
        with pytest.raises(KeyboardInterrupt):
            models.save_model(folder, make_model())
    with pytest.raises(ModelError, match="model.json"):
        models.load_model(folder)
    models.save_model(folder, make_model())
    assert models.load_model(folder).threshold == make_model().threshold


def test_unwritable_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="cannot write model"):
        models.save_model(tmp_path / "file" / "model", make_model())


def test_an_edited_description_is_refused(tmp_path: Path) -> None:
    models.save_model(tmp_path / "model", make_model())
    path = tmp_path / "model" / "model.json"
    described = json.loads(path.read_text())
    path.write_text(json.dumps({**described, "threshold": described["threshold"] + 1}))
    with pytest.raises(ModelError, match="model.json: damaged or edited"):
        models.load_model(tmp_path / "model")
    # The layout of the text does not matter.
    path.write_text(json.dumps(described, separators=(",", ":")))
    assert models.load_model(tmp_path / "model").threshold == described["threshold"]


@pytest.mark.parametrize("name", ["../other.npz", "/etc/passwd", "", "a\0b"])
def test_arrays_lie_beside_their_description(tmp_path: Path, name: str) -> None:
    models.save_model(tmp_path / "model", make_model())
    path = tmp_path / "model" / "model.json"
    described = json.loads(path.read_text()) | {"arrays": name}
    del described["digest"]
    text = json.dumps(described, sort_keys=True)
    described["digest"] = hashlib.sha256(text.encode()).hexdigest()
    path.write_text(json.dumps(described))
    with pytest.raises(ModelError, match=r"model.json: arrays are named .* not a file beside it"):
        models.load_model(tmp_path / "model")


def test_a_model_is_replaced_and_nothing_else_ever(tmp_path: Path) -> None:
    model = make_model()
    models.save_model(tmp_path / "model", model)
    models.save_model(tmp_path / "model", model._replace(threshold=7.0, center=model.center + 1))
    assert models.load_model(tmp_path / "model").threshold == 7.0
    assert len(list((tmp_path / "model").iterdir())) == 2
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "photo.png").write_bytes(b"mine")
    with pytest.raises(ModelError, match="holds other files and no model"):
        models.save_model(tmp_path / "other", model)
    assert (tmp_path / "other" / "photo.png").read_bytes() == b"mine"
