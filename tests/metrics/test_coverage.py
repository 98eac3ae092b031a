from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from vestige.errors import EmptySet, InvalidInput
from vestige.metrics import tiles
from vestige.metrics.coverage import Balls, density_coverage, expected_coverage, precision_recall
from vestige.metrics.interval import Interval, clopper_pearson

seeds = st.integers(0, 10**6)
Shape = tuple[int, int, int, int]
SHAPES = [(5, 7, 1, 4), (16, 8, 2, 8), (1024, 2048, 8, 128)]
"""Height and width of a tile, strips held, length of a segment."""


@contextmanager
def tiles_of(shape: Shape) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in zip(("_HEIGHT", "_WIDTH", "_HELD", "_SEGMENT"), shape, strict=True):
            patch.setattr(tiles, name, value)
        yield


sizes = st.integers(6, 25)


def squared(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.sum((x[:, None] - y[None]) ** 2, axis=2)


def naive_radii(x: np.ndarray, k: int) -> np.ndarray:
    """Position k in the sorted distances to the other rows."""
    distances = squared(x, x)
    return np.array([np.sort(np.delete(distances[i], i))[k - 1] for i in range(len(x))])


def naive(x: np.ndarray, y: np.ndarray, k: int) -> tuple[float, float, float, float]:
    """Precision, recall, density and coverage of generated x against reference y, from their definitions."""
    distances = squared(x, y)
    in_reference = distances <= naive_radii(y, k)[None, :]
    in_generated = distances <= naive_radii(x, k)[:, None]
    return (
        in_reference.any(axis=1).mean(),
        in_generated.any(axis=0).mean(),
        in_reference.sum() / (k * len(x)),
        in_reference.any(axis=0).mean(),
    )


def computed(x: np.ndarray, y: np.ndarray, k: int) -> tuple[float, float, float, float]:
    reference = Balls.around(y, k)
    shares, counts = precision_recall(Balls.around(x, k), reference), density_coverage(x, reference)
    return shares.precision.value, shares.recall.value, counts.density.value, counts.coverage.value


@given(sizes, sizes, st.integers(1, 5), st.integers(1, 5), st.sampled_from(SHAPES), seeds)
def test_equals_brute_force(m: int, n: int, d: int, k: int, shape: Shape, seed: int) -> None:
    random = np.random.default_rng(seed)
    x, y = random.normal(size=(m, d)), random.normal(0.4, 1.2, size=(n, d))
    with tiles_of(shape):
        assert computed(x, y, k) == pytest.approx(naive(x, y, k), abs=1e-12)


@given(sizes, sizes, st.integers(1, 3), st.integers(1, 4), st.sampled_from([0.1, 1.0]), seeds)
def test_equals_brute_force_on_grids_full_of_ties(m: int, n: int, d: int, k: int, step: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    x, y = step * random.integers(-2, 3, size=(m, d)), step * random.integers(-2, 3, size=(n, d))
    assert computed(x, y, k) == pytest.approx(naive(x, y, k), abs=1e-12)
    np.testing.assert_array_equal(Balls.around(x, k).squared_radii, naive_radii(x, k))


@given(st.sampled_from([1e3, 1e6, 1e9]), seeds)
def test_near_duplicates_far_from_the_origin(offset: float, seed: int) -> None:
    """Here a matrix product loses every digit of the distances."""
    random = np.random.default_rng(seed)
    y = random.normal(size=(12, 8)) * 1e-4 + offset
    x = y + random.choice([0.0, 1e-5], size=(12, 8))
    np.testing.assert_array_equal(Balls.around(y, 2).squared_radii, naive_radii(y, 2))
    assert computed(x, y, 2) == pytest.approx(naive(x, y, 2), abs=1e-12)


def test_copies_of_duplicated_rows_lie_in_balls_of_radius_zero() -> None:
    """Three copies of a row have balls of radius zero at k = 2; an exact copy still lies inside."""
    row = np.random.default_rng(0).normal(size=(1, 500)) * 100
    reference = Balls.around(np.repeat(row, 3, axis=0), 2)
    np.testing.assert_array_equal(reference.squared_radii, 0)
    assert density_coverage(row, reference).density.value == 1.5
    assert density_coverage(row + 1e-9, reference).density.value == 0


def test_a_set_covers_itself_and_nothing_far_away() -> None:
    x = np.random.default_rng(0).normal(size=(50, 6))
    assert computed(x, x, 3)[:2] == (1, 1)
    assert computed(x, x, 3)[3] == 1
    assert computed(x, x + 1000, 3) == (0, 0, 0, 0)


def test_a_dropped_mode_costs_recall_and_not_precision() -> None:
    random = np.random.default_rng(0)
    y = np.vstack([random.normal(size=(100, 3)), random.normal(50, 1, size=(100, 3))])
    x = random.normal(size=(200, 3))
    shares = precision_recall(Balls.around(x, 3), Balls.around(y, 3))
    assert shares.precision.value > 0.8
    assert 0.3 < shares.recall.value <= 0.5
    assert (shares.precision.n, shares.recall.n) == (200, 200)


def refitted_share(inside: np.ndarray) -> tuple[float, float]:
    """Low and high of the share of rows of ``inside`` [items, holders] that are held, leaving holders out naively."""
    items, holders = inside.shape
    share = inside.any(axis=1).mean()
    left = np.array([np.delete(inside, j, axis=1).any(axis=1).mean() for j in range(holders)])
    variance = share * (1 - share) / items + (holders - 1) / holders * np.sum((left - left.mean()) ** 2)
    independent = share * (1 - share) / variance
    s, f = share * independent, (1 - share) * independent
    return stats.beta.ppf(0.025, s, f + 1), stats.beta.ppf(0.975, s + 1, f)


@given(st.sampled_from(SHAPES), seeds)
def test_intervals_count_both_sets(shape: Shape, seed: int) -> None:
    random = np.random.default_rng(seed)
    x, y = random.normal(size=(25, 2)), random.normal(1.5, 1, size=(35, 2))
    with tiles_of(shape):
        reference, generated = Balls.around(y, 2), Balls.around(x, 2)
        shares, counts = precision_recall(generated, reference), density_coverage(x, reference)
    in_reference = squared(x, y) <= naive_radii(y, 2)[None, :]
    in_generated = squared(y, x) <= naive_radii(x, 2)[None, :]
    for interval, inside in (
        (shares.precision, in_reference), (shares.recall, in_generated), (counts.coverage, in_reference.T),
    ):  # fmt: skip
        assert interval.n == len(inside)
        if 0 < interval.value < 1:
            assert (interval.low, interval.high) == pytest.approx(refitted_share(inside))
    rows, balls = in_reference.sum(axis=1) / 2, in_reference.sum(axis=0) * 35 / (25 * 2)
    half = stats.t.ppf(0.975, 24) * np.sqrt(rows.var(ddof=1) / 25 + balls.var(ddof=1) / 35)
    assert counts.density.high == pytest.approx(rows.mean() + half)
    assert counts.density.low == pytest.approx(max(0, rows.mean() - half))


@pytest.mark.parametrize(("m", "n", "shift"), [(60, 60, 0.0), (60, 60, 1.5), (20, 100, 0.5), (100, 30, 1.0)])
def test_intervals_cover_the_values_expected_at_their_size(m: int, n: int, shift: float) -> None:
    random = np.random.default_rng(0)
    found: dict[str, list[Interval]] = {"precision": [], "recall": [], "density": [], "coverage": []}
    for _ in range(60):
        x, y = random.normal(size=(m, 2)), random.normal(shift, 1, size=(n, 2))
        reference = Balls.around(y, 5)
        shares, counts = precision_recall(Balls.around(x, 5), reference), density_coverage(x, reference)
        for name, interval in (vars(shares) | vars(counts)).items():
            if name in found:
                found[name].append(interval)
    for name, intervals in found.items():
        expected = np.mean([interval.value for interval in intervals])
        assert np.mean([interval.covers(expected) for interval in intervals]) >= 0.83, name


def test_shares_of_nothing_and_of_everything_keep_an_interval() -> None:
    x = np.random.default_rng(0).normal(size=(20, 2))
    near, far = precision_recall(Balls.around(x, 3), Balls.around(x, 3)), Balls.around(x[:12] + 100, 3)
    assert (near.precision.low, near.precision.high) == (clopper_pearson(20, 20).low, 1)
    missed = precision_recall(Balls.around(x, 3), far)
    assert (missed.precision.low, missed.precision.high) == (0, clopper_pearson(0, 12).high)
    assert (missed.precision.n, missed.recall.n) == (20, 12)
    assert density_coverage(x[:1], far).density == Interval(0, 0, np.inf, 1)


@pytest.mark.parametrize(("m", "n", "k"), [(30, 20, 3), (10, 40, 5)])
def test_equal_distributions_have_the_expected_density_and_coverage(m: int, n: int, k: int) -> None:
    random = np.random.default_rng(0)
    found = [
        density_coverage(random.normal(size=(m, 2)), Balls.around(random.normal(size=(n, 2)), k)) for _ in range(120)
    ]
    covered, dense = [f.coverage.value for f in found], [f.density.value for f in found]
    assert found[0].expected_coverage == expected_coverage(m, n, k)
    assert np.mean(covered) == pytest.approx(expected_coverage(m, n, k), abs=4 * np.std(covered) / np.sqrt(120))
    assert np.mean(dense) == pytest.approx(1, abs=4 * np.std(dense) / np.sqrt(120))
    assert np.mean([f.coverage.covers(expected_coverage(m, n, k)) for f in found]) >= 0.9


def test_memory_does_not_grow_with_the_number_of_pairs() -> None:
    rows = np.random.default_rng(0).normal(size=(1200, 4))
    tracemalloc.start()
    with tiles_of((128, 256, 2, 64)):
        computed(rows, rows + 0.1, 3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6e6 < 1200 * 1200 * 8  # of numpy; a tile of torch has 128 * 256 * 4 bytes


def test_too_few_rows_or_other_features() -> None:
    rows = np.zeros((4, 2))
    with pytest.raises(EmptySet, match="4 rows"):
        Balls.around(rows, 4)
    with pytest.raises(InvalidInput, match="neighbours"):
        Balls.around(rows, 0)
    with pytest.raises(InvalidInput, match="columns"):
        density_coverage(np.zeros((4, 3)), Balls.around(rows, 2))
    with pytest.raises(InvalidInput, match="columns"):
        precision_recall(Balls.around(np.zeros((4, 3)), 2), Balls.around(rows, 2))
