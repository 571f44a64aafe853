"""Scores the images of a folder as they arrive, until it is stopped.

    python -m experiments.watch --model=parts.model --data_dir=camera --out=scores.csv

A file is scored once, when it is no longer written to. Rows are appended whole:
`name,score,p_value,anomalous,drift`, in the order of arrival. The same command resumes one that was
stopped or killed: nothing is lost, nothing is scored twice. A file that cannot be read is named,
and tried again when it changes. Masks (in `masks/`, `mask/` or `ground_truth/`, or named
`x_mask.png`) are not scored; a line says so.

`--maps=DIR` writes a map of the anomaly in each image, as `score --maps` does, before its row,
which gains the columns `map_row,map_column,map_maximum`. All overlays have one colour scale, that
of `--normals`, or else of the first images. `--tile=SIZE` cuts large images into tiles, as `score
--tile` does.

`drift` is the evidence that the images are no longer those that the model was calibrated on. It
starts at 1; at most a share `--drift_false_alarm_rate` of unchanged streams ever reaches the
inverse of that rate, however long they are. Reaching it prints a line, once. A file keeps its first
rate, in the column `drift_alarm` if that is not the default.
"""

import functools
import math
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from absl import flags

from deepsvdd_jax import datasets
from deepsvdd_jax.cli import (
    arrivals,
    environment,
    files,
    model_images,
    paths,
    settings,
    signals,
    thresholds,
)
from deepsvdd_jax.cli.arrivals import Stamp
from deepsvdd_jax.cli.lazy import lazily
from deepsvdd_jax.cli.maps import arriving, arriving_tiles, run
from deepsvdd_jax.cli.maps.arriving import Arrived, GrowingMaps
from deepsvdd_jax.cli.maps.arriving_tiles import Judged
from deepsvdd_jax.cli.maps.flow import Tiling
from deepsvdd_jax.cli.maps.wishes import Wish
from deepsvdd_jax.cli.score_log import (
    ALARM,
    LoggedRow,
    ScoreLog,
    first_row,
    is_log,
    open_log,
    written_name,
)
from deepsvdd_jax.cli.signals import StopSignal
from deepsvdd_jax.configs import ConfigError
from deepsvdd_jax.datasets import DataError
from deepsvdd_jax.datasets.dataset import printable
from deepsvdd_jax.datasets.formats.images import read_image
from deepsvdd_jax.datasets.layout import is_mask_name
from deepsvdd_jax.io import models
from deepsvdd_jax.io.models import Model
from deepsvdd_jax.scoring import calibration, drift

with lazily():
    from deepsvdd_jax import detectors

# A wait is cut into parts of this length, in seconds, so that a signal is noticed soon.
_LONGEST_SLEEP = 0.1

# Most images that are scored at once, and most bytes of images in memory.
_IMAGES_AT_ONCE, _BYTES_AT_ONCE = 256, 1 << 26


class Watch(NamedTuple):
    """The fixed parts of watching a folder.

    Attributes:
      model: that scores.
      threshold: a score above it is anomalous.
      root: the folder.
      drift_false_alarm_rate: share of unchanged streams that may ever raise the drift alarm.
      maps: the folder of maps; None makes none.
      tiling: how images are cut; None leaves them whole.
    """

    model: Model
    threshold: float
    root: Path
    drift_false_alarm_rate: float
    maps: GrowingMaps | None = None
    tiling: Tiling | None = None


class Seen(NamedTuple):
    """The state between two looks at the folder.

    Attributes:
      stamps: of all files at the last look.
      done: of the files that were dealt with; None for those of an earlier command.
      drift: state of the drift alarm; None without calibration scores.
      problem: the last line about the folder or the file of scores, "" while all is well.
    """

    stamps: dict[str, Stamp]
    done: dict[str, Stamp | None]
    drift: drift.DriftState | None
    problem: str


def define_flags() -> None:
    """Defines all flags of the command."""
    environment.define_flags()
    thresholds.define_flags()
    arriving.define_flags()
    flags.DEFINE_string("model", None, "folder of a saved model")
    flags.DEFINE_string("data_dir", None, "folder that images arrive in; subfolders count")
    flags.DEFINE_string("out", "scores.csv", "file to append to")
    flags.DEFINE_float("poll_seconds", 1.0, "seconds between two looks", lower_bound=0.01)
    flags.DEFINE_float(
        "stop_after_idle", None, "stop after so many seconds without a new file (default: never)"
    )
    flags.DEFINE_float(
        "drift_false_alarm_rate",
        drift.DEFAULT_RATE,
        "share of unchanged streams that may ever raise the drift alarm",
    )


