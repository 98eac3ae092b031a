from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch import nn

from vestige.erase.data.balance import (
    Gram,
    Weights,
    descend,
    gram,
    nash,
    nearest,
    subtracted,
)
from vestige.erase.data.erasediff import EraseDiff
from vestige.erase.data.sides import pull
from vestige.erase.driver import derivatives, draw_batch, noise_loss, row_losses
from vestige.models.denoiser import Prediction

Vector = npt.NDArray[np.float64]
SIZES = st.floats(1e-4, 1e4)


def gram_of(g_r: Vector, g_f: Vector) -> Gram:
    return Gram(float(g_r @ g_r), float(g_r @ g_f), float(g_f @ g_f))


def direction(weights: Weights, g_r: Vector, g_f: Vector) -> Vector:
    return weights.retain * g_r + weights.forget * g_f


def two(seed: int, size: int, retain: float = 1.0, forget: float = 1.0) -> tuple[Vector, Vector]:
    g_r, g_f = np.random.default_rng(seed).standard_normal((2, size))
    return g_r * retain / np.linalg.norm(g_r), g_f * forget / np.linalg.norm(g_f)


@given(seed=st.integers(0, 2**32), size=st.integers(1, 6), eta=st.floats(0.05, 3), forget=st.floats(0.3, 3))
def test_nearest_solves_its_quadratic_programme(seed: int, size: int, eta: float, forget: float) -> None:
    g_r, g_f = two(seed, size, forget=forget)
    d, bound = direction(nearest(gram_of(g_r, g_f), eta), g_r, g_f), eta * g_f @ g_f
    assert g_f @ d >= bound * (1 - 1e-9)
    best = minimize(
        lambda x: ((x - g_r) ** 2).sum(),
        g_r,
        jac=lambda x: 2 * (x - g_r),
        constraints={"type": "ineq", "fun": lambda x: (g_f @ x - bound) / forget, "jac": lambda x: g_f / forget},
        method="SLSQP",
        options={"ftol": 1e-12},
    )
    np.testing.assert_allclose(d, best.x, atol=1e-5 * (1 + np.abs(d).max()))


@given(seed=st.integers(0, 2**32), eta=st.floats(-1, 3))
def test_nearest_is_the_rule_of_erasediff(seed: int, eta: float) -> None:
    g = gram_of(*two(seed, 4, 2.0, 0.3))
    assert nearest(g, eta) == EraseDiff(eta=eta).weights(g)


