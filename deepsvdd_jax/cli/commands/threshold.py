"""Shows what a saved model's threshold finds among labelled samples, and what others would find.

    python -m experiments.threshold --model=parts.model --data_dir=labelled
    python -m experiments.threshold --model=parts.model --data_dir=labelled --cost_missed=50 \\
        --cost_false_alarm=1 --defect_rate=0.002

`--data_dir` is a folder with `good/` beside folders of defects (of `train/` and `test/` the test
part), a csv file with a column of labels (`--label_column`, 0 = normal), or an npz file with `x`
and `y`. Prints the thresholds worth choosing from, with defects found and false alarms. Costs, a
`--false_alarm_rate` of the labelled normals or a `--threshold` make a choice, which is written into
the model with its evidence; without one of them the model stays as it is. `--out` names a folder
for the whole table and a picture of it.

The model must not have been trained on these normals: training samples score lower than new ones,
and would promise too few false alarms.
"""

import importlib.util
import math
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from absl import flags

from deepsvdd_jax import datasets
from deepsvdd_jax.cli import bars, environment, files, paths, settings, thresholds
from deepsvdd_jax.cli.commands import score
from deepsvdd_jax.cli.lazy import lazily
from deepsvdd_jax.configs import ConfigError
from deepsvdd_jax.datasets import Columns, DataError, folder
from deepsvdd_jax.datasets.arrays import read_npz
from deepsvdd_jax.datasets.layout import images_to_score
from deepsvdd_jax.datasets.tables import LABEL
from deepsvdd_jax.io import models
from deepsvdd_jax.io.models import Model
from deepsvdd_jax.scoring import tradeoff
from deepsvdd_jax.scoring.tradeoff import Costs, TradeOff
from deepsvdd_jax.viz import plots, tradeoffs
from deepsvdd_jax.viz.tradeoffs import Mark

with lazily():
    from deepsvdd_jax import detectors
    from deepsvdd_jax.detectors import model_card

TABLE_NAME, PICTURE_NAME = "thresholds.csv", "thresholds.png"
COLUMNS = ("threshold", "false_alarms", "normals", "defects_found", "defects")
# Most thresholds that are printed; the file has all of them.
_MOST_LINES = 15


class Labelled(NamedTuple):
    """Labelled samples: their scores, `[n]`, and their kinds, "" for a normal one."""

    scores: npt.NDArray[np.float32]
    kinds: tuple[str, ...]

    @property
    def is_normal(self) -> npt.NDArray[np.bool_]:
        return np.array([not kind for kind in self.kinds])


def define_flags() -> None:
    """Defines all flags of the command."""
    environment.define_flags()
    flags.DEFINE_string("model", None, "folder of a saved model")
    flags.DEFINE_string("data_dir", None, "labelled folder of images, csv file or npz file")
    settings.define_column_flags()
    settings.define_pixel_flags()
    flags.DEFINE_string("out", None, "folder for the whole table and its picture")
    settings.define_unreadable_flag()
    flags.DEFINE_float("cost_missed", None, "what a defect that raises no alarm costs")
    flags.DEFINE_float("cost_false_alarm", None, "what an alarm of a normal sample costs")
    flags.DEFINE_float(
        "defect_rate",
        None,
        "share of defects among the samples to come, for the costs (default: that of the labelled)",
    )
    flags.DEFINE_float(
        "false_alarm_rate", None, "largest share of the labelled normals that may raise an alarm"
    )
    flags.DEFINE_float("threshold", None, "score above which a sample is anomalous")


def main() -> None:
    """Reads the flags, scores the labelled samples, prints the trade-off, writes a choice."""
    values = flags.FLAGS
    settings.require(values, "model", "data_dir")
    check_choice(values)
    saved = paths.to_read("model", values.model)
    data = paths.to_read("data_dir", values.data_dir)
    out = None
    if values.out is not None:
        out = paths.folder_to_write("out", values.out, (TABLE_NAME,), [saved, data])
    environment.use_platform(values.platform, values.compilation_cache)
    model = models.load_model(saved)
    thresholds.tell_of_cross_calibration(model)
    labelled = score_labelled(data, model, values)
    normal = labelled.is_normal
    table = tradeoff.trade_off(labelled.scores[normal], labelled.scores[~normal])
    chosen = choose(table, values)
    print(describe(model, labelled, table, chosen))
    if out is not None:
        write(out, table, marks_of(model, labelled, chosen))
    if chosen is not None:
        evidence = describe_choice(values, labelled, chosen)
        moved = with_choice(model, chosen, evidence)
        models.save_model(saved, moved)
        model_card.write_card(saved, moved)
        print(
            f"{values.model}: threshold {chosen:.6g}, was {model.threshold:.6g}; {evidence['rule']}"
        )


