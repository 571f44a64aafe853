"""Compiles the next method's programs while the present method trains on an accelerator."""

import concurrent.futures
from collections.abc import Callable

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as Spec

from deepsvdd_jax.configs import RunConfig
from deepsvdd_jax.networks import Network, Params, build_network
from deepsvdd_jax.runs import Program, Run


def pays() -> bool:
    """Whether the processor is idle while runs train, which it is only beside an accelerator."""
    return jax.default_backend() != "cpu"


class Ahead:
    """Compiles programs of one configuration in a thread.

    Args:
      config: of the runs, without a pretraining.
      from_autoencoder: whether each of them starts from an autoencoder.
    """

    def __init__(self, config: RunConfig, from_autoencoder: bool) -> None:
        self._config, self._from_autoencoder = config, from_autoencoder
        self._pool = concurrent.futures.ThreadPoolExecutor(1)
        self._work: concurrent.futures.Future[int] | None = None
        self._compiled = (0, 1)

    def start(self, width: int, mesh: Mesh, present: Program) -> None:
        """Starts compiling, with the first call only.

        Args:
          width: runs of a program to come.
          mesh: its devices.
          present: the program that trains at present; the next ones have images of the same shapes.
        """
        if self._work is not None:
            return
        network = build_network(self._config.network, present.network.image_shape)
        weights = self._weights(network, present.runs)
        members = _shapes_of_runs(weights, width, mesh, present.runs)
        everywhere = NamedSharding(mesh, Spec())
        images = jax.tree.map(
            lambda pool: jax.ShapeDtypeStruct(pool.shape, pool.dtype, sharding=everywhere),
            present.images,
        )
        program = Program(self._config, network, mesh, images, members)
        self._work = self._pool.submit(program.compile, self._note)

    def _weights(self, network: Network, present: Run) -> Params:
        """Returns the shapes of one run's weights that are not drawn."""
        if not self._from_autoencoder:
            return jax.tree.map(lambda leaf: _shape(leaf.shape[1:], leaf), present.weights)
        reconstructs = self._config.training_reconstructs
        params, statistics = jax.eval_shape(
            lambda key: network.init(key, reconstructs), jax.random.key(0)
        )
        return {**params, "statistics": statistics}

    def _note(self, done: int, total: int) -> None:
        self._compiled = (done, total)

    def wait(self, report: Callable[[int, int], None]) -> None:
        """Waits for the compilation, reporting about once a second how many programs are done and
        of how many. A failure is ignored: whoever needs these programs compiles them again and
        raises it."""
        if self._work is not None:
            while concurrent.futures.wait([self._work], timeout=1.0).not_done:
                report(*self._compiled)
        self._pool.shutdown()


def _shapes_of_runs(weights: Params, width: int, mesh: Mesh, present: Run) -> Run:
    """Returns the shapes of stacked runs that differ from the present ones in width and weights."""
    placed = NamedSharding(mesh, Spec("run"))
    one = jax.tree.map(lambda leaf: _shape(leaf.shape[1:], leaf), present)
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((width, *leaf.shape), leaf.dtype, sharding=placed),
        one._replace(weights=weights),
    )


def _shape(shape: tuple[int, ...], like: jax.ShapeDtypeStruct | jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, like.dtype)
