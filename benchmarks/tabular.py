"""AUROC and time of `DeepSVDD` on tables, beside PyOD's `DeepSVDD` in the same call.

    python -m benchmarks.tabular
    python -m benchmarks.tabular --datasets=wine --seeds=3 --json=tabular.json

scikit-learn's own data sets, so that nothing is downloaded: breast cancer (benign is normal), wine
and digits (each class normal in turn). Of a problem's normal samples 60 %, drawn with seed 0, are
for training; the other 40 % and all anomalous ones are scored. Both detectors have their defaults
and see the same training samples (ours holds none back for a threshold, as only the ranking is
measured); neither sees a label. PyOD is fitted once for each seed; ours once for all of them, its
members being scored one by one and as an ensemble.

`first` is the time of a problem's fit, compilation included where no problem before it had the same
program; `again` is that of a second, equal fit. PyOD compiles nothing and is fitted once.
"""

import importlib.util
import json
import pathlib
import sys
import time
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import numpy.typing as npt
from absl import app, flags
from sklearn import datasets
from sklearn.metrics import roc_auc_score

from benchmarks.subjects import BenchmarkError
from deepsvdd_jax import DeepSVDD, detectors

INSTALL = "PyOD is not installed: pip install 'deepsvdd_jax[tabular]'"
TRAINING_SHARE = 0.6

# Normal classes; None takes each in turn.
NORMAL_CLASSES: dict[str, tuple[int, ...] | None] = {
    "breast_cancer": (1,),
    "wine": None,
    "digits": None,
}

Table = npt.NDArray[np.float64]


def define_flags() -> None:
    """Defines all flags of the command."""
    flags.DEFINE_list("datasets", "breast_cancer,wine,digits", "Data sets to measure.")
    flags.DEFINE_integer("seeds", 10, "Seeds of each detector.", lower_bound=1)
    flags.DEFINE_integer("devices", 2, "CPU devices, and threads of PyOD.", lower_bound=1)
    flags.DEFINE_string("json", None, "File to write the rows to.")


class Problem(NamedTuple):
    """Normal samples to train on, and samples to score with labels (1 = anomalous)."""

    name: str
    train: Table
    test: Table
    labels: npt.NDArray[np.int64]


class Measured(NamedTuple):
    """A detector on one problem.

    Attributes:
      aurocs: of each seed.
      ensemble: AUROC of all seeds as one scorer; NaN where there is no such scorer.
      first: seconds to fit all seeds, compilation included.
      again: seconds to do so a second time.
    """

    aurocs: list[float]
    ensemble: float
    first: float
    again: float


class Row(NamedTuple):
    """Both detectors on one problem."""

    problem: str
    ours: Measured
    theirs: Measured


# --- problems -----------------------------------------------------------------------------------


def load_problems(name: str) -> Iterator[Problem]:
    """Yields the one-class problems of a data set.

    Raises:
      BenchmarkError: no such data set.
    """
    if name not in NORMAL_CLASSES:
        raise BenchmarkError(f"data set {name!r} is unknown; allowed: {', '.join(NORMAL_CLASSES)}")
    values, classes = getattr(datasets, f"load_{name}")(return_X_y=True)
    for normal in NORMAL_CLASSES[name] or range(int(classes.max()) + 1):
        yield make_problem(f"{name} {normal}", values, classes == normal)


def make_problem(name: str, values: Table, is_normal: npt.NDArray[np.bool_]) -> Problem:
    """Splits the normal samples; all anomalous ones are scored."""
    order = np.random.RandomState(0).permutation(np.flatnonzero(is_normal))
    count = round(TRAINING_SHARE * len(order))
    tested = np.concatenate([order[count:], np.flatnonzero(~is_normal)])
    return Problem(name, values[order[:count]], values[tested], (~is_normal[tested]).astype(int))


# --- detectors ----------------------------------------------------------------------------------


def measure_ours(problem: Problem, seeds: int) -> Measured:
    """Fits all seeds in one call, twice; reads the clock."""

    def fit() -> DeepSVDD:
        return DeepSVDD(n_seeds=seeds, calibration_fraction=0.0).fit(problem.train)

    (first, _), (again, detector) = timed(fit), timed(fit)
    model = detector.model_
    members = detectors.member_distances(model, problem.test.astype(np.float32))
    ensemble = detectors.combine_distances(model, members)
    return Measured(
        [auroc(problem, scores) for scores in members], auroc(problem, ensemble), first, again
    )


def measure_pyod(problem: Problem, seeds: int, peer: types.ModuleType) -> Measured:
    """Fits PyOD's detector once for each seed; reads the clock."""
    seconds, fitted = timed(lambda: [fit_pyod(problem, seed, peer) for seed in range(seeds)])
    aurocs = [auroc(problem, one.decision_function(problem.test)) for one in fitted]
    return Measured(aurocs, float("nan"), seconds, seconds)


