from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from vestige.errors import EmptySet, InvalidInput
from vestige.metrics.interval import (
    Interval,
    bootstrap,
    clopper_pearson,
    estimate,
    mean_interval,
    ratio_interval,
    wilson,
)

counts = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
levels = st.floats(0.5, 0.999)


@given(counts, levels)
def test_binomial_intervals_equal_scipy(pair: tuple[int, int], confidence: float) -> None:
    test = stats.binomtest(*pair)
    for ours, method in ((clopper_pearson, "exact"), (wilson, "wilson")):
        found, theirs = ours(*pair, confidence), test.proportion_ci(confidence, method)
        assert (found.value, found.n) == (pair[0] / pair[1], pair[1])
        assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
        assert 0 <= found.low <= found.value <= found.high <= 1


@given(counts)
def test_binomial_intervals_mirror(pair: tuple[int, int]) -> None:
    s, n = pair
    for method in (clopper_pearson, wilson):
        assert method(s, n).low == pytest.approx(1 - method(n - s, n).high, abs=1e-12)


def exact_coverage(method: object, n: int, p: float) -> float:
    """Sum of the binomial probabilities of the counts whose interval holds p."""
    return sum(stats.binom.pmf(s, n, p) for s in range(n + 1) if method(s, n).covers(p))  # type: ignore[operator]


@pytest.mark.parametrize("n", [1, 7, 30])
def test_clopper_pearson_never_covers_less_than_promised(n: int) -> None:
    coverage = [exact_coverage(clopper_pearson, n, p) for p in np.linspace(0.003, 0.997, 30)]
    assert min(coverage) >= 0.95


def test_wilson_covers_the_promised_share_on_average() -> None:
    coverage = [exact_coverage(wilson, 30, p) for p in np.linspace(0.05, 0.95, 40)]
    assert np.mean(coverage) == pytest.approx(0.95, abs=0.01)


def test_no_trials_is_not_a_rate() -> None:
    with pytest.raises(EmptySet):
        clopper_pearson(0, 0)
    for successes in (-1, 4):
        with pytest.raises(InvalidInput):
            wilson(successes, 3)
    with pytest.raises(InvalidInput, match="confidence"):
        clopper_pearson(1, 3, 95.0)


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=30).filter(lambda v: np.ptp(v) > 1e-3), levels)
def test_mean_interval_equals_student(values: list[float], confidence: float) -> None:
    theirs = stats.t.interval(confidence, len(values) - 1, np.mean(values), stats.sem(values))
    found = mean_interval(values, confidence)
    assert (found.low, found.high) == pytest.approx(theirs, rel=1e-9, abs=1e-9)


def test_mean_interval_at_its_edges() -> None:
    assert mean_interval([0.3]) == Interval(0.3, -math.inf, math.inf, 1)
    assert mean_interval([0.3], within=(0, 1)) == Interval(0.3, 0, 1, 1)
    assert mean_interval([0.1, 0.1, 0.1]) == Interval(0.1, 0.1, 0.1, 3)
    cut = mean_interval([0.0, 0.0, 1.0], within=(0, 1))
    assert (cut.low, cut.high) == (0, 1)


@pytest.mark.parametrize("values", [[math.nan, 1.0], [math.inf], ["a"], [[1.0, 2.0]]])
def test_mean_interval_refuses(values: list[object]) -> None:
    with pytest.raises(InvalidInput):
        mean_interval(np.array(values))
    with pytest.raises(EmptySet):
        mean_interval([])


def mean(values: np.ndarray) -> float:
    return float(values.mean())


def gap(first: np.ndarray, second: np.ndarray) -> float:
    return float(first.mean() - second.mean())


def test_bootstrap_of_a_mean_is_the_normal_interval() -> None:
    values = np.random.default_rng(0).normal(size=400)
    found = bootstrap(mean, values, seed=3, repeats=2000)
    half = 1.96 * values.std() / 20
    assert (found.value, found.n) == (values.mean(), 400)
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.15 * half)


