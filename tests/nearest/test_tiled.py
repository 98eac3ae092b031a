from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vestige.errors import EmptySet, InvalidInput, ShapeMismatch
from vestige.nearest import rms, tiled_distance, tiled_pairs_within, tiled_within
from vestige.nearest.tiles import Grid, block_sums

seeds = st.integers(0, 2**32 - 1)
shapes = st.sampled_from([(3, 16, 16), (1, 8, 8), (1, 7, 9), (2, 5, 21), (1, 4, 4), (3, 13, 32)])
radii = st.sampled_from([0.0, 0.01, 0.05, 0.15, 0.3, 1.0])


def drawn(seed: int, n: int, shape: tuple[int, int, int]) -> np.ndarray:
    """Smooth images with constants, black and white ones among them."""
    rng = np.random.default_rng(seed)
    walk = rng.normal(size=(n, *shape)).cumsum(2).cumsum(3)
    images = np.clip(128 + 15 * walk, 0, 255).astype(np.uint8)
    images[rng.random(n) < 0.2] = rng.choice([0, 255, 128])
    return images


def near_copies(seed: int, images: np.ndarray, radius: float) -> np.ndarray:
    """Copies about as far away as the radius, some in one tile alone."""
    rng = np.random.default_rng(seed)
    source = images[rng.integers(0, len(images), 12)].astype(float)
    noise = rng.normal(size=source.shape) * 255 * radius * rng.choice([0.0, 0.9, 1.0, 1.1], (12, 1, 1, 1))
    noise[::3, :, source.shape[2] // 4 :] = 0
    return np.clip(np.rint(source + noise), 0, 255).astype(np.uint8)


def by_hand(queries: np.ndarray, rows: np.ndarray, grid: int) -> np.ndarray:
    """Tiled distance [n, m] by int64 differences."""
    _, height, width = queries.shape[1:]
    worst = np.zeros((len(queries), len(rows)))
    difference2 = np.square(queries[:, None].astype(np.int64) - rows[None])
    for y in range(grid):
        for x in range(grid):
            tile = difference2[
                ...,
                height * y // grid : height * (y + 1) // grid,
                width * x // grid : width * (x + 1) // grid,
            ]
            worst = np.maximum(worst, rms(tile.sum((2, 3, 4)), tile[0, 0].size))
    return worst


@given(seeds, st.integers(1, 12), st.integers(1, 20), shapes, radii, st.integers(1, 4), st.integers(0, 2_000_000))
def test_pairs_equal_brute_force(seed, n, m, shape, radius, grid, extra):
    rows = drawn(seed, m, shape)
    queries = np.concatenate((drawn(seed + 1, n, shape), near_copies(seed, rows, radius), rows[:2]))
    distance = by_hand(queries, rows, grid)
    found = tiled_within(queries, rows, radius, grid=grid, budget=300_000 + extra)
    assert (found.pairs == np.argwhere(distance <= radius)).all()
    np.testing.assert_allclose(found.distance, distance[distance <= radius], rtol=1e-15)
    survivors = [stage.survivors for stage in found.stages]
    assert survivors[0] == distance.size
    assert survivors[-1] == len(found.pairs)
    assert survivors == sorted(survivors, reverse=True)
    every = np.argwhere(np.ones_like(distance, bool))
    exact = tiled_distance(queries, rows, every, grid=grid)
    np.testing.assert_allclose(exact, distance.ravel(), rtol=1e-15)
    assert (tiled_distance(queries, rows, found.pairs, grid=grid) <= radius).all()


@given(seeds, st.integers(2, 20), shapes, radii, st.integers(0, 2_000_000))
def test_pairs_of_one_set(seed, n, shape, radius, extra):
    images = np.concatenate((drawn(seed, n, shape), near_copies(seed, drawn(seed, n, shape), radius)))
    found = tiled_pairs_within(images, radius, budget=300_000 + extra)
    assert (found.pairs == np.argwhere(np.triu(by_hand(images, images, 4) <= radius, 1))).all()
    assert found.stages[0].survivors == len(images) * (len(images) - 1) // 2


@given(seeds, shapes, st.integers(0, 400))
def test_a_radius_at_the_very_distance_of_a_pair_keeps_it(seed, shape, which):
    images = drawn(seed, 12, shape)
    distance = by_hand(images, images, 4)
    radius = float(distance.ravel()[which % distance.size])
    for value in (radius, max(0.0, np.nextafter(radius, 0) * (1 - 1e-12))):
        assert len(tiled_within(images, images, value).pairs) == (distance <= value).sum()


@given(seeds, st.integers(1, 9), shapes, st.integers(1, 4), st.booleans())
def test_coordinates_never_lengthen_the_distance_of_a_tile(seed, n, shape, side, noise):
    rng = np.random.default_rng(seed)
    images = rng.choice(np.array([0, 1, 254, 255], np.uint8), (n, *shape)) if noise else drawn(seed, n, shape)
    grid = Grid(side, *shape)
    sums = block_sums(images, grid)
    slack = sums.slack(slice(None))
    for level in grid.levels:
        coordinates = sums.coordinates(level, slice(None)).astype(float)
        apart = np.sqrt(np.square(coordinates[:, None] - coordinates).sum(-1))
        for number in range(side**2):
            tile = grid.tile(images, number).reshape(n, -1).astype(np.int64)
            assert tile.shape[1] == grid.sizes[number]
            true = np.sqrt(np.square(tile[:, None] - tile).sum(-1))
            assert (apart[..., number] <= true * (1 + 1e-7) + slack[:, None, number] + slack[:, number]).all()
            if level == 1:  # means and deviations: the whole norm is kept
                whole = np.square(tile - 128).sum(1)
                np.testing.assert_allclose(np.square(coordinates[:, number]).sum(1), whole, rtol=1e-6)


def test_a_shared_background_is_close_by_plain_distance_alone():
    rows = np.full((1, 3, 32, 32), 250, np.uint8)
    query = rows.copy()
    query[:, :, :8, :8] = 0
    assert tiled_distance(query, rows, np.array([[0, 0]]))[0] == pytest.approx(250 / 255)
    assert len(tiled_within(query, rows, 0.3).pairs) == 0
    assert len(tiled_within(query, rows, 0.3, grid=1).pairs) == 1


def test_bounds_turn_down_most_pairs_before_the_exact_stage():
    rows = drawn(0, 300, (3, 16, 16))
    queries = near_copies(1, rows, 0.03)
    found = tiled_within(queries, rows, 0.05)
    survivors = {stage.name: stage.survivors for stage in found.stages}
    assert survivors["all pairs"] == 3600
    assert survivors["mean over the tiles"] < 360
    assert survivors["4 x 4 blocks of each tile"] < 2 * survivors["exact"]


def test_inputs_that_do_not_fit_are_named():
    images = np.zeros((2, 3, 8, 8), np.uint8)
    with pytest.raises(ShapeMismatch, match="queries of"):
        tiled_within(images, images[:, :, :4], 0.1)
    with pytest.raises(EmptySet):
        tiled_within(images, images[:0], 0.1)
    with pytest.raises(InvalidInput, match="a grid of 9"):
        tiled_within(images, images, 0.1, grid=9)
    with pytest.raises(InvalidInput, match="a grid of 0"):
        tiled_distance(images, images, np.zeros((1, 2), int), grid=0)
    with pytest.raises(InvalidInput, match="rows is uint8"):
        tiled_within(images, images[0], 0.1)
    with pytest.raises(InvalidInput, match="a radius of"):
        tiled_within(images, images, -0.1)
    with pytest.raises(InvalidInput, match="a budget of"):
        tiled_within(images, images, 0.1, budget=1000)
    assert tiled_within(images[:0], images, 0.1).pairs.shape == (0, 2)
    assert len(tiled_within(images, images, 0.0).pairs) == 4
