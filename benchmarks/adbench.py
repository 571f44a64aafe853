"""Compares our estimator with PyOD's and scikit-learn's detectors on a folder of ADBench tables.

    python -m benchmarks.adbench --data_dir=FOLDER_OF_NPZ
    python -m benchmarks.adbench --data_dir=FOLDER_OF_NPZ --splits=3 --detectors=ours,knn
    python -m benchmarks.adbench --data_dir=FOLDER_OF_NPZ --detectors=ours,knn \
        --labelled_ratios=0.01,0.05,0.1

Every `*.npz` of the folder is a data set: `X` `[n, features]`, `y` `[n]`, 1 = anomalous. A split
trains on a random half of the normal rows and scores everything else; its number draws the half and
is every detector's seed. Sets of more than `--most_rows` are thinned out first, as ADBench does,
both kinds of rows alike. Rows are standardized by the training half for all detectors; ours gets
them as they are and does so itself. Detectors have their defaults; ours holds no row out, since
only the ranking is measured. None sees a label, but for Deep SAD, `deep_sad_R`, which
`--labelled_ratios` adds: half of the anomalous rows of a split are then set aside for it and never
tested on. It is trained on as many of them as make up a share R of its training rows, or on all if
there are fewer.

A data set's figures are written to `--out` when it is done; the same command continues with the
others. Printed at the end: mean AUROC and mean rank over the sets, wins, losses and Wilcoxon's test
of ours against each detector, seconds. A detector with fewer splits (`--pyod_deep_svdd_splits`) has
the mean of those.
"""

import dataclasses
import json
import time
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from absl import flags
from sklearn.metrics import roc_auc_score

from benchmarks import peers, rank_statistics
from deepsvdd_jax import DeepSVDD
from deepsvdd_jax.cli import bars, environment, exits, files, process
from deepsvdd_jax.cli.reporting import tables
from deepsvdd_jax.configs import ConfigError
from deepsvdd_jax.datasets import DataError
from deepsvdd_jax.datasets.labelled import labelled_count
from deepsvdd_jax.detectors import TrainingError
from deepsvdd_jax.io import npz

Floats = npt.NDArray[np.float64]

OURS, OUR_SOURCE = "ours", "deepsvdd_jax"
# Our estimator with another score of the embedding, measured on request.
EMBEDDING_SCORES = {"ours_neighbors": "neighbors", "ours_mahalanobis": "mahalanobis"}
COLUMNS = ("set", "rows", "features", "detector", "source", "split", "auroc", "fit_seconds")
RUNS, SETTINGS = "runs.csv", "config.json"


class Table(NamedTuple):
    """A data set: `values` `[n, features]`, `labels` `[n]`, 1 = anomalous."""

    name: str
    values: Floats
    labels: npt.NDArray[np.int64]


