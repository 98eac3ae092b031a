"""Verdicts from arrays whose truth is known, and their rate of false alarms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, theilslopes

from vestige.audit.geometry.line import robust_line
from vestige.audit.geometry.verdict import (
    Cause,
    Measured,
    Reason,
    Rule,
    calibrate,
    control,
    judge,
    low_threshold,
)
from vestige.errors import InvalidInput, ShapeMismatch


def measured(value, error=0.0):
    value = np.asarray(value, np.float64)
    return Measured(value, np.broadcast_to(np.asarray(error, np.float64), value.shape).copy())


def world(n, seed=0, spread=1.0):
    """Non-members: a reference around 20, and a model that sees twice that plus 5."""
    rng = np.random.default_rng(seed)
    reference = rng.normal(20, 3, n)
    return measured(5 + 2 * reference + rng.normal(0, spread, n)), measured(reference)


def test_the_line_is_that_of_scipy_and_ignores_outliers():
    rng = np.random.default_rng(0)
    x = rng.normal(size=80)
    y = 3 - 2 * x + rng.normal(0, 0.1, 80)
    y[:20] += 50
    line = robust_line(x, y)
    slope, *_ = theilslopes(y, x)
    assert line.slope == pytest.approx(slope)
    assert line.intercept == pytest.approx(np.median(y - slope * x))
    clean = robust_line(x[20:], y[20:])
    assert clean.spread == pytest.approx(0.1, rel=0.35)  # a standard deviation of 60 points, twice its error
    assert line.n == 80


def test_the_line_passes_over_what_is_unknown_and_needs_no_spread_in_x():
    line = robust_line(np.array([1.0, 1.0, np.nan, 1.0]), np.array([2.0, 4.0, 5.0, 3.0]))
    assert (line.slope, line.intercept, line.n) == (0.0, 3.0, 3)
    assert robust_line(np.empty(0), np.empty(0)).n == 0


def test_four_kinds_of_points_are_told_apart():
    model, reference = world(400)
    calibration = calibrate(model, reference, Rule(quantile=0.05))
    points = measured([0.0, 0.0, 45.0, np.nan, 0.0]), measured([20.0, 0.0, 20.0, 20.0, np.nan])
    found = judge(*points, calibration)
    assert found.reason == (
        Reason.GAP,
        Reason.BOTH_LOW,
        Reason.NOT_LOW,
        Reason.MODEL_UNKNOWN,
        Reason.REFERENCE_UNKNOWN,
    )
    assert found.cause == (Cause.OVERFITTING, Cause.DATA, Cause.NONE, Cause.UNDETERMINED, Cause.UNDETERMINED)
    assert found.memorized.tolist() == [True, True, False, False, False]
    assert found.low.tolist() == [True, True, False, False, True]
    assert found.gap[0] == pytest.approx(45, abs=1)


def test_the_systematic_gap_between_two_estimators_is_no_finding():
    """A model that reads twice the reference is normal; one that reads the reference itself is far too low."""
    model, reference = world(400)
    calibration = calibrate(model, reference, Rule())
    assert calibration.expected is not None
    assert calibration.expected.slope == pytest.approx(2, abs=0.1)
    dims = np.array([17.0, 20.0, 25.0])
    assert not judge(measured(5 + 2 * dims), measured(dims), calibration).memorized.any()
    assert judge(measured(dims), measured(dims), calibration).are(Cause.OVERFITTING).all()


def test_a_low_point_whose_gap_is_within_its_error_is_undetermined():
    model, reference = world(400)
    calibration = calibrate(model, reference, Rule())
    value = calibration.low - 0.01
    assert calibration.expected is not None
    near = measured([(value + 1 - calibration.expected.intercept) / calibration.expected.slope])
    sure = judge(measured([value - 20]), measured([20.0]), calibration)
    unsure = judge(measured([value], 30.0), near, calibration)
    assert sure.reason == (Reason.GAP,)
    assert unsure.reason == (Reason.NO_GAP,)
    assert unsure.gap_error[0] > 30


def test_a_low_reference_explains_a_model_only_down_to_what_it_leads_to_expect():
    """Where non-members reach, a gap beyond chance is the model's; below all of them nothing is known of the gap."""
    model, reference = world(400)
    calibration = calibrate(model, reference, Rule())
    line, between = calibration.expected, (calibration.reference_least + calibration.reference_low) / 2
    assert line is not None
    assert calibration.reference_least < between < calibration.reference_low
    expected = float(line.at(np.array([between]))[0])
    beyond, within = (judge(measured([value]), measured([between]), calibration) for value in (0.0, expected))
    below = judge(measured([0.0]), measured([calibration.reference_least - 0.1]), calibration)
    assert beyond.reason == (Reason.GAP,)
    assert within.reason[0] in (Reason.BOTH_LOW, Reason.NOT_LOW)
    assert below.reason == (Reason.BOTH_LOW,)


