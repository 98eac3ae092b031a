from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vestige.errors import EmptySet, InvalidInput
from vestige.rare.manifold import Manifold


def brute(points: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Radii, least ratios and rarity scores by their definitions."""
    among = np.linalg.norm(rows[:, None] - rows, axis=2)
    np.fill_diagonal(among, np.inf)
    radii = np.sort(among, axis=1)[:, k - 1]
    gap = np.linalg.norm(points[:, None] - rows, axis=2)
    score = np.where(gap <= radii, radii, np.inf).min(1)
    return radii, (gap / np.maximum(radii, 1e-12)).min(1), np.where(np.isinf(score), np.nan, score)


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 4), st.integers(8, 40), st.integers(1, 5), st.integers(0, 999))
def test_places_are_those_of_brute_force(k: int, n: int, d: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.integers(-4, 5, (n, d)).astype(float)  # whole, so that copies occur and ties are exact
    points = np.concatenate([rng.integers(-6, 7, (9, d)) / 2, rows[:3]])
    radii, ratio, score = brute(points, rows, k)
    if not radii.any():
        return
    place = Manifold(rows, k).locate(points)
    np.testing.assert_allclose(place.ratio, ratio, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(place.rarity, score, rtol=1e-12)
    np.testing.assert_array_equal(place.inside, ~np.isnan(score))
    below, at = (radii < score[:, None]).sum(1), (radii == score[:, None]).sum(1)
    expected = np.where(np.isnan(score), np.nan, (below + at / 2) / n)
    np.testing.assert_allclose(place.percentile, expected)


def test_a_few_balls_prove_a_point_inside_and_never_claim_too_much() -> None:
    rng = np.random.default_rng(0)
    manifold = Manifold(rng.standard_normal((300, 6)))
    points = torch.from_numpy(rng.standard_normal((80, 6)))
    exact = manifold.locate(points.numpy())
    for count in (1, 5, 400):
        balls = manifold.nearest_balls(points, count)
        assert balls.shape == (80, min(count, 300))
        ratio, centres = manifold.ratio(points, balls)
        np.testing.assert_allclose(ratio.numpy(), exact.ratio, rtol=1e-9)
        gap = (points - centres).norm(dim=1)
        row = (torch.from_numpy(manifold.rows)[:, None] == centres).all(2).float().argmax(0)
        torch.testing.assert_close(gap / manifold.radii[row], ratio)
    some = manifold.ratio(points, torch.zeros(80, 2, dtype=torch.long))[0].numpy()
    assert (some >= exact.ratio - 1e-12).all()
    assert exact.inside[some <= 1].all()


def test_the_ratio_has_the_gradient_of_the_nearest_ball() -> None:
    manifold = Manifold(np.random.default_rng(0).standard_normal((30, 3)))
    x = torch.from_numpy(np.random.default_rng(1).standard_normal((5, 3)) * 2).requires_grad_()
    balls = manifold.nearest_balls(x, 4)
    assert torch.autograd.gradcheck(lambda points: manifold.ratio(points, balls)[0], x)


def test_single_precision_serves_the_search_and_exact_answers_stay_exact() -> None:
    manifold = Manifold(np.random.default_rng(0).standard_normal((50, 3)))
    moved = copy.deepcopy(manifold).to(torch.float32)
    assert moved.centres.dtype == torch.float32
    points = np.random.default_rng(1).standard_normal((9, 3))
    np.testing.assert_array_equal(moved.locate(points).ratio, manifold.locate(points).ratio)
    assert moved.digest == manifold.digest != Manifold(manifold.rows, 4).digest


def test_rows_that_make_no_manifold() -> None:
    with pytest.raises(EmptySet, match="3 rows"):
        Manifold(np.eye(3), 3)
    with pytest.raises(InvalidInput, match="differ"):
        Manifold(np.ones((9, 2)))
    with pytest.raises(InvalidInput):
        Manifold(np.full((9, 2), np.nan))
    with pytest.raises(InvalidInput, match="columns"):
        Manifold(np.eye(6), 2).locate(np.ones((2, 5)))
