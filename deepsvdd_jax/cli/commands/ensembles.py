"""Measures the gain of seeds together, by their number and by the normalisation of their scores.

    python -m experiments.ensembles --out=results/digits-auto

Reads the scores of a finished sweep. Prints, and writes as csv files and a picture into `--to`, the
AUROC of 1, 2, ... seeds together, mean over all choices of that many seeds (over a drawn part of
them where they are many), and the AUROC of all seeds by normalisation. Labels serve only to compute
the AUROC.
"""

import itertools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
from absl import flags

from deepsvdd_jax.cli import environment, files, paths
from deepsvdd_jax.cli.commands import report
from deepsvdd_jax.cli.reporting import tables
from deepsvdd_jax.cli.sweeps import config_file, records
from deepsvdd_jax.cli.sweeps.records import Record, RunName
from deepsvdd_jax.configs import ConfigError
from deepsvdd_jax.scoring import ensemble, metrics
from deepsvdd_jax.viz import plots
from deepsvdd_jax.viz.plots import Curve, Layout

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = npt.NDArray[np.floating]

# Most choices of seeds of one size that are scored.
MOST_CHOICES = 60

# An ensemble counts as good as the largest if it is this near to it, in points of AUROC.
_NEAR = 0.1

# The distance 0 of an image on the center must have a logarithm.
_LEAST = 1e-12


class Members(NamedTuple):
    """The seeds of a class and method, scored on the same test images.

    Attributes:
      distances: `[seeds, n_test]`, not negative.
      train: `[seeds, n_train]`, distances of the training images; None if the sweep did not keep
        them.
      train_means: `[seeds]`.
      labels: `[n_test]`, 1 = anomalous.
    """

    distances: Array
    train: Array | None
    train_means: Array
    labels: npt.NDArray[np.integer]

    def take(self, seeds: tuple[int, ...]) -> "Members":
        """Returns the members at some positions."""
        chosen = list(seeds)
        return self._replace(
            distances=self.distances[chosen],
            train=None if self.train is None else self.train[chosen],
            train_means=self.train_means[chosen],
        )


# --- one scale for all seeds --------------------------------------------------------------------


class Normalization(NamedTuple):
    """A rule that combines the scores of seeds.

    Attributes:
      combine: from members to scores `[n_test]`, higher = more anomalous.
      needs_training: whether it uses single training distances.
    """

    combine: Callable[[Members], Array]
    needs_training: bool = False


def raw_mean(members: Members) -> Array:
    """Mean of d: seeds with large distances weigh more."""
    return members.distances.mean(axis=0)


def mean_over_training_mean(members: Members) -> Array:
    """Mean of d over its mean on the training images, as in `auroc_ensemble`."""
    return ensemble.mean_in_units(members.distances, members.train_means)


def mean_over_training_median(members: Members) -> Array:
    """Mean of d over its median on the training images."""
    medians = np.median(_training(members), axis=1)
    return (members.distances / medians[:, None]).mean(axis=0)


def largest_over_training_mean(members: Members) -> Array:
    """Largest of d over its mean on the training images: one seed's alarm is enough."""
    return ensemble.in_units(members.distances, members.train_means).max(axis=0)


def median_over_training_mean(members: Members) -> Array:
    """Median over seeds of d over its mean on the training images."""
    return np.median(ensemble.in_units(members.distances, members.train_means), axis=0)


def mean_logarithm(members: Members) -> Array:
    """Mean of log d, the geometric mean: the scale of a seed does not matter."""
    return _logarithms(members.distances).mean(axis=0)


def mean_standardized_logarithm(members: Members) -> Array:
    """Mean of log d, standardised by mean and deviation of log d on the training images."""
    train = _logarithms(_training(members))
    center, std = train.mean(axis=1, keepdims=True), train.std(axis=1, keepdims=True)
    return ((_logarithms(members.distances) - center) / np.maximum(std, _LEAST)).mean(axis=0)


def mean_test_rank(members: Members) -> Array:
    """Mean rank among the test images: needs all of them at once."""
    from scipy import stats

    return stats.rankdata(members.distances, axis=1).mean(axis=0)