def test_without_a_reference_the_cause_stays_open():
    model, _ = world(100)
    found = judge(measured([0.0, 45.0]), None, calibrate(model, None, Rule()))
    assert found.reason == (Reason.NO_REFERENCE, Reason.NOT_LOW)


def test_a_simple_image_is_not_memorized_for_being_simple():
    """Both points are low; what complexity leaves of the first is nothing, of the second too little."""
    model, reference = world(400)
    usual = np.random.default_rng(5).normal(size=400)
    calibration = calibrate(model, reference, Rule(), usual)
    found = judge(measured([10.0, 10.0]), measured([20.0, 20.0]), calibration, np.array([0.0, -40.0]))
    assert found.reason == (Reason.SIMPLE, Reason.GAP)
    assert found.cause[0] is Cause.NONE
    assert found.low.tolist() == [False, True]
    asked = control(model, reference, Rule(), 0, usual)
    assert asked.low.sum() < control(model, reference, Rule(), 0).low.sum()


def test_too_few_non_members_leave_everything_undetermined():
    model, reference = world(18)
    calibration = calibrate(model, reference, Rule(quantile=0.05))
    assert not calibration.possible
    assert set(judge(model, reference, calibration).reason) == {Reason.UNCALIBRATED}
    assert Rule(quantile=0.05).fewest == 19
    assert calibrate(*world(19), Rule(quantile=0.05)).possible
    assert Rule(quantile=0.01).fewest == 99


def test_the_spread_around_the_line_is_not_counted_twice():
    """Residuals of 3 that the standard errors of both explain leave nothing; unexplained ones stay."""
    rng = np.random.default_rng(1)
    truth = rng.normal(20, 5, 4000)
    noisy = measured(truth + rng.normal(0, 3, 4000), 3.0)
    explained = calibrate(noisy, measured(truth), Rule())
    unexplained = calibrate(measured(noisy.value), measured(truth), Rule())
    assert unexplained.extra == pytest.approx(3, rel=0.05)
    assert explained.extra < 1
    error = judge(measured([10.0], 3.0), measured([20.0]), explained).gap_error
    assert error[0] == pytest.approx(3, rel=0.1)


def test_the_rate_of_false_alarms_is_at_most_the_quantile():
    """400 non-members, a quantile of 5 %: more than 33 alarms have a probability below 1 % under the promised rate."""
    model, reference = world(400, seed=3)
    found = control(model, reference, Rule(quantile=0.05), seed=0)
    assert found.low.sum() <= binom.ppf(0.99, 400, 0.05)
    assert found.memorized.sum() <= found.low.sum()
    assert found.low.sum() > 0


def test_the_control_keeps_the_order_of_its_points():
    model, reference = world(50)
    value = model.value.copy()
    value[7] = -1000.0
    found = control(Measured(value, model.error), reference, Rule(), seed=0)
    assert found.reason[7] is Reason.GAP
    assert int(np.argmax(found.gap)) == 7


@given(
    st.lists(st.floats(-50, 50), min_size=19, max_size=60),
    st.floats(-60, 60),
    st.sampled_from([0.01, 0.05, 0.1, 0.3]),
)
@settings(max_examples=60, deadline=None)
def test_low_means_a_rank_among_non_members_within_the_quantile(values, point, quantile):
    calibration = calibrate(measured(values), None, Rule(quantile=quantile))
    found = judge(measured([point]), None, calibration)
    share = (1 + sum(v <= point for v in values)) / (len(values) + 1)
    assert found.p[0] == pytest.approx(share)
    assert bool(found.low[0]) == (share <= quantile + 1e-12)


@given(st.lists(st.floats(-50, 50), min_size=3, max_size=40), st.sampled_from([0.05, 0.2, 0.4]))
@settings(max_examples=40, deadline=None)
def test_at_most_the_quantile_lies_below_the_threshold(values, quantile):
    limit = low_threshold(np.array(values), quantile)
    if np.isfinite(limit):
        assert (np.array(values) < limit).mean() <= quantile


def test_bad_input_is_refused():
    with pytest.raises(InvalidInput):
        Rule(quantile=0.0)
    with pytest.raises(ShapeMismatch):
        Measured(np.zeros(2), np.zeros(3))
    model, reference = world(30)
    with pytest.raises(ShapeMismatch):
        calibrate(model, reference.take(np.arange(5)), Rule())