def test_bootstrap_bounds_are_order_statistics_of_the_replicates() -> None:
    seen: list[float] = []

    def recorded(values: np.ndarray) -> float:
        seen.append(mean(values))
        return seen[-1]

    for repeats, confidence, place in ((999, 0.95, 25), (1000, 0.95, 25), (39, 0.95, 1), (99, 0.8, 10)):
        seen.clear()
        found = bootstrap(recorded, np.arange(50.0), seed=0, repeats=repeats, confidence=confidence)
        assert seen[0] == found.value == 24.5
        replicates = sorted(seen[1:])
        assert (found.low, found.high) == (replicates[place - 1], replicates[-place])


def test_bootstrap_covers_the_promised_share() -> None:
    random = np.random.default_rng(1)
    samples = random.exponential(size=(100, 60))
    covered = np.mean([bootstrap(mean, sample, seed=i, repeats=99).covers(1.0) for i, sample in enumerate(samples)])
    assert 0.86 <= covered <= 0.99


def test_pairs_are_kept_or_broken_as_asked() -> None:
    random = np.random.default_rng(2)
    base = random.normal(size=200)
    near = base + 0.01 * random.normal(size=200)
    paired, free = (bootstrap(gap, base, near, seed=0, repeats=400, paired=flag) for flag in (True, False))
    expected = 2 * 1.96 * math.sqrt(base.var() / 100)
    assert paired.high - paired.low < 0.01
    assert free.high - free.low == pytest.approx(expected, rel=0.15)
    assert (paired.n, free.n) == (200, 400)


def test_bootstrap_is_a_function_of_its_seed() -> None:
    values = np.arange(20.0)
    assert bootstrap(mean, values, seed=5) == bootstrap(mean, values, seed=5)
    assert bootstrap(mean, values, seed=5) != bootstrap(mean, values, seed=6)


def test_bootstrap_resamples_rows_of_matrices() -> None:
    rows = np.stack([np.arange(30.0), -np.arange(30.0)], axis=1)
    found = bootstrap(lambda drawn: float(np.abs(drawn.sum(axis=1)).max()), rows, seed=0, repeats=50)
    assert (found.low, found.high) == (0, 0)


def test_bootstrap_refuses() -> None:
    with pytest.raises(EmptySet):
        bootstrap(mean, [], seed=0)
    with pytest.raises(EmptySet):
        bootstrap(mean, seed=0)
    with pytest.raises(InvalidInput, match="paired"):
        bootstrap(gap, [1, 2], [1, 2, 3], seed=0, paired=True)
    with pytest.raises(InvalidInput, match="39"):
        bootstrap(mean, [1, 2], seed=0, repeats=38)
    with pytest.raises(InvalidInput, match="seed"):
        bootstrap(mean, [1, 2], seed=-1)
    assert bootstrap(mean, [4.0], seed=0) == Interval(4.0, -math.inf, math.inf, 1)


def test_ratio_interval_agrees_with_the_delta_method() -> None:
    random = np.random.default_rng(4)
    bottom = random.gamma(4, size=500)
    top = 0.3 * bottom + 0.1 * random.normal(size=500)
    found = ratio_interval(top, bottom, seed=0, repeats=1000)
    error = (top - found.value * bottom).std() / bottom.mean() / math.sqrt(500)
    assert found.value == pytest.approx(top.sum() / bottom.sum())
    assert (found.low, found.high) == pytest.approx((found.value - 1.96 * error, found.value + 1.96 * error), abs=error)


def test_a_ratio_whose_denominator_may_vanish_is_unbounded() -> None:
    found = ratio_interval([1, 0, 1], [1, 0, 0], seed=0)
    assert (found.value, found.low, found.high) == (2.0, -math.inf, math.inf)
    with pytest.raises(InvalidInput, match="zero"):
        ratio_interval([1, 2], [0, 0], seed=0)


def test_estimate_keeps_numbers_and_drops_infinities() -> None:
    line = estimate("membership/auc", Interval(0.7, 0.6, 0.8, 40), "share", "a note")
    assert line.model_dump() == {
        "name": "membership/auc", "value": 0.7, "low": 0.6, "high": 0.8, "n": 40, "unit": "share", "note": "a note",
    }  # fmt: skip
    line = estimate("x", mean_interval([2.0]))
    assert (line.value, line.low, line.high, line.n) == (2.0, None, None, 1)
