"""Shares of merged models are found, laundered or not."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vestige.errors import InvalidInput, Unsupported
from vestige.fingerprint.alignment import Basis, align
from vestige.fingerprint.launder.fold_gains import FoldGains
from vestige.fingerprint.launder.launder import laundered
from vestige.fingerprint.launder.linear_merge import LinearMerge
from vestige.fingerprint.launder.neuron_permutation import NeuronPermutation
from vestige.fingerprint.launder.noise import Noise
from vestige.fingerprint.launder.residual_permutation import ResidualPermutation
from vestige.fingerprint.launder.residual_rotation import ResidualRotation, orthogonal
from vestige.fingerprint.launder.residual_signs import ResidualSigns
from vestige.fingerprint.merge import foreign_share, merge_shares


def values(found):
    return [interval.value for interval in found.shares]


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_siblings_of_one_base_are_told_apart(model, share):
    base = model(layers=3)
    first, second = Noise(0.1).apply(base, 1), Noise(0.1).apply(base, 2)
    child = LinearMerge(second, share).apply(first, 0)
    found = merge_shares(child, [first, second])
    # Gains are mixed too, and a product of two mixtures is no mixture: all but exact.
    assert values(found) == pytest.approx([1 - share, share], abs=0.01)
    assert found.unexplained < 0.01
    assert all(interval.low <= interval.value <= interval.high for interval in found.shares)


def test_a_laundered_merge_is_taken_apart_all_the_same(model):
    base = model(layers=3)
    first, second = Noise(0.1).apply(base, 1), Noise(0.1).apply(base, 2)
    child = LinearMerge(second, 0.3).apply(first, 0)
    for steps in ((ResidualPermutation(), ResidualSigns(), NeuronPermutation()), (FoldGains(), ResidualRotation())):
        found = merge_shares(laundered(child, steps, 0), [first, second])
        assert values(found) == pytest.approx([0.7, 0.3], abs=0.05)


def test_parents_that_learnt_the_same_are_told_apart(model):
    """Their words lie alike up to a rotation, which a fit of one parent alone takes for its basis."""
    first, second = (laundered(model(seed=seed, layers=3), (FoldGains(),), 0) for seed in (0, 1))
    turn = orthogonal(np.random.default_rng(0), first.width)
    second = replace(second, table=(first.table @ turn).astype(np.float32) + 0.3 * second.table)
    child = LinearMerge(second, 0.3).apply(first, 0)
    assert align(child.table, second.table).basis is Basis.ROTATED
    found = merge_shares(child, [first, second])
    assert values(found) == pytest.approx([0.7, 0.3], abs=0.01)
    assert found.unexplained < 0.05


def test_what_no_parent_explains_is_said(model):
    base, stranger = model(), model(seed=1)
    found = merge_shares(LinearMerge(stranger, 0.3).apply(base, 0), [base])
    assert found.unexplained > 0.3
    assert merge_shares(base, [base]).unexplained < 1e-6
    assert values(merge_shares(base, [base])) == pytest.approx([1], abs=1e-6)


@given(st.floats(0.01, 0.9))
def test_the_share_of_an_unknown_parent_is_that_of_orthogonal_weights(share):
    cosine = (1 - share) / math.hypot(1 - share, share)
    assert foreign_share(cosine) == pytest.approx(share)


def test_questions_without_sense_are_refused(model):
    base = model()
    with pytest.raises(InvalidInput, match="No parents"):
        merge_shares(base, [])
    with pytest.raises(InvalidInput, match="same weights"):
        merge_shares(base, [base, base])
    with pytest.raises(Unsupported, match="one shape"):
        merge_shares(base, [model(layers=3)])
    for wrong in (0.0, 1.1, -0.5):
        with pytest.raises(InvalidInput):
            foreign_share(wrong)
