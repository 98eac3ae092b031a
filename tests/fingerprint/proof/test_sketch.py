from __future__ import annotations

import dataclasses
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vestige.errors import InvalidInput, Unsupported
from vestige.fingerprint.proof.challenge import Challenge, balanced_signs
from vestige.fingerprint.proof.integers import IntegerTerm, TermName
from vestige.fingerprint.proof.sketch import IntegerSketch, exact_product, similarity, sketch
from vestige.fingerprint.terms import Term


def _centred(matrix):
    return matrix - matrix.mean(0) - matrix.mean(1, keepdims=True) + matrix.mean()


def _dense(model, term):
    x = model.rows.astype(object)
    return x @ term.left.T.astype(object) @ term.right.astype(object) @ x.T


def _every_balanced(count):
    half = count // 2
    start = [1] * half + [0] * (count - 2 * half) + [-1] * half
    return np.array(sorted(set(permutations(start))))


@pytest.mark.parametrize("count", [4, 5])
def test_the_average_over_all_directions_is_the_product_of_centred_terms(count):
    """Exactly: every pair of balanced directions is as likely as any other."""
    random = np.random.default_rng(count)
    first, second = random.integers(-9, 9, (2, count, count))
    directions = _every_balanced(count)
    total = sum((a @ first @ b) * (a @ second @ b) for a, b in product(directions, directions))
    factor = count / (count - 1) if count % 2 == 0 else 1.0
    expected = factor**2 * np.sum(_centred(first) * _centred(second))
    assert total / len(directions) ** 2 == pytest.approx(expected, rel=1e-12)