def mean_training_share(members: Members) -> Array:
    """Mean share of training images that are nearer, as in a p-value: all images beyond the
    farthest training image are equal."""
    shares = [
        np.searchsorted(np.sort(train), distances, side="right") / len(train)
        for train, distances in zip(_training(members), members.distances, strict=True)
    ]
    return np.asarray(np.mean(shares, axis=0))


def _training(members: Members) -> Array:
    assert members.train is not None
    return members.train


def _logarithms(distances: Array) -> Array:
    return np.log(np.maximum(distances, _LEAST))


NORMALIZATIONS: dict[str, Normalization] = {
    "mean of d": Normalization(raw_mean),
    "mean of d / training mean": Normalization(mean_over_training_mean),
    "mean of d / training median": Normalization(mean_over_training_median, True),
    "median of d / training mean": Normalization(median_over_training_mean),
    "max of d / training mean": Normalization(largest_over_training_mean),
    "mean of log d": Normalization(mean_logarithm),
    "mean of standardised log d": Normalization(mean_standardized_logarithm, True),
    "mean rank in the test set": Normalization(mean_test_rank),
    "mean share of nearer training images": Normalization(mean_training_share, True),
}


def compare_normalizations(members: Members) -> dict[str, float]:
    """Returns the AUROC of all seeds together by normalisation; those that need training distances
    are left out where these were not kept."""
    return {
        name: metrics.auroc(normalization.combine(members), members.labels)
        for name, normalization in NORMALIZATIONS.items()
        if members.train is not None or not normalization.needs_training
    }


# --- how many seeds -----------------------------------------------------------------------------


def gains(members: Members, most_choices: int = MOST_CHOICES) -> Array:
    """Returns the mean AUROC of 1, 2, ... seeds together, `[seeds]`."""
    seeds = len(members.distances)
    return np.array(
        [
            np.mean(
                [
                    metrics.auroc(mean_over_training_mean(members.take(choice)), members.labels)
                    for choice in choices(seeds, size, most_choices)
                ]
            )
            for size in range(1, seeds + 1)
        ]
    )


def gains_of_all(members: Mapping[str, Mapping[int, Members]]) -> dict[str, dict[int, Array]]:
    """Returns the gains by method and class."""
    return {
        method: {label: gains(seeds) for label, seeds in of_class.items()}
        for method, of_class in members.items()
    }


def choices(count: int, size: int, most: int) -> list[tuple[int, ...]]:
    """Returns all choices of `size` out of `count`, or `most` different drawn ones."""
    if math.comb(count, size) <= most:
        return list(itertools.combinations(range(count), size))
    generator = np.random.default_rng(size)
    found: set[tuple[int, ...]] = set()
    while len(found) < most:
        drawn = generator.choice(count, size, replace=False)
        found.add(tuple(sorted(int(place) for place in drawn)))
    return sorted(found)


def enough_seeds(means: Array) -> int:
    """Returns the number of seeds from which on every ensemble is near the largest, by gains
    `[seeds]` in percent."""
    far = np.flatnonzero(means < means[-1] - _NEAR)
    return int(far[-1]) + 2 if len(far) else 1


# --- from a folder to tables --------------------------------------------------------------------


def read_members(
    folder: Path, rows: Mapping[RunName, Record], methods: tuple[str, ...] | None
) -> dict[str, dict[int, Members]]:
    """Reads the members of every method and class that has two seeds or more (touches files).

    Args:
      folder: of the sweep.
      rows: of its finished runs.
      methods: to read; None takes all.

    Raises:
      ConfigError, ResultsError: a method without runs, a damaged file.
    """
    scored = [name for name in sorted(rows) if rows[name].is_scored]
    there = list(dict.fromkeys(name.method for name in scored))
    for method in methods or ():
        if method not in there:
            raise ConfigError(f"methods holds {method}; {folder} has runs of {', '.join(there)}")
    found: dict[str, dict[int, Members]] = {}
    for method in methods or there:
        for label in sorted({name.normal_class for name in scored if name.method == method}):
            names = [name for name in scored if name[:2] == (method, label)]
            members = _members([records.read_scores(folder, name) for name in names])
            if members is not None:
                found.setdefault(method, {})[label] = members
    return found


