from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vestige.nearest import (
    BUDGET,
    count_within,
    pairs_within,
    pairs_within_two,
    plan,
    radius_limit,
    reduce,
    rms,
    screen,
    topk,
)
from vestige.nearest.plan import plan_topk, plan_within
from vestige.nearest.projection import centred_pixels, principal
from vestige.nearest.screen import Shape, near_pairs, topk_keys

seeds = st.integers(0, 2**32 - 1)
ranks = st.sampled_from([0, 1, 3, 8])
shapes = st.builds(Shape, st.integers(1, 9), st.integers(20, 70))


def smooth(seed: int, n: int, side: int = 10, near: int = 6) -> np.ndarray:
    """Smooth images [n, side**2] with near copies, exact copies and a constant among them."""
    rng = np.random.default_rng(seed)
    walk = rng.normal(size=(n, side, side)).cumsum(1).cumsum(2)
    image = np.clip(128 + 12 * walk, 0, 255).astype(np.uint8).reshape(n, -1)
    source, target = rng.integers(0, n, (2, near))
    image[target] = image[source] ^ (rng.random((near, side**2)) < rng.choice([0, 0.01, 0.3], (near, 1)))
    image[rng.integers(n)] = rng.choice([0, 255])
    return image


def project(rows: np.ndarray, rank: int):
    return principal(rows, rank) if rank else centred_pixels(rows)


@given(seeds, st.integers(1, 30), st.sampled_from([0, 0, 1, 2, 3]), ranks)
def test_coordinates_never_lengthen_a_distance(brute, images, seed, n, kind, rank):
    rows = smooth(seed, n) if kind else images(seed, n, 300)
    projection = project(rows, rank)
    points = projection.points(rows)
    wide = points.coordinates.astype(np.float64)
    apart = np.sqrt(np.square(wide[:, None] - wide).sum(-1))
    slack = points.slack[:, None] + points.slack
    assert (apart <= np.sqrt(brute(rows, rows)) * (1 + 1e-12) + slack).all()
    assert np.allclose(points.norm2, np.square(wide).sum(1), rtol=1e-12)
    if rank and kind and n > 20:  # and they are not all zero either
        assert apart.max() > 0.3 * np.sqrt(brute(rows, rows).max())


