"""Every parser of bytes from outside, with valid files for `benchmarks.fuzz` to damage."""

import dataclasses
import functools
import gzip
import hashlib
import io
import json
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from deepsvdd_jax import configs, datasets
from deepsvdd_jax.cli import settings
from deepsvdd_jax.cli.adversarial import attack
from deepsvdd_jax.cli.adversarial.arrays import load_adversarials
from deepsvdd_jax.cli.commands import publish
from deepsvdd_jax.cli.files import ResultsError, write_json
from deepsvdd_jax.cli.reporting import finished, score_report
from deepsvdd_jax.cli.sweeps import checkpoints, config_file, records, summaries
from deepsvdd_jax.cli.sweeps.records import QualifiedName, Record, RunName
from deepsvdd_jax.configs import ConfigError, DataConfig, RunConfig, SplitConfig
from deepsvdd_jax.datasets import DataError, layout
from deepsvdd_jax.datasets.arrays import parse_npy
from deepsvdd_jax.datasets.cifar import parse_cifar_names, parse_cifar_records
from deepsvdd_jax.datasets.formats.archives import tar_files
from deepsvdd_jax.datasets.formats.images import decode_image, formats_of, is_image_name
from deepsvdd_jax.datasets.formats.pieces import Box, open_image
from deepsvdd_jax.datasets.gtsrb import parse_gtsrb_annotations
from deepsvdd_jax.datasets.idx import parse_idx, read_idx
from deepsvdd_jax.datasets.tables import Columns, parse_table
from deepsvdd_jax.io import archives, models, npz
from deepsvdd_jax.io.archives import ModelError
from deepsvdd_jax.io.models import Model
from deepsvdd_jax.runs import Progress
from deepsvdd_jax.training import EpochInfo

Samples = tuple[bytes, ...]


class Refused(Exception):
    """A parser returned None, which is a refusal."""


class Parser(NamedTuple):
    """A parser and valid files for it.

    Attributes:
      name: of what it parses.
      samples: returns valid files, without their packing.
      parse: takes a file's bytes, and a folder to write them to where it reads a path.
      refusals: what it may raise.
      pack: wraps a valid file in compression, or in a checksum that would hide damage to the
        content.
    """

    name: str
    samples: Callable[[], Samples]
    parse: Callable[[bytes, Path], object]
    refusals: tuple[type[Exception], ...] = (DataError,)
    pack: Callable[[bytes], bytes] = bytes


def _of_text(parse: Callable[[str, str], object]) -> Callable[[bytes, Path], object]:
    return lambda data, folder: parse(data.decode("utf-8", "replace"), "source")


def _of_bytes(parse: Callable[[bytes, str], object]) -> Callable[[bytes, Path], object]:
    return lambda data, folder: parse(data, "source")


def _of_file(name: str, read: Callable[[Path], object]) -> Callable[[bytes, Path], object]:
    """Returns a parser of bytes from a reader of files."""

    def parse(data: bytes, folder: Path) -> object:
        return read(_written(folder / name, data))

    return parse