def main() -> None:
    """Reads the flags, and scores arriving images until a signal or `--stop_after_idle`."""
    values = flags.FLAGS
    settings.require(values, "model", "data_dir")
    saved = paths.to_read("model", values.model)
    root = paths.to_read("data_dir", values.data_dir)
    out = paths.file_to_write("out", values.out, "table of watched scores", is_log, [saved])
    rate = values.drift_false_alarm_rate
    if not 0.0 < rate < 1.0:
        raise ConfigError(f"drift_false_alarm_rate is {rate}; it must lie in (0, 1)")
    environment.use_platform(values.platform, values.compilation_cache)
    model = models.load_model(saved)
    if len(model.image_shape) != 3:
        raise DataError(f"{values.model}: trained on a table; watch takes models of images")
    if not root.is_dir():
        raise DataError(f"{root}: not a folder")
    thresholds.tell_of_cross_calibration(model)
    wish = arriving.wish(values, model, out, [saved, root])
    check_drift_rate(out, rate)
    watched = open_watch(values, model, root, out, wish)
    with (
        open_log(out, further_columns(watched)) as log,
        signals.stop_signals() as stop,
    ):
        seen = resume(watched, log.rows)
        print(
            f"{root}: {len(log.rows)} images are in {values.out}; anomalous above "
            f"{watched.threshold:.6g}; Ctrl-C ends",
            file=sys.stderr,
        )
        watch(
            watched,
            log,
            seen,
            poll_seconds=values.poll_seconds,
            stop_after_idle=values.stop_after_idle,
            stop=stop,
        )
    alarms = sum(row.anomalous for row in log.rows)
    print(f"{values.out}: {len(log.rows)} images, {alarms} anomalous")


def open_watch(
    values: flags.FlagValues, model: Model, root: Path, out: Path, wish: Wish | None
) -> Watch:
    """Makes the fixed parts; reads normal images if there are any (touches files).

    Args:
      values: parsed flags.
      model: that scores.
      root: the folder.
      out: the table of scores.
      wish: of maps and tiles.
    """
    rate = values.drift_false_alarm_rate
    if wish is None:
        chosen = thresholds.chosen_threshold(model, values.false_alarm_rate, values.threshold)
        return Watch(model, chosen, root, rate)
    prepared = run.prepare(wish, model, out.parent)
    model = run.with_threshold(wish, model, prepared.calibrated)
    maps = None if wish.maps is None else arriving.open_maps(wish, prepared, out)
    return Watch(
        model=model,
        threshold=model.threshold,
        root=root,
        drift_false_alarm_rate=rate,
        maps=maps,
        tiling=wish.tiling,
    )


def further_columns(watched: Watch) -> tuple[str, ...]:
    """Returns the columns of the file after the usual ones."""
    maps = () if watched.maps is None else watched.maps.columns
    return maps if _has_usual_rate(watched) else (*maps, ALARM)


def _has_usual_rate(watched: Watch) -> bool:
    return watched.drift_false_alarm_rate == drift.DEFAULT_RATE


def check_drift_rate(out: Path, rate: float) -> None:
    """Refuses another rate than the first one of a file (touches files): the guarantee of a drift
    alarm holds for one rate that was fixed before.

    Raises:
      ResultsError: names both rates.
    """
    row = first_row(out)
    try:
        begun = 1.0 / float(row[ALARM]) if ALARM in row else drift.DEFAULT_RATE
    except (ValueError, ZeroDivisionError):
        # Not a file of this command; `open_log` raises the error.
        return
    if "drift" in row and not math.isclose(begun, rate):
        raise files.ResultsError(
            f"{out}: begun with --drift_false_alarm_rate={begun:g}, and {rate:g} is asked for; "
            "give that, or another --out"
        )