@given(
    seeds,
    st.integers(80, 150),
    st.integers(1, 12),
    ranks,
    shapes,
    st.booleans(),
    st.integers(1, 9),
    st.sampled_from([0.05, 0.3, 1.0]),
)
def test_topk_equals_a_stable_sort(brute, images, seed, m, k, rank, shape, exclude, palette, share):
    rows = images(seed, m, 100) if palette == 1 else smooth(seed, m)
    queries = rows if exclude else np.concatenate((smooth(seed + 1, 20), rows[:5]))
    distance2 = brute(queries, rows)
    if exclude:
        np.fill_diagonal(distance2, 2**40)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(screen, "_MANY", share)
        keys, undone = topk_keys(queries, rows, k, project(rows, rank), shape, exclude_same_index=exclude)
    done = np.setdiff1d(np.arange(len(queries)), undone)
    assert share < 1 or len(done) == len(queries)
    assert (keys[done] % m == distance2.argsort(axis=1, kind="stable")[done, :k]).all()
    assert (keys[done] // m == np.sort(distance2, axis=1)[done, :k]).all()


@pytest.mark.parametrize("contrast", [20, 70, 127])  # squares of centred rows: all below 2**24, some, none
def test_whole_pixels_are_exact_where_squares_are_rounded(brute, contrast):
    rng = np.random.default_rng(contrast)
    rows = np.where(rng.random((90, 6000)) < 0.5, 127 - contrast, 127 + contrast).astype(np.uint8)
    rows[:30] = np.where(rng.random((30, 6000)) < 0.1, rows[:1], rows[:30])
    near, central = rows[::5] ^ (rng.random((18, 6000)) < 0.3), 127 + rng.integers(0, 2, (12, 6000))
    check_whole_pixels(brute, np.concatenate((near, central)).astype(np.uint8), rows)


def test_whole_pixels_are_exact_where_only_sums_in_between_are_rounded(brute):
    rng = np.random.default_rng(0)
    rows = 128 + np.where(np.arange(90) % 2, 51, -51)[:, None] + rng.integers(-2, 3, (90, 6000))
    queries = 128 + np.where(np.arange(6000) < 3000, 125, -125) + rng.integers(-2, 3, (30, 6000))
    check_whole_pixels(brute, queries.astype(np.uint8), rows.astype(np.uint8))


def check_whole_pixels(brute, queries: np.ndarray, rows: np.ndarray) -> None:
    distance2 = brute(queries, rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(screen, "_MANY", 1.0)
        keys, undone = topk_keys(queries, rows, 7, centred_pixels(rows), Shape(16, 90))
    assert not len(undone)
    assert (keys // 90 == np.sort(distance2, axis=1)[:, :7]).all()
    assert (keys % 90 == distance2.argsort(axis=1, kind="stable")[:, :7]).all()


@given(seeds, st.integers(20, 150), ranks, shapes, st.booleans(), st.sampled_from([0.0, 0.01, 0.05, 0.2, 0.5, 2.0]))
def test_pairs_equal_brute_force(brute, seed, m, rank, shape, upper, radius):
    rows = smooth(seed, m)
    queries = rows if upper else smooth(seed, 30)
    limit = radius_limit(radius, 100)
    within = brute(queries, rows) <= limit
    found = np.concatenate(
        [
            np.empty((0, 2), np.int64),
            *near_pairs(queries, rows, limit, project(rows, rank), shape, upper=upper, budget=BUDGET),
        ]
    )
    expected = np.argwhere(np.triu(within, 1) if upper else within)
    assert (found[np.lexsort(found.T[::-1])] == expected).all()


@given(seeds, ranks, st.integers(0, 200))
def test_a_radius_at_the_very_distance_of_a_pair_keeps_it(brute, seed, rank, which):
    rows = smooth(seed, 40)
    distance2 = brute(rows, rows)
    limit = int(distance2.ravel()[which])
    for radius2 in (limit, max(limit - 1, 0)):
        pairs = near_pairs(rows, rows, radius2, project(rows, rank), Shape(16, 40), budget=BUDGET)
        assert sum(map(len, pairs)) == (distance2 <= radius2).sum()


@pytest.mark.parametrize("value", [0, 255])
def test_rows_that_are_all_alike_end_in_tiles(value, monkeypatch):
    rows = np.full((300, 100), value, np.uint8)
    undone = topk_keys(rows, rows, 4, principal(rows, 8), Shape(50, 200), exclude_same_index=True)[1]
    assert len(undone) == 300
    assert sum(map(len, near_pairs(rows, rows, 0, principal(rows, 8), Shape(50, 200), budget=BUDGET))) == 300**2
    chosen = plan.Plan(principal(rows, 8), Shape(50, 200))
    monkeypatch.setattr(reduce, "plan_topk", lambda *args, **options: chosen)
    found = topk(rows, rows, 4, exclude_same_index=True)
    assert (found.index[10] == [0, 1, 2, 3]).all()
    assert (found.index[0] == [1, 2, 3, 4]).all()
    assert not found.distance2.any()


def test_public_searches_take_the_plan_and_keep_their_results(monkeypatch, brute):
    rows = smooth(3, 2100)
    queries = np.concatenate((smooth(4, 60), rows[:9] ^ 1))
    expected = topk(queries, rows, 5)
    counts = count_within(rows[:50], rows, 0.1), count_within(rows, rows, 0.1, exclude_same_index=True)
    pairs = pairs_within(rows, 0.08), pairs_within_two(queries, rows, 0.08)
    monkeypatch.setattr(plan, "_WORTH", 1)
    device = torch.device("cpu")
    chosen = plan_topk(queries, rows, 5, exclude_same_index=False, budget=BUDGET, device=device)
    assert chosen is not None
    assert plan_within(rows, rows, 1000, same_index=True, budget=BUDGET, device=device) is not None
    found = topk(queries, rows, 5)
    assert (found.index == expected.index).all()
    assert (found.distance2 == expected.distance2).all()
    assert (count_within(rows[:50], rows, 0.1) == counts[0]).all()
    assert (count_within(rows, rows, 0.1, exclude_same_index=True) == counts[1]).all()
    assert (pairs_within(rows, 0.08) == pairs[0]).all()
    assert (pairs_within_two(queries, rows, 0.08) == pairs[1]).all()
    assert len(pairs[0]) > 3
    assert (rms(brute(rows[pairs[0][:, 0], None], rows[pairs[0][:, 1]])[:, 0], 100)[: len(pairs[0])] >= 0).all()


def test_shapes_grow_with_the_budget_and_small_budgets_have_none():
    from vestige.nearest.screen import fitting

    assert fitting(10_000, 50_000, 257, 3072, 1 << 24) is None
    sizes = [fitting(10_000, 50_000, 257, 3072, 1 << power) for power in range(27, 33)]
    cells = [shape.strip * shape.segment for shape in sizes if shape]
    assert len(cells) == len(sizes)
    assert all(a <= b for a, b in pairwise(cells))
    for power, shape in zip(range(27, 33), sizes, strict=True):
        assert shape is not None
        assert 4 * shape.strip * shape.segment + 4 * 258 * shape.segment < 1 << power
