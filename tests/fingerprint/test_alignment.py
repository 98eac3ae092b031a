"""The basis of the residual stream is recovered from tokens: oracle 6 of the symmetry group."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import vestige.fingerprint.alignment as module
from vestige.errors import EmptySet
from vestige.fingerprint.alignment import Basis, align

D, N = 24, 300


def tokens(seed=0, n=N, d=D):
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


def signed(random, signs):
    order = random.permutation(D)
    flips = np.where(random.random(D) < 0.5, -1.0, 1.0) if signs else np.ones(D)
    return np.eye(D)[order] * flips


@given(st.integers(0, 2**32 - 1), st.booleans())
def test_a_permutation_and_its_signs_are_recovered_exactly_under_noise(seed, signs):
    random = np.random.default_rng(seed)
    change = signed(random, signs)
    first = tokens(1)
    noise = 0.1 * random.standard_normal(first.shape)
    found = align(first, ((first + noise) @ change.T).astype(np.float32))
    assert found.basis is (Basis.SIGNED if signs else Basis.PERMUTED)
    np.testing.assert_array_equal(found.change, change)
    assert found.agreement > 0.98
    assert found.following == 1


def test_the_same_basis_is_the_simplest_answer():
    first = tokens()
    noise = 0.1 * np.random.default_rng(1).standard_normal(first.shape)
    found = align(first, (first + noise).astype(np.float32))
    assert found.basis is Basis.SAME
    np.testing.assert_array_equal(found.across(first), first)
    assert align(first, first).agreement == pytest.approx(1)


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_a_rotation_is_recovered_to_about_the_noise(noise):
    random = np.random.default_rng(2)
    turn = np.linalg.qr(random.standard_normal((D, D)))[0]
    first = tokens(n=2000)
    found = align(first, ((first + noise * random.standard_normal(first.shape)) @ turn.T).astype(np.float32))
    assert found.basis is Basis.ROTATED
    error = np.linalg.norm(found.change - turn) / np.linalg.norm(turn)
    assert error < 1e-5 + 0.2 * noise
    back = found.both_across((turn @ np.diag(np.arange(D)) @ turn.T).astype(np.float32))
    np.testing.assert_allclose(back, np.diag(np.arange(D)), atol=0.01 + 5 * noise)


@pytest.mark.parametrize("scale", [0.2, 1.0, 9.0])
def test_scale_and_a_common_offset_are_told_apart_from_the_basis(scale):
    first, change = tokens(), signed(np.random.default_rng(3), signs=True)
    found = align(first, (scale * (first @ change.T) + 4).astype(np.float32))
    np.testing.assert_array_equal(found.change, change)
    assert found.scale == pytest.approx(scale, rel=1e-4)


def test_rows_that_were_overwritten_are_named_and_do_not_disturb():
    random = np.random.default_rng(4)
    first, change = tokens(), signed(random, signs=True)
    second = first @ change.T
    gone = np.sort(random.permutation(N)[:100])
    second[gone] = random.standard_normal((100, D))
    found = align(first, second.astype(np.float32))
    np.testing.assert_array_equal(found.change, change)
    assert found.agreement > 0.99
    # By chance an overwritten row may follow, and is not missed then.
    assert set(found.astray) <= set(gone)
    assert found.following == pytest.approx(2 / 3, abs=0.02)


def test_unrelated_tokens_agree_no_more_than_chance():
    found = align(tokens(0, 4000), tokens(1, 4000))
    assert abs(found.agreement) < 0.1


def test_widths_may_differ():
    first = tokens()
    kept = np.sort(np.random.default_rng(5).permutation(D)[:18])
    found = align(first, np.ascontiguousarray(first[:, kept]))
    assert found.basis is Basis.PERMUTED
    np.testing.assert_array_equal(np.nonzero(found.change)[1], kept)
    assert found.across(tokens(2, 5, 18)).shape == (5, D)


def test_wide_streams_are_aligned_by_mutual_best_matches(monkeypatch):
    monkeypatch.setattr(module, "_MANY", 4)
    first, change = tokens(), signed(np.random.default_rng(6), signs=True)
    np.testing.assert_array_equal(align(first, (first @ change.T).astype(np.float32)).change, change)
    assert align(first, tokens(9)).basis in (Basis.SAME, Basis.ROTATED)


def test_too_few_tokens_are_refused():
    with pytest.raises(EmptySet, match="share their vocabulary"):
        align(tokens(n=7), tokens(n=7))
