"""Factored cosines equal those of the dense matrices, and their deviation by chance that of a simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import vestige.fingerprint.terms as terms_module
from vestige.fingerprint.similarity import Flat, Inner, Layer, flat_cosine, flattened, squared_norm, term_cosine
from vestige.fingerprint.terms import AS_PUBLISHED, EXACT, BlockTerms, Entry, Recipe, Term


def layer(model, index=-1, recipe=EXACT, rows=None):
    places = np.arange(model.vocabulary) if rows is None else np.asarray(rows)
    block = model.blocks[index]
    return Layer(BlockTerms.of(block, recipe), Entry(model, places.astype(np.int64), recipe))


def dense(layer, term):
    """The whole K x K matrix, centred as its recipe says."""
    parts = list(layer.factors(term))
    left, right = (np.concatenate([part[k] for part in parts]).astype(np.float64) for k in (1, 2))
    whole = left @ right.T
    if not layer.terms.recipe.double_centre:
        return whole - whole.mean()
    return whole - whole.mean(0) - whole.mean(1, keepdims=True) + whole.mean()


def cosine(first, second):
    return float(np.sum(first * second) / np.linalg.norm(first) / np.linalg.norm(second))


@given(st.integers(2, 40), st.integers(1, 7), st.integers(1, 7), st.booleans(), st.integers(0, 2**32 - 1))
def test_the_factored_inner_product_is_the_dense_one(tokens, rank, other, double, seed):
    random = np.random.default_rng(seed)
    p, q = random.standard_normal((2, tokens, rank)).astype(np.float32) + 3
    r, s = random.standard_normal((2, tokens, other)).astype(np.float32) - 2
    inner, cut = Inner(double), int(random.integers(1, tokens))
    for part in (slice(0, cut), slice(cut, tokens)):
        inner.add((p[part], q[part]), (r[part], s[part]))
    first, second = (a.astype(np.float64) @ b.T.astype(np.float64) for a, b in ((p, q), (r, s)))
    if double:
        first, second = (m - m.mean(0) - m.mean(1, keepdims=True) + m.mean() for m in (first, second))
    else:
        first, second = first - first.mean(), second - second.mean()
    scale = np.linalg.norm(first) * np.linalg.norm(second) + 1
    assert inner.value == pytest.approx(np.sum(first * second), abs=1e-9 * scale)


@pytest.mark.parametrize("term", Term)
@pytest.mark.parametrize("recipe", [EXACT, AS_PUBLISHED], ids=["exact", "as published"])
def test_cosines_of_models_are_those_of_the_dense_terms(model, term, recipe):
    first, second = (layer(model(seed=seed), recipe=recipe) for seed in (0, 1))
    expected = cosine(dense(first, term), dense(second, term))
    assert term_cosine(first, second, term).value == pytest.approx(expected, abs=1e-12)
    assert squared_norm(first, term) == pytest.approx(float(np.sum(dense(first, term) ** 2)), rel=1e-9)


@pytest.mark.parametrize("term", Term)
def test_a_term_equals_itself_and_the_cosine_is_symmetric_and_bounded(model, kind, term):
    first, second = layer(model(kind)), layer(model(kind, 1))
    assert abs(term_cosine(first, first, term).value - 1) < 1e-9
    there, back = term_cosine(first, second, term), term_cosine(second, first, term)
    assert there.value == pytest.approx(back.value, abs=1e-12)
    assert there.deviation == pytest.approx(back.deviation, rel=1e-9)
    assert abs(there.value) <= 1 + 1e-9


@pytest.mark.parametrize("term", Term)
def test_tokens_in_another_order_or_in_smaller_blocks_change_nothing(model, term, monkeypatch):
    first, second = model(seed=0), model(seed=1)
    expected = term_cosine(layer(first), layer(second), term)
    order = np.random.default_rng(3).permutation(first.vocabulary)
    monkeypatch.setattr(terms_module, "BLOCK", 7)
    monkeypatch.setattr(terms_module, "_KEPT", 0)
    got = term_cosine(layer(first, rows=order), layer(second, rows=order), term)
    assert got.value == pytest.approx(expected.value, abs=1e-6)
    assert got.deviation == pytest.approx(expected.deviation, rel=1e-5)


def test_a_term_that_is_zero_has_no_cosine(model):
    from dataclasses import replace

    plain = model()
    dead = replace(plain.blocks[-1].attention, query=np.zeros_like(plain.blocks[-1].attention.query))
    killed = replace(plain, blocks=(plain.blocks[0], replace(plain.blocks[-1], attention=dead)))
    assert math.isnan(term_cosine(layer(killed), layer(plain), Term.SCORES).value)
    assert term_cosine(layer(killed), layer(plain), Term.VALUES).value == pytest.approx(1.0)


def test_models_of_different_width_are_compared(model):
    found = term_cosine(layer(model()), layer(model(d=24)), Term.SCORES)
    assert abs(found.value) < 6 * found.deviation


def test_the_deviation_by_chance_is_that_of_weights_in_random_bases(model):
    """The claim of the closed form: fixed tokens, weights of the second model between two Haar rotations."""
    first, second = model(d=16, width=4), model(seed=1, d=16, width=4)
    ours, theirs = layer(first), layer(second)
    term, random = Term.SCORES, np.random.default_rng(0)
    left, right = theirs.terms.scores
    values = []
    for _ in range(600):
        turns = [np.linalg.qr(random.standard_normal((16, 16)))[0] for _ in range(2)]
        tokens = theirs.entry.matrix
        centred = tokens - tokens.mean(0)
        inside = turns[0] @ (left.T @ right) @ turns[1].T
        values.append(cosine(dense(ours, term), centred @ inside @ centred.T))
    error = np.std(values) / math.sqrt(len(values))
    assert abs(np.mean(values)) < 4 * error
    # The simulated one is of one direction, the reported one the larger of both.
    reported = term_cosine(ours, theirs, term).deviation
    assert 0.8 < reported / np.std(values) < 1.5


@pytest.mark.parametrize("factor", [-3.0, 0.01, 40.0])
def test_scale_and_constant_parts_of_a_term_do_not_count(factor):
    random = np.random.default_rng(0)
    p, q, r, s = random.standard_normal((4, 30, 5)).astype(np.float32)

    def value(first, second):
        sums = []
        for one, other in ((first, second), (first, first), (second, second)):
            inner = Inner()
            inner.add(one, other)
            sums.append(inner.value)
        return sums[0] / math.sqrt(sums[1] * sums[2])

    moved = (np.float32(factor) * p + np.float32(2), q - np.float32(1))
    assert value(moved, (r, s)) == pytest.approx(math.copysign(1, factor) * value((p, q), (r, s)), abs=1e-6)


def test_recipes_differ_in_what_their_names_say():
    assert Recipe() == EXACT
    assert Recipe(fold=False, gate_in_token_space=False, interleave=False, double_centre=False) == AS_PUBLISHED


def polar(whole):
    """U V^T of the singular vectors of a dense matrix, those of no length left out."""
    left, values, right = np.linalg.svd(whole)
    kept = values > 1e-5 * values[0]
    return left[:, : len(values)][:, kept] @ right[: len(values)][kept]


@pytest.mark.parametrize("term", Term)
@pytest.mark.parametrize("count", [12, 100], ids=["fewer tokens than columns", "more"])
def test_flattened_terms_are_polar_factors_of_the_dense_ones(model, term, count):
    first, second = (layer(model(seed=seed), rows=range(count)) for seed in (0, 1))
    flat = [flattened(each, term) for each in (first, second)]
    whole = [polar(dense(each, term)) for each in (first, second)]
    for one, expected in zip(flat, whole, strict=True):
        np.testing.assert_allclose(one.left @ one.right.T, expected, atol=1e-6)
    assert flat_cosine(*flat) == pytest.approx(cosine(*whole), abs=1e-6)
    assert flat_cosine(flat[0], flat[0]) == pytest.approx(1, abs=1e-12)


def test_what_data_teach_all_models_counts_little_once_flattened(model):
    """One direction of many holds most of two terms: they look alike, their polar factors do not."""
    random = np.random.default_rng(0)
    common = np.outer(*random.standard_normal((2, 60)))
    first, second = (common + random.standard_normal((60, 60)) for _ in range(2))

    def flat(whole):
        left, _, right = np.linalg.svd(whole - whole.mean(0) - whole.mean(1, keepdims=True) + whole.mean())
        return Flat(left[:, :59], right[:59].T)

    assert cosine(first, second) > 0.4
    assert abs(flat_cosine(flat(first), flat(second))) < 0.1


def test_the_deviation_of_flattened_terms_is_that_of_turned_ones():
    random = np.random.default_rng(0)

    def turned(count, width):
        basis, upper = np.linalg.qr(random.standard_normal((count, width)))
        return basis * np.sign(np.diag(upper))

    found = [flat_cosine(*(Flat(turned(24, 24), turned(24, 24)) for _ in range(2))) for _ in range(400)]
    assert np.mean(found) == pytest.approx(0, abs=4 / 24 / 20)
    assert np.std(found) == pytest.approx(1 / 24, rel=0.15)


def test_a_zero_term_is_like_nothing():
    nothing = Flat(np.empty((5, 0)), np.empty((5, 0)))
    assert math.isnan(flat_cosine(nothing, nothing))