def _written(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def _of_dataset(name: str, file: str) -> Callable[[bytes, Path], object]:
    def load(path: Path) -> object:
        return datasets.load(DataConfig(name, str(path)))

    return _of_file(f"{name}-data/{file}", load)


# --- data sets ----------------------------------------------------------------------------------


def _idx(shape: tuple[int, ...]) -> bytes:
    values = np.arange(int(np.prod(shape))) % 10
    sides = b"".join(side.to_bytes(4, "big") for side in shape)
    return b"\0\0\x08" + bytes([len(shape)]) + sides + values.astype(np.uint8).tobytes()


def _idx_samples() -> Samples:
    return _idx((2, 3, 4)), _idx((5,)), _idx((2, 28, 28))


def _gzip(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def _load_mnist(data: bytes, folder: Path) -> object:
    root = folder / "mnist"
    for part in ("train", "t10k"):
        _written(root / f"{part}-images-idx3-ubyte", _idx((2, 28, 28)))
        _written(root / f"{part}-labels-idx1-ubyte", _idx((2,)))
    _written(root / "t10k-images-idx3-ubyte", data)
    return datasets.load(DataConfig("mnist", str(folder)))


def _cifar_samples() -> Samples:
    return bytes(3073), bytes([9]) + bytes(3072) + bytes([1]) + bytes(3072)


def _tar(files: Mapping[str, bytes], pack_format: int) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=pack_format) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    # Without most of the zeros that fill it up.
    return stream.getvalue()[: 512 * (4 + len(stream.getvalue().rstrip(b"\0")) // 512)]


def _tar_samples() -> Samples:
    files = {"a" * 120 + "/é": bytes(700), "b": b"text", "c/../d": b"", "/e": b""}
    plain = {name: data for name, data in files.items() if name[0] in "ab"}
    formats = (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT)
    return (
        *(_tar(plain, pack_format) for pack_format in formats[:2]),
        *(_tar({name: data}, tarfile.PAX_FORMAT) for name, data in files.items()),
    )


def _read_tar(path: Path) -> object:
    return [_inside(path.parent, name, data) for name, data in tar_files(path, lambda name: True)]


def _inside(folder: Path, name: str, data: bytes) -> bytes:
    """Returns a member's content; fails where its name leads out of the archive's folder."""
    target = (folder / name).resolve()
    assert target.is_relative_to(folder.resolve()), f"member {name!r} leaves the archive"
    return data


def _gtsrb_samples() -> Samples:
    header = b"Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId\n"
    return header + b"a.ppm;9;9;1;2;3;4;5\n", header + b"a.ppm;9;9;0;0;8;8;14\n" * 3


def _load_gtsrb(data: bytes, folder: Path) -> object:
    root = folder / "gtsrb" / "GTSRB"
    pixels = b"P6\n9 9\n255\n" + bytes(243)
    _written(root / "Final_Training" / "Images" / "00005" / "a.ppm", pixels)
    _written(root / "Final_Training" / "Images" / "00005" / "GT-00005.csv", data)
    _written(root / "Final_Test" / "Images" / "a.ppm", pixels)
    _written(root / "Final_Test" / "Images" / "GT-final_test.csv", _gtsrb_samples()[0])
    return datasets.load(DataConfig("gtsrb", str(folder)))


def _npy_samples() -> Samples:
    found = []
    for values in (
        np.arange(12.0).reshape(3, 4),
        np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
        np.asfortranarray(np.arange(6, dtype=">f4").reshape(2, 3)),
        np.array([{}, None]),
    ):
        stream = io.BytesIO()
        np.save(stream, values)
        found.append(stream.getvalue())
    return tuple(found)


def _in_npz(member: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x_train.npy", member)
    return stream.getvalue()


def _csv_samples() -> Samples:
    return b'a,"b",label\n1,2.5,0\n3,4,1\n', b"x\r\n1\r\n-2e3\r\n", b'\xef\xbb\xbf"a\nb",c\n1,2\n'


def _parse_columns(data: bytes, folder: Path) -> object:
    columns = Columns("Class", ("note",), "id", required=("id",))
    return parse_table(data.decode("utf-8", "replace"), "source", columns)


def _layout_samples() -> Samples:
    mvtec = "train/good/0.png train/good/1.png test/good/0.png test/cut/0.png"
    return (
        b"good/1.jpg defects/cut/2.jpg defects/hole/3.jpg masks/cut/2.png x.png",
        f"{mvtec} ground_truth/cut/0_mask.png val/good/9.png".encode(),
        b"a/1.png a/1_GT.png b/2.png b/3.png",
    )


def _understand(data: bytes, folder: Path) -> object:
    """Sorts the images of a folder with such names, and fails where one of them is lost."""
    words = set(data.decode("utf-8", "surrogateescape").split(" "))
    found = [word for word in words if is_image_name(word) and _is_relative(word)]
    if len(found) < len(words):
        raise Refused
    sorted_out = layout.understand(found, "source")
    parts = (sorted_out.train, sorted_out.test, sorted_out.masks)
    used = [path for part in parts for paths in part.values() for path in paths]
    used += [item.path for item in sorted_out.left_out]
    assert sorted(used) == sorted(found), "images are lost"
    return sorted_out


def _is_relative(path: str) -> bool:
    return not {"", ".", ".."}.intersection(path.split("/"))


_IMAGE_MODES = {
    "png": ("RGB", "L", "RGBA", "P", "1", "LA", "I;16"),
    "jpeg": ("RGB", "L", "CMYK"),
    "bmp": ("RGB", "L", "P", "1"),
    "gif": ("P", "L"),
    "tiff": ("RGB", "L", "F", "I;16", "CMYK", "1"),
    "ppm": ("RGB", "L", "1"),
    "webp": ("RGB", "RGBA"),
    **{"jpeg2000": ("RGB", "L", "RGBA"), "tga": ("RGB", "L", "P"), "pcx": ("RGB", "L", "P", "1")},
    **{"sgi": ("RGB", "L"), "ico": ("RGBA",), "dds": ("RGB", "RGBA", "L")},
    **{"msp": ("1",), "xbm": ("1",)},
}


def _image_samples(name: str) -> Samples:
    from PIL import Image

    found = []
    for mode in _IMAGE_MODES[name]:
        pixels = np.arange(16 * 16 * 3, dtype=np.uint32).astype(np.uint8).reshape(16, 16, 3)
        image = Image.fromarray(pixels)
        image = image.convert("L").convert("I;16") if mode == "I;16" else image.convert(mode)
        stream = io.BytesIO()
        image.save(stream, name)
        found.append(stream.getvalue())
    return tuple(found)


def _decode(name: str, data: bytes, folder: Path) -> object:
    ending = {"jpeg2000": "jp2"}.get(name, name)
    return decode_image(data, "source", (8, 8), 3, formats_of(f"a.{ending}"))


def _cut_pieces(name: str, data: bytes, folder: Path) -> object:
    """Opens an image by its name, so that Pillow maps it where it can, and cuts of it."""
    path = _written(folder / f"a.{name}", data)
    with open_image(path, mapped_from=0) as image:
        height, width = image.sides
        box = Box(0, 0, min(4, height), min(4, width))
        return image.cut(box), image.reduced((2, 2))


# --- models and programs under way --------------------------------------------------------------


def _model() -> Model:
    ones = np.ones((2, 3), np.float32)
    return Model(
        config=RunConfig(),
        image_shape=(8, 8, 1),
        feature_names=("a",),
        params={"encoder": {"dense": {"kernel": ones}}},
        statistics={"encoder": {"norm": {"mean": ones}}},
        center=ones,
        squared_radius=np.ones(2, np.float32),
        train_means=np.ones(2),
        shift=np.zeros((1, 1, 1), np.float32),
        scale=np.ones((1, 1, 1), np.float32),
        whitening_mean=np.zeros(0),
        whitening_matrix=np.zeros((0, 0)),
        calibration_scores=np.array([0.1, 0.2], np.float32),
        threshold=0.5,
        summary={"epochs": 3},
    )


@functools.cache
def _model_files() -> tuple[bytes, bytes]:
    """Returns the description and the arrays of a model."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        models.save_model(path, _model())
        (arrays,) = path.glob("arrays-*.npz")
        return (path / "model.json").read_bytes(), arrays.read_bytes()


def _with_digest(description: bytes) -> bytes:
    """Returns a description with the checksum that its text should have."""
    try:
        values = json.loads(description)
        del values["digest"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return description
    values["digest"] = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
    return json.dumps(values).encode()


def _load_described(data: bytes, folder: Path) -> object:
    arrays = _model_files()[1]
    name = f"arrays-{hashlib.sha256(arrays).hexdigest()[:12]}.npz"
    _written(folder / "described" / name, arrays)
    return models.load_model(_written(folder / "described" / "model.json", data).parent)


def _load_arrays(data: bytes, folder: Path) -> object:
    values = json.loads(_model_files()[0])
    values |= {"arrays": "arrays-0.npz", "sha256": hashlib.sha256(data).hexdigest()}
    _written(folder / "arrays" / "model.json", _with_digest(json.dumps(values).encode()))
    return models.load_model(_written(folder / "arrays" / "arrays-0.npz", data).parent)


def _with_checksum(data: bytes) -> bytes:
    return b"DSVDD1\r\n" + hashlib.sha256(data).digest() + data


def _archive_samples() -> Samples:
    return (npz.npz_bytes({"a/b": np.arange(6.0).reshape(2, 3), "text": np.array(["x"])}),)


_TEMPLATE: Any = (np.zeros((2, 3), np.float32), np.zeros(2, np.int32))


@functools.cache
def _checkpoint_samples() -> Samples:
    history = EpochInfo(*(jnp.zeros((2, 1)) for _ in EpochInfo._fields))
    progress = Progress("training", 1, _TEMPLATE, jnp.zeros((2, 3)), {"training": history})
    evaluations = {"phase": np.array(["training"]), "epoch": np.array([1])}
    checkpoint = checkpoints.ProgramCheckpoint(
        (QualifiedName(RunName("deep_svdd", 0, 0)),), progress, evaluations, 1.5
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "program.bin"
        checkpoints.write_checkpoint(path, checkpoint)
        return (path.read_bytes()[len(_with_checksum(b"")) :],)


def _read_checkpoint(path: Path) -> object:
    saved = checkpoints.read_checkpoint(path)
    checkpoint = None if saved is None else checkpoints.restore(saved, _TEMPLATE)
    if checkpoint is None:
        raise Refused
    return checkpoint


# --- results ------------------------------------------------------------------------------------

_RUNS = (RunName("deep_svdd", 0, 0), RunName("deep_svdd", 0, 1))


def _record(name: RunName) -> Record:
    figures: dict[str, Any] = dict.fromkeys(
        (field.name for field in dataclasses.fields(Record) if field.type == "float | None"), 0.5
    )
    return Record(
        dataset="digits",
        protocol="one-vs-rest",
        objective="one-class",
        epochs=2,
        collapsed=False,
        **name._asdict(),
        **figures,
    )


def _sweep_settings() -> dict[str, Any]:
    data = configs.to_dict(DataConfig("npz"))
    del data["data_dir"]
    return {
        "data": data,
        "data_dir": "nowhere.npz",
        "split": configs.to_dict(SplitConfig()),
        "normal_classes": [0],
        "seeds": [0, 1],
        "methods": ["deep_svdd"],
        "deep_svdd": configs.to_dict(RunConfig()),
        "versions": {"jax": "0"},
    }


def _sweep_folder(folder: Path) -> Path:
    """Writes a sweep's folder of two runs, whole, with what a published one has."""
    _written(folder / "config.json", json.dumps(_sweep_settings()).encode())
    rows: dict[RunName, Record] = {}
    for name in _RUNS:
        scores: dict[str, np.ndarray] = {
            "scores": np.arange(4, dtype=np.float32),
            "distances": np.arange(4, dtype=np.float32),
            "labels": np.array([0, 0, 1, 1], np.uint8),
            "tested": np.ones(4, bool),
            "train_mean": np.array(1.0),
        }
        history = {"phase": np.array(["training"] * 2), "loss": np.array([2.0, 1.0])}
        records.write_run(folder, rows, _record(name), scores, history)
    records.write_runs(folder, rows)
    summaries.write_summary(folder, rows)
    write_json(folder / "hardware.json", {"parts": [{"device": {"cores": 2}}]})
    return folder


@functools.cache
def _sweep_file(name: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return (_sweep_folder(Path(folder)) / name).read_bytes()


def _in_sweep(name: str, read: Callable[[Path], object]) -> Callable[[bytes, Path], object]:
    """Returns a parser of one file of a sweep's folder, from a reader of the folder."""

    def parse(data: bytes, folder: Path) -> object:
        sweep = folder / "sweep"
        if not sweep.exists():
            _sweep_folder(sweep)
        whole = (sweep / name).read_bytes()
        try:
            return read(_written(sweep / name, data).parents[len(Path(name).parts) - 1])
        finally:
            (sweep / name).write_bytes(whole)

    return parse


def _read_settings(folder: Path) -> object:
    sweep = finished.read_sweep(folder, None, None)
    return sweep.methods, sweep.split


def _take_up(folder: Path) -> object:
    """Opens a sweep's folder as a resumed sweep does."""
    return config_file.take_up(folder, _sweep_settings())


def _join_published(folder: Path) -> object:
    joined = publish.joined([publish.read_published(folder)])
    return joined, publish.markdown(joined)


def _read_rows(folder: Path) -> object:
    rows = config_file.read_folder(folder)[1]
    summaries.summarize(folder, rows)
    if len(rows) < len(_RUNS):
        raise Refused
    return rows


def _scores_csv_samples() -> Samples:
    return (
        b'name,score,p_value,anomalous\na.png,1.5,0.25,1\n"b\n<i>""",-2,,0\n',
        b"anomalous,p_value,score,name\r\nyes,,1e3,x\r\n",
    )


def _adversarial_samples() -> Samples:
    images = np.zeros((2, 4, 4, 3), np.uint8)
    found = attack.Adversarials(
        images=images,
        originals=images,
        original_indices=np.arange(2),
        distances_l2=np.ones(2),
        predicted=np.arange(2),
        success=np.ones(2, bool),
    )
    return (npz.npz_bytes(found._asdict()),)


# --- all of them --------------------------------------------------------------------------------

_ALL = (
    Parser("idx", _idx_samples, _of_bytes(parse_idx)),
    Parser("idx-gzip", _idx_samples, _of_file("a.gz", read_idx), pack=_gzip),
    Parser("mnist", _idx_samples, _load_mnist),
    Parser("cifar", _cifar_samples, _of_bytes(parse_cifar_records)),
    Parser("cifar-names", lambda: (b"a\nb\n" * 5,), _of_bytes(parse_cifar_names)),
    Parser("tar", _tar_samples, _of_file("a.tar", _read_tar)),
    Parser("tar-gzip", _tar_samples, _of_file("a.tgz", _read_tar), pack=_gzip),
    Parser("gtsrb-table", _gtsrb_samples, _of_text(parse_gtsrb_annotations)),
    Parser("gtsrb", _gtsrb_samples, _load_gtsrb),
    Parser("npy", _npy_samples, _of_bytes(parse_npy)),
    Parser("npz", _npy_samples, _of_dataset("npz", "a.npz"), pack=_in_npz),
    Parser("csv", _csv_samples, _of_dataset("csv", "a.csv")),
    Parser("layout", _layout_samples, _understand, (DataError, Refused)),
    Parser(
        "csv-columns",
        lambda: (b'id,Class,note,x\nA-1,0,"b, c",1\nA-2,3,,-2.5\n', b"x,id,y\n1,,2\n"),
        _parse_columns,
    ),
    *(
        Parser(
            name,
            functools.partial(_image_samples, name),
            functools.partial(_decode, name),
        )
        for name in _IMAGE_MODES
    ),
    *(
        Parser(
            f"{name}-pieces",
            functools.partial(_image_samples, name),
            functools.partial(_cut_pieces, name),
        )
        for name in ("ppm", "tiff", "bmp")
    ),
    Parser(
        "config",
        lambda: (configs.to_json(RunConfig()).encode(),),
        _of_text(functools.partial(configs.from_json, RunConfig)),
        (ConfigError,),
    ),
    Parser(
        "config-flag",
        lambda: (_sweep_file("config.json"),),
        _of_file("config.json", settings.read_config),
        (ConfigError,),
    ),
    Parser(
        "sweep-config",
        lambda: (_sweep_file("config.json"),),
        _in_sweep("config.json", _read_settings),
        (ResultsError, ConfigError),
    ),
    Parser(
        "sweep-resumed",
        lambda: (_sweep_file("config.json"),),
        _in_sweep("config.json", _take_up),
        (ResultsError,),
    ),
    Parser(
        "sweep-row",
        lambda: (_sweep_file(f"rows/{_RUNS[0].stem}.json"),),
        _in_sweep(f"rows/{_RUNS[0].stem}.json", _read_rows),
        (ResultsError, Refused),
    ),
    *(
        Parser(
            f"published-{name.partition('.')[0]}",
            functools.partial(lambda name: (_sweep_file(name),), name),
            _in_sweep(name, _join_published),
            (ResultsError, ConfigError),
        )
        for name in ("runs.csv", "summary.csv", "hardware.json", "config.json")
    ),
    Parser(
        "sweep-history",
        lambda: (_sweep_file(f"history/{_RUNS[0].stem}.csv"),),
        _in_sweep(
            f"history/{_RUNS[0].stem}.csv", lambda folder: records.read_history(folder, _RUNS[0])
        ),
        (ResultsError,),
    ),
    Parser(
        "sweep-scores",
        lambda: (_sweep_file(f"scores/{_RUNS[0].stem}.npz"),),
        _in_sweep(
            f"scores/{_RUNS[0].stem}.npz", lambda folder: records.read_scores(folder, _RUNS[0])
        ),
        (ResultsError,),
    ),
    Parser("scores-csv", _scores_csv_samples, _of_file("s.csv", score_report.read_scores)),
    Parser("model", lambda: _model_files()[:1], _load_described, (ModelError,), pack=_with_digest),
    Parser("model-arrays", lambda: _model_files()[1:], _load_arrays, (ModelError,)),
    Parser(
        "archive",
        _archive_samples,
        _of_file("archive.bin", archives.read_archive),
        (ModelError,),
        pack=_with_checksum,
    ),
    Parser(
        "checkpoint",
        _checkpoint_samples,
        _of_file("program.bin", _read_checkpoint),
        (Refused,),
        pack=_with_checksum,
    ),
    Parser(
        "adversarials",
        _adversarial_samples,
        _of_file("adversarials.npz", lambda path: load_adversarials(path.parent)),
        (ValueError,),
    ),
)

PARSERS = {parser.name: parser for parser in _ALL}