class Problem(NamedTuple):
    """Normal rows to train on, rows to score with their labels, and known anomalies."""

    train: Floats
    test: Floats
    labels: npt.NDArray[np.int64]
    known: Floats


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings of a measurement.

    Attributes:
      detectors: their names, ours among them or not.
      splits: how many, from `first_split` on.
      first_split: number of the first one.
      most_rows: of a data set.
      members: of our ensemble; 0 is the estimator's own number for a table.
      pyod_deep_svdd_splits: how many of the splits PyOD's DeepSVDD is trained on.
      labelled_ratios: shares of labelled anomalies of Deep SAD's training rows.
    """

    detectors: tuple[str, ...]
    splits: int
    first_split: int
    most_rows: int
    members: int
    pyod_deep_svdd_splits: int
    labelled_ratios: tuple[float, ...] = ()


def define_flags() -> None:
    """Defines all flags of the command."""
    environment.define_flags()
    flags.DEFINE_string("data_dir", None, "folder of ADBench's npz files")
    flags.DEFINE_string("out", "results/adbench", "folder of the figures")
    flags.DEFINE_list(
        "detectors",
        [],
        "detectors to measure: by default all that are installed; also ours_neighbors and "
        "ours_mahalanobis, which compare an embedding with the training embeddings",
    )
    flags.DEFINE_integer("splits", 5, "random halves of the normal rows", lower_bound=1)
    flags.DEFINE_integer("first_split", 0, "number of the first split", lower_bound=0)
    flags.DEFINE_integer("most_rows", 10_000, "rows of a data set", lower_bound=20)
    flags.DEFINE_integer("members", 0, "members of our ensemble; 0 = its default", lower_bound=0)
    flags.DEFINE_integer(
        "pyod_deep_svdd_splits", 1, "splits of PyOD's DeepSVDD, the slowest", lower_bound=0
    )
    flags.DEFINE_list(
        "labelled_ratios", [], "Deep SAD too, with these shares of labelled anomalies, as 0.01,0.1"
    )


def main() -> None:
    """Reads the flags, measures what is missing, prints and writes the tables."""
    values = flags.FLAGS
    if values.data_dir is None:
        raise ConfigError("give --data_dir, a folder of ADBench's npz files")
    paths = table_paths(Path(values.data_dir).expanduser())
    settings = read_settings(values)
    environment.use_platform(values.platform, values.compilation_cache)
    out = Path(values.out).expanduser()
    rows = open_folder(out, settings)
    fits = detectors_of(settings)
    done = {row["set"] for row in rows}
    with bars.progress_bar("adbench", len(paths), "set") as bar:
        for path in paths:
            if path.stem not in done:
                rows += measure(read_table(path), settings, fits)
                write_rows(out, rows)
            bar.update()
    report(out, [row for row in rows if row["set"] in {path.stem for path in paths}])


def read_settings(values: flags.FlagValues) -> Settings:
    """Returns the checked settings; raises ConfigError."""
    by_default = (OURS, *peers.available())
    known = (*by_default, *EMBEDDING_SCORES)
    asked = tuple(dict.fromkeys(values.detectors or by_default))
    for name in asked:
        if name not in known:
            raise ConfigError(f"detectors: {name!r} is not here; there are {', '.join(known)}")
    return Settings(
        detectors=asked,
        splits=values.splits,
        first_split=values.first_split,
        most_rows=values.most_rows,
        members=values.members,
        pyod_deep_svdd_splits=values.pyod_deep_svdd_splits,
        labelled_ratios=tuple(map(_ratio, dict.fromkeys(values.labelled_ratios))),
    )


def _ratio(text: str) -> float:
    try:
        ratio = float(text)
    except ValueError:
        ratio = float("nan")
    if not 0.0 < ratio < 1.0:
        raise ConfigError(f"labelled_ratios: {text!r} is no share above 0 and below 1")
    return ratio


# --- data ---------------------------------------------------------------------------------------


def table_paths(folder: Path) -> list[Path]:
    """Returns the npz files of a folder by name; raises DataError where there are none."""
    if not folder.is_dir():
        raise DataError(f"data_dir {folder} is no folder")
    paths = sorted(folder.glob("*.npz"))
    if not paths:
        raise DataError(f"data_dir {folder} holds no npz file")
    return paths


def read_table(path: Path) -> Table:
    """Reads a data set (touches files).

    Raises:
      DataError: damaged, no `X` and `y` that go together, or not both kinds of rows.
    """
    try:
        with path.open("rb") as file:
            arrays = npz.read_npz(file, ("X", "y"))
    except (npz.NpzError, OSError) as error:
        raise DataError(f"{path}: {error}") from None
    if set(arrays) != {"X", "y"}:
        raise DataError(f"{path}: an ADBench table has the arrays X and y")
    values, labels = np.asarray(arrays["X"], np.float64), arrays["y"].reshape(-1)
    if values.ndim != 2 or len(values) != len(labels) or not np.isfinite(values).all():
        raise DataError(f"{path}: X must be finite, [n, features], and y [n]")
    if not np.isin(labels, (0, 1)).all() or np.sum(labels == 0) < 4 or not np.any(labels == 1):
        raise DataError(f"{path}: y must be 0 for four normal rows at least and 1 for anomalies")
    return Table(path.stem, values, labels.astype(np.int64))


def make_problem(table: Table, split: int, most_rows: int, with_known: bool = False) -> Problem:
    """Draws a random half of the normal rows for training; the other rows are scored.

    A table of more than `most_rows` keeps that many, of each kind the same share, at least 10. Of
    the anomalous rows half, rounded down, are known where `with_known` is set, and not scored.
    """
    random = np.random.RandomState([split, zlib.crc32(table.name.encode())])
    share = min(1.0, most_rows / len(table.labels))

    def drawn(label: int) -> npt.NDArray[np.int64]:
        rows = random.permutation(np.flatnonzero(table.labels == label))
        return rows[: max(10, round(share * len(rows)))]

    normal, anomalous = drawn(0), drawn(1)
    half = len(normal) // 2
    known = len(anomalous) // 2 if with_known else 0
    tested = np.concatenate([normal[half:], anomalous[known:]])
    return Problem(
        table.values[normal[:half]],
        table.values[tested],
        table.labels[tested],
        table.values[anomalous[:known]],
    )


def standardized(problem: Problem) -> Problem:
    """Returns rows with mean 0 and deviation 1 over the training rows; constant columns are only
    shifted."""
    mean, deviation = problem.train.mean(axis=0), problem.train.std(axis=0)
    scale = np.where(deviation > 1e-12 * np.maximum(1.0, np.abs(mean)), deviation, 1.0)
    rows = (problem.train, problem.test, problem.known)
    train, test, known = ((some - mean) / scale for some in rows)
    return Problem(train, test, problem.labels, known)


# --- measuring ----------------------------------------------------------------------------------


def detectors_of(settings: Settings) -> dict[str, peers.Peer]:
    """Returns the requested detectors; ours standardizes its rows itself."""
    every = {OURS: peers.Peer("ours", OUR_SOURCE, ours(settings.members)), **peers.available()}
    for name, score in EMBEDDING_SCORES.items():
        fit = ours(settings.members, embedding_score=score)
        every[name] = peers.Peer(f"ours, {score}", OUR_SOURCE, fit)
    return {name: every[name] for name in settings.detectors}


def with_labels(settings: Settings, known: Floats) -> dict[str, peers.Peer]:
    """Returns Deep SAD as a detector for each share of labelled rows among the known ones."""
    return {
        f"deep_sad_{ratio:g}": peers.Peer(
            f"Deep SAD, {ratio:g} labelled", OUR_SOURCE, ours(settings.members, known, ratio)
        )
        for ratio in settings.labelled_ratios
    }


def ours(
    members: int,
    known: Floats | None = None,
    ratio: float = 0.0,
    embedding_score: str = "center",
) -> peers.Fit:
    """Returns our estimator as a detector.

    Args:
      members: of an ensemble, 0 for its own number.
      known: anomalies `[k, features]` that Deep SAD is trained on too; None is one-class.
      ratio: their share of the training rows; all of them where there are fewer.
      embedding_score: see `DeepSVDD`.
    """

    def fit(train: Floats, seed: int) -> peers.Score:
        # Members of different splits share no seed.
        arguments: dict[str, Any] = {"n_seeds": members} if members else {}
        arguments |= {"calibration_fraction": 0.0, "random_state": 1000 * seed}
        arguments |= {"embedding_score": embedding_score}
        if known is None:
            detector = DeepSVDD(**arguments).fit(train)
        else:
            labelled = known[: labelled_count(len(train), ratio)]
            labels = np.repeat([0, -1], [len(train), len(labelled)])
            detector = DeepSVDD(objective="deep-sad", **arguments)
            detector.fit(np.concatenate([train, labelled]), labels)
        return lambda rows: -detector.score_samples(rows)

    return fit


def measure(
    table: Table, settings: Settings, fits: Mapping[str, peers.Peer]
) -> list[dict[str, Any]]:
    """Returns a row for each split and detector of a data set; reads the clock.

    Raises:
      Failure: a detector failed.
    """
    rows = []
    for number in range(settings.splits):
        split = settings.first_split + number
        raw = make_problem(table, split, settings.most_rows, bool(settings.labelled_ratios))
        scaled = standardized(raw)
        for name, peer in {**fits, **with_labels(settings, raw.known)}.items():
            if name == "pyod_deep_svdd" and number >= settings.pyod_deep_svdd_splits:
                continue
            problem = raw if peer.source == OUR_SOURCE else scaled
            where = f"{table.name}, split {split}, {name}"
            auroc, seconds = _measured(problem, split, peer.fit, where)
            size = (table.name, *problem.train.shape)
            cells = (*size, name, peer.source, split, auroc, round(seconds, 4))
            rows.append(dict(zip(COLUMNS, cells, strict=True)))
    return rows


def _measured(problem: Problem, seed: int, fit: peers.Fit, where: str) -> tuple[float, float]:
    started = time.perf_counter()
    try:
        score = fit(problem.train, seed)
        seconds = time.perf_counter() - started
        scores = score(problem.test)
    except (ValueError, TrainingError) as error:
        raise exits.Failure(f"{where}: {error}") from None
    return float(roc_auc_score(problem.labels, scores)), seconds


# --- files --------------------------------------------------------------------------------------


def open_folder(out: Path, settings: Settings) -> list[dict[str, Any]]:
    """Returns the rows of a folder; writes the settings of a new one (touches files).

    Raises:
      ResultsError: the folder has figures by other settings, or is damaged.
    """
    asked = json.loads(json.dumps(dataclasses.asdict(settings)))
    if (out / SETTINGS).exists():
        # A folder may be older than this setting.
        there = {"labelled_ratios": [], **files.read_json(out / SETTINGS)}
        for name, value in asked.items():
            if there.get(name) != value:
                raise files.ResultsError(
                    f"{out} has {name} {there.get(name)}, asked for is {value}; give another --out"
                )
        return [*read_rows(out)] if (out / RUNS).exists() else []
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise files.ResultsError(f"{out} is not empty and not of this command; give another --out")
    files.write_json(out / SETTINGS, asked | environment.describe())
    return []


def read_rows(out: Path) -> list[dict[str, Any]]:
    """Reads the rows of a folder (touches files); raises ResultsError."""
    rows: list[dict[str, Any]] = [*files.read_table(out / RUNS, COLUMNS)]
    try:
        for row in rows:
            row |= {name: float(row[name]) for name in ("auroc", "fit_seconds")}
    except ValueError as error:
        raise files.ResultsError(f"{out / RUNS}: damaged: {error}") from None
    return rows


def write_rows(out: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes all rows (touches files)."""
    files.write_table(out / RUNS, [COLUMNS, *([row[name] for name in COLUMNS] for row in rows)])


