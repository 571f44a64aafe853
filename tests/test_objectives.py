"""Losses, weight decay, center and radius against float64 numpy and scipy."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from deepsvdd_jax import objectives
from deepsvdd_jax.configs import ObjectiveConfig

MASK = np.array([True, False, True, True, False, True, True])


def make_embeddings(seed: int = 0, count: int = 7, width: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Returns float64 embeddings and a center whose values float32 represents exactly."""
    rng = np.random.default_rng(seed)
    embeddings = rng.normal(size=(count, width)).astype(np.float32).astype(np.float64)
    center = rng.normal(size=width).astype(np.float32).astype(np.float64)
    return embeddings, center


def make_params(seed: int = 1) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "encoder": {
            "stage": {"kernel": rng.normal(size=(3, 3, 1, 2)), "bias": rng.normal(size=2)},
            "norm": {"scale": rng.normal(size=2), "bias": rng.normal(size=2)},
            "linear": {"dense": {"kernel": rng.normal(size=(4, 2)), "bias": rng.normal(size=2)}},
        },
        "decoder": {"layer0": {"kernel": rng.normal(size=(2, 5))}},
    }


def expected_kernel_norm(params: dict[str, Any]) -> float:
    encoder = params["encoder"]
    kernels = (
        encoder["stage"]["kernel"],
        encoder["linear"]["dense"]["kernel"],
        params["decoder"]["layer0"]["kernel"],
    )
    return float(sum((kernel**2).sum() for kernel in kernels))


def expected_loss(
    embeddings: np.ndarray,
    center: np.ndarray,
    norm: float,
    *,
    squared_radius: float | None,
    nu: float,
    weight_decay: float,
    factor: float,
) -> float:
    """The printed formulas (3) and (4); no radius means one-class."""
    total = 0.0
    for code in embeddings:
        distance = float(np.dot(code - center, code - center))
        if squared_radius is None:
            total += distance
        else:
            total += squared_radius + max(0.0, distance - squared_radius) / nu
    return total / len(embeddings) + factor * weight_decay * norm


def soft_objective(distances: np.ndarray, squared_radius: float, nu: float) -> float:
    excess = np.maximum(0.0, distances - squared_radius).sum()
    return float(squared_radius + excess / (nu * len(distances)))


# --- distances and losses -----------------------------------------------------------------------


def test_squared_distances_are_sums_of_squares() -> None:
    embeddings, center = make_embeddings()
    found = objectives.squared_distances(jnp.asarray(embeddings), jnp.asarray(center))
    expected = np.array(
        [sum((a - b) ** 2 for a, b in zip(row, center, strict=True)) for row in embeddings]
    )
    assert found.shape == (7,)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("nu", [0.05, 0.5, 1.0])
def test_soft_boundary_losses_inside_on_and_outside(nu: float) -> None:
    distances, squared_radius = np.array([0.0, 0.5, 2.0, 2.25, 10.0]), 2.0
    found = objectives.soft_boundary_losses(jnp.asarray(distances), jnp.asarray(squared_radius), nu)
    np.testing.assert_allclose(found, [2.0, 2.0, 2.0, 2.0 + 0.25 / nu, 2.0 + 8.0 / nu], rtol=1e-6)


def test_squared_reconstruction_error_is_summed_over_pixels() -> None:
    rng = np.random.default_rng(2)
    outputs, images = rng.uniform(size=(2, 5, 4, 3, 2))
    found = objectives.reconstruction_errors(jnp.asarray(outputs), jnp.asarray(images))
    np.testing.assert_allclose(found, ((outputs - images) ** 2).reshape(5, -1).sum(1), rtol=1e-5)


def test_cross_entropy_reconstruction_error() -> None:
    rng = np.random.default_rng(3)
    outputs, images = rng.uniform(0.01, 0.99, size=(2, 5, 4, 3, 1))
    found = objectives.reconstruction_errors(
        jnp.asarray(outputs), jnp.asarray(images), "cross-entropy"
    )
    errors = -images * np.log(outputs) - (1 - images) * np.log(1 - outputs)
    np.testing.assert_allclose(found, errors.reshape(5, -1).sum(1), rtol=1e-5)


