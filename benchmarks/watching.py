"""Watching a folder beside scoring it: nothing lost, nothing twice, and how fast.

    python -m benchmarks.watching --model=parts.model --data_dir=parts

Another process copies images into a folder, each in two writes, while `watch` scores them and is
killed twice; its rows are then compared with those of `score`. Afterwards both score the same
folder in turns, in this process, with programs that are compiled; the fastest round counts. Exits
with code 1 where a row is lost, doubled or another.
"""

import csv
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from absl import flags

from deepsvdd_jax import datasets
from deepsvdd_jax.cli import process, settings
from deepsvdd_jax.cli.commands import score, watch
from deepsvdd_jax.cli.score_log import open_log
from deepsvdd_jax.datasets import Columns
from deepsvdd_jax.io import models
from deepsvdd_jax.io.models import Model

# After these shares of the rows the command is killed.
KILLS = (1 / 3, 2 / 3)

# Seconds without a new row after which something is wrong.
_PATIENCE = 300.0


class Survived(NamedTuple):
    """What a watched folder came to: rows of images, those that are missing, that stand twice, and
    whose score is not that of `score`."""

    rows: int
    lost: int
    doubled: int
    different: int


class Rates(NamedTuple):
    """Images a second, read from their files."""

    watched: float
    scored: float


def define_flags() -> None:
    """Defines all flags of the command."""
    flags.DEFINE_string("model", None, "Folder of a saved model of images.")
    flags.DEFINE_string("data_dir", None, "Folder of images, taken again and again.")
    flags.DEFINE_integer("images", 1000, "Images to watch.", lower_bound=3)
    flags.DEFINE_float("pause", 0.005, "Seconds between two writes.", lower_bound=0.0)
    flags.DEFINE_integer("repeats", 3, "Rounds, of which the fastest counts.", lower_bound=1)


def copy_images(source: Path, target: Path, count: int, pause: float) -> None:
    """Copies images under numbers, each in two writes with a pause (touches files)."""
    for number, path in zip(
        range(count), itertools.cycle(datasets.image_files(source)), strict=False
    ):
        content = path.read_bytes()
        with (target / f"{number:06d}{path.suffix}").open("wb") as file:
            file.write(content[: len(content) // 2])
            file.flush()
            time.sleep(pause)
            file.write(content[len(content) // 2 :])
        time.sleep(pause)


def watch_and_kill(model: Path, source: Path, folder: Path, count: int, pause: float) -> Path:
    """Watches a folder that another process fills, killed at each of `KILLS` (touches files).

    Args:
      model: folder of a saved model.
      source: images to copy.
      folder: empty; images go to `camera` below it.
      count: of images.
      pause: see `copy_images`.

    Returns:
      The file of scores.
    """
    camera, out = folder / "camera", folder / "watched.csv"
    camera.mkdir()
    flow = [sys.executable, "-m", "benchmarks.watching", "copy", source, camera, count, pause]
    arguments = [f"--model={model}", f"--data_dir={camera}", f"--out={out}", "--poll_seconds=0.1"]
    command = [sys.executable, "-m", "experiments.watch", *arguments]
    with subprocess.Popen([*map(str, flow)]) as copier:
        for share in (*KILLS, 1.0):
            with subprocess.Popen(command, stdout=subprocess.DEVNULL) as watching:
                _wait_for_rows(out, round(share * count), watching)
                watching.send_signal(signal.SIGKILL if share < 1 else signal.SIGTERM)
        copier.wait()
    return out


def _wait_for_rows(out: Path, count: int, watching: subprocess.Popen[bytes]) -> None:
    found, changed = 0, time.monotonic()
    while found < count:
        time.sleep(0.05)
        now = len(out.read_bytes().splitlines()) - 1 if out.is_file() else 0
        if now != found:
            found, changed = now, time.monotonic()
        if watching.poll() is not None or time.monotonic() - changed > _PATIENCE:
            watching.kill()
            raise RuntimeError(f"watch came to {found} of {count} rows and no further")


def survived(model: Model, folder: Path, out: Path) -> Survived:
    """Compares rows that were watched with those of `score` (touches files)."""
    source = score.open_source(folder / "camera", model, score.Reading(), Columns())
    score.write_scores(folder / "scores.csv", model, source)
    expected = {name: float(value) for name, value in _rows(folder / "scores.csv")}
    watched = _rows(out)
    found = {name: float(value) for name, value in watched}
    return Survived(
        len(watched),
        len(expected.keys() - found.keys()),
        len(watched) - len(found),
        sum(found[name] != expected[name] for name in expected.keys() & found.keys()),
    )


def _rows(path: Path) -> list[tuple[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return [(row["name"], row["score"]) for row in csv.DictReader(file)]


def rates(model: Model, folder: Path, repeats: int) -> Rates:
    """Times both over the images in `camera` below a folder, in turns (reads the clock).

    Args:
      model: that scores.
      folder: to write into.
      repeats: rounds; the first one of each, which compiles, does not count.
    """
    camera = folder / "camera"
    watched_folder = watch.Watch(model, model.threshold, camera, watch.drift.DEFAULT_RATE)
    watched, scored, count = [], [], 0
    for number in range(repeats + 1):
        with open_log(folder / f"round-{number}.csv") as log:
            # The first look notes the files, the second one scores them.
            seen = watch.look(watched_folder, log, watch.resume(watched_folder, log.rows))
            started = time.perf_counter()
            watch.look(watched_folder, log, seen)
            watched.append(time.perf_counter() - started)
            count = len(log.rows)
        started = time.perf_counter()
        source = score.open_source(camera, model, score.Reading(), Columns())
        score.write_scores(folder / "again.csv", model, source)
        scored.append(time.perf_counter() - started)
    return Rates(count / min(watched[1:]), count / min(scored[1:]))


def main() -> None:
    """Watches, kills, compares and times."""
    values = flags.FLAGS
    settings.require(values, "model", "data_dir")
    model = models.load_model(Path(values.model))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = Path(values.data_dir)
        out = watch_and_kill(Path(values.model), source, folder, values.images, values.pause)
        found = survived(model, folder, out)
        print(
            f"watch, killed {len(KILLS)} times: {found.rows} rows of {values.images} images, "
            f"{found.lost} lost, {found.doubled} twice, {found.different} with another score than "
            "score's"
        )
        rate = rates(model, folder, values.repeats)
        print(
            f"images a second on {os.cpu_count()} cores: watch {rate.watched:.0f}, score "
            f"{rate.scored:.0f}, {100 * rate.watched / rate.scored:.0f} %"
        )
    if found != Survived(values.images, 0, 0, 0):
        sys.exit(1)


if __name__ == "__main__":
    if sys.argv[1:2] == ["copy"]:
        _, _, source, target, count, pause = sys.argv
        copy_images(Path(source), Path(target), int(count), float(pause))
    else:
        define_flags()
        process.run_command(main)
