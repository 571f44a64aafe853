"""Forms of convolution for accelerators: equal to XLA's convolution, and lowered for CUDA."""

import functools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array, lax

from deepsvdd_jax import convolution, recipes, runs, training
from deepsvdd_jax.configs import ConfigError, ObjectiveConfig, PhaseConfig, RunConfig
from deepsvdd_jax.convolution import Padding, rule
from deepsvdd_jax.networks import build_network

# What is compiled runs for a moment: most of the compiler's own work would be wasted.
compiled = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

SAME3: Padding = ((1, 1), (1, 1))
SAME5: Padding = ((2, 2), (2, 2))
VALID: Padding = ((0, 0), (0, 0))


class Case(NamedTuple):
    images: tuple[int, int, int, int]
    kernel: tuple[int, int, int, int]
    padding: Padding


CASES = [
    Case((2, 8, 8, 1), (5, 5, 1, 8), SAME5),
    Case((2, 8, 12, 3), (3, 3, 3, 4), SAME3),
    Case((2, 7, 9, 2), (5, 5, 2, 3), SAME5),
    Case((2, 9, 11, 4), (3, 3, 4, 5), VALID),
    Case((2, 10, 8, 3), (3, 3, 3, 2), ((1, 0), (0, 1))),
    Case((1, 4, 4, 128), (5, 5, 128, 32), SAME5),
    Case((2, 2, 4, 33), (3, 3, 33, 32), SAME3),
]


def case_name(case: Case) -> str:
    (top, bottom), (left, right) = case.padding
    sides = "x".join(map(str, case.images[1:]))
    return f"{sides}-k{case.kernel[0]}-f{case.kernel[3]}-{top}{bottom}{left}{right}"


@pytest.fixture(autouse=True)
def forget_traces() -> Iterator[None]:
    """What was traced keeps its form."""
    runs.forget_programs()
    yield
    runs.forget_programs()


