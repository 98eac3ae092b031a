from __future__ import annotations

import math
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vestige.errors import EmptySet, InvalidInput, Unsupported
from vestige.nearest import count_within, nearest, pairs_within, pairs_within_two, radius_limit, rms, topk

sizes = st.integers(1, 7)
dims = st.sampled_from([1, 2, 7, 1025])
seeds = st.integers(0, 2**32 - 1)
extras = st.integers(0, 60_000)
radii = st.sampled_from([0.0, 0.01, 0.1, 0.3, 0.5, 0.7, 1.0, 2.0])


def least(d: int, k: int = 0) -> int:
    return 96 + 2 * 12 * min(d, 1024) + 64 * k


@given(seeds, seeds, sizes, sizes, dims, st.integers(1, 9), extras)
def test_topk_equals_a_stable_sort(brute, images, one, two, n, m, d, k, extra):
    queries, rows = images(one, n, d), images(two, m, d)
    distance2 = brute(queries, rows)
    order = distance2.argsort(axis=1, kind="stable")[:, :k]
    found = topk(queries, rows, k, budget=least(d, k) + extra)
    assert found.index.shape == (n, min(k, m))
    assert (found.index == order).all()
    assert (found.distance2 == np.take_along_axis(distance2, order, 1)).all()
    assert found.index.dtype == found.distance2.dtype == np.int64
    first = nearest(queries, rows, budget=least(d, 1) + extra)
    assert (first.index == order[:, :1]).all()


@given(seeds, st.integers(2, 7), dims, st.integers(1, 9), radii, extras)
def test_a_row_does_not_meet_itself(brute, images, seed, n, d, k, radius, extra):
    rows = images(seed, n, d)
    distance2 = brute(rows, rows)
    np.fill_diagonal(distance2, 2**62)
    found = topk(rows, rows, k, exclude_same_index=True, budget=least(d, k) + extra)
    assert (found.index == distance2.argsort(axis=1, kind="stable")[:, : min(k, n - 1)]).all()
    counts = count_within(rows, rows, radius, exclude_same_index=True, budget=least(d) + extra)
    assert (counts == (distance2 <= radius_limit(radius, d)).sum(1)).all()


@given(seeds, seeds, sizes, sizes, dims, radii, extras)
def test_counts_and_pairs_equal_brute_force(brute, images, one, two, n, m, d, radius, extra):
    queries, rows = images(one, n, d), images(two, m, d)
    budget = least(d) + extra
    within = rms(brute(queries, rows), d) <= radius
    assert (count_within(queries, rows, radius, budget=budget) == within.sum(1)).all()
    assert (pairs_within_two(queries, rows, radius, budget=budget) == np.argwhere(within)).all()
    among = np.triu(rms(brute(rows, rows), d) <= radius, 1)
    pairs = pairs_within(rows, radius, budget=budget)
    assert pairs.dtype == np.int64
    assert pairs.tolist() == np.argwhere(among).tolist()


def test_ties_go_to_the_lower_index_across_tiles():
    rows = np.full((50, 3), 7, np.uint8)
    found = topk(rows[:2], rows, 5, budget=1000)
    assert found.index.tolist() == [[0, 1, 2, 3, 4]] * 2
    assert not found.distance2.any()
    assert topk(rows, rows, 1, exclude_same_index=True, budget=1000).index[:, 0].tolist() == [1] + [0] * 49


@given(st.integers(1, 786_432), st.floats(0, 1))
def test_a_reported_distance_used_as_radius_takes_its_own_pair_and_no_farther(dim, fraction):
    distance2 = round(fraction * 65025 * dim)
    assert radius_limit(float(rms(distance2, dim)), dim) == distance2


@given(st.integers(0, 1000), st.integers(1, 786_432))
def test_a_radius_means_its_decimal(thousandths, dim):
    exact = (Decimal(thousandths) / 1000) ** 2 * 65025 * dim
    assert radius_limit(thousandths / 1000, dim) == math.floor(exact)


def test_the_boundary_is_inside():
    # 16 pixels chosen so that their mean square is (0.15 * 255)**2 = 1463.0625 exactly.
    dim, limit = 16, 23409
    assert math.sqrt((limit + 1) / dim) / 255 > 0.15
    assert radius_limit(0.15, dim) == limit
    black = np.zeros((1, dim), np.uint8)
    steps = next(
        np.array([38] * a + [39] * b + [x, y], np.uint8)
        for a in range(15)
        for b in [14 - a]
        for x in range(256)
        for y in range(256)
        if a * 38**2 + b * 39**2 + x * x + y * y == limit
    )
    assert count_within(black, steps[None], 0.15).tolist() == [1]
    steps[0] += 1
    assert count_within(black, steps[None], 0.15).tolist() == [0]


def test_rms_of_black_and_white_is_one():
    assert rms([0, 65025 * 12], 12).tolist() == [0, 1]


@pytest.mark.parametrize("radius", [-0.1, math.nan, math.inf])
def test_a_radius_that_is_none(radius):
    with pytest.raises(InvalidInput, match="a radius of"):
        radius_limit(radius, 3)


def test_requests_that_have_no_answer():
    rows = np.zeros((1, 3), np.uint8)
    with pytest.raises(InvalidInput, match="k = 0"):
        topk(rows, rows, 0)
    with pytest.raises(EmptySet, match="excluded"):
        nearest(rows, rows, exclude_same_index=True)
    huge = np.broadcast_to(rows[:, :1], (2**40, 1 << 10))
    with pytest.raises(Unsupported, match="split the rows"):
        nearest(huge[:1], huge)
    assert topk(rows[:0], rows, 2).index.shape == (0, 1)
    assert count_within(rows[:0], rows, 0.1).shape == (0,)
    assert pairs_within(rows, 0.1).shape == (0, 2)
