"""Times an epoch of every objective beside one-class Deep SVDD's, and tiles a second of a large
image beside the same tiles in an array.

    python -m benchmarks.family
    python -m benchmarks.family --parts=tiles --side=1024 --json=family.json

An epoch has the same steps of the same batches for all: half of the images are labelled anomalous,
which one-class ignores, so that batches drawn half and half go through as many of them. Objectives
with a map have their own network, and one-class on that beside them. Rounds take turns; a figure is
the median over rounds of the ratio to what was measured in the same round, since a machine's
neighbours slow both. Data are random, batches of 128, Adam, one run on one device.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from benchmarks import rows as tables_of_rows
from benchmarks import scoring, training
from benchmarks.rows import Row
from benchmarks.subjects import SUBJECTS, BenchmarkError, random_images, timed
from deepsvdd_jax import detectors, runs
from deepsvdd_jax.cli.maps import flow, pictures
from deepsvdd_jax.configs import ConfigError, NetworkConfig, PhaseConfig, RunConfig, objective_class
from deepsvdd_jax.networks import build_network
from deepsvdd_jax.recipes import NETWORKS

PARTS = ("epochs", "tiles")
BATCH_SIZE = 128
BASE = "one-class"
LABELLED = ("deep-sad", "hsc", "bce")
# The settings of FCDD's phase that are measured, by name.
OF_MAPS: dict[str, dict[str, Any]] = {
    "fcdd": {},
    "fcdd, synthetic anomalies": {"synthetic_anomalies": "mix"},
    "fcdd, their masks": {"synthetic_anomalies": "mix", "map_masks": True},
}


def define_flags() -> None:
    """Defines all flags of the command."""
    flags.DEFINE_list("parts", list(PARTS), f"Some of {','.join(PARTS)}.")
    flags.DEFINE_list("networks", ["mnist_lenet", "cifar10_lenet"], "Of both parts.")
    flags.DEFINE_integer("images", 1024, "Training images.", lower_bound=2)
    flags.DEFINE_integer("epochs", 1, "Epochs of one timing.", lower_bound=1)
    flags.DEFINE_integer("side", 2048, "Of the square image that is cut into tiles.", lower_bound=1)
    flags.DEFINE_integer("repeats", 5, "Rounds, whose median counts.", lower_bound=1)
    flags.DEFINE_string("json", None, "File to write machine and rows to.")


def phase_of(kind: str, synthetic_anomalies: Any = None, **settings: Any) -> PhaseConfig:
    """Returns a phase that trains for longer than any timing."""
    return PhaseConfig(
        objective=objective_class(kind)(kind=kind, **settings),
        epochs=1_000_000,
        batch_size=BATCH_SIZE,
        synthetic_anomalies=synthetic_anomalies,
    )


def half_labelled(count: int) -> np.ndarray:
    """Returns labels of images, every other one a known anomaly: batches drawn half and half then
    go through as many as others do."""
    return np.where(np.arange(count) % 2, -1, 0).astype(np.int32)


def epoch_timer(
    network: NetworkConfig, phase: PhaseConfig, images: np.ndarray
) -> Callable[[int], float]:
    """Returns a timer of a number of epochs of a lone run, seconds an epoch; compiles it.

    Half of the images are known anomalies.

    Raises:
      RuntimeError: the run stopped, so that its time would mean nothing.
    """
    config = RunConfig(network=network, training=phase)
    mesh = runs.make_mesh(jax.local_devices()[:1])
    run = training.make_run(config, 0, images)
    labels = jnp.asarray(half_labelled(len(images)))
    run = run._replace(data=run.data._replace(labels=labels))
    program = runs.Program(
        config,
        build_network(network, images.shape[1:]),
        mesh,
        runs.in_memory(mesh, images, images[:1]),
        runs.place(mesh, runs.stack_runs([run])),
    )
    start = program.init()

    def train(epochs: int) -> None:
        if not np.all(np.asarray(program.advance(start, epochs).state.active)):
            raise RuntimeError(f"objective {phase.objective.kind}: the run stopped")

    train(1)
    return lambda epochs: timed(lambda: train(epochs)) / epochs


def rounds(timers: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, np.ndarray]:
    """Returns the seconds of all timers, `[repeats]` each, measured in turns."""
    found = {name: np.zeros(repeats) for name in timers}
    for turn in range(repeats):
        for name, timer in timers.items():
            found[name][turn] = timer()
    return found


def median_ratio(seconds: np.ndarray, base: np.ndarray) -> float:
    """Returns the median over rounds of its time over that of the base."""
    return float(np.median(seconds / base))


def measure_epochs(names: Sequence[str], count: int, epochs: int, repeats: int) -> list[Row]:
    """Returns seconds an epoch of every objective; the ratio is one-class's time to its own."""
    cases: dict[tuple[str, str | None], dict[str, PhaseConfig]] = {
        (name, None): {kind: phase_of(kind) for kind in (BASE, *LABELLED)} for name in names
    }
    of_maps = {what: phase_of("fcdd", **settings) for what, settings in OF_MAPS.items()}
    cases |= {("cifar10_lenet", "fcdd"): {BASE: phase_of(BASE), **of_maps}}
    found = []
    for (name, other), phases in cases.items():
        config = SUBJECTS[name].config if other is None else NETWORKS[other]
        images = random_images(name, count)
        timers = {kind: epoch_timer(config, phase, images) for kind, phase in phases.items()}
        calls = {kind: lambda timer=timer: timer(epochs) for kind, timer in timers.items()}
        times = rounds(calls, repeats)
        for kind, seconds in times.items():
            ratio = None if kind == BASE else 1.0 / median_ratio(seconds, times[BASE])
            what = f"{config.name} {kind}, {count} images"
            peer = "" if kind == BASE else BASE
            found.append(
                Row("epochs", what, float(np.median(seconds)), "s / epoch", ratio, peer=peer)
            )
    return found


