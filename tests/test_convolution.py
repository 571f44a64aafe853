"""Convolution and pooling against float64 sums over taps, XLA's convolution and flax's pool."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from deepsvdd_jax import convolution
from deepsvdd_jax.convolution import Padding, cpu

# What is compiled runs for a moment: most of the compiler's own work would be wasted.
compiled = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

SAME5: Padding = ((2, 2), (2, 2))
SAME3: Padding = ((1, 1), (1, 1))
VALID: Padding = ((0, 0), (0, 0))


class Case(NamedTuple):
    form: str
    images: tuple[int, int, int, int]
    kernel: tuple[int, int, int, int]
    padding: Padding


CASES = [
    Case("gathered", (2, 6, 6, 2), (3, 3, 2, 3), SAME3),
    Case("gathered", (3, 8, 8, 1), (5, 5, 1, 3), SAME5),
    Case("gathered", (2, 8, 6, 3), (2, 2, 3, 40), ((1, 0), (0, 1))),
    Case("gathered", (2, 9, 11, 2), (2, 2, 2, 3), VALID),
    Case("gathered", (2, 10, 12, 4), (5, 5, 4, 2), VALID),
    Case("gathered", (2, 4, 5, 3), (4, 4, 3, 2), ((0, 3), (2, 0))),
    Case("gathered", (2, 5, 4, 2), (4, 4, 2, 3), ((3, 1), (1, 2))),
    Case("gathered", (2, 2, 2, 1), (5, 5, 1, 2), SAME5),
    Case("gathered", (2, 4, 6, 2), (1, 1, 2, 3), VALID),
    Case("blocked", (2, 10, 12, 5), (5, 5, 5, 4), SAME5),
    Case("blocked", (2, 6, 8, 6), (3, 3, 6, 31), SAME3),
    Case("blocked", (2, 10, 12, 5), (5, 5, 5, 2), VALID),
    Case("blocked", (2, 10, 10, 5), (5, 5, 5, 2), ((1, 3), (2, 2))),
    Case("blocked", (2, 10, 12, 5), (5, 5, 5, 2), ((4, 0), (1, 1))),
    Case("blocked", (2, 4, 6, 5), (2, 2, 5, 3), ((0, 1), (1, 0))),
    Case("blocked", (2, 4, 4, 5), (1, 1, 5, 3), VALID),
    Case("plain", (2, 9, 7, 6), (5, 5, 6, 4), SAME5),
    Case("plain", (2, 7, 8, 1), (3, 3, 1, 4), SAME3),
    Case("plain", (2, 8, 8, 5), (5, 5, 5, 40), SAME5),
    Case("plain", (2, 9, 9, 5), (4, 4, 5, 3), VALID),
    Case("plain", (2, 8, 8, 5), (5, 5, 5, 4), ((4, 2), (0, 4))),
    Case("dense", (3, 2, 2, 6), (5, 5, 6, 7), SAME5),
    Case("dense", (2, 4, 4, 5), (5, 5, 5, 32), SAME5),
    Case("dense", (2, 3, 6, 5), (5, 5, 5, 4), SAME5),
    Case("dense", (2, 2, 2, 5), (3, 3, 5, 2), SAME3),
    Case("dense", (2, 1, 3, 5), (4, 4, 5, 3), ((3, 3), (0, 2))),
]
# One of each form: for what is tested about the forms and not about the shapes.
GATHERED, BLOCKED, PLAIN, DENSE = EACH_FORM = (CASES[0], CASES[10], CASES[17], CASES[24])


def case_name(case: Case) -> str:
    (top, bottom), (left, right) = case.padding
    sides = "x".join(map(str, case.images[1:]))
    return f"{case.form}-{sides}-k{case.kernel[0]}-f{case.kernel[3]}-{top}{bottom}{left}{right}"


def drawn(case: Case, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    images, kernel = generator.normal(size=case.images), generator.normal(size=case.kernel)
    return images.astype(np.float32), kernel.astype(np.float32)


def assert_close(actual: object, expected: object) -> None:
    """Equal up to float32 rounding of the largest value."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape
    if expected.size:
        scale = max(np.abs(expected).max(), 1e-3)
        np.testing.assert_allclose(actual, expected, rtol=0, atol=5e-6 * scale)


def padded(images: np.ndarray, padding: Padding) -> np.ndarray:
    return np.pad(np.asarray(images, np.float64), ((0, 0), *padding, (0, 0)))


