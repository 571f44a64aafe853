"""Exports a saved model as one file that jax alone runs, or any runtime of ONNX.

    python -m experiments.export --model=parts.model --out=scorer.jaxexport
    python -m experiments.export --model=parts.model --format=onnx --out=scorer.onnx
    python scorer.py new.jpg

A scorer in ONNX gives scores, alarms by the model's threshold and p-values; it is compared with the
model before it is written. For a model of images a script is written beside either, which needs jax
or onnxruntime, numpy and Pillow and reads image files as `score` does: orientation, transparency,
depth, channels and size.
"""

from pathlib import Path

from absl import flags

from deepsvdd_jax.cli import environment, files, paths, thresholds
from deepsvdd_jax.cli.lazy import lazily
from deepsvdd_jax.configs import EXPORT_PLATFORMS, ConfigError
from deepsvdd_jax.io import models

with lazily():
    from deepsvdd_jax.detectors import export, export_onnx, reader

# Bytes that every program in StableHLO holds, and every ONNX file of this command.
_MARKS = (b"StableHLO_v", b"deepsvdd_jax_scorer")
_NAMES = {"stablehlo": "scorer.jaxexport", "onnx": "scorer.onnx"}


def define_flags() -> None:
    """Defines all flags of the command."""
    environment.define_flags()
    flags.DEFINE_string("model", None, "folder of a saved model")
    flags.DEFINE_enum("format", "stablehlo", tuple(_NAMES), "what the file is written in")
    flags.DEFINE_string("out", None, "file to write (default: scorer.jaxexport, or scorer.onnx)")
    flags.DEFINE_bool("script", True, "write the script that reads image files beside it")
    flags.DEFINE_list(
        "platforms", list(EXPORT_PLATFORMS), "with --format=stablehlo: what it is to run on"
    )


def main() -> None:
    """Reads the flags, exports, prints the input and output of the file."""
    values = flags.FLAGS
    if values.model is None:
        raise ConfigError("--model is not given; it names the folder of a saved model")
    unknown = [name for name in values.platforms if name not in EXPORT_PLATFORMS]
    if unknown or not values.platforms:
        raise ConfigError(f"platforms is {values.platforms}; any of {','.join(EXPORT_PLATFORMS)}")
    if values.format == "onnx" and values["platforms"].present:
        raise ConfigError("platforms is for --format=stablehlo; an ONNX file has no platform")
    folder = paths.to_read("model", values.model)
    name = _NAMES[values.format] if values.out is None else values.out
    out = paths.file_to_write("out", name, "exported scorer", is_export, [folder])
    environment.use_platform(values.platform, values.compilation_cache)
    model = models.load_model(folder)
    thresholds.tell_of_cross_calibration(model)
    script = script_beside(out, folder) if values.script and len(model.image_shape) == 3 else None
    try:
        if values.format == "onnx":
            data, where = export_onnx.export_onnx(model), "ONNX"
        else:
            data = export.export_model(model, tuple(values.platforms))
            where = ", ".join(values.platforms)
    except ImportError as error:
        raise ConfigError(str(error)) from None
    except export_onnx.OnnxError as error:
        raise files.ResultsError(f"{values.model}: {error}") from None
    files.write_bytes(out, data)
    shape = ", ".join(map(str, model.image_shape))
    print(
        f"{name}: {len(data) / 1e6:.2f} MB for {where}; float32 [n, {shape}] to scores [n]; "
        f"anomalous above {model.threshold:.6g}"
    )
    if script is not None:
        files.write_text(script, reader.reader_script(model, out.name, values.format))
        print(f"{script}: reads image files as `score` does: python {script.name} IMAGE ...")


def script_beside(out: Path, model: Path) -> Path:
    """Returns the path of the script (touches files).

    Raises:
      ConfigError: another file is there.
    """
    name = out.with_suffix(".py").name if out.suffix != ".py" else f"{out.stem}_script.py"
    script = out.with_name(name)
    return paths.file_to_write("out", str(script), "script of an export", is_script, [model])


def is_script(path: Path) -> bool:
    """Returns whether a file is the script of an exported scorer (touches files)."""
    return path.read_bytes().startswith(reader.MARK.encode())


def is_export(path: Path) -> bool:
    """Returns whether a file is an exported scorer (touches files)."""
    content = path.read_bytes()
    return any(mark in content for mark in _MARKS)
