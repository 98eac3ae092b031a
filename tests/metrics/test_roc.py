from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, special, stats

from vestige.errors import EmptySet, InvalidInput
from vestige.metrics.interval import Interval, clopper_pearson
from vestige.metrics.roc import auc, either_way, exceeds_chance, roc, shuffled_control, tpr_at_fpr

tied = st.lists(st.integers(-4, 4), min_size=1, max_size=25)
free = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=25)
scores = tied | free
rates = st.sampled_from([0.001, 0.01, 0.07, 0.1, 0.25, 0.29, 0.5, 0.9])


def comparisons(members: object, others: object) -> np.ndarray:
    """1, 1/2 or 0 for every pair: the definition of the Mann-Whitney statistic."""
    x, y = np.asarray(members, float)[:, None], np.asarray(others, float)[None, :]
    return (x > y) + 0.5 * (x == y)


@given(scores, scores)
def test_every_point_is_a_count(members: list[float], others: list[float]) -> None:
    curve = roc(members, others)
    assert (curve.fpr[0], curve.tpr[0], curve.thresholds[0]) == (0, 0, np.inf)
    assert (curve.fpr[-1], curve.tpr[-1]) == (1, 1)
    assert np.all(np.diff(curve.thresholds) < 0)
    for fpr, tpr, threshold in zip(curve.fpr, curve.tpr, curve.thresholds, strict=True):
        assert fpr == np.mean([score >= threshold for score in others])
        assert tpr == np.mean([score >= threshold for score in members])
    assert curve.area() == pytest.approx(comparisons(members, others).mean(), abs=1e-12)


@given(scores, scores)
def test_corners_draw_the_same_curve(members: list[float], others: list[float]) -> None:
    curve, corners = roc(members, others), roc(members, others).corners()
    points = set(zip(curve.fpr, curve.tpr, curve.thresholds, strict=True))
    assert set(zip(corners.fpr, corners.tpr, corners.thresholds, strict=True)) <= points
    assert corners.area() == pytest.approx(curve.area(), abs=1e-12)
    assert (corners.fpr[-1], corners.tpr[-1]) == (1, 1)


def test_corners_drop_runs() -> None:
    corners = roc([5, 6, 7, 8], [1, 2, 3, 4]).corners()
    np.testing.assert_array_equal(corners.fpr, [0, 0, 1])
    np.testing.assert_array_equal(corners.tpr, [0, 1, 1])


@given(scores, scores)
def test_curve_and_area_equal_scikit_learn(members: list[float], others: list[float]) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    truth = np.r_[np.ones(len(members)), np.zeros(len(others))]
    fpr, tpr, thresholds = metrics.roc_curve(truth, [*members, *others], drop_intermediate=False)
    curve = roc(members, others)
    np.testing.assert_allclose(curve.fpr, fpr)
    np.testing.assert_allclose(curve.tpr, tpr)
    np.testing.assert_array_equal(curve.thresholds, thresholds)
    assert auc(members, others).value == pytest.approx(metrics.roc_auc_score(truth, [*members, *others]), abs=1e-12)


@given(scores, scores)
def test_auc_is_the_share_of_won_pairs_inside_its_interval(members: list[float], others: list[float]) -> None:
    found = auc(members, others)
    assert found.value == pytest.approx(comparisons(members, others).mean(), abs=1e-12)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.high - found.low > 0
    assert found.n == len(members) + len(others)


@given(scores, scores)
def test_swapping_the_groups_mirrors_auc(members: list[float], others: list[float]) -> None:
    one, two = auc(members, others), auc(others, members)
    assert (one.value, one.low, one.high) == pytest.approx((1 - two.value, 1 - two.high, 1 - two.low), abs=1e-9)


@given(tied, tied, st.integers(-50, 50), st.integers(1, 9))
def test_only_the_order_of_scores_matters(members: list[int], others: list[int], shift: int, scale: int) -> None:
    for rising in (lambda v: scale * v + shift, lambda v: v**3, lambda v: math.exp(v)):
        one, two = roc(members, others), roc([rising(v) for v in members], [rising(v) for v in others])
        np.testing.assert_array_equal(one.fpr, two.fpr)
        np.testing.assert_array_equal(one.tpr, two.tpr)
        assert auc(members, others) == auc([rising(v) for v in members], [rising(v) for v in others])