def test_cross_entropy_of_saturated_outputs_is_finite() -> None:
    outputs, images = jnp.asarray([[0.0, 1.0], [0.0, 1.0]]), jnp.asarray([[1.0, 0.0], [0.0, 1.0]])
    errors = np.asarray(objectives.reconstruction_errors(outputs, images, "cross-entropy"))
    assert np.all(np.isfinite(errors))
    assert errors[0] > 30.0
    assert abs(errors[1]) < 1e-5


@pytest.mark.parametrize("factor", [0.5, 2.0])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", ["one-class", "soft-boundary"])
def test_hypersphere_loss_is_the_printed_formula(kind: str, masked: bool, factor: float) -> None:
    embeddings, center = make_embeddings()
    params = make_params()
    squared_radius = 1.5 if kind == "soft-boundary" else None
    found = objectives.hypersphere_loss(
        jnp.asarray(embeddings),
        jnp.asarray(center),
        jax.tree.map(jnp.asarray, params),
        ObjectiveConfig(kind=kind, nu=0.2),  # type: ignore[arg-type]
        mask=jnp.asarray(MASK) if masked else None,
        squared_radius=1.5,
        weight_decay=0.01,
        weight_decay_factor=factor,
    )
    expected = expected_loss(
        embeddings[MASK] if masked else embeddings,
        center,
        expected_kernel_norm(params),
        squared_radius=squared_radius,
        nu=0.2,
        weight_decay=0.01,
        factor=factor,
    )
    assert found.shape == ()
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_a_given_nu_overrides_the_objectives() -> None:
    embeddings, center = make_embeddings()
    call = functools.partial(
        objectives.hypersphere_loss,
        jnp.asarray(embeddings),
        jnp.asarray(center),
        {},
        squared_radius=0.5,
        weight_decay=0.0,
    )
    given = call(ObjectiveConfig(kind="soft-boundary", nu=0.9), nu=jnp.asarray(0.25))
    own = call(ObjectiveConfig(kind="soft-boundary", nu=0.9))
    formula = functools.partial(
        expected_loss, embeddings, center, 0.0, squared_radius=0.5, weight_decay=0.0, factor=0.5
    )
    assert float(given) == pytest.approx(formula(nu=0.25), rel=1e-5)
    assert float(own) == pytest.approx(formula(nu=0.9), rel=1e-5)


@pytest.mark.parametrize("kind", ["one-class", "soft-boundary"])
def test_gradients_are_central_differences_in_float64(kind: str) -> None:
    embeddings, center = make_embeddings(seed=4)
    kernel = np.random.default_rng(5).normal(size=(3, 2))
    soft = kind == "soft-boundary"

    def formula(
        embeddings: np.ndarray, center: np.ndarray, kernel: np.ndarray, radius: float
    ) -> float:
        return expected_loss(
            embeddings[MASK],
            center,
            float((kernel**2).sum()),
            squared_radius=radius if soft else None,
            nu=0.3,
            weight_decay=0.1,
            factor=0.5,
        )

    def loss(
        embeddings: jax.Array, center: jax.Array, kernel: jax.Array, radius: jax.Array
    ) -> jax.Array:
        return objectives.hypersphere_loss(
            embeddings,
            center,
            {"dense": {"kernel": kernel}},
            ObjectiveConfig(kind=kind, nu=0.3),  # type: ignore[arg-type]
            mask=jnp.asarray(MASK),
            squared_radius=radius,
            weight_decay=0.1,
        )

    arguments = [embeddings, center, kernel, np.asarray(3.0)]
    found = jax.grad(loss, argnums=(0, 1, 2, 3))(*map(jnp.asarray, arguments))
    distances = ((embeddings - center) ** 2).sum(1)
    assert np.any(distances[MASK] > 3.0) and np.any(distances[MASK] < 3.0)
    assert np.min(np.abs(distances - 3.0)) > 1e-3, "a kink within the step of the differences"
    for position, gradient in enumerate(found):
        expected = np.zeros_like(arguments[position])
        for index in np.ndindex(expected.shape):
            values = []
            for step in (1e-5, -1e-5):
                moved = [argument.copy() for argument in arguments]
                moved[position][index] += step
                values.append(formula(*moved))  # type: ignore[arg-type]
            expected[index] = (values[0] - values[1]) / 2e-5
        np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-5)


