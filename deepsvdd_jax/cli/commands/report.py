"""Makes one self-contained HTML page of a sweep's folder, or of a model's scores of new data.

    python -m experiments.report --out=results/digits-auto
    python -m experiments.report --scores=scores.csv --data_dir=FOLDER --model=MODEL --out=DIR

Writes `report.html` into `--out` and its pictures as PNG files into `report/` beside it. The page
needs no network. That of scores has a small script, which sorts the table, shows an image whole,
and moves the threshold; the page is complete without it. If the names have folders of normal
samples (`good`, `normal`, `ok`), it counts false alarms and missed defects. `--maps=DIR`, a folder
that `score --maps` wrote, shows each map beside its image.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from deepsvdd_jax.cli import environment, files, paths, settings
from deepsvdd_jax.cli.lazy import lazily
from deepsvdd_jax.cli.maps.folder import DESCRIPTION
from deepsvdd_jax.configs import ConfigError
from deepsvdd_jax.viz import pages

with lazily():
    from deepsvdd_jax.cli.reporting import called, finished, score_report, sweep_report
    from deepsvdd_jax.io import models

if TYPE_CHECKING:
    from deepsvdd_jax.cli.reporting.called import NamedModel
    from deepsvdd_jax.cli.reporting.pictures import Page


_PAGE = "report.html"
_PICTURES = "report"


def define_flags() -> None:
    """Defines all flags of the command."""
    environment.define_flags()
    flags.DEFINE_string("out", None, "a sweep's folder; with --scores, the folder to write into")
    flags.DEFINE_string(
        "data_dir", None, "where the images are (default: where the sweep found them)"
    )
    flags.DEFINE_string("normal_classes", "all", "`all`, or the classes to show as 0,3,8")
    flags.DEFINE_string("scores", None, "scores of new data: name,score,p_value,anomalous")
    flags.DEFINE_string(
        "model", None, "with --scores: the saved model that scored; names it and its threshold"
    )
    flags.DEFINE_string(
        "maps", None, "with --scores: the folder that score --maps wrote; shown beside the images"
    )
    flags.DEFINE_bool(
        "follow_names",
        False,
        "with --scores: show images outside of --data_dir too, where names lead there by .., from "
        "the root or over links",
    )
    settings.define_pixel_flags()
    flags.DEFINE_integer("top", 64, "with --scores: how many anomalies to show", lower_bound=1)


def main() -> None:
    """Reads the flags, builds the page and writes it."""
    values = flags.FLAGS
    if values.out is None:
        raise ConfigError("out is not given; it is a sweep's folder, or with --scores a new one")
    if values.model is not None and values.scores is None:
        raise ConfigError("model is for --scores: a sweep's page names its own models")
    if values.maps is not None and values.scores is None:
        raise ConfigError("maps is for --scores: a sweep's page has none")
    check_matplotlib()
    folder = paths.folder_to_write("out", values.out)
    check_pages(folder)
    if values.data_dir is not None:
        paths.to_read("data_dir", values.data_dir)
    if values.scores is not None:
        rows = score_report.read_scores(paths.to_read("scores", values.scores))
        root = Path() if values.data_dir is None else paths.to_read("data_dir", values.data_dir)
        maps = None if values.maps is None else _map_folder(values.maps)
        images = score_report.Images(root, values.follow_names, values.max_megapixels, maps)
        page = score_report.build_page(
            rows, images, values.top, _named_model(values.model), values.scores
        )
    else:
        environment.use_platform(values.platform, values.compilation_cache)
        classes = _classes(values.normal_classes)
        page = sweep_report.build_page(finished.read_sweep(folder, values.data_dir, classes))
    print(write_page(folder, page))


def _map_folder(text: str) -> Path:
    maps = paths.to_read("maps", text)
    if not (maps / DESCRIPTION).is_file():
        raise ConfigError(
            f"--maps={text} holds no {DESCRIPTION}: no folder that score --maps wrote"
        )
    return maps


def _named_model(path: str | None) -> NamedModel | None:
    if path is None:
        return None
    folder = paths.to_read("model", path)
    return called.NamedModel(folder.resolve().name, models.load_model(folder))


def check_pages(folder: Path) -> None:
    """Refuses a folder with a page or a folder of pictures that this command did not write (touches
    files).

    Raises:
      ConfigError: names it.
    """
    page, pictures = folder / _PAGE, folder / _PICTURES
    if page.is_file() and not page.is_symlink():
        with page.open("rb") as file:
            is_ours = file.read(len(pages.HEAD)) == pages.HEAD.encode()
    else:
        is_ours = not os.path.lexists(page) and not os.path.lexists(pictures)
    if not is_ours:
        raise ConfigError(
            f"--out={folder} holds {_PAGE} or {_PICTURES}/ that this command did not write; give "
            "another --out"
        )


def check_matplotlib() -> None:
    """Raises ConfigError with the install command where matplotlib is missing."""
    if importlib.util.find_spec("matplotlib") is None:
        raise ConfigError("the report needs matplotlib: pip install -e '.[report]'")


def write_page(folder: Path, page: Page) -> Path:
    """Writes the pictures, then the page (touches files); returns where the page is."""
    for name, png in page.pictures.items():
        files.write_bytes(folder / _PICTURES / name, png)
    path = folder / _PAGE
    files.write_text(path, page.html)
    return path


def _classes(text: str) -> tuple[int, ...] | None:
    if text == "all":
        return None
    found = settings.integer_list("normal_classes", text)
    if not found:
        raise ConfigError(f"normal_classes is {text!r}; give classes as 0,3,8, or all")
    return found