def check_choice(values: flags.FlagValues) -> None:
    """Refuses flags that do not go together.

    Raises:
      ConfigError: names them.
    """
    costs = [name for name in ("cost_missed", "cost_false_alarm") if values[name].value is not None]
    given = [costs[0]] if costs else []
    given += [name for name in ("false_alarm_rate", "threshold") if values[name].value is not None]
    if len(given) > 1:
        raise ConfigError(f"{given[0]} and {given[1]} both choose the threshold; give one")
    if len(costs) == 1:
        other = {"cost_missed": "cost_false_alarm", "cost_false_alarm": "cost_missed"}[costs[0]]
        raise ConfigError(f"{costs[0]} needs --{other} beside it")
    if values.defect_rate is not None and not costs:
        raise ConfigError("defect_rate is for costs: give --cost_missed and --cost_false_alarm")
    if values.threshold is not None and not math.isfinite(values.threshold):
        raise ConfigError(f"threshold is {values.threshold}; give a finite score")


def choose(table: TradeOff, values: flags.FlagValues) -> float | None:
    """Returns the threshold that the flags choose; None where they choose none."""
    if values.threshold is not None:
        return float(values.threshold)
    if values.false_alarm_rate is not None:
        return float(table.thresholds[tradeoff.within_false_alarms(table, values.false_alarm_rate)])
    if values.cost_missed is not None:
        costs = Costs(values.cost_missed, values.cost_false_alarm, values.defect_rate)
        return float(table.thresholds[tradeoff.cheapest(table, costs)])
    return None


# --- labelled samples ---------------------------------------------------------------------------


def score_labelled(path: Path, model: Model, values: flags.FlagValues) -> Labelled:
    """Scores labelled samples (touches files).

    Raises:
      DataError: there are no samples, they do not suit the model, or they have no labels.
    """
    reading = score.Reading(values.skip_unreadable, values.max_megapixels)
    kinds = _kinds(path, model, values)
    normals = sum(not kind for _, kind in kinds)
    if normals in (0, len(kinds)):
        raise DataError(
            f"{path}: {normals} normal and {len(kinds) - normals} defective samples; a trade-off "
            "needs both kinds"
        )
    source = score.open_source(path, model, reading, score.table_columns(values, model))
    names: list[str] = []
    parts = []
    with bars.progress_bar("score", source.total, "sample") as bar:
        for batch, samples in source.batches:
            names += batch
            parts.append(detectors.score_images(model, samples))
            bar.update(len(batch))
    known = dict(kinds) if path.is_dir() else dict(enumerate(kind for _, kind in kinds))
    keys = names if path.is_dir() else range(len(names))
    found = tuple(known[key] for key in keys)  # type: ignore[index]
    scores = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    return Labelled(scores, found)


def _kinds(path: Path, model: Model, values: flags.FlagValues) -> list[tuple[str, str]]:
    """Returns names and kinds of the samples in order; "" is normal."""
    if path.is_dir():
        return _kinds_of_folder(path)
    if path.suffix.lower() == ".npz":
        arrays = read_npz(path)
        for x, y in (("x", "y"), ("x_test", "y_test")):
            if x in arrays:
                if y not in arrays:
                    raise DataError(f"{path}: {y} is missing; 0 = normal, 1 = anomalous")
                if len(arrays[x]) != len(arrays[y]):
                    raise DataError(
                        f"{path}: {len(arrays[y])} labels in {y}, {len(arrays[x])} samples in {x}"
                    )
                return _kinds_of_labels(arrays[y])
        raise DataError(
            f"{path}: holds {', '.join(arrays)}; expected x and y, or x_test and y_test"
        )
    label = values.label_column or model.summary.get("data", {}).get("label_column") or LABEL
    if ".csv" not in [ending.lower() for ending in path.suffixes]:
        raise DataError(f"{path}: a labelled folder, csv file or npz file is needed")
    columns = score.table_columns(values, model)
    ignored = tuple(name for name in columns.ignored if name != label)
    table = datasets.read_table(path, Columns(label, ignored, columns.identifier, columns.features))
    if table.labels is None:
        raise DataError(f"{path}: no column {label!r} of labels; name it with --label_column")
    return _kinds_of_labels(table.labels)


def _kinds_of_labels(labels: npt.NDArray[Any]) -> list[tuple[str, str]]:
    return [("", f"class {label}" if label else "") for label in np.asarray(labels).tolist()]


def _kinds_of_folder(path: Path) -> list[tuple[str, str]]:
    layout = folder.read_layout(path)
    if layout.normal is None:
        raise DataError(
            f"{path}: no folder named good, normal or ok; put the normal images into one, beside "
            "folders of defects"
        )
    normal = {*layout.normals, *layout.test_normals}
    kind_of = {
        name: kind
        for part in (layout.known_defects, layout.defects)
        for kind, names in part.items()
        for name in names
    }
    names = images_to_score(layout)[0]
    stray = [name for name in names if name not in normal and name not in kind_of]
    if stray:
        raise DataError(
            f"{path}: {stray[0]} lies in no folder of a class, so that nothing tells whether it is "
            "normal"
        )
    return [(name, "" if name in normal else kind_of[name]) for name in names]