def test_squared_kernel_norm_leaves_out_biases_and_scales() -> None:
    params = make_params()
    found = objectives.squared_kernel_norm(jax.tree.map(jnp.asarray, params))
    assert float(found) == pytest.approx(expected_kernel_norm(params), rel=1e-6)
    everything = sum(float((leaf**2).sum()) for leaf in jax.tree.leaves(params))
    assert abs(everything - float(found)) > 0.1


def test_squared_kernel_norm_of_no_kernel_is_zero() -> None:
    assert float(objectives.squared_kernel_norm({"norm": {"scale": jnp.ones(3)}})) == 0.0


def test_masked_mean() -> None:
    values = np.array([1.0, np.nan, 4.0, 10.0, np.inf, -2.0, 3.0])
    assert float(objectives.masked_mean(jnp.asarray(values), jnp.asarray(MASK))) == pytest.approx(
        3.2
    )
    assert float(objectives.masked_mean(jnp.asarray([1.0, 2.0, 6.0]))) == pytest.approx(3.0)


def test_masked_mean_of_no_example_is_zero() -> None:
    values, mask = jnp.asarray([np.nan, 3.0]), jnp.zeros(2, bool)
    assert float(objectives.masked_mean(values, mask)) == 0.0


# --- center -------------------------------------------------------------------------------------


def test_away_from_zero() -> None:
    center = jnp.asarray([0.0, 0.05, -0.05, 0.1, -0.1, 0.7, -3.0])
    expected = np.array([0.1, 0.1, -0.1, 0.1, -0.1, 0.7, -3.0], np.float32)
    np.testing.assert_array_equal(objectives.away_from_zero(center, 0.1), expected)
    np.testing.assert_array_equal(objectives.away_from_zero(center, 0.0), center)


# --- radius -------------------------------------------------------------------------------------

COUNTS_AND_NUS = [
    (1, 0.1),
    (1, 1.0),
    (7, 0.3),
    (7, 0.5),
    (20, 0.05),
    (20, 0.37),
    (20, 0.99),
    (20, 1.0),
    (90, 0.1),
    (90, 0.3),
    (90, 0.7),
    (100, 0.01),
    (100, 0.07),
    (100, 0.29),
    (100, 0.9),
    (100, 0.123),
]


def padded(distances: np.ndarray) -> tuple[jax.Array, jax.Array]:
    """Returns the distances among padding of zeros, NaN and large values, and the mask."""
    rng = np.random.default_rng(len(distances))
    mask = rng.permutation(np.arange(109) < len(distances))
    values = np.resize([0.0, np.nan, 1e6], mask.size)
    values[mask] = distances
    return jnp.asarray(values), jnp.asarray(mask)


# Traced nu and mask: one program a length.
exact = jax.jit(objectives.exact_squared_radius)
quantile = jax.jit(objectives.quantile_squared_radius)


