"""Trained models as folders: a readable `model.json` beside its arrays, written atomically.

A model is an ensemble: one member for each seed, often a single one. No pickle anywhere. The JSON
holds the checksum of the arrays, so that a damaged folder is refused and not scored with.
"""

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from deepsvdd_jax import configs
from deepsvdd_jax.configs import ConfigError, RunConfig
from deepsvdd_jax.io import atomic, npz
from deepsvdd_jax.io.archives import DAMAGES, ModelError, arrays_in
from deepsvdd_jax.io.trees import flatten, unflatten

FORMAT_VERSION = 3
# Of a model that scores by its center, so that versions before 3 read it.
_PLAIN_FORMAT = 2
_JSON = "model.json"
CARD_NAME = "MODEL.md"
CARD_MARK = (
    "<!-- Written with the model, and again when it changes; without this line it stays. -->"
)
"""First line of a model card; a save removes the card of the model that was there before."""

# Files of a model, of a training under way, and the drafts that a killed save leaves.
_FILES = r"arrays-[0-9a-f]{12}\.npz|under-way-[0-9a-f]{12}(-\d)?\.(bin|json)"
_OURS = re.compile(
    rf"{_FILES}|MODEL\.md|\.({_FILES}|model\.json|MODEL\.md)(-[0-9a-f]{{8}})?-\d+-\d+"
)


class Model(NamedTuple):
    """Everything that scoring needs; arrays are numpy, so that a model has no device.

    Attributes:
      config: of the run.
      image_shape: of one image, `(height, width, channels)` or `(features,)`: commands resize and
        convert images to it, and scoring refuses any other.
      feature_names: columns of a table, in order; empty where they have no names.
      params: nested dict, every leaf with a leading axis of members.
      statistics: nested dict, running averages of the batch statistics, likewise.
      center: `[members, rep_dim]`.
      squared_radius: `[members]`, R^2.
      train_means: `[members]`, mean training distance of each, the unit of its distances in an
        ensemble.
      shift: network input = (values - shift) * scale, after contrast and whitening.
      scale: see `shift`.
      whitening_mean: `[pixels]`, empty without ZCA.
      whitening_matrix: `[pixels, pixels]`, empty without ZCA.
      calibration_scores: `[n]`, ascending scores of normals that were held out of training; empty
        where none were.
      threshold: score above which an image is called anomalous.
      summary: readable facts about the training, JSON values only; `threshold_rule` says where
        the threshold comes from.
      calibration_folds: `[n]`, with `cross` calibration the member that each calibration score is
        of; empty otherwise.
      embedding_score: see `configs.DetectorConfig`.
      reference: arrays that the embedding scores `neighbors` and `mahalanobis` compare with, with a
        leading axis of members; empty for `center`.
    """

    config: RunConfig
    image_shape: tuple[int, ...]
    feature_names: tuple[str, ...]
    params: dict[str, Any]
    statistics: dict[str, Any]
    center: npt.NDArray[np.float32]
    squared_radius: npt.NDArray[np.float32]
    train_means: npt.NDArray[np.float64]
    shift: npt.NDArray[np.float32]
    scale: npt.NDArray[np.float32]
    whitening_mean: npt.NDArray[np.floating]
    whitening_matrix: npt.NDArray[np.floating]
    calibration_scores: npt.NDArray[np.floating]
    threshold: float
    summary: dict[str, Any]
    calibration_folds: npt.NDArray[np.integer] = np.zeros(0, np.int32)
    embedding_score: str = "center"
    reference: dict[str, npt.NDArray[np.floating]] = {}


_TREES = ("params", "statistics")
_PLAIN_ARRAYS = (
    "center",
    "squared_radius",
    "train_means",
    "shift",
    "scale",
    "whitening_mean",
    "whitening_matrix",
    "calibration_scores",
)


def save_model(path: str | os.PathLike[str], model: Model) -> None:
    """Writes a model folder (touches files); a model that is there is replaced.

    The arrays come first, under a name of their own; then the JSON that names them. A crash leaves
    the old model or the new one.

    Raises:
      ModelError: the folder cannot be written, or holds something else; what was there stays.
    """
    folder = Path(path)
    check_target(folder)
    arrays = _array_bytes(model)
    name = _arrays_name(arrays)
    try:
        if may_write_card(folder):
            (folder / CARD_NAME).unlink(missing_ok=True)
        atomic.write_bytes(folder / name, arrays)
        atomic.write_bytes(folder / _JSON, _describe(model, arrays).encode("utf-8"))
        for old in folder.glob(_arrays_name(None)):
            if old.name != name:
                old.unlink()
    except OSError as error:
        raise ModelError(f"cannot write model {folder}: {error.strerror or error}") from None


def may_write_card(folder: Path) -> bool:
    """Returns whether a model's card may be written or removed (touches files): there is none, or
    it starts with `CARD_MARK`."""
    path = folder / CARD_NAME
    if not os.path.lexists(path):
        return True
    return path.is_file() and path.read_bytes().startswith(CARD_MARK.encode())