def reference(images: Array, kernel: Array, padding: Padding) -> Array:
    return lax.conv_general_dilated(
        images, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def reference_operations(images: Array, kernel: Array, padding: Padding) -> tuple[Array, ...]:
    """XLA's convolution, its 2x2 maxima and sums, and that of the doubled images."""
    whole = reference(images, kernel, padding)
    pooled = lax.reduce_window(whole, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    large = reference(images.repeat(2, 1).repeat(2, 2), kernel, padding)
    return whole, pooled, whole.sum((0, 1, 2)), (whole**2).sum((0, 1, 2)), large


def our_operations(images: Array, kernel: Array, padding: Padding) -> tuple[Array, ...]:
    whole = convolution.convolve(images, kernel, padding)
    pooled = convolution.convolve_pool(images, kernel, padding)
    assert pooled.count == whole.shape[1] * whole.shape[2]
    large = convolution.upsample_convolve(images, kernel, padding)
    return whole, pooled.scaled(None, None), pooled.total, pooled.total_of_squares, large


def values_and_gradients(operations: Callable, case: Case, seed: int) -> Callable:
    """A function of images and a kernel: values, and both gradients of their weighted sum."""
    shapes = jax.eval_shape(
        lambda *both: reference_operations(*both, case.padding),
        *(jax.ShapeDtypeStruct(shape, jnp.float64) for shape in case[:2]),
    )
    generator = np.random.default_rng(seed)
    cotangents = tuple(jnp.asarray(generator.normal(size=shape.shape)) for shape in shapes)

    def run(images: Array, kernel: Array) -> tuple:
        values, pull = jax.vjp(lambda *both: operations(*both, case.padding), images, kernel)
        return values, pull(cotangents)

    return run


@functools.cache
def drawn_with_reference(case: Case) -> tuple[Array, Array, list[Any]]:
    """Images and kernels of two runs, and what each of them gives on its own."""
    generator = np.random.default_rng(0)
    images, kernels = (jnp.asarray(generator.normal(size=(2, *shape))) for shape in case[:2])
    alone = compiled(values_and_gradients(reference_operations, case, 1))
    return images, kernels, [alone(*both) for both in zip(images, kernels, strict=True)]


@pytest.mark.parametrize("form", convolution.FORMS)
@pytest.mark.parametrize(
    "case",
    [*CASES[:2], *(pytest.param(case, marks=pytest.mark.slow) for case in CASES[2:])],
    ids=case_name,
)
def test_every_form_is_xlas_convolution_for_many_runs_at_once(case: Case, form: str) -> None:
    """Values, pooled values, sums and both gradients, in float64, of two runs under vmap."""
    with jax.enable_x64(True):
        images, kernels, expected = drawn_with_reference(case)
        with convolution.lowered_for("cuda"), convolution.use_form(form):
            ours = compiled(jax.vmap(values_and_gradients(our_operations, case, 1)))
            actual = ours(images, kernels)

        def check(found: Array, *wanted: Array) -> None:
            stacked = np.stack(wanted)
            assert found.dtype == jnp.float64 and found.shape == stacked.shape
            np.testing.assert_allclose(found, stacked, rtol=0, atol=1e-11 * np.abs(stacked).max())

        jax.tree.map(check, actual, *expected)


def test_a_kernels_gradient_is_a_product_a_tap_where_the_band_would_be_large(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rule, "LARGEST_BAND", 1)
    test_every_form_is_xlas_convolution_for_many_runs_at_once(CASES[4], "automatic")
    with convolution.lowered_for("cuda"):
        assert rule.form_of(3, 1, 1, 8) == "canonical"


def test_tiles_and_pairs_of_rows_are_different_programs() -> None:
    """Or a form that is asked for would be another one under its name."""
    texts = {}
    for form in convolution.FORMS[1:]:
        with convolution.use_form(form):
            texts[form] = (
                jax.jit(lambda *both: our_operations(*both, SAME5)[1:4])
                .lower(*(jnp.ones(shape) for shape in CASES[0][:2]))
                .as_text()
            )
    assert len(set(texts.values())) == len(convolution.FORMS) - 2
    # Without a gradient there is nothing canonical about the backward pass.
    assert texts["canonical"].count("stablehlo.convolution") == 1


@pytest.mark.parametrize(
    ("layer", "form"),
    [
        ((5, 1, 8, 28), "rows"),
        ((5, 8, 4, 14), "rows"),
        ((5, 3, 32, 32), "rows"),
        ((5, 32, 64, 16), "canonical"),
        ((5, 64, 128, 8), "canonical"),
        ((5, 128, 64, 8, 2), "rows"),
        ((3, 32, 16, 4), "rows"),
        # Its band matrix would have 44 million numbers.
        ((5, 256, 256, 14, 2), "canonical"),
    ],
)
def test_the_rule(layer: tuple[int, ...], form: str) -> None:
    assert rule.form_of(*layer) == form


def test_the_platform_is_where_a_program_is_lowered_for() -> None:
    assert convolution.platform("rocm") == "rocm" and convolution.platform() == "cpu"
    with convolution.lowered_for("cuda"):
        assert convolution.platform("cpu") == "cuda" and not rule.on_cpu()
    assert rule.on_cpu()


# --- networks -----------------------------------------------------------------------------------

SHAPES = {
    name: (32, 32, 3) if name.startswith(("cifar10", "gtsrb")) else (28, 28, 1)
    for name in recipes.NETWORKS
    if name not in ("lenet", "mlp")
} | {"lenet": (8, 8, 1), "mlp": (9,)}


def of_networks(*quick: str, without: Sequence[str] = ()) -> list[Any]:
    """The names of all networks; those that compile for long are marked."""
    names = [name for name in recipes.NETWORKS if name not in without]
    return [pytest.param(name, marks=() if name in quick else pytest.mark.slow) for name in names]


def has_decoder(name: str) -> bool:
    try:
        network = build_network(recipes.NETWORKS[name], SHAPES[name])
        jax.eval_shape(lambda key: network.init(key, True), jax.random.key(0))
    except ConfigError:
        return False
    return True


def lowered(name: str, kind: Any, move: Callable = runs.run_epochs, count: int = 10) -> str:
    """The text of a program of many runs, lowered for CUDA on this machine: of an epoch, or of the
    first state or the end, which make statistics and scores."""
    shape = SHAPES[name]
    phase = PhaseConfig(objective=ObjectiveConfig(kind=kind), batch_size=4)
    config = RunConfig(network=recipes.NETWORKS[name], training=phase)
    network, mesh = build_network(config.network, shape), runs.make_mesh(jax.devices()[:1])
    ones = np.ones((1,) * len(shape))
    run = runs.Run(
        jax.random.key(0),
        training.run_data(np.arange(8), 8, 0 * ones, ones),
        *runs.phase_settings(config),
        {},
    )
    pools = runs.ResidentPools(*(jax.ShapeDtypeStruct((8, *shape), jnp.float32),) * 2)
    state, _ = jax.eval_shape(
        lambda *parts: runs.begin_run(runs.ResidentSource(*parts), config, network), pools, run
    )
    members, states = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((count, *leaf.shape), leaf.dtype), (run, state)
    )
    limits, named = (), ()
    if move is runs.run_epochs:
        limits, named = (np.int32(0), np.int32(1)), ("training", 1)
    program = runs.whole_move(move, mesh, config, network, *named)
    per_run = () if move is runs.begin_run else (states,)
    traced = program.trace((pools, limits), (members, per_run))
    return traced.lower(lowering_platforms=("cuda",)).as_text()


_KERNEL = re.compile(r"tensor<(\d+)x(\d+)x(\d+)x(\d+)xf32>\) -> ")


def grouped_convolutions(text: str) -> list[tuple[int, int]]:
    """Channels and features a run of the grouped convolutions in a program's text, (0, 0) of those
    that are not in canonical form."""
    found = []
    for line in text.splitlines():
        if "stablehlo.convolution" not in line:
            continue
        groups = int(re.search(r"feature_group_count = (\d+)", line)[1])
        assert "batch_group_count = 1 " in line, line
        if groups > 1:
            _, _, channels, features = map(int, _KERNEL.search(line).groups())
            canonical = "[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]" in line
            found.append((channels, features // groups) if canonical else (0, 0))
    return found


def test_the_text_of_a_grouped_convolution_is_read() -> None:
    def convolve(images: Array, kernel: Array) -> Array:
        return reference(images, kernel, SAME3)

    many = jnp.ones((3, 2, 4, 4, 5)), jnp.ones((3, 3, 3, 5, 7))
    assert grouped_convolutions(jax.jit(jax.vmap(convolve)).lower(*many).as_text()) == [(5, 7)]
    # JAX derives a kernel's gradient with the images of the batch as the channels.
    gradient = jax.vmap(jax.grad(lambda kernel, images: (convolve(images, kernel) ** 2).sum()))
    assert grouped_convolutions(jax.jit(gradient).lower(*many[::-1]).as_text())[-1:] == [(0, 0)]


WIDE = {
    "mnist_lenet_wide": {256, 128},
    "cifar10_lenet": {32, 64, 128},
    "cifar10_lenet_elu": {32, 64, 128},
    "cifar10_lenet_small": {32, 64},
    "cifar10_lenet_deep": {32, 64},
    "itu_cnn": {32, 64},
    "fcdd": {32, 64, 128},
    "fcdd_64": {32, 64, 128},
    "fcdd_128": {32, 64, 128},
}


@pytest.mark.parametrize("kind", ["one-class", "reconstruction"])
@pytest.mark.parametrize("name", of_networks("mnist_lenet", "itu_cnn"))
def test_only_wide_layers_are_grouped_on_a_gpu(name: str, kind: str) -> None:
    if kind == "reconstruction" and not has_decoder(name):
        kind = "soft-boundary"
    with convolution.lowered_for("cuda"):
        found = grouped_convolutions(lowered(name, kind))
    allowed = WIDE.get(name, set())
    assert bool(found) == bool(allowed)
    assert all(set(widths) <= allowed for widths in found), found


@pytest.mark.parametrize("move", [runs.begin_run, runs.finish_run])
def test_statistics_and_scores_have_the_forms_of_training(move: Callable) -> None:
    with convolution.lowered_for("cuda"):
        assert "stablehlo.convolution" not in lowered("mnist_lenet", "one-class", move)
        wide = grouped_convolutions(lowered("cifar10_lenet", "one-class", move))
    assert wide and set(wide) == {(32, 64), (64, 128)}


def test_the_same_program_for_a_cpu_has_no_grouped_convolution_and_is_another() -> None:
    text = lowered("mnist_lenet", "one-class")
    assert "stablehlo.convolution" in text and not grouped_convolutions(text)
    with convolution.lowered_for("cuda"):
        runs.forget_programs()
        assert "stablehlo.convolution" not in lowered("mnist_lenet", "one-class")


@pytest.mark.slow
@pytest.mark.parametrize("platform", ["cpu", "cuda"])
def test_the_gradient_of_a_fully_convolutional_network_is_its_difference(platform: str) -> None:
    """Its scales are trained and may be negative: the pool then follows the normalisation."""
    config, shape, step = recipes.NETWORKS["fcdd"], (28, 28, 1), 1e-5
    with jax.enable_x64(True), convolution.lowered_for(platform):
        generator = np.random.default_rng(0)
        network = build_network(config, shape)
        template, _ = jax.eval_shape(network.init, jax.random.key(0))
        params = jax.tree.map(
            lambda leaf: jnp.asarray(0.1 * generator.normal(size=leaf.shape)), template
        )
        images = jnp.asarray(generator.random((2, *shape)))

        def loss(kernel: Array) -> Array:
            first = {**params["encoder"]["stage0_0"], "kernel": kernel}
            changed = {"encoder": {**params["encoder"], "stage0_0": first}}
            return jnp.sum(jnp.tanh(network.encode_batch(changed, images, None, None)[0]))

        kernel = params["encoder"]["stage0_0"]["kernel"]
        gradient = jax.grad(loss)(kernel)
        for place in ((0, 0, 0, 0), (0, 0, 0, 1), (2, 2, 0, 5), (4, 1, 0, 7)):
            up, down = (loss(kernel.at[place].add(sign * step)) for sign in (1, -1))
            assert float(gradient[place]) == pytest.approx(
                float(up - down) / (2 * step), rel=1e-4, abs=1e-7
            )


@pytest.mark.parametrize("name", of_networks("lenet", without=["mlp"]))
def test_a_network_is_the_same_on_every_platform(name: str) -> None:
    """Embeddings, reconstructions, statistics of the batch, and the gradient of every weight."""
    config = recipes.NETWORKS[name]
    # Enough for its layers to be wide, and a tenth of the time.
    shape = (8, 8, 1) if name == "mnist_lenet_wide" else SHAPES[name]
    decodes = has_decoder(name)

    def values_and_gradient(params: Any, images: Array) -> Any:
        network = build_network(config, shape)

        def loss(params: Any) -> tuple[Array, Any]:
            embeddings, statistics = network.encode_batch(params, images, None, None)
            found, total = [embeddings, statistics], jnp.sum(jnp.tanh(embeddings))
            if decodes:
                decoded, statistics = network.decode_batch(params, embeddings, None)
                found += [decoded, statistics]
                total += jnp.sum((decoded - images) ** 2)
            return total, found

        return jax.value_and_grad(loss, has_aux=True)(params)

    with jax.enable_x64(True):
        generator = np.random.default_rng(0)
        template, _ = jax.eval_shape(
            lambda key: build_network(config, shape).init(key, decodes), jax.random.key(0)
        )
        params = jax.tree.map(
            lambda leaf: jnp.asarray(0.1 * generator.normal(size=leaf.shape)), template
        )
        images = jnp.asarray(generator.random((2, *shape)))
        found = []
        for platform in ("cpu", "cuda"):
            with convolution.lowered_for(platform):
                found.append(compiled(lambda *parts: values_and_gradient(*parts))(params, images))

        def check(wanted: Array, actual: Array) -> None:
            np.testing.assert_allclose(actual, wanted, rtol=0, atol=1e-9 * np.abs(wanted).max())

        jax.tree.map(check, *found)