# --- output -------------------------------------------------------------------------------------


def describe(model: Model, labelled: Labelled, table: TradeOff, chosen: float | None) -> str:
    """Returns the lines to print."""
    shown = tradeoff.corners(table)
    if len(shown) > _MOST_LINES:
        places = np.linspace(0, len(shown) - 1, _MOST_LINES).round().astype(int)
        shown = [shown[place] for place in dict.fromkeys(places.tolist())]
    lines = [
        f"{table.normals} normals, {table.defects} defects",
        "threshold    false alarms (95 % interval)     defects found (95 % interval)",
    ]
    rows = [(float(table.thresholds[number]), "") for number in shown]
    rows.append((model.threshold, "the model's own"))
    if chosen is not None:
        rows.append((chosen, "chosen"))
    for threshold, remark in sorted(rows, key=lambda row: -row[0]):
        alarms, found = counts(labelled, threshold)
        lines.append(
            f"{threshold:<12.6g} {_share(alarms, table.normals):<32} "
            f"{_share(found, table.defects):<31} {remark}".rstrip()
        )
    return "\n".join(lines)


def counts(labelled: Labelled, threshold: float) -> tuple[int, int]:
    """Returns how many normals and how many defects lie above a threshold."""
    above = labelled.scores > threshold
    normal = labelled.is_normal
    return int(above[normal].sum()), int(above[~normal].sum())


def _share(count: int, total: int) -> str:
    low, high = tradeoff.share_interval(count, total)
    return f"{count} = {100 * count / total:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def describe_choice(values: flags.FlagValues, labelled: Labelled, chosen: float) -> dict[str, Any]:
    """Returns the rule and the evidence of a choice, JSON values."""
    if values.threshold is not None:
        rule = "given"
    elif values.false_alarm_rate is not None:
        rule = f"at most {values.false_alarm_rate:g} of the labelled normals above"
    else:
        rate = "" if values.defect_rate is None else f", defect rate {values.defect_rate:g}"
        rule = (
            f"cheapest at {values.cost_missed:g} for a missed defect and "
            f"{values.cost_false_alarm:g} for a false alarm{rate}"
        )
    alarms, found = counts(labelled, chosen)
    kinds: dict[str, dict[str, int]] = {}
    for kind, value in zip(labelled.kinds, labelled.scores, strict=True):
        if kind:
            of_kind = kinds.setdefault(kind, {"defects": 0, "found": 0})
            of_kind["defects"] += 1
            of_kind["found"] += int(value > chosen)
    normals = int(labelled.is_normal.sum())
    return {
        "rule": rule,
        "normals": normals,
        "false_alarms": alarms,
        "defects": len(labelled.scores) - normals,
        "found": found,
        "kinds": kinds,
    }


def with_choice(model: Model, threshold: float, evidence: dict[str, Any]) -> Model:
    """Returns the model with a chosen threshold, without the rate of its former one."""
    summary = {
        **model.summary,
        "threshold_rule": f"chosen from labelled samples: {evidence['rule']}",
        "threshold_choice": {**evidence, "threshold_before": model.threshold},
        "alarm_rate": None,
    }
    return model._replace(threshold=threshold, summary=summary)


def marks_of(model: Model, labelled: Labelled, chosen: float | None) -> list[Mark]:
    """Returns the thresholds that a picture marks: the model's own, and the chosen one."""
    named = {"the model's own": model.threshold}
    if chosen is not None:
        named["chosen"] = chosen
    return [
        Mark(name, threshold, *counts(labelled, threshold))
        for name, threshold in named.items()
        if math.isfinite(threshold)
    ]


def write(out: Path, table: TradeOff, marks: list[Mark]) -> None:
    """Writes the whole table, and its picture if matplotlib is installed (touches files)."""
    rows = zip(table.thresholds, table.false_alarms, table.found, strict=True)
    lines = [(t, alarms, table.normals, found, table.defects) for t, alarms, found in rows]
    files.write_table(out / TABLE_NAME, [COLUMNS, *lines])
    print(out / TABLE_NAME)
    if importlib.util.find_spec("matplotlib") is None:
        print("no picture: it needs matplotlib, pip install -e '.[report]'", file=sys.stderr)
        return
    picture = plots.png_bytes(tradeoffs.trade_off_figure(table, marks))
    files.write_bytes(out / PICTURE_NAME, picture)
    print(out / PICTURE_NAME)
