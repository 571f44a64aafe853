"""Finds the best epoch to stop at, and the rules that would find it without labels.

    python -m experiments.sweep --seeds=5 --validation_fraction=0.1 --evaluate_every=2 --out=DIR
    python -m experiments.stopping --out=DIR
    python -m experiments.stopping --out=DIR --choose_on=OTHER

Reads the figures of the full passes of a finished sweep. A rule sees losses and distances of
training and held-out normal images, never a label nor a test image; the test AUROC only measures
the epoch that it chose. `--choose_on` marks the best rule of another sweep: no test label of this
sweep has helped to choose it.
"""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from absl import flags

from deepsvdd_jax.cli import environment, files, paths
from deepsvdd_jax.cli.commands import report
from deepsvdd_jax.cli.files import ResultsError
from deepsvdd_jax.cli.reporting import tables
from deepsvdd_jax.cli.sweeps import config_file, records
from deepsvdd_jax.cli.sweeps.records import Record, RunName
from deepsvdd_jax.viz import plots
from deepsvdd_jax.viz.plots import Curve

Array = npt.NDArray[np.floating]
Places = npt.NDArray[np.integer]


class Observed(NamedTuple):
    """The data of a class's seeds that a rule may see: nothing of the test set.

    Attributes:
      epochs: `[passes]`.
      train: `[seeds, passes]`, mean d of the training images.
      held_out: `[seeds, passes]`, mean d of normal images held out; None where there are none.
      ranks: `[seeds, passes, n]`, ranks by d of training images that all seeds have.
    """

    epochs: Places
    train: Array
    held_out: Array | None
    ranks: Array


class Trace(NamedTuple):
    """The seeds of a class: the data that a rule may see, and the test AUROC that measures it.

    Attributes:
      seen: data for the rules.
      aurocs: `[seeds, passes]`, of the test set.
    """

    seen: Observed
    aurocs: Array


class Judged(NamedTuple):
    """A rule on a class, means over seeds; AUROC in [0, 1]."""

    epoch: float
    auroc: float
    last: float
    best: float


# --- rules: from what may be seen to each seed's pass, `[seeds]` --------------------------------


def last(seen: Observed) -> Places:
    """The recipe's own last epoch."""
    return np.full(len(seen.train), len(seen.epochs) - 1)


def plateau(seen: Observed, least: float) -> Places:
    """The first pass at which the training loss fell by less than a share `least` an epoch."""
    fall = 1.0 - seen.train[:, 1:] / seen.train[:, :-1]
    return _first(fall / np.diff(seen.epochs) < least, seen)


def held_out_rise(seen: Observed) -> Places:
    """The pass before the loss of held-out normal images rises for the first time."""
    assert seen.held_out is not None
    rises = seen.held_out[:, 1:] >= seen.held_out[:, :-1]
    found = _first(rises, seen)
    return np.where(rises.any(axis=1), found - 1, found)


def gap(seen: Observed, most: float) -> Places:
    """The first pass at which held-out images lie farther than training images by a share."""
    assert seen.held_out is not None
    wide = seen.held_out / seen.train > 1.0 + most
    return _first(wide[:, 1:], seen)


def steady(seen: Observed, least: float) -> Places:
    """The first pass at which a seed ranks the training images as it did one pass before: rank
    correlation of at least `least`."""
    same = _correlations(seen.ranks[:, 1:], seen.ranks[:, :-1])
    return _first(same >= least, seen)


def agreement(seen: Observed, least: float) -> Places:
    """The first pass at which the rank correlation between seeds grew by less than `least`; all
    seeds stop there."""
    between = agreements(seen)
    ended = np.diff(between) < least
    return _first(np.tile(ended, (len(seen.train), 1)), seen)


def agreements(seen: Observed) -> Array:
    """Returns the mean rank correlation between two seeds by pass, `[passes]`."""
    first, second = np.triu_indices(len(seen.ranks), 1)
    return _correlations(seen.ranks[first], seen.ranks[second]).mean(axis=0)


