from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vestige.audit.geometry.estimate import Curve, Reading
from vestige.audit.geometry.levels import RATIOS
from vestige.audit.geometry.reading import at_ratio, mean_and_error, read
from vestige.errors import InvalidInput

X = np.array(RATIOS)


def curve(values, error=0.0, ambient=100, scale=X):
    values = np.atleast_2d(np.asarray(values, float))
    return Curve(scale, values, np.broadcast_to(np.asarray(error, float), values.shape), ambient)


def one(values, rule=Reading.PLATEAU, **rest):
    found = read(curve(values, **rest), rule)
    return found.value[0], found.error[0], int(found.level[0]), found.reading[0]


def test_a_plateau_between_two_slopes_is_read():
    value, error, level, reading = one([95, 80, 40, 20.5, 20, 20.2, 19.9, 20.1, 14, 6, 2])
    assert reading is Reading.PLATEAU
    assert value == 20.1
    assert 3 <= level <= 7
    assert error == pytest.approx(0.6 / np.sqrt(12), abs=1e-6)


def test_the_longest_wins_then_the_flattest_then_the_one_at_least_noise():
    assert one([50, 50, 50, 80, 30, 30, 30, 30, 60, 10, 90])[0] == pytest.approx(30)
    assert one([50, 51, 50, 80, 30, 30, 30, 60, 10, 90, 130])[0] == pytest.approx(30)
    assert one([50, 50, 50, 80, 30, 30, 30, 60, 10, 90, 130])[0] == pytest.approx(50)


def test_a_memorized_point_is_read_as_zero_though_the_curve_rises_later():
    value, error, _, reading = one([0, 0, 0, 0, 0, 0, 0.3, 8, 25, 33, 31], ambient=784)
    assert (value, reading) == (pytest.approx(0, abs=0.1), Reading.PLATEAU)
    assert value < 2 * error + 1e-9


def test_a_network_that_does_not_resolve_fine_noise_is_not_taken_for_data_of_full_dimension():
    assert one([99, 99, 99, 98, 97, 60, 30, 30, 30, 10, 2])[0] == pytest.approx(30)
    assert one([99, 99, 99, 98, 97, 60, 30, 10, 4, 1.5, 0.5])[0] == 99


def test_the_spread_is_covered_by_the_error_and_the_error_of_the_probes_widens_a_plateau():
    wavy = [18, 22, 18, 22, 18, 22, 18, 22, 18, 22, 22.5]
    assert one(wavy, ambient=40)[3] is not Reading.PLATEAU
    value, error, _, reading = one(wavy, error=4.5, ambient=40)
    assert reading is Reading.PLATEAU
    assert value == pytest.approx(22)
    assert error == pytest.approx(np.hypot(4.5, 4.5 / np.sqrt(12)))


def test_a_shoulder_is_read_before_a_plateau_beyond_it():
    # A network of dimension 4 in 10: unresolved, then the shape, then noise that blurs everything to one point.
    falling = [10, 10, 10, 9.8, 8.5, 5.7, 4.2, 3.8, 1.8, 0.1, 0.1]
    value, error, level, reading = one(falling, ambient=10)
    assert (reading, value) == (Reading.KNEE, pytest.approx(4.0))
    assert level in (6, 7)
    assert error == pytest.approx(0.4 / np.sqrt(12))
    assert one([10, 10, 10, 9.8, 8.5, 5.7, 0.1, 0.1, 0.1, 0.1, 0.1], ambient=10)[0] == pytest.approx(0.1)


def test_a_bend_without_a_plateau_is_a_knee():
    x = np.arange(11.0)
    falling = np.concatenate([100 - 18 * x[:6], 10 - 1.0 * (x[6:] - 5)])  # 10 at level 5, then ever slower
    value, error, level, reading = one(falling, rule=Reading.KNEE)
    assert (reading, level, value) == (Reading.KNEE, 5, 10)
    assert error == pytest.approx(19 / np.sqrt(12))
    # A curve that holds and then drops bends where the drop begins.
    dropping = np.concatenate([100 - 3 * x[:6], 85 - 16 * (x[6:] - 5)])
    assert one(dropping, rule=Reading.KNEE)[2] == 5


def test_a_straight_fall_shows_nothing():
    for rule in (Reading.PLATEAU, Reading.KNEE):
        value, error, level, reading = one(100 - 9.0 * np.arange(11), rule=rule)
        assert np.isnan(value)
        assert np.isnan(error)
        assert (level, reading) == (-1, Reading.NONE)
    rising = np.linspace(1, 90, 11) ** 1.5
    assert one(rising)[3] is Reading.NONE


def test_a_single_level_or_ratio_is_given():
    found = read(curve([[3.0], [np.nan]], error=0.5, scale=X[:1]))
    assert found.reading == (Reading.GIVEN, Reading.NONE)
    assert (found.value[0], found.error[0], found.level.tolist()) == (3.0, 0.5, [0, -1])
    fixed = at_ratio(curve(np.arange(11.0)), 0.09)
    assert (fixed.value[0], fixed.level[0], fixed.reading) == (5.0, 5, (Reading.GIVEN,))


def test_gaps_in_a_curve_are_stepped_over():
    values = [np.nan, 20, 20, np.nan, 20, 30, 30, 30, 30, np.nan, 1]
    assert one(values)[0] == pytest.approx(30)
    assert one([np.nan] * 11)[3] is Reading.NONE
    assert one([20, 20, np.nan] * 3 + [20, 20], rule=Reading.PLATEAU)[3] is Reading.NONE


def test_an_unknown_error_stays_unknown_on_a_plateau():
    value, error, _, reading = one([20.0] * 11, error=np.nan)
    assert (value, reading) == (20.0, Reading.PLATEAU)
    assert np.isnan(error)


@pytest.mark.parametrize("rule", [Reading.GIVEN, Reading.ATOM, Reading.NONE])
def test_other_rules_are_refused(rule):
    with pytest.raises(InvalidInput, match="rule of reading"):
        read(curve([20.0] * 11), rule)


@given(
    arrays(float, 11, elements=st.floats(-50, 500)),
    arrays(float, 11, elements=st.floats(0, 20)),
    st.floats(0.1, 10),
)
def test_what_is_read_lies_within_the_curve_and_knows_no_units(values, error, factor):
    found = read(curve(values, error))
    if found.reading[0] is Reading.NONE:
        assert np.isnan(found.value[0])
        assert found.level[0] == -1
    else:
        assert values.min() - 1e-9 <= found.value[0] <= values.max() + 1e-9
        assert found.error[0] >= 0
        assert 0 <= found.level[0] < 11
    # Noise measured in other units, and points that stand in other company, change nothing.
    again = read(curve([values, values[::-1]], [error, error[::-1]], scale=X * factor))
    assert again.reading[0] is found.reading[0]
    np.testing.assert_allclose(again.value[0], found.value[0], rtol=1e-6)


def test_mean_and_error_of_draws():
    draws = np.random.default_rng(0).standard_normal((2, 3, 50))
    mean, error = mean_and_error(draws)
    np.testing.assert_allclose(mean, draws.mean(2))
    np.testing.assert_allclose(error, draws.std(2, ddof=1) / np.sqrt(50))
    assert np.isnan(mean_and_error(draws[..., :1])[1]).all()