def _members(loaded: list[dict[str, npt.NDArray[np.generic]]]) -> Members | None:
    tested = np.asarray(loaded[0]["tested"], bool)
    same = all(np.array_equal(tested, scores["tested"]) for scores in loaded)
    if len(loaded) < 2 or not same:
        return None
    kept = [scores["train_distances"] for scores in loaded if "train_distances" in scores]
    complete = len(kept) == len(loaded) and len({distances.shape for distances in kept}) == 1
    train = np.stack([np.asarray(distances, float) for distances in kept]) if complete else None
    return Members(
        np.stack([np.asarray(scores["distances"], float)[tested] for scores in loaded]),
        train,
        np.array([float(scores["train_mean"]) for scores in loaded]),
        np.asarray(loaded[0]["labels"], int)[tested],
    )


def gain_table(found: Mapping[str, Mapping[int, Array]]) -> list[tuple[str, ...]]:
    """Returns the cells of the table by number of seeds, AUROC in percent, the header first."""
    most = max(len(values) for of_class in found.values() for values in of_class.values())
    lines = [("class", "method", *(str(count) for count in range(1, most + 1)), "enough")]
    for method, of_class in found.items():
        for label, values in of_class.items():
            lines.append(_gain_line(str(label), method, values, most))
        fewest = min(len(values) for values in of_class.values())
        mean = np.mean([values[:fewest] for values in of_class.values()], axis=0)
        lines.append(_gain_line("mean", method, mean, most))
    return lines


def _gain_line(label: str, method: str, values: Array, most: int) -> tuple[str, ...]:
    cells = [f"{100 * value:.2f}" for value in values] + [""] * (most - len(values))
    return (label, method, *cells, str(enough_seeds(100 * values)))


def normalization_table(found: Mapping[int, Mapping[str, float]]) -> list[tuple[str, ...]]:
    """Returns the cells of one method's table by normalisation, the best mean first."""
    names = [name for name in NORMALIZATIONS if all(name in values for values in found.values())]
    means = {name: float(np.mean([values[name] for values in found.values()])) for name in names}
    lines = [("normalisation", "mean", *(str(label) for label in found))]
    for name in sorted(names, key=lambda name: -means[name]):
        values = [means[name], *(of_class[name] for of_class in found.values())]
        lines.append((name, *(f"{100 * value:.2f}" for value in values)))
    return lines


def gain_figure(found: Mapping[str, Mapping[int, Array]], layout: Layout) -> "Figure":
    """Draws the AUROC by number of seeds, a panel a class, a line a method."""
    labels = sorted({label for of_class in found.values() for label in of_class})
    panels = {
        f"class {label}": {
            method: Curve(np.arange(1, len(of_class[label]) + 1), 100 * of_class[label])
            for method, of_class in found.items()
            if label in of_class
        }
        for label in labels
    }
    return plots.line_figure(panels, layout, "seeds together", "AUROC, %")


# --- the command --------------------------------------------------------------------------------


def define_flags() -> None:
    """Defines all flags of the command."""
    environment.define_flags()
    flags.DEFINE_string("out", None, "a sweep's folder")
    flags.DEFINE_string("to", None, "folder to write into (default: ensembles/ in the sweep's)")
    flags.DEFINE_list("methods", None, "methods to look at (default: all with two seeds or more)")


def main() -> None:
    """Reads the flags, compares ensembles, writes and prints the tables."""
    values = flags.FLAGS
    folder, to = paths.folders_of_study(values, "ensembles", ("seeds.csv",))
    report.check_matplotlib()
    _, rows = config_file.read_folder(folder)
    members = read_members(folder, rows, tuple(values.methods) if values.methods else None)
    if not members:
        raise files.ResultsError(f"{folder}: no class has two seeds that saw the same test images")
    found = gains_of_all(members)
    print(tables.aligned(gain_table(found)))
    for method, of_class in members.items():
        compared = {label: compare_normalizations(seeds) for label, seeds in of_class.items()}
        lines = normalization_table(compared)
        print(f"\n{method}, all seeds together\n{tables.aligned(lines)}")
        if any(seeds.train is None for seeds in of_class.values()):
            print("training distances were not kept by this sweep: what needs them is left out")
        files.write_table(to / f"normalizations-{method}.csv", lines)
    files.write_table(to / "seeds.csv", gain_table(found))
    files.write_bytes(to / "seeds.png", plots.png_bytes(gain_figure(found, plots.WIDE)))
