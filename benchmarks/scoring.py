"""Images scored a second, beside PyTorch in the same call.

    python -m benchmarks.scoring                 # 60,000 random images of MNIST's size
    python -m benchmarks.scoring --network=cifar10_lenet --images=10000

One network, float32, evaluation mode; ours with its preprocessing left out on both sides: from
network input in memory to distances in memory. PyTorch runs `torch.inference_mode` at its best
batch size and number of threads. Rounds take turns; the fastest counts. The last row is our network
over a single batch that stays in the caches, again and again: the rate of scoring if reading images
and keeping distances cost nothing.
"""

import json
import pathlib
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from absl import app, flags
from jax import Array

from benchmarks import subjects
from deepsvdd_jax import detectors
from deepsvdd_jax.configs import PreprocessingConfig, RunConfig
from deepsvdd_jax.io.models import Model
from deepsvdd_jax.networks import build_network

TORCH_BATCHES = (64, 250, 1000)
CACHED_BATCH = 64
PYTORCH = "PyTorch"

Images = npt.NDArray[np.float32]
Scorer = Callable[[Images], Any]


def define_flags() -> None:
    """Defines all flags of the command."""
    flags.DEFINE_enum("network", "mnist_lenet", list(subjects.SUBJECTS), "Network.")
    flags.DEFINE_integer("images", 60_000, "Images to score.", lower_bound=1)
    flags.DEFINE_integer("members", 1, "Networks of the ensemble.", lower_bound=1)
    flags.DEFINE_integer("repeats", 3, "Rounds, of which the fastest counts.", lower_bound=1)
    flags.DEFINE_string("json", None, "File to write the rows to.")


class Row(NamedTuple):
    """A scorer, and how many images it scores in a second."""

    name: str
    images_per_second: float


def make_model(network_name: str, members: int) -> Model:
    """Returns a model of untrained networks whose preprocessing does nothing."""
    subject = subjects.SUBJECTS[network_name]
    network = build_network(subject.config, subject.shape)
    keys = jax.random.split(jax.random.key(0), members)
    params, statistics = jax.device_get(jax.vmap(lambda key: network.init(key, False))(keys))
    ones = (1,) * len(subject.shape)
    config = RunConfig(network=subject.config, preprocessing=PreprocessingConfig(min_max=False))
    return Model(
        config=config,
        image_shape=subject.shape,
        feature_names=(),
        params=params,
        statistics=statistics,
        center=np.ones((members, network.rep_dim), np.float32),
        squared_radius=np.zeros(members, np.float32),
        train_means=np.ones(members),
        shift=np.zeros(ones, np.float32),
        scale=np.ones(ones, np.float32),
        whitening_mean=np.zeros(0),
        whitening_matrix=np.zeros((0, 0)),
        calibration_scores=np.zeros(0, np.float32),
        threshold=0.0,
        summary={},
    )


def torch_scorer(network_name: str, members: int, threads: int, batch_size: int) -> Scorer:
    """Returns a scorer of so many networks in PyTorch."""
    import torch

    from benchmarks import torch_peer

    subject = subjects.SUBJECTS[network_name]
    layers = [layer._asdict() for layer in subjects.encoder_layers(subject.config, subject.shape)]
    modules = [torch_peer.build_module(layers).eval() for _ in range(members)]
    device = torch_peer.best_device()
    modules = [module.to(device) for module in modules]
    center = torch.ones(subject.config.rep_dim, device=device)

    def score(images: Images) -> Any:
        torch.set_num_threads(threads)
        pool = torch.from_numpy(images).to(device)
        channels_first = pool.permute(0, 3, 1, 2) if pool.ndim == 4 else pool
        batches = channels_first.split(batch_size)
        with torch.inference_mode():
            return (
                torch.stack(
                    [
                        torch.cat([(module(batch) - center).square().sum(1) for batch in batches])
                        for module in modules
                    ]
                )
                .cpu()
                .numpy()
            )

    return score


def cached_scorer(network_name: str, members: int) -> Scorer:
    """Returns a scorer that processes as many batches as the images have, shared by the devices,
    but the same batch each time."""
    model = make_model(network_name, members)
    network = build_network(model.config.network, model.image_shape)
    first = subjects.random_images(network_name, CACHED_BATCH)
    placed = [
        jax.device_put((model.params, model.statistics, first), device)
        for device in jax.local_devices()
    ]

    @jax.jit
    def encode_again(params: Any, statistics: Any, batch: Array, rounds: Array) -> Array:
        def encode(nothing: Array, member: Any) -> tuple[Array, None]:
            # Added to the next batch, so that the compiler cannot drop a round.
            weights, moments = member
            return 0.0 * network.encode(weights, moments, batch + nothing)[0, 0], None

        def go_through_members(_: Array, nothing: Array) -> Array:
            return jax.lax.scan(encode, nothing, (params, statistics))[0]

        return jax.lax.fori_loop(0, rounds, go_through_members, jnp.zeros(()))

    def score(images: Images) -> Any:
        rounds = -(-len(images) // (CACHED_BATCH * len(placed)))
        return jax.block_until_ready([encode_again(*parts, rounds) for parts in placed])

    return score


def scorers(network_name: str, members: int, torch: bool = True) -> dict[str, Scorer]:
    """Returns the scorers by name; PyTorch if it is wanted and installed."""
    model = make_model(network_name, members)
    found: dict[str, Scorer] = {
        f"ours, {members} member(s)": lambda images: detectors.member_distances(model, images)
    }
    if torch and subjects.torch_version() is not None:
        for threads in sorted({1, subjects.cores()}):
            for batch in TORCH_BATCHES:
                name = f"{PYTORCH}, {threads} thread(s), batch {batch}"
                found[name] = torch_scorer(network_name, members, threads, batch)
    return found


def measure(found: dict[str, Scorer], images: Images, repeats: int) -> list[Row]:
    """Returns the best rate of each scorer; all take turns."""
    best = dict.fromkeys(found, float("inf"))
    for score in found.values():
        score(images[:2000])
    for _ in range(repeats):
        for name, score in found.items():
            seconds = subjects.timed(lambda score=score: score(images))  # type: ignore[misc]
            best[name] = min(best[name], seconds)
    return [Row(name, len(images) / seconds) for name, seconds in best.items()]


def report(rows: list[Row]) -> str:
    """Returns the table, and the ratio to PyTorch's best."""
    lines = [(row.name, "", f"{row.images_per_second:,.0f}") for row in rows]
    text = subjects.format_table(("what", "", "images / s"), lines)
    theirs = [row.images_per_second for row in rows if row.name.startswith(PYTORCH)]
    ours = [row for row in rows if not row.name.startswith(PYTORCH)]
    if theirs:
        ratios = (
            f"{row.name} / {PYTORCH}'s best: {row.images_per_second / max(theirs):.2f}"
            for row in ours
        )
        text = "\n".join((text, *ratios))
    return text


def main(arguments: list[str]) -> None:
    """Measures the scorers of the flags and prints the rows."""
    if arguments[1:]:
        sys.exit(f"benchmarks.scoring: {arguments[1]!r} is no flag")
    values = flags.FLAGS
    jax.config.update("jax_num_cpu_devices", subjects.cores())
    images = subjects.random_images(values.network, values.images)
    found = scorers(values.network, values.members)
    found["the network alone"] = cached_scorer(values.network, values.members)
    rows = measure(found, images, values.repeats)
    print(report(rows))
    if values.json is not None:
        described = [row._asdict() for row in rows]
        pathlib.Path(values.json).write_text(json.dumps(described, indent=2) + "\n")


if __name__ == "__main__":
    define_flags()
    app.run(main)