def fit_pyod(problem: Problem, seed: int, peer: types.ModuleType) -> Any:
    """Returns PyOD's detector with its defaults."""
    detector = peer.DeepSVDD(n_features=problem.train.shape[1], random_state=seed, verbose=0)
    return detector.fit(problem.train)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Returns seconds and result of some work; reads the clock."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def auroc(problem: Problem, scores: npt.NDArray[np.floating]) -> float:
    """Returns the area under the ROC curve of scores, higher = more anomalous."""
    return float(roc_auc_score(problem.labels, scores))


# --- report -------------------------------------------------------------------------------------

_HEADER = (
    "problem",
    "AUROC",
    "ensemble",
    "PyOD AUROC",
    "first / s",
    "again / s",
    "PyOD / s",
    "ratio first",
    "ratio again",
)


def group_means(rows: Sequence[Row]) -> list[Row]:
    """Returns one row for each data set, over its problems, and one over the data sets.

    AUROCs are means; times are sums.
    """
    names = dict.fromkeys(row.problem.split()[0] for row in rows)
    groups = [
        _merged(name, [row for row in rows if row.problem.split()[0] == name]) for name in names
    ]
    return [*groups, _merged("all", groups)]


def _merged(name: str, rows: Sequence[Row]) -> Row:
    def merge(parts: Sequence[Measured]) -> Measured:
        return Measured(
            [float(value) for value in np.mean([part.aurocs for part in parts], axis=0)],
            float(np.mean([part.ensemble for part in parts])),
            sum(part.first for part in parts),
            sum(part.again for part in parts),
        )

    return Row(name, merge([row.ours for row in rows]), merge([row.theirs for row in rows]))


def format_rows(rows: Sequence[Row]) -> str:
    """Returns a table in Markdown, AUROC in percent; a ratio above 1 is in our favour."""
    lines = [_HEADER, ("---",) + ("---:",) * (len(_HEADER) - 1)]
    lines += [_cells(row) for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cells(row: Row) -> tuple[str, ...]:
    ours, theirs = row.ours, row.theirs
    seconds = theirs.first
    return (
        row.problem,
        _percent(ours.aurocs),
        f"{100 * ours.ensemble:.1f}",
        _percent(theirs.aurocs),
        f"{ours.first:.2f}",
        f"{ours.again:.2f}",
        f"{seconds:.2f}",
        f"{seconds / ours.first:.1f}",
        f"{seconds / ours.again:.1f}",
    )


def _percent(aurocs: Sequence[float]) -> str:
    spread = np.std(aurocs, ddof=1) if len(aurocs) > 1 else 0.0
    return f"{100 * np.mean(aurocs):.1f} ± {100 * spread:.1f}"


# --- call ---------------------------------------------------------------------------------------


def import_pyod(threads: int) -> types.ModuleType:
    """Imports PyOD's module, with a number of threads for its PyTorch.

    Raises:
      BenchmarkError: it is not installed.
    """
    if any(importlib.util.find_spec(name) is None for name in ("pyod", "torch")):
        raise BenchmarkError(INSTALL)
    import torch
    from pyod.models import deep_svdd

    torch.set_num_threads(threads)
    return deep_svdd


def measure(names: Sequence[str], seeds: int, peer: types.ModuleType) -> list[Row]:
    """Measures all problems of some data sets, both detectors in turn."""
    problems = [problem for name in names for problem in load_problems(name)]
    return [
        Row(problem.name, measure_ours(problem, seeds), measure_pyod(problem, seeds, peer))
        for problem in problems
    ]


def main(arguments: list[str]) -> None:
    """Measures the data sets of the flags and prints the rows; ends with exit code 2 and one line
    if it cannot."""
    try:
        if arguments[1:]:
            raise BenchmarkError(f"{arguments[1]!r} is no flag")
        peer = import_pyod(flags.FLAGS.devices)
        jax.config.update("jax_num_cpu_devices", flags.FLAGS.devices)
        rows = measure(flags.FLAGS.datasets, flags.FLAGS.seeds, peer)
    except BenchmarkError as error:
        print(f"benchmarks.tabular: {error}", file=sys.stderr)
        sys.exit(2)
    print(format_rows([*rows, *group_means(rows)]))
    if flags.FLAGS.json is not None:
        text = json.dumps([[row.problem, row.ours._asdict(), row.theirs._asdict()] for row in rows])
        pathlib.Path(flags.FLAGS.json).write_text(text + "\n")


if __name__ == "__main__":
    define_flags()
    app.run(main)
