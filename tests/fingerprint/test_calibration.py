"""P-values are those of Student's distribution, and combining them keeps their level."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest, t

from vestige.errors import InvalidInput
from vestige.fingerprint.calibration import MEASURED, Calibration, Floor, combined
from vestige.fingerprint.evidence.evidence import Finding

CALIBRATION = Calibration((("One", Floor(0.1, 0.2, 9)),), Floor(0.0, 0.0, 5), "made up")


def test_a_p_value_is_that_of_a_prediction_from_measured_pairs():
    found = CALIBRATION.p_value(Finding("One", 0.7, deviation=0.1))
    assert found == pytest.approx(t.sf((0.7 - 0.1) / math.sqrt((0.01 + 0.04) * (1 + 1 / 9)), 8))
    assert CALIBRATION.p_value(Finding("Other", 0.7, deviation=0.1)) == pytest.approx(t.sf(7 / math.sqrt(1.2), 4))
    assert CALIBRATION.p_value(Finding("One", None)) is None
    assert (CALIBRATION.p_value(Finding("Other", 1.0)), CALIBRATION.p_value(Finding("Other", 0.0))) == (0.0, 1.0)


def test_p_values_of_independent_models_are_uniform():
    """A floor measured on pairs drawn from the same law as the pair that is judged."""
    random, p_values = np.random.default_rng(0), []
    for _ in range(2000):
        seen = random.normal(0.3, 0.1, 8)
        floor = Floor(float(seen.mean()), float(seen.std(ddof=1)), 8)
        calibration = Calibration((), floor, "simulated")
        p_values.append(calibration.p_value(Finding("Any", float(random.normal(0.3, 0.1)))))
    assert kstest(p_values, "uniform").pvalue > 1e-3


@given(st.lists(st.floats(1e-12, 1), min_size=1, max_size=6))
def test_a_combined_p_value_is_one_and_falls_with_each(p_values):
    whole = combined(p_values)
    assert 0 < whole <= 1
    for place in range(len(p_values)):
        smaller = [*p_values[:place], p_values[place] / 10, *p_values[place + 1 :]]
        assert combined(smaller) <= whole + 1e-12


def test_one_p_value_combines_to_itself_and_none_to_one():
    for p in (1e-200, 1e-9, 0.01, 0.5):
        assert combined([p]) == pytest.approx(p, rel=1e-9)
    assert combined([]) == 1
    assert combined([0.0]) > 0
    assert combined([1e-9, 0.5, 0.9]) == pytest.approx(3e-9, rel=0.01)


def test_combining_keeps_the_level_whether_evidence_is_dependent_or_not():
    random, level = np.random.default_rng(1), 0.01
    alone = random.uniform(size=(20_000, 4))
    together = np.repeat(random.uniform(size=(20_000, 1)), 4, axis=1)
    for p_values in (alone, together):
        share = np.mean([combined(row) <= level for row in p_values.tolist()])
        assert share < level + 4 * math.sqrt(level / 20_000)


def test_floors_without_sense_are_refused():
    for wrong in ((0.0, 0.1, 1), (0.0, -0.1, 5), (math.nan, 0.1, 5)):
        with pytest.raises(InvalidInput):
            Floor(*wrong)
    assert MEASURED.floor("no such evidence") == MEASURED.other