def resume(watched: Watch, rows: Sequence[LoggedRow]) -> Seen:
    """Returns the state after the rows of an earlier command."""
    if watched.maps is not None:
        watched.maps.remember(row.name for row in rows)
    state = None
    if len(watched.model.calibration_scores):
        first = drift.start(watched.model.calibration_scores)
        states = drift.follow(first, (row.score for row in rows))
        state = functools.reduce(lambda _, later: later, states, first)
    else:
        print("no calibration scores in this model: no p-values, no drift alarm", file=sys.stderr)
    return Seen({}, {row.name: None for row in rows}, state, "")


def watch(
    watched: Watch,
    log: ScoreLog,
    seen: Seen,
    poll_seconds: float,
    stop_after_idle: float | None,
    stop: StopSignal,
) -> Seen:
    """Looks at the folder repeatedly, and scores new images.

    Args:
      watched: see `Watch`.
      log: of the rows.
      seen: the state so far.
      poll_seconds: between two looks.
      stop_after_idle: seconds without a new file after which it ends; None never.
      stop: checked between two images or looks.
    """
    last_arrival = time.monotonic()
    while True:
        stop.check()
        known = len(seen.done)
        seen = look(watched, log, seen, stop)
        now = time.monotonic()
        if len(seen.done) > known:
            last_arrival = now
        if stop_after_idle is not None and now - last_arrival >= stop_after_idle:
            return seen
        _sleep(poll_seconds, stop)


def _sleep(seconds: float, stop: StopSignal) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        stop.check()
        time.sleep(min(left, _LONGEST_SLEEP))


def look(watched: Watch, log: ScoreLog, seen: Seen, stop: StopSignal | None = None) -> Seen:
    """Looks at the folder once, scores the images that are ready and appends their rows (touches
    files)."""
    try:
        paths = datasets.image_files(watched.root)
    except (DataError, OSError):
        return _with_problem(seen, f"{watched.root} is gone; waiting for it to come back")
    now = arrivals.stamps(paths, watched.root)
    # Rows of an earlier command hold names as they are written.
    done = seen.done | {
        name: None for name in now if name not in seen.done and written_name(name) in seen.done
    }
    _tell_masks(now.keys() - seen.stamps.keys())
    ready = arrivals.settled(seen.stamps, now, done, time.time_ns())
    ready = [name for name in ready if not is_mask_name(name)]
    seen = seen._replace(stamps=now, done=_current(done, now))
    while ready:
        if stop is not None:
            stop.check()
        try:
            seen, count = _score(watched, log, seen, ready)
        except files.WriteError as error:
            return _with_problem(seen, f"{error}; nothing is lost, it is tried again")
        ready = ready[count:]
    return _with_problem(seen, "")


def _tell_masks(names: Iterable[str]) -> None:
    masks = sorted(name for name in names if is_mask_name(name))
    if masks:
        more = f" and {len(masks) - 1} more" if len(masks) > 1 else ""
        print(f"{printable(masks[0])}{more}: masks by their names, not scored", file=sys.stderr)


def _with_problem(seen: Seen, problem: str) -> Seen:
    """Prints a problem once, and once when it is over."""
    if problem != seen.problem:
        print(problem or "goes on", file=sys.stderr)
    return seen._replace(problem=problem)


def _current(done: dict[str, Stamp | None], now: dict[str, Stamp]) -> dict[str, Stamp | None]:
    """Returns the files that were dealt with, without unreadable ones that have changed since."""
    return {
        name: stamp
        for name, stamp in done.items()
        if stamp is None or now.get(name, stamp) == stamp
    }


def _score(watched: Watch, log: ScoreLog, seen: Seen, ready: Sequence[str]) -> tuple[Seen, int]:
    """Scores the first of the images that are ready; returns their number."""
    if watched.tiling is None:
        found = _judge(watched, ready)
    else:
        names, tiling, maps = ready[:_IMAGES_AT_ONCE], watched.tiling, watched.maps
        found = arriving_tiles.judge(
            watched.root,
            names,
            watched.model,
            tiling=tiling,
            maps=maps,
            most_bytes=_BYTES_AT_ONCE,
        )
    done = dict(seen.done)
    state = seen.drift
    if found.names:
        rows, state = _rows(watched, state, found.names, found.scores)
        if found.cells:
            rows = [row._replace(more=(*found.cells[row.name], *row.more)) for row in rows]
        log.append(rows)
        _report(watched, seen.drift, state, rows)
        done |= dict.fromkeys(found.names)
    for name, reason in found.unreadable.items():
        print(f"{reason}; left out until it changes", file=sys.stderr)
        done[name] = seen.stamps[name]
    return seen._replace(done=done, drift=state), len(found.names) + len(found.unreadable)