@pytest.mark.parametrize(("count", "nu"), COUNTS_AND_NUS)
def test_exact_squared_radius_is_the_best_kink(count: int, nu: float) -> None:
    distances = np.random.default_rng(count).gamma(2.0, size=count).astype(np.float32)
    # The loss is convex and piecewise linear: one of its kinks, 0 among them, is a minimiser.
    kinks = np.append(distances, 0.0).astype(np.float64)
    best = min(soft_objective(distances.astype(np.float64), kink, nu) for kink in kinks)
    found = float(exact(jnp.asarray(distances), nu))
    assert soft_objective(distances.astype(np.float64), found, nu) == pytest.approx(best, rel=1e-6)
    minimisers = [
        kink
        for kink in distances.astype(np.float64)
        if soft_objective(distances.astype(np.float64), kink, nu) <= best * (1 + 1e-9)
    ]
    assert found == min(minimisers), "of a flat piece the smallest distance"
    values, mask = padded(distances)
    assert float(exact(values, nu, mask)) == found


def test_exact_squared_radius_with_ties_and_all_equal() -> None:
    assert float(exact(jnp.full(7, 2.5), 0.4)) == 2.5
    assert float(exact(jnp.asarray([1.0, 3.0, 2.0, 3.0, 3.0, 9.0, 8.0]), 0.4)) == 3.0


@pytest.mark.parametrize(("count", "nu"), COUNTS_AND_NUS)
def test_quantile_squared_radius_is_numpys(count: int, nu: float) -> None:
    distances = np.random.default_rng(count).gamma(2.0, size=count).astype(np.float32)
    expected = np.quantile(np.sqrt(distances.astype(np.float64)), 1.0 - nu) ** 2
    assert float(quantile(jnp.asarray(distances), nu)) == pytest.approx(expected, rel=2e-5)
    values, mask = padded(distances)
    assert float(quantile(values, nu, mask)) == pytest.approx(expected, rel=2e-5)


# --- SVDD dual ----------------------------------------------------------------------------------

solve_dual = jax.jit(objectives.svdd_dual)


@pytest.mark.parametrize("seed", [0, 1])
def test_svdd_dual_is_the_minimum_that_slsqp_finds(seed: int) -> None:
    nu, count = 0.3, 12
    rng = np.random.default_rng(seed)
    embeddings = (rng.normal(size=(count, 3)) + 5.0).astype(np.float32)
    points = embeddings.astype(np.float64)
    # Where the origin lies does not matter; near the data SLSQP keeps its digits.
    near = points - points.mean(0)
    gram = near @ near.T
    solution = minimize(
        lambda alpha: alpha @ gram @ alpha - alpha @ np.diag(gram),
        np.full(count, 1 / count),
        jac=lambda alpha: 2 * gram @ alpha - np.diag(gram),
        method="SLSQP",
        bounds=[(0.0, 1 / (nu * count))] * count,
        constraints={"type": "eq", "fun": lambda alpha: alpha.sum() - 1.0},
        options={"ftol": 1e-10, "maxiter": 1000},
    )
    assert solution.success
    center, squared_radius, gap = map(np.asarray, solve_dual(jnp.asarray(embeddings), nu))
    np.testing.assert_allclose(center, solution.x @ points, atol=2e-3)
    distances = ((points - center.astype(np.float64)) ** 2).sum(1)
    primal = soft_objective(distances, float(squared_radius), nu)
    # Strong duality: the best primal value is minus the dual one.
    assert primal == pytest.approx(-solution.fun, rel=1e-4)
    assert abs(float(gap)) < 1e-4


def test_svdd_dual_does_not_see_padding() -> None:
    rng = np.random.default_rng(7)
    embeddings = rng.normal(size=(12, 3)).astype(np.float32)
    mask = rng.permutation(np.arange(20) < 12)
    values = np.full((20, 3), 50.0, np.float32)
    values[~mask & (np.arange(20) % 2 == 0)] = np.nan
    values[mask] = embeddings
    center, squared_radius, _ = solve_dual(jnp.asarray(embeddings), 0.3)
    masked_center, masked_radius, gap = solve_dual(jnp.asarray(values), 0.3, jnp.asarray(mask))
    np.testing.assert_allclose(masked_center, center, atol=1e-3)
    assert float(masked_radius) == pytest.approx(float(squared_radius), rel=1e-3)
    assert abs(float(gap)) < 1e-4