def _first(holds: npt.NDArray[np.bool_], seen: Observed) -> Places:
    """Returns the first pass after the first one at which a condition holds, else the last.

    Args:
      holds: `[seeds, passes - 1]`, from the second pass on.
      seen: of the class.
    """
    return np.where(holds.any(axis=1), holds.argmax(axis=1) + 1, last(seen))


def _correlations(one: Array, other: Array) -> Array:
    """Returns the correlation of ranks over the last axis."""
    one, other = (values - values.mean(axis=-1, keepdims=True) for values in (one, other))
    norm = np.sqrt((one**2).sum(axis=-1) * (other**2).sum(axis=-1))
    return np.asarray((one * other).sum(axis=-1) / np.maximum(norm, np.finfo(float).tiny))


Rule = Callable[[Observed], Places]
LAST = "last epoch"

RULES: dict[str, Rule] = {
    LAST: last,
    **{
        f"training loss falls by less than {100 * share:g} % an epoch": functools.partial(
            plateau, least=share
        )
        for share in (0.05, 0.02, 0.01, 0.005)
    },
    **{
        f"rank correlation with the pass before is {level:g}": functools.partial(
            steady, least=level
        )
        for level in (0.95, 0.98, 0.99)
    },
    **{
        f"rank correlation between seeds grows by less than {step:g}": functools.partial(
            agreement, least=step
        )
        for step in (0.02, 0.0)
    },
}
HELD_OUT_RULES: dict[str, Rule] = {
    "held-out loss rises": held_out_rise,
    **{
        f"held-out images are {100 * share:g} % farther": functools.partial(gap, most=share)
        for share in (0.1, 0.3, 1.0)
    },
}


# --- judging ------------------------------------------------------------------------------------


def judge(rule: Rule, trace: Trace) -> Judged:
    """Returns the test AUROC at a rule's passes, beside the last and each seed's best pass."""
    chosen = rule(trace.seen)
    reached = np.take_along_axis(trace.aurocs, chosen[:, None], axis=1)
    return Judged(
        float(trace.seen.epochs[chosen].mean()),
        float(reached.mean()),
        float(trace.aurocs[:, -1].mean()),
        float(trace.aurocs.max(axis=1).mean()),
    )


def judge_all(traces: Mapping[int, Trace]) -> dict[str, dict[int, Judged]]:
    """Returns the result of every rule by class; rules that need held-out images only if all
    classes have some."""
    has_held_out = all(trace.seen.held_out is not None for trace in traces.values())
    rules = RULES | HELD_OUT_RULES if has_held_out else RULES
    return {
        name: {label: judge(rule, trace) for label, trace in traces.items()}
        for name, rule in rules.items()
    }


def best_rule(judged: Mapping[str, Mapping[int, Judged]]) -> str:
    """Returns the rule with the highest mean AUROC over classes; the first of equal ones."""
    return max(judged, key=lambda name: _mean(judged[name], "auroc"))


def _mean(of_class: Mapping[int, Judged], field: str) -> float:
    return float(np.mean([getattr(judged, field) for judged in of_class.values()]))


def rule_table(
    judged: Mapping[str, Mapping[int, Judged]], marked: str | None
) -> list[tuple[str, ...]]:
    """Returns the cells of the table, means over classes, AUROC in percent, the header first."""
    labels = list(judged[LAST])
    lines = [
        ("stop where", "epoch", "AUROC", "to last", "regret", *(str(label) for label in labels))
    ]
    for name, of_class in judged.items():
        auroc = _mean(of_class, "auroc")
        lines.append(
            (
                f"{name} *" if name == marked else name,
                f"{_mean(of_class, 'epoch'):.1f}",
                f"{100 * auroc:.2f}",
                f"{100 * (auroc - _mean(of_class, 'last')):+.2f}",
                f"{100 * (_mean(of_class, 'best') - auroc):.2f}",
                *(f"{100 * of_class[label].auroc:.2f}" for label in labels),
            )
        )
    best = judged[LAST]
    oracle = (f"{100 * best[label].best:.2f}" for label in labels)
    gain = _mean(best, "best") - _mean(best, "last")
    mean = f"{100 * _mean(best, 'best'):.2f}"
    lines.append(("(best pass, by test labels)", "", mean, f"{100 * gain:+.2f}", "0.00", *oracle))
    return lines


