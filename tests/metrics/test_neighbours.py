"""Every number of the pass against its definition, written out over the whole matrix of distances."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from prdc import compute_prdc

from vestige.errors import EmptySet, InvalidInput
from vestige.metrics import tiles
from vestige.metrics.balls import Balls
from vestige.metrics.interval import Interval
from vestige.metrics.neighbours import NeighbourMetrics, neighbour_metrics
from vestige.metrics.rarity import rarity_of_reference, rarity_score

seeds = st.integers(0, 10**6)
SHAPES = [(5, 7, 1, 4), (16, 8, 2, 8), (1024, 2048, 8, 128)]
"""Height and width of a tile, strips held, length of a segment."""


@contextmanager
def tiles_of(shape: tuple[int, int, int, int]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in zip(("_HEIGHT", "_WIDTH", "_HELD", "_SEGMENT"), shape, strict=True):
            patch.setattr(tiles, name, value)
        yield


def squared(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.sum((x.astype(np.float64)[:, None] - y.astype(np.float64)[None]) ** 2, axis=2)


def others(x: np.ndarray) -> np.ndarray:
    """Squared distances to the other rows; infinite to itself."""
    distances = squared(x, x)
    np.fill_diagonal(distances, np.inf)
    return distances


def smallest_ball(inside: np.ndarray, radii: np.ndarray) -> np.ndarray:
    return np.array([radii[row].min() if row.any() else np.nan for row in inside])


def probable(distances: np.ndarray, radii: np.ndarray) -> float:
    reach = 1.2 * radii.mean()
    ratio = distances / reach if reach > 0 else (distances > 0).astype(float)
    return float(np.mean(1 - np.prod(np.minimum(ratio, 1), axis=1)))


def by_definition(x: np.ndarray, y: np.ndarray, k: int) -> dict[str, float | np.ndarray]:
    """Generated x against reference y."""
    pairs, among, m, n = squared(x, y), others(y), len(x), len(y)
    fake, real = np.sort(others(x), axis=1)[:, k - 1], np.sort(among, axis=1)[:, k - 1]
    inside = pairs <= real
    cut = np.minimum(real, np.clip(np.median(np.sqrt(real)) ** 2, *np.sort(real)[[(n - 1) // 2, n // 2]]))
    caught, own = (pairs <= cut).sum(axis=1), (among <= cut).sum(axis=1)
    scores = smallest_ball(inside, np.sqrt(real))
    return {
        "precision": inside.any(axis=1).mean(),
        "recall": (pairs <= fake[:, None]).any(axis=0).mean(),
        "density": inside.sum() / (k * m),
        "coverage": inside.any(axis=0).mean(),
        "p_precision": probable(np.sqrt(pairs), np.sqrt(real)),
        "p_recall": probable(np.sqrt(pairs.T), np.sqrt(fake)),
        "clipped_density": min(1, np.minimum(caught, k).mean() / np.minimum(own, k).mean()),
        "scores": scores,
        "percentiles": np.array([np.nan if np.isnan(s) else _place(s, np.sqrt(real)) for s in scores]),
        "real_scores": smallest_ball((among <= real), np.sqrt(real)),
        "nearest": np.sqrt(pairs.min(axis=1)),
        "nearest_index": pairs.argmin(axis=1),
    }


def _place(score: float, radii: np.ndarray) -> float:
    return float((np.sum(radii < score) + np.sum(radii <= score)) / (2 * len(radii)))


def shown(found: NeighbourMetrics) -> dict[str, float | np.ndarray]:
    return {
        "precision": found.fidelity.precision.value,
        "recall": found.fidelity.recall.value,
        "density": found.density.density.value,
        "coverage": found.density.coverage.value,
        "p_precision": found.probabilistic.precision.value,
        "p_recall": found.probabilistic.recall.value,
        "clipped_density": found.clipped.density.value,
        "scores": found.rarity.scores,
        "percentiles": found.rarity.percentiles,
        "real_scores": found.real_rarity.scores,
        "nearest": found.nearest,
        "nearest_index": found.nearest_index,
    }


def agree(found: NeighbourMetrics, expected: dict[str, float | np.ndarray]) -> None:
    for name, value in shown(found).items():
        tolerance = 1e-5 if name.startswith("p_") else 1e-12
        np.testing.assert_allclose(value, expected[name], rtol=tolerance, atol=tolerance, err_msg=name)


def drawn(kind: str, m: int, n: int, d: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    if kind == "grid":  # full of ties and copies
        x, y = random.integers(-2, 3, size=(m, d)), random.integers(-2, 3, size=(n, d))
        y[0] += 1 + (y == y[0]).all()
        return x.astype(np.float64), y.astype(np.float64)
    x, y = random.normal(0.3, 1, size=(m, d)), random.normal(size=(n, d))
    if kind == "copies":
        x[: m // 2] = y[random.integers(0, n, m // 2)]
        y[: n // 3] = y[0]
        return x.astype(np.float32), y.astype(np.float32)
    if kind == "far":  # a float32 product loses every digit of the distances
        return x * 1e-4 + 1e7, y * 1e-4 + 1e7
    if kind == "clusters":  # centring does not help
        return x * 1e-4 + 1e3 * random.integers(0, 2, (m, 1)), y * 1e-4 + 1e3 * random.integers(0, 2, (n, 1))
    return x.astype(np.float32), y.astype(np.float32)


@given(
    st.sampled_from(["plain", "grid", "copies", "far", "clusters"]),
    st.integers(6, 20),
    st.integers(6, 20),
    st.integers(1, 4),
    st.integers(1, 4),
    st.sampled_from(SHAPES),
    seeds,
)
def test_equals_its_definitions(kind: str, m: int, n: int, d: int, k: int, shape: tuple, seed: int) -> None:
    x, y = drawn(kind, m, n, d, seed)
    with tiles_of(shape):
        agree(neighbour_metrics(x, y, neighbours=k), by_definition(x, y, k))


@pytest.mark.parametrize("d", [3, 200])
def test_equals_prdc_on_random_rows(d: int) -> None:
    random = np.random.default_rng(d)
    x, y = random.normal(0.1, 1, (300, d)), random.normal(size=(250, d))
    found = neighbour_metrics(x.astype(np.float32), y.astype(np.float32), neighbours=4)
    expected = compute_prdc(*(a.astype(np.float32).astype(np.float64) for a in (y, x)), 4)
    for name, value in expected.items():
        assert shown(found)[name] == pytest.approx(value, abs=1e-12), name


def test_copies_count_where_prdc_gives_nothing() -> None:
    """prdc asks for strictly less: a copy of a row that stands four times in the reference is in none of its balls."""
    y = np.random.default_rng(0).normal(size=(40, 3))
    y[:4] = 50
    x = np.concatenate([y[:1], y[10:20] - 100])
    assert compute_prdc(y, x, 3)["precision"] == 0
    found = neighbour_metrics(x, y, neighbours=3)
    assert found.fidelity.precision.value == pytest.approx(1 / 11)
    assert found.rarity.scores[0] == 0
    assert found.density.density.value == pytest.approx(4 / 33)


@pytest.mark.parametrize("kind", ["plain", "copies"])
def test_tiles_and_threads_change_nothing(kind: str) -> None:
    x, y = drawn(kind, 150, 170, 20, 0)
    base, threads = neighbour_metrics(x, y, y, neighbours=3), torch.get_num_threads()
    for shape, count in (((64, 32, 2, 16), 1), ((40, 100, 1, 32), 2)):
        torch.set_num_threads(count)
        try:
            with tiles_of(shape):
                again = neighbour_metrics(x, y, y, neighbours=3)
        finally:
            torch.set_num_threads(threads)
        for name, value in shown(again).items():
            if not name.startswith("p_"):
                np.testing.assert_array_equal(value, shown(base)[name], err_msg=name)
        assert (again.fidelity, again.density, again.clipped) == (base.fidelity, base.density, base.clipped)
        for mine, theirs in ((again.rarity, base.rarity), (again.real_rarity, base.real_rarity)):
            assert (mine.mean, mine.percentile, mine.undefined) == (theirs.mean, theirs.percentile, theirs.undefined)
        assert again.probabilistic.recall.high == pytest.approx(base.probabilistic.recall.high, rel=1e-5)
        assert again.training is not None
        assert base.training is not None
        np.testing.assert_array_equal(again.training.nearest, base.training.nearest)


def test_one_collapsed_point_in_every_ball() -> None:
    """In many dimensions the mean lies nearer to every row than any other row does."""
    y = np.random.default_rng(0).normal(size=(300, 100)).astype(np.float32)
    x = np.repeat(y.mean(axis=0, keepdims=True), 30, axis=0)
    found = neighbour_metrics(x, y, neighbours=3)
    agree(found, by_definition(x, y, 3))
    assert found.density.density.value == 100
    assert found.clipped.density.value == 1


def test_norms_that_overflow_float32() -> None:
    random = np.random.default_rng(0)
    x, y = random.normal(size=(20, 3)) * 1e25, random.normal(size=(25, 3)) * 1e25
    agree(neighbour_metrics(x, y, neighbours=2), by_definition(x, y, 2))


def test_distances_that_vanish_in_float32() -> None:
    random = np.random.default_rng(0)
    x, y = random.normal(size=(20, 3)) * 1e-25, random.normal(size=(25, 3)) * 1e-25
    agree(neighbour_metrics(x, y, neighbours=2), by_definition(x, y, 2))


def test_a_few_long_rows_cost_the_others_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error of an estimate belongs to its two rows, so an outlier leaves other comparisons decided."""
    random = np.random.default_rng(0)
    x, y = random.normal(size=(200, 30)).astype(np.float32), random.normal(size=(200, 30)).astype(np.float32)
    y[::50] *= 1e4
    x[::40] *= 1e4
    taken, real = [], tiles.squared_distances

    def counted(first: np.ndarray, i: np.ndarray, second: np.ndarray, j: np.ndarray) -> np.ndarray:
        taken.append(len(i))
        return real(first, i, second, j)

    monkeypatch.setattr(tiles, "squared_distances", counted)
    found = neighbour_metrics(x, y, neighbours=3)
    agree(found, by_definition(x, y, 3))
    assert sum(taken) < 0.1 * 3 * 200 * 200