def check_target(path: str | os.PathLike[str]) -> None:
    """Refuses a path that no model can be written to (touches files, leaves nothing).

    Raises:
      ModelError: a file, a folder of other things, or one that cannot be written.
    """
    folder = Path(path)
    try:
        missing = [part for part in (folder, *folder.parents) if not part.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        others = [file.name for file in folder.iterdir()]
        for part in missing:
            part.rmdir()
    except OSError as error:
        raise ModelError(f"cannot write model {folder}: {error.strerror or error}") from None
    # A killed save leaves no model, but files that only a save writes.
    if _JSON not in others and not all(_OURS.fullmatch(name) for name in others):
        raise ModelError(f"{folder} holds other files and no model; give another folder")
    if not missing and not os.access(folder, os.W_OK):
        raise ModelError(f"cannot write model {folder}: permission denied")


def _arrays_name(arrays: bytes | None) -> str:
    """Returns the name of a file of arrays, or the pattern of all such names."""
    return f"arrays-{'*' if arrays is None else hashlib.sha256(arrays).hexdigest()[:12]}.npz"


def load_model(path: str | os.PathLike[str]) -> Model:
    """Reads a model folder (touches files).

    Raises:
      ModelError: a file is missing or damaged, or was written by another version of the format.
    """
    folder = Path(path)
    described = _read_description(folder)
    name = str(described.get("arrays"))
    if not name or Path(name).name != name or "\0" in name:
        raise ModelError(f"{folder / _JSON}: arrays are named {name!r}, not a file beside it")
    arrays = _read_arrays(folder / name, described.get("sha256"))
    try:
        fields: dict[str, Any] = {name: arrays[name] for name in _PLAIN_ARRAYS}
        fields |= {name: unflatten(arrays, name) for name in _TREES}
        fields |= {name: arrays[name] for name in ("calibration_folds",) if name in arrays}
        if "embedding_score" in described:
            fields["embedding_score"] = str(described["embedding_score"])
            fields["reference"] = unflatten(arrays, "reference")
        return Model(
            config=configs.from_dict(RunConfig, described["config"], f"{folder / _JSON}"),
            image_shape=tuple(int(side) for side in described["image_shape"]),
            feature_names=tuple(str(name) for name in described["feature_names"]),
            threshold=float(described["threshold"]),
            summary=dict(described["summary"]),
            **fields,
        )
    except ConfigError as error:
        raise ModelError(str(error)) from None
    except DAMAGES as error:
        raise ModelError(f"{folder}: not a complete model: {error!r}") from None


def _array_bytes(model: Model) -> bytes:
    arrays = {name: np.asarray(getattr(model, name)) for name in _PLAIN_ARRAYS}
    if len(model.calibration_folds):
        arrays["calibration_folds"] = model.calibration_folds
    trees = (*_TREES, "reference") if model.reference else _TREES
    for name in trees:
        arrays.update(flatten(getattr(model, name), name))
    return npz.npz_bytes(arrays)


def _describe(model: Model, arrays: bytes) -> str:
    other = model.embedding_score != "center"
    values = {
        "format": FORMAT_VERSION if other else _PLAIN_FORMAT,
        "config": configs.to_dict(model.config),
        "image_shape": list(model.image_shape),
        "feature_names": list(model.feature_names),
        "members": len(model.center),
        "threshold": model.threshold,
        "summary": model.summary,
        **({"embedding_score": model.embedding_score} if other else {}),
        "arrays": _arrays_name(arrays),
        "sha256": hashlib.sha256(arrays).hexdigest(),
    }
    return json.dumps({**values, "digest": _digest(values)}, indent=2)


def _digest(values: dict[str, Any]) -> str:
    """Returns a checksum of a description, however it is laid out."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _read_description(folder: Path) -> dict[str, Any]:
    try:
        described = json.loads((folder / _JSON).read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(
            f"{folder / _JSON}: {error.strerror or error}; a model is a folder that fit or sweep "
            "--save_models wrote"
        ) from None
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{folder / _JSON}: damaged: {error}") from None
    if not isinstance(described, dict) or not isinstance(described.get("format"), int):
        raise ModelError(f"{folder / _JSON}: not the description of a model")
    if described["format"] > FORMAT_VERSION:
        raise ModelError(
            f"{folder / _JSON}: format {described['format']} is newer than {FORMAT_VERSION}, the "
            "newest that this version reads; upgrade deepsvdd_jax"
        )
    if described["format"] < _PLAIN_FORMAT:
        raise ModelError(
            f"{folder / _JSON}: format {described['format']} is older than {_PLAIN_FORMAT}, the "
            "oldest that this version reads; train the model again"
        )
    digest = described.pop("digest", None)
    if digest != _digest(described):
        raise ModelError(f"{folder / _JSON}: damaged or edited: its digest is not that of its text")
    return described


def _read_arrays(path: Path, checksum: object) -> dict[str, npt.NDArray[Any]]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror or error}") from None
    if hashlib.sha256(data).hexdigest() != checksum:
        raise ModelError(f"{path}: damaged: its checksum is not the one in {_JSON}")
    return arrays_in(path, data)