# --- from a folder ------------------------------------------------------------------------------


def read_traces(folder: Path, method: str) -> dict[int, Trace]:
    """Reads the passes of a method's classes (touches files).

    Raises:
      ResultsError: no sweep, a damaged one, or one without full passes.
    """
    _, rows = config_file.read_folder(folder)
    labels = sorted({name.normal_class for name in rows if name.method == method})
    traces = {label: _read_trace(folder, rows, method, label) for label in labels}
    found = {label: trace for label, trace in traces.items() if trace is not None}
    if not found:
        raise ResultsError(
            f"{folder}: no class has two seeds of {method} with full passes; train with "
            "--evaluate_every"
        )
    return found


def _read_trace(
    folder: Path, rows: Mapping[RunName, Record], method: str, label: int
) -> Trace | None:
    names = [name for name in sorted(rows) if name[:2] == (method, label) and rows[name].is_scored]
    scores = [records.read_scores(folder, name) for name in names]
    from scipy import stats

    if len(names) < 2 or any(len(one.get("pass_epochs", ())) < 2 for one in scores):
        return None
    # A recipe with a stopping rule may end some seeds before others.
    epochs = functools.reduce(np.intersect1d, [one["pass_epochs"] for one in scores])
    columns = [_at_passes(records.read_history(folder, name), epochs) for name in names]
    held_out = [column.get("held_out_mean_distance") for column in columns]
    images = functools.reduce(np.intersect1d, [one["pass_images"] for one in scores])
    ranks = [
        stats.rankdata(
            one["pass_distances"][np.isin(one["pass_epochs"], epochs)][
                :, np.isin(one["pass_images"], images)
            ],
            axis=1,
        )
        for one in scores
    ]
    seen = Observed(
        epochs,
        np.stack([column["full_mean_distance"] for column in columns]),
        None if any(values is None for values in held_out) else np.stack(held_out),  # type: ignore[arg-type]
        np.stack(ranks),
    )
    return Trace(seen, np.stack([column["test_auroc"] for column in columns]))


def _at_passes(history: Mapping[str, Array], epochs: Places) -> dict[str, Array]:
    chosen = (history["phase"] == "training") & np.isin(history["epoch"], epochs)
    return {name: values[chosen] for name, values in history.items() if name != "phase"}


# --- the command --------------------------------------------------------------------------------


def define_flags() -> None:
    """Defines all flags of the command."""
    environment.define_flags()
    flags.DEFINE_string("out", None, "a sweep's folder, trained with --evaluate_every")
    flags.DEFINE_string("choose_on", None, "another sweep, whose best rule is marked with a star")
    flags.DEFINE_string("method", "deep_svdd", "whose runs")
    flags.DEFINE_string("to", None, "folder to write into (default: stopping/ in the sweep's)")


def main() -> None:
    """Reads the flags, measures the rules, writes and prints the table."""
    values = flags.FLAGS
    folder, to = paths.folders_of_study(values, "stopping", ("rules.csv",))
    report.check_matplotlib()
    chosen_on = values.choose_on
    others = None if chosen_on is None else paths.to_read("choose_on", chosen_on)
    traces = read_traces(folder, values.method)
    marked = None
    if others is not None:
        other = read_traces(others, values.method)
        marked = best_rule(judge_all(other))
    lines = rule_table(judge_all(traces), marked)
    print(tables.aligned(lines))
    if marked is not None:
        print(f"* the best of {chosen_on}")
    files.write_table(to / "rules.csv", lines)
    panels = {
        f"class {label}": [Curve(trace.seen.epochs, 100 * values) for values in trace.aurocs]
        for label, trace in traces.items()
    }
    figure = plots.epoch_figure(panels, plots.WIDE, "AUROC, %")
    files.write_bytes(to / "auroc.png", plots.png_bytes(figure))