@given(seed=st.integers(0, 2**32), size=st.integers(2, 6), retain=SIZES, forget=SIZES)
def test_nash_maximizes_the_product_of_gains(seed: int, size: int, retain: float, forget: float) -> None:
    g_r, g_f = two(seed, size, retain, forget)
    unit_r, unit_f = g_r / retain, g_f / forget
    assume(1 + unit_r @ unit_f > 1e-2)
    d = direction(nash(gram_of(g_r, g_f)), g_r, g_f)
    assert g_r @ d > 0
    assert g_f @ d > 0
    assert d @ d == pytest.approx(2)
    # Nash's product does not care for the players' units, so the search may use unit gradients.
    start = unit_r / (1e-3 + unit_r @ unit_r) + unit_f
    best = minimize(
        lambda x: -np.log(max(unit_r @ x, 1e-12)) - np.log(max(unit_f @ x, 1e-12)),
        start / np.linalg.norm(start),
        constraints={"type": "ineq", "fun": lambda x: 2 - x @ x, "jac": lambda x: -2 * x},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    found = np.log(unit_r @ d) + np.log(unit_f @ d)
    assert found >= -best.fun - 1e-6
    np.testing.assert_allclose(best.x, d, atol=2e-2)
    for _ in range(20):
        other = np.random.default_rng(seed).standard_normal(size)
        other *= math.sqrt(2) / np.linalg.norm(other)
        gains = unit_r @ other, unit_f @ other
        assert min(gains) <= 0 or np.log(gains[0]) + np.log(gains[1]) <= found + 1e-9


@given(angle=st.floats(0, math.pi - 3e-3), retain=SIZES, forget=SIZES)
def test_nash_is_the_bisector_and_solves_the_bargaining_equation(angle: float, retain: float, forget: float) -> None:
    g_r, g_f = retain * np.array([1.0, 0.0]), forget * np.array([math.cos(angle), math.sin(angle)])
    g = gram_of(g_r, g_f)
    weights = nash(g)
    d = direction(weights, g_r, g_f)
    np.testing.assert_allclose(d, math.sqrt(2) * np.array([math.cos(angle / 2), math.sin(angle / 2)]), atol=1e-4)
    w = np.array([weights.retain, weights.forget])
    np.testing.assert_allclose(w * (np.array([[g.retain, g.cross], [g.cross, g.forget]]) @ w), 1, rtol=1e-6)
    # The published factor sqrt((1 - cos) / sin^2), away from its singularity.
    if 0.1 < angle < 3:
        factor = math.sqrt((1 - math.cos(angle)) / math.sin(angle) ** 2)
        np.testing.assert_allclose(w, [factor / retain, factor / forget], rtol=1e-6)


def test_degenerate_gradients_have_an_answer() -> None:
    along = np.array([3.0, 4.0])
    nothing = np.zeros(2)
    assert direction(nash(gram_of(along, 7 * along)), along, 7 * along) == pytest.approx(math.sqrt(2) * along / 5)
    assert nash(gram_of(along, -7 * along)) == Weights(0.0, 0.0)
    assert direction(nash(gram_of(along, nothing)), along, nothing) == pytest.approx(math.sqrt(2) * along / 5)
    assert direction(nash(gram_of(nothing, along)), nothing, along) == pytest.approx(math.sqrt(2) * along / 5)
    assert nash(gram_of(nothing, nothing)) == Weights(0.0, 0.0)
    assert nearest(gram_of(along, nothing), 1.0) == Weights(1.0, 0.0)
    assert nearest(gram_of(nothing, along), 0.5) == Weights(1.0, 0.5)
    assert nearest(gram_of(along, -along), 1.0) == Weights(1.0, 2.0)
    assert subtracted(gram_of(along, nothing), 0.1) == Weights(1.0, 0.0)
    assert subtracted(gram_of(nothing, along), 0.1).forget == 0


@pytest.mark.parametrize("cosine", [1 + 1e-9, -1 - 1e-9])
def test_rounding_beyond_parallel_does_no_harm(cosine: float) -> None:
    weights = nash(Gram(4.0, 6.0 * cosine, 9.0))
    assert all(math.isfinite(w) and w >= 0 for w in (weights.retain, weights.forget))


def test_tiny_and_huge_gradients_do_not_under_or_overflow() -> None:
    weights = nash(Gram(1e-300, 0.0, 1e300))
    assert weights.retain == pytest.approx(1e150)
    assert weights.forget == pytest.approx(1e-150)


@given(seed=st.integers(0, 2**32), share=st.floats(0.01, 2), retain=SIZES, forget=SIZES)
def test_subtracted_takes_its_share_of_the_length(seed: int, share: float, retain: float, forget: float) -> None:
    g_r, g_f = two(seed, 5, retain, forget)
    weights = subtracted(gram_of(g_r, g_f), share)
    assert weights.retain == 1
    assert weights.forget < 0
    assert np.linalg.norm(weights.forget * g_f) == pytest.approx(share * retain)


def test_gradients_are_those_of_backward_with_zeros_for_the_unused() -> None:
    torch.manual_seed(0)
    layer, unused = nn.Linear(3, 2), nn.Parameter(torch.ones(2))
    parameters = [*layer.parameters(), unused]
    answer = layer(torch.randn(4, 3))
    first = derivatives(answer.square().sum(), parameters, keep_graph=True)
    second = derivatives(answer.sin().sum(), parameters)
    found = gram(first, second)
    flat = [torch.cat([g.flatten() for g in side]).double() for side in (first, second)]
    expected = Gram(float(flat[0] @ flat[0]), float(flat[0] @ flat[1]), float(flat[1] @ flat[1]))
    assert dataclasses.astuple(found) == pytest.approx(dataclasses.astuple(expected), rel=1e-6)
    assert not first[2].any()
    wanted = [0.5 * a - 3 * b for a, b in zip(first, second, strict=True)]
    descend(parameters, first, second, Weights(0.5, -3.0))
    torch.testing.assert_close([p.grad for p in parameters], wanted)


def test_rows_are_pulled_by_the_root_of_their_copies(shop: Any) -> None:
    request = shop.request()
    assert pull(request) is None
    found = pull(dataclasses.replace(request, forget_copies=np.array([1, 4, 100])))
    assert found is not None
    assert found.tolist() == [1, 2, 10]


@pytest.mark.parametrize("prediction", list(Prediction))
def test_the_mean_of_the_row_losses_is_the_loss(shop: Any, prediction: Prediction) -> None:
    base = shop.denoiser(prediction=prediction)
    batch = draw_batch(base, shop.images(), np.random.default_rng(0), 16)
    torch.testing.assert_close(row_losses(base, batch).mean(), noise_loss(base, batch))