@pytest.mark.parametrize("ties", [False, True])
def test_interval_has_the_error_of_delong_and_the_degrees_of_brunner_and_munzel(ties: bool) -> None:
    random = np.random.default_rng(0)
    x, y = random.normal(0.5, 1, 30), random.normal(0, 2, 45)
    if ties:
        x, y = np.round(x), np.round(y)
    wins, found = comparisons(x, y), auc(x, y)
    by_member, by_other = wins.mean(axis=1), wins.mean(axis=0)
    error = math.sqrt(by_member.var(ddof=1) / 30 + by_other.var(ddof=1) / 45)
    logits = np.log([found.low / (1 - found.low), found.value / (1 - found.value), found.high / (1 - found.high)])
    steps = np.diff(logits) * found.value * (1 - found.value) / error
    assert steps[0] == pytest.approx(steps[1])
    # scipy's test gives |A - 1/2| / error as statistic and, through its p-value, the degrees of freedom.
    test = stats.brunnermunzel(x, y)
    assert abs(found.value - 0.5) / error == pytest.approx(abs(test.statistic))
    degrees = optimize.brentq(lambda k: 2 * stats.t.sf(abs(test.statistic), k) - test.pvalue, 5, 500)
    assert steps[0] == pytest.approx(stats.t.ppf(0.975, degrees), rel=1e-6)


@pytest.mark.parametrize("members", [[3, 4, 5, 6], [2.9, 2.9, 3.1], np.arange(2.5, 9, 0.5)])
def test_few_losing_rows_widen_to_the_score_interval(members: list[float]) -> None:
    x, y = np.asarray(members, float), np.arange(40) / 12.0
    found, m, n = auc(x, y), len(x), 40

    def excess(t: float) -> float:
        shape = 1 + ((m + n) / 2 - 1) * ((1 - t) / (2 - t) + t / (1 + t))
        return (found.value - t) ** 2 - stats.norm.ppf(0.975) ** 2 * t * (1 - t) / (m * n) * shape

    wins = comparisons(x, y)
    parts = wins.mean(axis=1).var(ddof=1) / m, wins.mean(axis=0).var(ddof=1) / n
    degrees = sum(parts) ** 2 / (parts[0] ** 2 / (m - 1) + parts[1] ** 2 / (n - 1))
    half = stats.t.ppf(0.975, degrees) * math.sqrt(sum(parts)) / (found.value * (1 - found.value))
    delong = [special.expit(special.logit(found.value) + side * half) for side in (-1, 1)]
    score = optimize.brentq(excess, 1e-9, found.value), optimize.brentq(excess, found.value, 1 - 1e-9)
    assert found.low == pytest.approx(min(delong[0], score[0]))
    assert found.high == pytest.approx(max(delong[1], score[1]))


def test_complete_separation_and_complete_ties_keep_an_honest_interval() -> None:
    perfect = auc([2, 3, 4], [0, 1, 1, 1])
    assert (perfect.value, perfect.low, perfect.high) == (1, clopper_pearson(3, 3).low, 1)
    worst = auc([0, 0], [1, 2])
    assert (worst.value, worst.low, worst.high) == (0, 0, clopper_pearson(0, 2).high)
    level = auc([7] * 10, [7] * 10)
    assert (level.value, level.low, level.high) == (0.5, clopper_pearson(5, 10).low, clopper_pearson(5, 10).high)
    single = auc([0.95], np.arange(100) / 100)
    assert single.low < 0.05
    assert single.high > 0.99


@pytest.mark.parametrize(
    ("m", "n", "truth"),
    [(200, 200, 0.5), (30, 30, 0.8), (30, 30, 0.99), (10, 10, 0.9), (4, 200, 0.7), (300, 15, 0.98), (3, 3, 0.6)],
)
def test_auc_interval_covers_the_promised_share(m: int, n: int, truth: float) -> None:
    random = np.random.default_rng(0)
    shift = math.sqrt(2) * stats.norm.ppf(truth)
    draws = [(random.normal(shift, 1, m), random.normal(0, 1, n)) for _ in range(200)]
    covered = np.mean([auc(*draw).covers(truth) for draw in draws])
    assert covered >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / 200)
    if min(m, n) >= 30 and truth < 0.9:
        assert covered <= 0.985


@given(scores, scores, rates)
def test_tpr_at_fpr_takes_the_lowest_threshold_that_keeps_the_bound(
    members: list[float], others: list[float], fpr: float
) -> None:
    found = tpr_at_fpr(members, others, fpr)
    false = sum(score >= found.threshold for score in others)
    assert found.achieved_fpr == false / len(others) <= fpr
    hits = sum(score >= found.threshold for score in members)
    assert found.interval == clopper_pearson(hits, len(members))
    lower = [score for score in {*members, *others} if score < found.threshold]
    if lower:
        assert sum(score >= max(lower) for score in others) / len(others) > fpr
    assert found.enough_negatives == (len(others) * fpr >= 10 - 1e-9)