# --- report -------------------------------------------------------------------------------------


class Summary(NamedTuple):
    """All detectors over all sets.

    Attributes:
      names: of the detectors, the best mean rank first.
      sets: names of the data sets.
      aurocs: `[sets, detectors]`, of each the mean over its splits.
      seconds: `[detectors]`, of the fits of one split over all sets.
      splits: `[detectors]`, how many.
    """

    names: tuple[str, ...]
    sets: tuple[str, ...]
    aurocs: Floats
    seconds: Floats
    splits: tuple[int, ...]


def summarize(rows: Sequence[Mapping[str, Any]]) -> Summary:
    """Returns the summary of rows."""
    names = tuple(dict.fromkeys(str(row["detector"]) for row in rows))
    sets = tuple(dict.fromkeys(str(row["set"]) for row in rows))

    def mean(column: str) -> Floats:
        found: dict[tuple[str, str], list[float]] = {}
        for row in rows:
            found.setdefault((row["set"], row["detector"]), []).append(float(row[column]))
        return np.array([[np.mean(found[one, name]) for name in names] for one in sets])

    aurocs, seconds = mean("auroc"), mean("fit_seconds").sum(axis=0)
    order = np.argsort(rank_statistics.ranks(aurocs).mean(axis=0), kind="stable")
    counts = [len({str(row["split"]) for row in rows if row["detector"] == name}) for name in names]
    return Summary(
        tuple(names[place] for place in order),
        sets,
        aurocs[:, order],
        seconds[order],
        tuple(counts[place] for place in order),
    )