def convolved(images: np.ndarray, kernel: np.ndarray, padding: Padding) -> np.ndarray:
    """Float64 convolution, one product for each tap."""
    wide = padded(images, padding)
    height, width = (wide.shape[1 + i] - kernel.shape[i] + 1 for i in (0, 1))
    return sum(
        wide[:, i : i + height, j : j + width] @ kernel[i, j].astype(np.float64)
        for i in range(kernel.shape[0])
        for j in range(kernel.shape[1])
    )


def convolution_gradients(
    images: np.ndarray, kernel: np.ndarray, padding: Padding, cotangent: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    wide = padded(images, padding)
    d_wide, d_kernel = np.zeros_like(wide), np.zeros(kernel.shape)
    height, width = cotangent.shape[1:3]
    for i in range(kernel.shape[0]):
        for j in range(kernel.shape[1]):
            part = np.s_[:, i : i + height, j : j + width]
            d_kernel[i, j] = np.einsum("nhwc,nhwf->cf", wide[part], cotangent)
            d_wide[part] += cotangent @ kernel[i, j].astype(np.float64).T
    (top, _), (left, _) = padding
    return d_wide[:, top : top + images.shape[1], left : left + images.shape[2]], d_kernel


def pooled(values: np.ndarray, cotangent: np.ndarray | None = None) -> np.ndarray:
    """The 2x2 maxima, or the gradient that the first of the largest of each window gets."""
    batch, height, width, features = values.shape
    result = np.zeros((batch, height // 2, width // 2, features))
    gradient = np.zeros(values.shape)
    for n, h, w, f in np.ndindex(result.shape):
        window = values[n, 2 * h : 2 * h + 2, 2 * w : 2 * w + 2, f]
        result[n, h, w, f] = window.max()
        if cotangent is not None:
            row, column = divmod(int(window.argmax()), 2)
            gradient[n, 2 * h + row, 2 * w + column, f] = cotangent[n, h, w, f]
    return result if cotangent is None else gradient


def upsampled(images: np.ndarray) -> np.ndarray:
    return images.repeat(2, axis=1).repeat(2, axis=2)


def test_the_reference_is_xlas_convolution_with_its_gradients():
    case = CASES[14]
    images, kernel = drawn(case)
    cotangent = np.random.default_rng(1).normal(size=(2, 4, 6, 3)).astype(np.float32)

    def convolve(images: jax.Array, kernel: jax.Array) -> jax.Array:
        dimensions = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(
            images, kernel, (1, 1), case.padding, dimension_numbers=dimensions
        )

    output, pull = jax.vjp(convolve, images, kernel)
    assert_close(output, convolved(images, kernel, case.padding))
    expected = convolution_gradients(images, kernel, case.padding, cotangent)
    for actual, wanted in zip(pull(jnp.asarray(cotangent)), expected, strict=True):
        assert_close(actual, wanted)


def taken_form(case: Case, monkeypatch: pytest.MonkeyPatch) -> str:
    taken: list[str] = []
    for form in ("gathered", "blocked", "plain"):
        monkeypatch.setattr(cpu, f"_pool_{form}", lambda *arguments, form=form: taken.append(form))
    convolution.convolve_pool(*map(jnp.asarray, drawn(case)), case.padding)
    (form,) = taken
    images, kernel = case.images, case.kernel
    small = images[1] < kernel[0] or images[2] < kernel[1]
    return "dense" if form == "plain" and small else form


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_the_cases_take_the_forms_that_they_are_named_for(case, monkeypatch):
    assert taken_form(case, monkeypatch) == case.form


@pytest.mark.parametrize("case", CASES[8::2], ids=case_name)
def test_convolve(case):
    check_convolve(case)


@pytest.mark.parametrize("images_at_once", [1, 2, 100])
def test_a_wide_kernels_gradient_is_summed_over_parts_of_the_batch(images_at_once, monkeypatch):
    case = Case("plain", (6, 4, 5, 3), (3, 2, 3, 33), ((1, 0), (0, 1)))
    windows = 3 * 5 * 3 * 2 * 3
    monkeypatch.setattr(cpu, "GATHERED_BYTES", 4 * windows * images_at_once)
    check_convolve(case)


def test_a_wide_kernels_gradient_with_rows_cut_off():
    images, kernel = drawn(Case("plain", (2, 6, 5, 3), (2, 2, 3, 33), VALID))
    cut = images[:, 1:, :-2]

    def gradient(padding: Padding, images: np.ndarray) -> jax.Array:
        return compiled(
            jax.grad(lambda kernel: jnp.sum(convolution.convolve(images, kernel, padding) ** 2))
        )(jnp.asarray(kernel))

    assert_close(gradient(((-1, 0), (1, -2)), images), gradient(((0, 0), (1, 0)), cut))


@pytest.mark.parametrize("case", [GATHERED, DENSE], ids=case_name)
def test_convolve_elsewhere(case):
    with convolution.lowered_for("cuda"):
        check_convolve(case)


@pytest.mark.parametrize("form", ["grouped", "windows"])
def test_convolve_in_a_chosen_form(form):
    with convolution.use_form(form):
        check_convolve(GATHERED)


def test_a_form_is_traced_where_it_is_asked_for_and_no_longer():
    images, kernel = map(jnp.asarray, drawn(GATHERED))

    def primitives() -> set[str]:
        jaxpr = jax.make_jaxpr(lambda *both: pooled_parts(*both, GATHERED.padding)[0])(
            images, kernel
        )
        return {equation.primitive.name for equation in jaxpr.eqns}

    before = primitives()
    with convolution.use_form("windows"):
        assert "dot_general" in primitives() and "conv_general_dilated" not in primitives()
    with convolution.use_form("grouped"):
        assert "conv_general_dilated" in primitives()
    assert primitives() == before
    with pytest.raises(ValueError, match="form is 'fast'; allowed: automatic, grouped, windows"):
        convolution.use_form("fast").__enter__()


def check_convolve(case: Case) -> None:
    images, kernel = drawn(case)
    expected = convolved(images, kernel, case.padding)
    cotangent = np.random.default_rng(1).normal(size=expected.shape).astype(np.float32)

    @compiled
    def value_and_gradients(images: jax.Array, kernel: jax.Array) -> tuple:
        output, pull = jax.vjp(
            lambda *both: convolution.convolve(*both, case.padding), images, kernel
        )
        return output, pull(jnp.asarray(cotangent))

    output, gradients = value_and_gradients(images, kernel)
    assert_close(output, expected)
    wanted = convolution_gradients(images, kernel, case.padding, cotangent)
    for actual, gradient in zip(gradients, wanted, strict=True):
        assert_close(actual, gradient)


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_convolve_pool(case):
    check_convolve_pool(case)


@pytest.mark.parametrize("case", [GATHERED, BLOCKED], ids=case_name)
def test_convolve_pool_elsewhere(case):
    with convolution.lowered_for("cuda"):
        check_convolve_pool(case)


def pooled_parts(images: jax.Array, kernel: jax.Array, padding: Padding) -> tuple:
    found = convolution.convolve_pool(images, kernel, padding)
    return found.scaled(None, None), *found[1:3]


def check_convolve_pool(case: Case) -> None:
    images, kernel = drawn(case)
    output = convolved(images, kernel, case.padding)
    features = kernel.shape[3]
    generator = np.random.default_rng(1)
    d_pooled = generator.normal(size=pooled(output).shape).astype(np.float32)
    d_total, d_squares = generator.normal(size=(2, features)).astype(np.float32)

    def parts(images: jax.Array, kernel: jax.Array) -> tuple:
        found = convolution.convolve_pool(images, kernel, case.padding)
        assert found.count == output.shape[1] * output.shape[2]
        return found.scaled(None, None), *found[1:3]

    @compiled
    def value_and_gradients(images: jax.Array, kernel: jax.Array) -> tuple:
        values, pull = jax.vjp(parts, images, kernel)
        return values, pull(tuple(map(jnp.asarray, (d_pooled, d_total, d_squares))))

    (values, total, squares), gradients = value_and_gradients(images, kernel)
    assert_close(values, pooled(output))
    np.testing.assert_allclose(
        total, output.sum((0, 1, 2)), rtol=0, atol=1e-6 * np.abs(output).sum((0, 1, 2)).max()
    )
    assert_close(squares, np.square(output).sum((0, 1, 2)))
    d_output = pooled(output, d_pooled) + d_total + 2 * output * d_squares
    wanted = convolution_gradients(images, kernel, case.padding, d_output)
    for actual, gradient in zip(gradients, wanted, strict=True):
        assert_close(actual, gradient)


@pytest.mark.parametrize("case", EACH_FORM, ids=case_name)
def test_a_pooled_map_is_scaled_in_every_form(case):
    generator = np.random.default_rng(4)
    scale, offset = generator.normal(size=(2, case.kernel[3])).astype(np.float32)

    @compiled
    def both(images: jax.Array, kernel: jax.Array) -> tuple:
        found = convolution.convolve_pool(images, kernel, case.padding)
        return found.scaled(jnp.asarray(scale), None), found.scaled(None, jnp.asarray(offset))

    expected = pooled(convolved(*drawn(case), case.padding))
    for actual, wanted in zip(
        both(*drawn(case)), (expected * scale, expected + offset), strict=True
    ):
        assert_close(actual, wanted)


TILED = [
    Case("tiled", (2, 6, 8, 2), (3, 3, 2, 3), SAME3),
    Case("tiled", (3, 8, 12, 1), (5, 5, 1, 3), SAME5),
    Case("tiled", (2, 8, 4, 3), (2, 2, 3, 40), ((1, 0), (0, 1))),
    Case("tiled", (2, 10, 16, 4), (5, 5, 4, 2), VALID),
    Case("tiled", (2, 4, 3, 3), (4, 4, 3, 2), ((3, 2), (1, 3))),
    Case("tiled", (2, 2, 4, 2), (1, 1, 2, 3), VALID),
    Case("tiled", (2, 2, 4, 1), (5, 5, 1, 2), SAME5),
]


@pytest.mark.parametrize("case", [*TILED, *EACH_FORM], ids=case_name)
def test_convolve_maximum(case, monkeypatch):
    taken: list[str] = []
    tiled = cpu.maximum_tiled
    monkeypatch.setattr(cpu, "maximum_tiled", lambda *given: taken.append("tiled") or tiled(*given))
    actual = compiled(lambda *given: convolution.convolve_maximum(*given, case.padding))(
        *drawn(case)
    )
    assert_close(actual, pooled(convolved(*drawn(case), case.padding)))
    assert bool(taken) == (case.form == "tiled")


@pytest.mark.parametrize("case", [TILED[0], BLOCKED], ids=case_name)
def test_a_maximum_alone_has_the_gradient_of_the_pooled_map(case):
    images, kernel = drawn(case)
    output = convolved(images, kernel, case.padding)
    cotangent = np.random.default_rng(1).normal(size=pooled(output).shape).astype(np.float32)

    @compiled
    def gradients(images: jax.Array, kernel: jax.Array) -> tuple:
        _, pull = jax.vjp(
            lambda *given: convolution.convolve_maximum(*given, case.padding), images, kernel
        )
        return pull(jnp.asarray(cotangent))

    wanted = convolution_gradients(images, kernel, case.padding, pooled(output, cotangent))
    for actual, gradient in zip(gradients(images, kernel), wanted, strict=True):
        assert_close(actual, gradient)


UPSAMPLED = [
    Case("even", (2, 4, 4, 3), (5, 5, 3, 2), SAME5),
    Case("even", (2, 3, 5, 2), (5, 5, 2, 4), ((1, 1), (1, 1))),
    Case("even", (2, 3, 3, 2), (5, 5, 2, 3), ((2, 0), (1, 3))),
    Case("even", (2, 4, 3, 2), (5, 5, 2, 3), ((1, 3), (2, 2))),
    Case("even", (2, 1, 1, 5), (5, 5, 5, 3), SAME5),
    Case("even", (2, 2, 3, 2), (3, 3, 2, 3), SAME3),
    Case("even", (2, 2, 3, 2), (4, 4, 2, 3), ((1, 2), (3, 0))),
    Case("even", (2, 2, 3, 2), (1, 1, 2, 3), VALID),
    Case("even", (2, 3, 4, 3), (5, 5, 3, 2), VALID),
    Case("narrow", (2, 3, 4, 9), (5, 5, 9, 2), SAME5),
    Case("narrow", (2, 3, 3, 9), (5, 5, 9, 1), ((1, 3), (2, 0))),
    Case("wide", (2, 3, 4, 16), (3, 3, 16, 4), SAME3),
    Case("wide", (2, 3, 3, 17), (5, 5, 17, 4), ((2, 0), (1, 3))),
    Case("odd", (2, 4, 5, 3), (5, 5, 3, 2), ((2, 1), (2, 2))),
    Case("odd", (2, 4, 4, 3), (5, 5, 3, 2), ((2, 2), (2, 1))),
    Case("odd", (2, 2, 2, 3), (4, 4, 3, 2), VALID),
]


@pytest.mark.parametrize("case", UPSAMPLED, ids=case_name)
def test_upsample_convolve(case):
    check_upsample_convolve(case)


@pytest.mark.parametrize("case", UPSAMPLED, ids=case_name)
def test_narrow_layers_are_enlarged_row_by_row(case, monkeypatch):
    taken = []
    for form in ("row", "block"):
        name = {"row": "row_convolution", "block": "_block_convolution"}[form]
        whole = getattr(cpu, name)

        def watched(*arguments, form=form, whole=whole, **keywords):
            taken.append(form)
            return whole(*arguments, **keywords)

        monkeypatch.setattr(cpu, name, watched)
    jax.eval_shape(
        lambda images, kernel: convolution.upsample_convolve(images, kernel, case.padding),
        *drawn(case),
    )
    forms = {"odd": [], "wide": ["block"], "even": ["row"], "narrow": ["row"]}
    assert taken == forms[case.form]


@pytest.mark.parametrize("case", [UPSAMPLED[0], UPSAMPLED[-1]], ids=case_name)
def test_upsample_convolve_elsewhere(case):
    with convolution.lowered_for("cuda"):
        check_upsample_convolve(case)


def check_upsample_convolve(case: Case) -> None:
    images, kernel = drawn(case)
    expected = convolved(upsampled(images), kernel, case.padding)
    cotangent = np.random.default_rng(1).normal(size=expected.shape).astype(np.float32)

    @compiled
    def value_and_gradients(images: jax.Array, kernel: jax.Array) -> tuple:
        output, pull = jax.vjp(
            lambda *both: convolution.upsample_convolve(*both, case.padding), images, kernel
        )
        return output, pull(jnp.asarray(cotangent))

    output, (d_images, d_kernel) = value_and_gradients(images, kernel)
    assert_close(output, expected)
    d_large, wanted = convolution_gradients(upsampled(images), kernel, case.padding, cotangent)
    assert_close(d_kernel, wanted)
    batch, height, width, channels = images.shape
    assert_close(d_images, d_large.reshape(batch, height, 2, width, 2, channels).sum((2, 4)))


def test_upsample_repeats_every_pixel():
    images = drawn(UPSAMPLED[1])[0]
    np.testing.assert_array_equal(convolution.upsample(jnp.asarray(images)), upsampled(images))


@pytest.mark.parametrize("size", range(1, 7))
def test_same_padding_is_xlas(size):
    (top, bottom), across = convolution.same_padding(size)
    assert (top, bottom) == across
    assert lax.padtype_to_pads((9, 9), (size, size), (1, 1), "SAME") == [(top, bottom)] * 2


def test_channel_sums():
    images = drawn(PLAIN)[0] + 0.5
    total, squares = convolution.channel_sums(jnp.asarray(images))
    assert_close(total, images.sum((0, 1, 2), dtype=np.float64))
    assert_close(squares, np.square(images, dtype=np.float64).sum((0, 1, 2)))


@pytest.mark.parametrize("on_cpu", [True, False])
def test_scale_channels(on_cpu):
    generator = np.random.default_rng(3)
    images, cotangent = generator.normal(size=(2, 2, 3, 4, 5)).astype(np.float32)
    scale, offset = generator.normal(size=(2, 5)).astype(np.float32)
    with convolution.lowered_for("cpu" if on_cpu else "cuda"):
        output, pull = jax.vjp(
            convolution.scale_channels, *map(jnp.asarray, (images, scale, offset))
        )
    assert_close(output, images * scale + offset)
    expected = (cotangent * scale, (cotangent * images).sum((0, 1, 2)), cotangent.sum((0, 1, 2)))
    for actual, wanted in zip(pull(jnp.asarray(cotangent)), expected, strict=True):
        assert_close(actual, wanted)


# --- the pool -----------------------------------------------------------------------------------


@functools.partial(compiled, static_argnums=0)
def pool_and_gradient(pool: Callable, images: jax.Array, cotangent: jax.Array) -> tuple:
    values, pull = jax.vjp(pool, images)
    return values, pull(cotangent)[0]


def flax_pool(images: jax.Array) -> jax.Array:
    return nn.max_pool(images, (2, 2), (2, 2))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("shape", [(2, 6, 8, 3), (2, 7, 8, 2), (2, 5, 5, 1), (1, 3, 2, 4)])
def test_max_pool_is_flaxs_in_value_and_gradient(shape, ties):
    generator = np.random.default_rng(2)
    # Three values only: most windows hold their maximum more than once.
    images = generator.integers(0, 3, shape) if ties else generator.normal(size=shape)
    images = images.astype(np.float32)
    cotangent = generator.normal(size=pooled(images).shape).astype(np.float32)
    values, gradient = pool_and_gradient(convolution.max_pool, images, cotangent)
    flax_values, flax_gradient = pool_and_gradient(flax_pool, images, cotangent)
    np.testing.assert_array_equal(values, flax_values)
    np.testing.assert_array_equal(gradient, flax_gradient)
    np.testing.assert_array_equal(gradient, pooled(images, cotangent).astype(np.float32))


@pytest.mark.parametrize("case", EACH_FORM, ids=case_name)
def test_the_first_of_equal_outputs_gets_the_gradient(case):
    """A kernel of one central tap makes output equal input, here a constant."""
    size, _, channels, features = case.kernel
    kernel = np.zeros(case.kernel, np.float32)
    kernel[size // 2, size // 2, 0] = np.arange(1, features + 1)
    images = np.full(case.images, 0.5, np.float32)

    @compiled
    def gradient(images: jax.Array) -> jax.Array:
        return jax.grad(
            lambda images: jnp.sum(
                convolution.convolve_pool(images, jnp.asarray(kernel), case.padding).scaled(
                    None, None
                )
            )
        )(images)

    expected = np.zeros(case.images, np.float32)
    height, width = (side // 2 * 2 for side in case.images[1:3])
    expected[:, :height:2, :width:2, 0] = features * (features + 1) / 2
    np.testing.assert_allclose(gradient(images), expected, rtol=1e-6)


# --- under vmap and scan ------------------------------------------------------------------------


OPERATIONS: dict[str, Callable] = {
    "convolve": convolution.convolve,
    "convolve_pool": pooled_parts,
    "upsample_convolve": convolution.upsample_convolve,
}


def value_and_gradients(operation: Callable, padding: Padding) -> Callable:
    """A function of images and a kernel: outputs, and gradients of their summed squares."""

    def total(images: jax.Array, kernel: jax.Array) -> tuple[jax.Array, object]:
        outputs = operation(images, kernel, padding)
        return sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(outputs)), outputs

    def both(images: jax.Array, kernel: jax.Array) -> object:
        gradients, outputs = jax.grad(total, (0, 1), has_aux=True)(images, kernel)
        return outputs, gradients

    return both


@pytest.mark.parametrize("mapped", ["images", "kernels", "both"])
@pytest.mark.parametrize(
    "name, case",
    [("convolve_pool", case) for case in EACH_FORM]
    + [("upsample_convolve", UPSAMPLED[0]), ("convolve", PLAIN)],
)
def test_vmap_is_a_loop(name, case, mapped):
    run = value_and_gradients(OPERATIONS[name], case.padding)
    many = [drawn(case, seed) for seed in range(3)]
    images, kernels = (np.stack(part) for part in zip(*many, strict=True))
    axes = (None if mapped == "kernels" else 0, None if mapped == "images" else 0)
    chosen = tuple(
        part if axis == 0 else part[0] for part, axis in zip((images, kernels), axes, strict=True)
    )
    vmapped = compiled(jax.vmap(run, axes))(*chosen)
    single = compiled(run)
    looped = [
        single(*(part[i] if axis == 0 else part for part, axis in zip(chosen, axes, strict=True)))
        for i in range(3)
    ]
    jax.tree.map(lambda actual, *parts: assert_close(actual, np.stack(parts)), vmapped, *looped)


@pytest.mark.parametrize("case", [GATHERED, BLOCKED], ids=case_name)
def test_vmap_elsewhere(case):
    with convolution.lowered_for("cuda"):
        test_vmap_is_a_loop("convolve_pool", case, "both")


@pytest.mark.parametrize("case", EACH_FORM, ids=case_name)
def test_gradient_steps_inside_a_scan_are_a_loop(case):
    run = value_and_gradients(OPERATIONS["convolve_pool"], case.padding)
    batches = np.stack([drawn(case, seed)[0] for seed in range(3)])
    start = jnp.asarray(drawn(case)[1])

    def step(kernel: jax.Array, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        outputs, (_, gradient) = run(images, kernel)
        return kernel - 1e-7 * gradient, outputs[0]

    final, values = compiled(lambda: lax.scan(step, start, jnp.asarray(batches)))()
    kernel, single = start, compiled(step)
    for images, expected in zip(batches, values, strict=True):
        kernel, value = single(kernel, images)
        assert_close(value, expected)
    assert_close(final, kernel)
    assert float(jnp.abs(final - start).max()) > 1e-4