def test_tpr_at_fpr_by_hand() -> None:
    negatives = np.arange(1000.0)
    found = tpr_at_fpr([990.0, 989.5, 989.0, 2000.0], negatives, 0.01)
    assert (found.threshold, found.achieved_fpr, found.interval.value) == (989.5, 0.01, 0.75)
    assert found.enough_negatives
    assert not tpr_at_fpr([1.0], negatives[1:], 0.01).enough_negatives
    assert tpr_at_fpr([1.0], np.arange(10_000.0), 0.001).enough_negatives
    assert tpr_at_fpr([1.0], np.arange(100.0), 0.29).achieved_fpr == 0.29


def test_a_tie_with_the_best_non_members_is_no_detection() -> None:
    found = tpr_at_fpr([1, 1, 1], [1, 1, 0], 0.5)
    assert (found.threshold, found.achieved_fpr, found.interval.value) == (math.inf, 0, 0)


@pytest.mark.parametrize("fpr", [0.0, 1.0, -0.1, math.nan])
def test_tpr_at_fpr_refuses_a_bound_that_is_none(fpr: float) -> None:
    with pytest.raises(InvalidInput, match="fpr"):
        tpr_at_fpr([1.0], [0.0], fpr)


def test_shuffled_control_covers_one_half_for_most_seeds() -> None:
    members, others = np.arange(100.0, 160.0), np.arange(80.0)
    assert auc(members, others).value == 1
    controls = [shuffled_control(members, others, seed) for seed in range(150)]
    assert np.mean([control.covers(0.5) for control in controls]) == pytest.approx(0.95, abs=0.05)
    assert {control.n for control in controls} == {140}
    assert controls[7] == shuffled_control(members, others, 7)
    assert len({control.value for control in controls}) > 50


small = st.integers(0, 30)


@given(small, small, small, small)
def test_exceeds_chance_is_fishers_test(a: int, b: int, c: int, d: int) -> None:
    m, n = a + b + 1, c + d + 1
    theirs = stats.fisher_exact([[a, m - a], [c, n - c]], alternative="greater").pvalue
    assert exceeds_chance(a, m, c, n) == pytest.approx(theirs, rel=1e-9)


def test_exceeds_chance_at_scale_and_at_its_edges() -> None:
    theirs = stats.hypergeom.sf(59, 100_000, 80, 50_000)
    assert exceeds_chance(60, 50_000, 20, 50_000) == pytest.approx(theirs, rel=1e-6)
    assert exceeds_chance(0, 10, 0, 10) == 1
    assert exceeds_chance(10, 10, 10, 10) == 1
    assert exceeds_chance(3, 3, 0, 3) == pytest.approx(1 / 20)
    with pytest.raises(InvalidInput, match="matches_members"):
        exceeds_chance(4, 3, 0, 3)
    with pytest.raises(InvalidInput, match="n_non_members"):
        exceeds_chance(1, 3, 0, 0)


def test_exceeds_chance_keeps_its_level() -> None:
    random = np.random.default_rng(0)
    counts = random.binomial(200, 0.05, size=(400, 2))
    assert np.mean([exceeds_chance(int(a), 200, int(b), 200) <= 0.05 for a, b in counts]) <= 0.05 + 0.02


@pytest.mark.parametrize(
    "function", [roc, auc, lambda a, b: tpr_at_fpr(a, b, 0.1), lambda a, b: shuffled_control(a, b, 0)]
)
def test_scores_must_be_numbers(function: object) -> None:
    for bad, error in (([], EmptySet), ([math.nan], InvalidInput), ([math.inf], InvalidInput), ([[1.0]], InvalidInput)):
        with pytest.raises(error):
            function([1.0, 2.0], bad)  # type: ignore[operator]
        with pytest.raises(error):
            function(bad, [1.0, 2.0])  # type: ignore[operator]


@pytest.mark.parametrize(
    ("area", "folded"),
    [
        (Interval(0.7, 0.6, 0.8, 5), Interval(0.7, 0.6, 0.8, 5)),
        (Interval(0.3, 0.2, 0.4, 5), Interval(0.7, 0.6, 0.8, 5)),
        (Interval(0.45, 0.3, 0.6, 5), Interval(0.55, 0.5, 0.7, 5)),
    ],
)
def test_an_auc_either_way_ignores_the_side(area: Interval, folded: Interval) -> None:
    found = either_way(area)
    assert (found.value, found.low, found.high) == pytest.approx((folded.value, folded.low, folded.high))