def report(out: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints the summary and writes it as csv, json and, with matplotlib, a figure."""
    summary = summarize(rows)
    lines = summary_lines(summary)
    print(tables.aligned(lines))
    print(f"\n{verdict(summary)}")
    files.write_table(out / "summary.csv", lines)
    means = zip(summary.sets, summary.aurocs.tolist(), strict=True)
    of_sets = {name: dict(zip(summary.names, found, strict=True)) for name, found in means}
    files.write_json(out / "sets.json", of_sets)
    _draw(out, summary)


def summary_lines(summary: Summary) -> list[tuple[str, ...]]:
    """Returns the cells of the printed table, the header first; AUROC in percent."""
    header = ("detector", "splits", "AUROC", "rank", "ours wins", "loses", "difference", "p", "s")
    mean_ranks = rank_statistics.ranks(summary.aurocs).mean(axis=0)
    lines: list[tuple[str, ...]] = [header]
    for place, name in enumerate(summary.names):
        against = ("", "", "", "")
        if OURS in summary.names and name != OURS:
            our = summary.aurocs[:, summary.names.index(OURS)]
            found = rank_statistics.paired(our.copy(), summary.aurocs[:, place])
            change = f"{100 * found.difference:+.2f}"
            against = (str(found.wins), str(found.losses), change, f"{found.p_value:.3f}")
        lines.append(
            (
                name,
                str(summary.splits[place]),
                f"{100 * summary.aurocs[:, place].mean():.2f}",
                f"{mean_ranks[place]:.2f}",
                *against,
                f"{summary.seconds[place]:.1f}",
            )
        )
    return lines


def verdict(summary: Summary) -> str:
    """Returns a legend of the columns, and the test whether the detectors differ at all."""
    sets, count = summary.aurocs.shape
    text = (
        f"{sets} data sets; AUROC in percent, rank 1 = best; difference: ours less the other, p: "
        "Wilcoxon's signed-rank test over the sets; s: to fit all sets once"
    )
    p_value = rank_statistics.friedman_p_value(summary.aurocs)
    if np.isnan(p_value):
        return text
    difference = rank_statistics.critical_difference(count, sets)
    return (
        f"{text}\nall rank alike (Friedman): p = {p_value:.2g}; mean ranks differ significantly "
        f"from {difference:.2f} on (Nemenyi, 5 %)"
    )


def _draw(out: Path, summary: Summary) -> None:
    """Draws the critical-difference figure if that has a meaning; prints a missing package."""
    if len(summary.names) < 2 or len(summary.sets) < 2:
        return
    try:
        figure = rank_statistics.rank_figure(summary.names, summary.aurocs)
    except ImportError:
        print("no figure: it needs matplotlib, pip install -e '.[report]'")
        return
    from deepsvdd_jax.viz import plots

    files.write_bytes(out / "ranks.png", plots.png_bytes(figure))


if __name__ == "__main__":
    define_flags()
    process.run_command(main)