def measure_tiles(names: Sequence[str], side: int, repeats: int) -> list[Row]:
    """Returns tiles scored a second, cut from one image, beside the same tiles in an array.

    Raises:
      BenchmarkError: the image is smaller than a tile.
    """
    found = []
    for name in names:
        tile, _, channels = SUBJECTS[name].shape
        if side < tile:
            raise BenchmarkError(f"side is {side}, below a tile of {tile} pixels of {name}")
        model = scoring.make_model(name, 1)
        image = np.random.default_rng(0).integers(256, size=(1, side, side, channels), dtype="u1")
        whole = pictures.of_array(image)
        tiling = flow.check_tiling(tile, 0, model)
        tiles = np.stack([piece.pixels for piece in flow.pieces_of(whole, model, tiling)])

        def in_tiles(model: Any = model, whole: Any = whole, tiling: Any = tiling) -> None:
            pieces = flow.pieces_of(whole, model, tiling)
            list(flow.follow(pieces, lambda pixels: detectors.score_images(model, pixels), None))

        def alone(model: Any = model, tiles: np.ndarray = tiles) -> None:
            detectors.score_images(model, tiles)

        for work in (in_tiles, alone):
            work()
        calls = {"tiles": lambda: timed(in_tiles), "alone": lambda: timed(alone)}
        times = rounds(calls, repeats)
        what = f"{name}, {len(tiles)} tiles of {side} x {side} pixels"
        ratio = 1.0 / median_ratio(times["tiles"], times["alone"])
        for way, seconds in times.items():
            rate = len(tiles) / float(np.median(seconds))
            is_cut = way == "tiles"
            found.append(
                Row(
                    "tiles",
                    what if is_cut else f"{what}, in an array",
                    rate,
                    "tiles / s",
                    ratio if is_cut else None,
                    peer="in an array" if is_cut else "",
                )
            )
    return found


def measure(values: flags.FlagValues) -> list[Row]:
    """Measures the parts of the flags.

    Raises:
      BenchmarkError: an unknown name, or an image smaller than a tile.
    """
    allowed = [name for name, subject in SUBJECTS.items() if len(subject.shape) == 3]
    for given, known in ((values.parts, PARTS), (values.networks, allowed)):
        for name in given:
            if name not in known:
                raise BenchmarkError(f"{name!r} is unknown; allowed: {', '.join(known)}")
    found = []
    if "epochs" in values.parts:
        found += measure_epochs(values.networks, values.images, values.epochs, values.repeats)
    if "tiles" in values.parts:
        found += measure_tiles(values.networks, values.side, values.repeats)
    return found


def main(arguments: list[str]) -> None:
    """Measures the parts of the flags and prints the rows."""
    values = flags.FLAGS
    try:
        if arguments[1:]:
            raise BenchmarkError(f"{arguments[1]!r} is no flag")
        found = measure(values)
    except (BenchmarkError, ConfigError) as error:
        print(f"benchmarks.family: {error}", file=sys.stderr)
        sys.exit(2)
    machine = training.describe_machine(1, float("nan"))
    print(f"{machine['processor']}, {machine['cores']} cores, jax {machine['jax']}\n")
    print(tables_of_rows.format_rows(found))
    if values.json is not None:
        tables_of_rows.write_json(values.json, machine, found)


if __name__ == "__main__":
    define_flags()
    app.run(main)
