"""One self-contained HTML page of a sweep's folder, or of a model's scores of new data.

    python -m experiments.report --out=results/digits-auto
    python -m experiments.report --scores=scores.csv --data_dir=FOLDER --out=DIR

Writes `report.html` into `--out` and its pictures as PNG files into `report/` beside it. The page
needs no network and no script.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from deepsvdd_jax.configs import ConfigError
from experiments import environment, results, settings
from experiments.lazy import lazily

with lazily():
    from experiments import score_report, sweep_report

if TYPE_CHECKING:
    from experiments.sweep_report import Page


def define_flags() -> None:
    """Defines all flags of the command."""
    environment.define_flags()
    flags.DEFINE_string("out", None, "a sweep's folder; with --scores, the folder to write into")
    flags.DEFINE_string(
        "data_dir", None, "where the images are (default: where the sweep found them)"
    )
    flags.DEFINE_string("normal_classes", "all", "`all`, or the classes to show as 0,3,8")
    flags.DEFINE_string("scores", None, "scores of new data: name,score,p_value,anomalous")
    flags.DEFINE_bool(
        "follow_names",
        False,
        "with --scores: show images outside of --data_dir too, where names lead there by .., from "
        "the root or over links",
    )
    flags.DEFINE_integer("top", 64, "with --scores: how many anomalies to show", lower_bound=1)


def main() -> None:
    """Reads the flags, builds the page and writes it."""
    values = flags.FLAGS
    if not values.out:
        raise ConfigError("out is not given; it is a sweep's folder, or with --scores a new one")
    check_matplotlib()
    folder = Path(values.out).expanduser()
    if values.scores is not None:
        rows = score_report.read_scores(Path(values.scores).expanduser())
        page = score_report.build_page(rows, values.data_dir, values.top, values.follow_names)
    else:
        environment.use_platform(values.platform, values.compilation_cache)
        classes = _classes(values.normal_classes)
        page = sweep_report.build_page(sweep_report.read_sweep(folder, values.data_dir, classes))
    print(write_page(folder, page))


def check_matplotlib() -> None:
    """Raises ConfigError with the install command where matplotlib is missing."""
    if importlib.util.find_spec("matplotlib") is None:
        raise ConfigError("the report needs matplotlib: pip install -e '.[report]'")


def write_page(folder: Path, page: Page) -> Path:
    """Writes the pictures, then the page (touches files); returns where the page is."""
    for name, png in page.pictures.items():
        results.write_bytes(folder / "report" / name, png)
    path = folder / "report.html"
    results.write_text(path, page.html)
    return path


def _classes(text: str) -> tuple[int, ...] | None:
    if text == "all":
        return None
    found = settings.integer_list("normal_classes", text)
    if not found:
        raise ConfigError(f"normal_classes is {text!r}; give classes as 0,3,8, or all")
    return found


if __name__ == "__main__":
    define_flags()
    environment.run_command(main)