def test_rarity_of_known_balls() -> None:
    """Rows 0, 1, 3, 7, 15 have the balls [-1, 1], [0, 2], [1, 5], [3, 11], [7, 23]."""
    reference = Balls.around(np.array([[0.0], [1], [3], [7], [15]]), 1)
    np.testing.assert_array_equal(reference.radii, [1, 1, 2, 4, 8])
    points = np.array([[-2.0], [0.5], [2], [2.5], [5], [6], [11], [12], [23], [23.5]])
    found = rarity_score(points, reference)
    np.testing.assert_array_equal(found.scores, [np.nan, 1, 1, 2, 2, 4, 4, 8, 8, np.nan])
    np.testing.assert_allclose(found.percentiles, [np.nan, 0.2, 0.2, 0.5, 0.5, 0.7, 0.7, 0.9, 0.9, np.nan])
    assert (found.mean.value, found.mean.n, found.undefined.n) == (3.75, 8, 10)
    assert found.undefined.value == pytest.approx(0.2)
    np.testing.assert_array_equal(found.inside, ~np.isnan(found.scores))
    # 1 lies in the ball of 0 (radius 1) and, on its edge, in that of 3; 15 lies in no other.
    np.testing.assert_array_equal(rarity_of_reference(reference).scores, [1, 1, 4, 8, np.nan])
    nothing = rarity_score(points[[0, -1]], reference)
    assert np.isnan(nothing.mean.value)
    assert (nothing.mean.n, nothing.undefined.value) == (0, 1)


