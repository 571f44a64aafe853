"""Exports a saved model as one file that jax alone runs.

python -m experiments.export --model=parts.model --out=scorer.jaxexport
"""

from pathlib import Path

from absl import flags

from deepsvdd_jax.cli import environment, files, paths
from deepsvdd_jax.cli.lazy import lazily
from deepsvdd_jax.configs import EXPORT_PLATFORMS, ConfigError
from deepsvdd_jax.io import models

with lazily():
    from deepsvdd_jax.detectors import export


# What every program in StableHLO holds.
_MARK = b"StableHLO_v"


def define_flags() -> None:
    """Defines all flags of the command."""
    environment.define_flags()
    flags.DEFINE_string("model", None, "folder of a saved model")
    flags.DEFINE_string("out", "scorer.jaxexport", "file to write")
    flags.DEFINE_list("platforms", list(EXPORT_PLATFORMS), "what it is to run on")


def main() -> None:
    """Reads the flags, exports, says what the file takes and gives."""
    values = flags.FLAGS
    if values.model is None:
        raise ConfigError("--model is not given; it names the folder of a saved model")
    unknown = [name for name in values.platforms if name not in EXPORT_PLATFORMS]
    if unknown or not values.platforms:
        raise ConfigError(f"platforms is {values.platforms}; any of {','.join(EXPORT_PLATFORMS)}")
    folder = paths.to_read("model", values.model)
    out = paths.file_to_write("out", values.out, "exported scorer", is_export, [folder])
    environment.use_platform(values.platform, values.compilation_cache)
    model = models.load_model(folder)
    try:
        data = export.export_model(model, tuple(values.platforms))
    except ImportError as error:
        raise ConfigError(str(error)) from None
    files.write_bytes(out, data)
    shape = ", ".join(map(str, model.image_shape))
    print(
        f"{values.out}: {len(data) / 1e6:.2f} MB for {', '.join(values.platforms)}; float32 "
        f"[n, {shape}] to scores [n]; anomalous above {model.threshold:.6g}"
    )


def is_export(path: Path) -> bool:
    """Returns whether a file is an exported scorer (touches files)."""
    return _MARK in path.read_bytes()