def _judge(watched: Watch, ready: Sequence[str]) -> Judged:
    """Scores the first images whole, and writes their maps (touches files)."""
    read, unreadable = _read(watched, ready)
    if not read:
        return Judged([], np.zeros(0, np.float32), {}, unreadable)
    pixels = np.stack([taken for _, taken in read.values()])
    scores = detectors.score_images(watched.model, pixels)
    cells = {}
    if watched.maps is not None:
        images = {name: image for name, (image, _) in read.items()}
        cells = watched.maps.write(images, pixels)
    return Judged(list(read), scores, cells, unreadable)


def _read(
    watched: Watch, ready: Sequence[str]
) -> tuple[dict[str, tuple[Arrived, npt.NDArray[Any]]], dict[str, str]]:
    """Returns the first images by name, also as the model takes them, and the reasons for those
    that cannot be used."""
    read: dict[str, tuple[Arrived, npt.NDArray[Any]]] = {}
    unreadable: dict[str, str] = {}
    deep: list[str] = []
    held = 0
    for name in ready[:_IMAGES_AT_ONCE]:
        path = watched.root / name
        try:
            image = _image(watched, path)
            (taken,) = model_images.as_trained(watched.model, str(path), image.pixels[None])
        except (DataError, OSError) as error:
            unreadable[name] = str(error)
            continue
        read[name] = image, taken
        if model_images.has_other_depth(watched.model, image.pixels):
            deep.append(str(path))
        held += image.shown.nbytes + taken.nbytes
        if held > _BYTES_AT_ONCE:
            break
    if deep:
        print(model_images.depth_warning(watched.model, deep[0]), file=sys.stderr)
    return read, unreadable


def _image(watched: Watch, path: Path) -> Arrived:
    """Reads an image, and for a map also the image under it."""
    if watched.maps is not None:
        return arriving.read_image(path, watched.model)
    wanted = model_images.wanted(watched.model)
    pixels = read_image(path, wanted.size, wanted.channels)
    return Arrived(pixels, (pixels.shape[0], pixels.shape[1]), pixels)


def _rows(
    watched: Watch,
    state: drift.DriftState | None,
    names: Sequence[str],
    scores: npt.NDArray[np.float32],
) -> tuple[list[LoggedRow], drift.DriftState | None]:
    values = scores.astype(np.float64).tolist()
    anomalous = (scores > watched.threshold).astype(int).tolist()
    more = () if _has_usual_rate(watched) else (f"{1 / watched.drift_false_alarm_rate:.12g}",)
    if state is None:
        rows = [
            LoggedRow(name=name, score=value, p_value="", anomalous=alarm, drift="", more=more)
            for name, value, alarm in zip(names, values, anomalous, strict=True)
        ]
        return rows, None
    # The state holds its scores in one list, which must not change if the rows are not written.
    state = state._replace(scores=list(state.scores))
    p_values = calibration.conformal_p_values(watched.model.calibration_scores, scores)
    rows = []
    states = drift.follow(state, values)
    for name, value, p_value, alarm, state in zip(
        names, values, p_values, anomalous, states, strict=True
    ):
        evidence = f"{drift.capital(state):.6g}"
        rows.append(
            LoggedRow(
                name=name,
                score=value,
                p_value=f"{p_value:.6g}",
                anomalous=alarm,
                drift=evidence,
                more=more,
            )
        )
    return rows, state


def _report(
    watched: Watch,
    before: drift.DriftState | None,
    after: drift.DriftState | None,
    rows: Sequence[LoggedRow],
) -> None:
    """Prints the alarms among new rows, and the drift alarm when it is raised."""
    for row in rows:
        if row.anomalous:
            print(f"anomalous: {row.name}, score {row.score:.6g}, p-value {row.p_value or '-'}")
    sys.stdout.flush()
    rate = watched.drift_false_alarm_rate
    if before is None or after is None or drift.has_drifted(before, rate):
        return
    if drift.has_drifted(after, rate):
        print(
            f"drift: after {after.count} images the scores are no longer those of the calibration "
            f"set (evidence {after.highest:.3g}, alarm at {1 / rate:.3g}); look at the newest "
            "images, and calibrate or fit again if they are normal",
            file=sys.stderr,
        )
