"""Autoencoders that runs start from, trained once a class and seed and kept for every method."""

import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy.typing as npt

from deepsvdd_jax.cli.files import WriteError
from deepsvdd_jax.cli.sweeps.records import RunName
from deepsvdd_jax.configs import RunConfig
from deepsvdd_jax.io import archives, trees
from deepsvdd_jax.networks import BatchStats, Network, Params, without_decoder


class Pretrained(NamedTuple):
    """The parts of an autoencoder that a run starts from.

    Attributes:
      params: of encoder and decoder.
      statistics: running averages of the batch statistics of both.
      failure: one of `training.FAILURES`, or `training.NOT_FAILED`.
      history: equally long columns, one row an epoch.
    """

    params: Params
    statistics: BatchStats
    failure: int
    history: dict[str, npt.NDArray[Any]]


def starting_weights(config: RunConfig, start: Pretrained) -> Params:
    """Returns the weights of a run that replace drawn ones (`runs.Run.weights`)."""
    if config.training_reconstructs:
        return {**start.params, "statistics": start.statistics}
    return {**without_decoder(start.params), "statistics": without_decoder(start.statistics)}


def path_of(folder: Path, name: RunName) -> Path:
    """Returns the file, in a sweep's folder, of the autoencoder of a class and seed."""
    return folder / "pretrained" / f"class{name.normal_class}-seed{name.seed}.bin"


def write(path: Path, pretrained: Pretrained) -> None:
    """Writes an autoencoder atomically, with a checksum (touches files).

    Raises:
      WriteError: it cannot be written; the former file stays.
    """
    arrays: dict[str, npt.ArrayLike] = {"failure": pretrained.failure}
    arrays |= {f"history/{name}": column for name, column in pretrained.history.items()}
    for tree in ("params", "statistics"):
        arrays |= trees.flatten(getattr(pretrained, tree), tree)
    try:
        archives.write_archive(path, arrays)
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror or error}") from None


def read(path: Path, network: Network) -> Pretrained | None:
    """Reads an autoencoder (touches files). Returns None if there is none, and, with a line on
    stderr, if it is damaged or of another network."""
    if not path.exists():
        return None
    try:
        arrays = archives.read_archive(path)
        found = Pretrained(
            trees.unflatten(arrays, "params"),
            trees.unflatten(arrays, "statistics"),
            int(arrays["failure"]),
            {
                name.removeprefix("history/"): column
                for name, column in arrays.items()
                if name.startswith("history/")
            },
        )
        _check_shapes(network, (found.params, found.statistics))
    except (archives.ModelError, *archives.DAMAGES) as error:
        reason = " ".join(str(error).split())
        print(f"{path}: damaged ({reason}); this autoencoder is trained again", file=sys.stderr)
        return None
    return found


def _check_shapes(network: Network, found: tuple[Params, BatchStats]) -> None:
    template = jax.eval_shape(lambda key: network.init(key, True), jax.random.key(0))

    def check(wanted: jax.ShapeDtypeStruct, leaf: npt.NDArray[Any]) -> None:
        if leaf.shape != wanted.shape:
            raise ValueError(f"an array of shape {leaf.shape} where {wanted.shape} is needed")

    jax.tree.map(check, template, found)
