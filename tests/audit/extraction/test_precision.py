from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from vestige.audit.extraction.budget import Budget
from vestige.audit.extraction.precision import Claim, Curve, claims_series, curve_figure, pooled_precision
from vestige.audit.extraction.search import Search
from vestige.metrics.interval import clopper_pearson

ranks = st.lists(st.one_of(st.sampled_from([0.0, 0.5, 1.0, 1.3, np.inf]), st.floats(0, 2)), min_size=1, max_size=12)


@given(ranks, ranks)
def test_the_curve_equals_counting_at_every_threshold(inside: list[float], outside: list[float]) -> None:
    curve = Curve.of(np.array(inside), np.array(outside))
    assert curve.threshold.tolist() == sorted({r for r in inside if r < np.inf})
    for threshold, true, false in zip(curve.threshold, curve.true, curve.false, strict=True):
        assert (true, false) == (sum(r <= threshold for r in inside), sum(r <= threshold for r in outside))
    lowest = min(outside)
    clean = next(part for part in curve.summary() if part.name.endswith("false_matches=0"))
    assert clean.value == sum(r < lowest for r in inside if r < np.inf)


@given(st.integers(0, 20), st.integers(0, 20), st.integers(1, 9))
def test_pools_of_one_size_give_the_plain_proportion(true: int, false: int, times: int) -> None:
    if true + false == 0:
        return
    plain = clopper_pearson(true, true + false)
    found = pooled_precision(true, 50, false, 50)
    assert (found.value, found.low, found.high) == pytest.approx((plain.value, plain.low, plain.high))
    # A pool of non-members that is smaller stands for more of them; its interval is no narrower for that.
    scaled = pooled_precision(true, 50 * times, false, 50)
    assert scaled.value == pytest.approx(true / (true + false * times))
    assert scaled.low <= scaled.value <= scaled.high


def test_unequal_pools_keep_their_coverage() -> None:
    random = np.random.default_rng(0)
    truth, members, others = 2 / 3, 200, 50  # rates 0.2 and 0.1: precision 2/3 in pools of one size
    covered = 0
    for _ in range(400):
        true, false = random.binomial(members, 0.2), random.binomial(others, 0.1)
        covered += pooled_precision(int(true), members, int(false), others).covers(truth)
    assert covered / 400 > 0.93


def test_a_search_without_spread_is_ranked_by_delta() -> None:
    search = Search(np.array([0, 0, 2]), np.array([0.0, 0.2, 0.1]), np.array([np.nan, np.nan, 0.7]))
    assert search.rank(0.05).tolist() == [0, np.inf, 0.7]
    assert search.copies(0.05).tolist() == [True, False, True]
    assert search.found(0.05).tolist() == [0, 2]
    assert search.best(3, 0.05).tolist() == [0, np.inf, 0.7]


@pytest.mark.parametrize(("least", "size"), [(10, 4), (100, 10), (4, 4), (1000, 2)])
def test_the_detectable_rate_is_the_binomial_one(least: int, size: int) -> None:
    rate = Budget(least, 1, least, least).detectable(size)
    assert rate is not None
    assert stats.binom(least, rate).sf(size - 1) == pytest.approx(0.95)


def test_a_budget_counts_by_condition() -> None:
    budget = Budget.of(7, np.array([0, 1, 2, 0, 1, 2, 0]))
    assert budget == Budget(7, 3, 2, 3)
    assert budget.detectable(3) is None
    assert Budget.of(7, None) == Budget(7, 1, 7, 7)


def test_claims_are_counted_in_their_order() -> None:
    claims = [Claim((0, 1), 0.01, None, (4,)), Claim((2, 3), 0.02, None, (4, 5)), Claim((6, 7), 0.03, None, ())]
    series = claims_series(claims)
    assert series.x == [1, 2, 2]
    assert series.y == pytest.approx([1, 1, 2 / 3])
    assert curve_figure(None, []) is None
