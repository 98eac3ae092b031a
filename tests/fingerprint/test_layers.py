"""Layers are matched in order, by the best path there is."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vestige.fingerprint.layers import LEAST, cosines, level_of, match_layers

LEVEL = 0.2


def best_by_hand(similarity):
    rows, columns = similarity.shape
    totals = [0.0]
    for size in range(1, min(rows, columns) + 1):
        for ours in combinations(range(rows), size):
            for theirs in combinations(range(columns), size):
                totals.append(sum(similarity[i, j] - LEVEL for i, j in zip(ours, theirs, strict=True)))
    return max(totals)


@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_no_increasing_matching_is_better(rows, columns, seed):
    similarity = np.random.default_rng(seed).uniform(-1, 1, (rows, columns))
    found = match_layers(similarity, LEVEL)
    assert list(found.pairs) == sorted(found.pairs)
    for one, other in zip(found.pairs, found.pairs[1:], strict=False):
        assert one[0] < other[0]
        assert one[1] < other[1]
    assert sum(similarity[pair] - LEVEL for pair in found.pairs) == pytest.approx(best_by_hand(similarity))


@given(st.lists(st.integers(0, 11), unique=True, min_size=1).map(sorted), st.integers(0, 2**32 - 1))
def test_dropped_layers_are_named(kept, seed):
    random = np.random.default_rng(seed)
    layers = random.standard_normal((12, 200))
    found = match_layers(cosines(layers, layers[kept] + 0.3 * random.standard_normal((len(kept), 200))), LEVEL)
    assert found.pairs == tuple((layer, place) for place, layer in enumerate(kept))
    assert found.dropped == tuple(sorted(set(range(12)) - set(kept)))
    assert found.inserted == ()
    back = match_layers(found.similarity.T, LEVEL)
    assert back.inserted == found.dropped


def test_unrelated_layers_match_nothing():
    random = np.random.default_rng(0)
    assert match_layers(cosines(*random.standard_normal((2, 10, 400))), LEVEL).pairs == ()
    assert match_layers(np.full((2, 2), np.nan), LEVEL).pairs == ()


def test_cosines_of_zero_rows_are_zero():
    np.testing.assert_allclose(cosines(np.array([[3.0, 0], [0, 0]]), np.array([[1.0, 1]])), [[2**-0.5], [0]])


def test_chance_seldom_reaches_the_level():
    random = np.random.default_rng(1)
    for numbers in (100, 300):
        chance = cosines(*random.standard_normal((2, 40, numbers)))
        assert np.mean(chance >= level_of(numbers)) < 2e-3
    assert level_of(10**6) == LEAST