@pytest.mark.slow
@pytest.mark.parametrize(("m", "n", "shift"), [(70, 60, 0.0), (50, 90, 1.0)])
def test_intervals_cover_the_values_expected_at_their_size(m: int, n: int, shift: float) -> None:
    random = np.random.default_rng(1)
    found: dict[str, list[Interval]] = {}
    for _ in range(40):
        metrics = neighbour_metrics(random.normal(shift, 1, (m, 2)), random.normal(size=(n, 2)), neighbours=3)
        for name, interval in {
            "p_precision": metrics.probabilistic.precision,
            "p_recall": metrics.probabilistic.recall,
            "clipped_density": metrics.clipped.density,
            "clipped_coverage": metrics.clipped.coverage,
            "rarity": metrics.rarity.mean,
            "percentile": metrics.rarity.percentile,
        }.items():
            found.setdefault(name, []).append(interval)
    for name, intervals in found.items():
        expected = np.mean([interval.value for interval in intervals])
        assert np.mean([interval.covers(expected) for interval in intervals]) >= 0.85, name
        assert all(interval.low <= interval.value <= interval.high for interval in intervals), name


def test_what_it_cannot_use() -> None:
    rows = np.random.default_rng(0).normal(size=(8, 2))
    with pytest.raises(EmptySet, match="reference features has 3 rows"):
        neighbour_metrics(rows, rows[:3], neighbours=3)
    with pytest.raises(EmptySet, match="generated features has 3 rows"):
        neighbour_metrics(rows[:3], rows, neighbours=3)
    with pytest.raises(EmptySet):
        neighbour_metrics(np.empty((0, 2)), rows)
    with pytest.raises(InvalidInput, match="All 8 rows of reference features are equal"):
        neighbour_metrics(rows, np.ones((8, 2)))
    with pytest.raises(InvalidInput, match="training features"):
        neighbour_metrics(rows, rows, np.ones((8, 2)))
    with pytest.raises(InvalidInput, match="NaN"):
        neighbour_metrics(np.where(rows > 1, np.nan, rows) * np.nan, rows)
    with pytest.raises(InvalidInput, match="columns"):
        neighbour_metrics(rows, rows[:, :1])
    with pytest.raises(InvalidInput, match="columns"):
        neighbour_metrics(rows, rows, rows[:, :1])
    with pytest.raises(InvalidInput, match="neighbours"):
        neighbour_metrics(rows, rows, neighbours=0)
    with pytest.raises(InvalidInput, match="above 1e"):
        neighbour_metrics(rows * 1e200, rows)