@given(st.integers(2, 40), st.binary(min_size=4, max_size=4))
def test_directions_are_balanced(count, seed):
    signs = balanced_signs(seed, count)
    assert (np.sum(signs == 1), np.sum(signs == -1)) == (count // 2, count // 2)


def test_every_balanced_direction_is_equally_likely():
    drawn = [tuple(balanced_signs(b"%d" % number, 4)) for number in range(3000)]
    counts = np.array([drawn.count(tuple(one)) for one in _every_balanced(4)])
    assert counts.sum() == 3000
    assert np.sum((counts - 500) ** 2 / 500) < 20.5  # chi-squared, 5 degrees of freedom, p = 0.001


def test_directions_follow_everything_in_the_challenge():
    base = Challenge(b"n" * 16, (b"c" * 32,), 3)
    others = [
        dataclasses.replace(base, nonce=b"m" * 16),
        dataclasses.replace(base, commitments=(b"d" * 32,)),
        dataclasses.replace(base, commitments=(b"c" * 32, b"d" * 32)),
        Challenge.public(3),
    ]
    drawn = [challenge.directions(20, term) for challenge in (base, *others) for term in range(2)]
    every = np.concatenate([side for held in drawn for side in (held.first, held.second)])
    assert len(np.unique(every, axis=0)) == len(every) == 5 * 2 * 2 * 3
    again = base.directions(20, 0)
    assert np.array_equal(again.first, drawn[0].first)
    assert np.array_equal(again.second, drawn[0].second)


@pytest.mark.parametrize(
    ("nonce", "commitments", "size"),
    [
        (b"n" * 15, (), 3),
        (b"n" * 65, (), 3),
        (b"n" * 16, (b"c" * 31,), 3),
        (b"n" * 16, (b"d" * 32, b"c" * 32), 3),
        (b"n" * 16, (b"c" * 32, b"c" * 32), 3),
        (b"n" * 16, (), 1),
        (b"n" * 16, (), 5000),
    ],
)
def test_malformed_challenges_are_refused(nonce, commitments, size):
    with pytest.raises(InvalidInput):
        Challenge(nonce, commitments, size)


def test_drawn_challenges_are_fresh():
    first, second = (Challenge.draw([b"b" * 32, b"a" * 32, b"b" * 32]) for _ in range(2))
    assert first.commitments == (b"a" * 32, b"b" * 32)
    assert first.nonce != second.nonce


def test_the_sketch_is_that_of_the_dense_terms(make_integers):
    model, challenge = make_integers(tokens=7), Challenge.public(4)
    found = sketch(model, challenge)
    directions = [challenge.directions(7, at) for at in range(6)]
    for at, term in enumerate(model.terms):
        dense = _dense(model, term)
        for entry in range(4):
            a, b = directions[at].first[entry].astype(object), directions[at].second[entry].astype(object)
            assert found.values[at][entry] == a @ dense @ b
    assert found.terms == tuple(term.name for term in model.terms)
    assert [(name.layer, name.term) for name in found.terms] == [(layer, term) for layer in (1, 3) for term in Term]


def test_products_that_could_round_are_refused():
    large = np.full((1, 4), 1 << 26, np.int64)
    with pytest.raises(Unsupported, match="exact"):
        exact_product(large, large.T)
    just = np.full((1, 4), (1 << 25) - 1, np.int64)
    assert exact_product(just, just.T)[0, 0] == 4 * ((1 << 25) - 1) ** 2
    lowest = np.full((1, 4), -(1 << 26), np.int64)
    with pytest.raises(Unsupported):
        exact_product(lowest, lowest.T)


def _made(values):
    terms = tuple(TermName(0, term, 1) for term in list(Term)[: len(values)])
    return IntegerSketch(terms, tuple(tuple(int(v) for v in row) for row in values))


def test_similarity_in_closed_form():
    first = _made([[3, 4, 0], [1, 0, 0]])
    assert similarity(first, first).value == pytest.approx(1.0)
    assert similarity(first, _made([[-30, -40, 0], [-7, 0, 0]])).value == pytest.approx(-1.0)
    # cosines 24/25 and 0
    found = similarity(first, _made([[4, 3, 0], [0, 0, 5]]))
    assert found.value == pytest.approx(0.48)
    assert found.n == 3
    assert found.low <= found.value <= found.high
    huge = [[3 << 120, 4 << 120, 0], [1, 0, 0]]
    assert similarity(first, _made(huge)).value == pytest.approx(1.0)


def test_a_term_that_is_zero_leaves_it_undetermined():
    found = similarity(_made([[3, 4, 0], [0, 0, 0]]), _made([[3, 4, 0], [1, 1, 1]]))
    assert np.isnan(found.value)
    assert (found.low, found.high) == (-1.0, 1.0)


def test_sketches_of_other_shapes_are_not_compared():
    first = _made([[3, 4, 0], [1, 0, 0]])
    for other in (_made([[3, 4, 0]]), _made([[3, 4], [1, 0]])):
        with pytest.raises(InvalidInput):
            similarity(first, other)


def test_the_interval_covers_the_similarity_of_the_terms(make_integers):
    """Of 95 % intervals for related models, about that share holds the cosine of the dense terms."""
    tokens, covered, runs = 24, 0, 30
    for seed in range(runs):
        first, other = (make_integers(number, tokens, heads=2, kv=2, layers=(0,)) for number in (seed, seed + 1000))
        mixed = [
            IntegerTerm(a.name, 2 * a.left + b.left, 2 * a.right + b.right)
            for a, b in zip(first.terms, other.terms, strict=True)
        ]
        challenge = Challenge(seed.to_bytes(16, "big"), (), 60)
        directions = [challenge.directions(tokens, at) for at in range(3)]
        cosines, sketches, x = [], ([], []), first.rows.astype(float)
        for at, pair in enumerate(zip(first.terms, mixed, strict=True)):
            dense = [_centred(x @ term.left.T @ term.right.astype(float) @ x.T) for term in pair]
            cosines.append(np.sum(dense[0] * dense[1]) / np.sqrt(np.sum(dense[0] ** 2) * np.sum(dense[1] ** 2)))
            for held, matrix in zip(sketches, dense, strict=True):
                held.append(np.einsum("jk,kl,jl->j", directions[at].first, matrix, directions[at].second))
        covered += similarity(_made(sketches[0]), _made(sketches[1])).covers(float(np.mean(cosines)))
    assert 0.85 * runs <= covered


def test_rounding_to_the_grid_hardly_moves_a_sketch(make_tiny):
    """Entries of the sketch of rounded matrices follow those of the matrices themselves."""
    from vestige.fingerprint.fold import fold_attention
    from vestige.fingerprint.proof.files import band_model
    from vestige.fingerprint.words import Everything

    model = make_tiny(vocabulary=64, width=32, heads=4, kv=2, inner=8, feed=48)
    rounded = band_model(model, Everything())
    challenge = Challenge.public(200)
    directions = challenge.directions(64, 0)
    x = model.embedding().astype(float)
    part = fold_attention(model.block(1))
    whole = x @ part.query.reshape(2, 2, 8, 32).sum(1).reshape(16, 32).T @ part.key.reshape(16, 32) @ x.T
    exact = np.einsum("jk,kl,jl->j", directions.first, whole, directions.second)
    assert np.corrcoef(exact, np.array(sketch(rounded, challenge).values[0], float))[0, 1] > 0.999
