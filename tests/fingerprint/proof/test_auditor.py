from __future__ import annotations

import dataclasses
import hashlib
from math import isqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vestige.errors import EmptySet, InvalidInput, Unsupported
from vestige.fingerprint.proof import merkle
from vestige.fingerprint.proof.auditor import RowCommitment, RowKey, audit, commit_rows, dense_product
from vestige.fingerprint.proof.challenge import Challenge
from vestige.fingerprint.proof.freivalds import PRIMES, error_bound, is_product
from vestige.fingerprint.proof.integers import TermName
from vestige.fingerprint.proof.rejected import ProofRejected
from vestige.fingerprint.proof.sketch import sketch
from vestige.fingerprint.terms import Term


def _recursive_root(leaves):
    """RFC 6962, section 2.1, as it is written there."""
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    return hashlib.sha256(b"\x01" + _recursive_root(leaves[:split]) + _recursive_root(leaves[split:])).digest()


@given(st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=20))
def test_the_tree_is_that_of_the_standard(leaves):
    assert merkle.root(leaves) == _recursive_root(leaves)


def test_a_tree_needs_leaves():
    with pytest.raises(EmptySet):
        merkle.root([])


def test_equal_rows_have_different_leaves():
    key = b"k" * 32
    assert len({merkle.leaf(merkle.salt(key, at), b"row") for at in range(50)}) == 50
    assert merkle.salt(key, 1) != merkle.salt(b"l" * 32, 1)


def test_an_honest_audit_passes(model, make_entropy):
    commitment, key = commit_rows(model, make_entropy())
    claims = tuple(dense_product(model, term.name) for term in model.terms)
    challenge = Challenge.public(5)
    found = audit(commitment, key, model, claims, ((challenge, sketch(model, challenge)),))
    assert (found.products, found.entries, found.root) == (6, 30, commitment.root)
    assert found.error < 2**-123
    assert audit(commitment, key, model).error == 0.0


def test_a_product_is_the_dense_term(model):
    term = model.terms[4]
    claim = dense_product(model, term.name)
    x = model.rows.astype(object)
    assert np.array_equal(claim.matrix, x @ term.left.T.astype(object) @ term.right.astype(object) @ x.T)


def test_the_root_covers_every_matrix_name_and_shape(model, make_entropy):
    commitment, key = commit_rows(model, make_entropy())
    others = [dataclasses.replace(model, rows=_moved(model.rows))]
    for at, block in enumerate(model.blocks):
        for name in ("query", "key", "value", "output", "up", "down"):
            blocks = list(model.blocks)
            blocks[at] = dataclasses.replace(block, **{name: _moved(getattr(block, name))})
            others.append(dataclasses.replace(model, blocks=tuple(blocks)))
    first = model.blocks[0]
    for change in ({"layer": 0}, {"query": first.query.reshape(2, 4, 4)}, {"key": first.key.reshape(1, 4, 4)}):
        others.append(dataclasses.replace(model, blocks=(dataclasses.replace(first, **change), model.blocks[1])))
    # The same rows, divided otherwise between two matrices.
    moved = dataclasses.replace(first, up=np.concatenate([first.up, first.down[:1]]), down=first.down[1:])
    others.append(dataclasses.replace(model, blocks=(moved, model.blocks[1])))
    others.append(dataclasses.replace(model, blocks=model.blocks[:1]))
    names = ("other", *model.words.names[1:])
    others.append(dataclasses.replace(model, words=dataclasses.replace(model.words, names=names)))
    others.append(dataclasses.replace(model, words=dataclasses.replace(model.words, by_row=True)))
    audit(commitment, key, model)
    for other in others:
        with pytest.raises(ProofRejected, match="root"):
            audit(commitment, key, other)


def _moved(matrix):
    changed = matrix.copy()
    changed.flat[-1] ^= 1
    return changed


def test_another_key_or_root_is_rejected(model, make_entropy):
    commitment, key = commit_rows(model, make_entropy())
    for root, other in ((commitment, RowKey(key.root, b"x" * 32)), (RowCommitment(b"x" * 32), key)):
        with pytest.raises(ProofRejected, match="root"):
            audit(root, other, model)
    assert commit_rows(model)[0] != commit_rows(model)[0]
    assert key.key.hex()[:8] not in repr(key)


def test_a_wrong_claim_is_rejected(model, make_entropy):
    commitment, key = commit_rows(model, make_entropy())
    right = dense_product(model, model.terms[2].name)
    moved = right.matrix.copy()
    moved[3, 4] += 1
    wrong = [
        dataclasses.replace(right, matrix=moved),
        dataclasses.replace(right, name=model.terms[5].name),
        dataclasses.replace(right, matrix=right.matrix[:-1]),
    ]
    for claim in wrong:
        with pytest.raises(ProofRejected, match="product claimed"):
            audit(commitment, key, model, (claim,))
    with pytest.raises(InvalidInput, match="layer 9"):
        audit(commitment, key, model, (dataclasses.replace(right, name=TermName(9, Term.FEED, 3)),))
    challenge = Challenge.public(3)
    honest = sketch(model, challenge)
    row = (honest.values[0][0] + 1, *honest.values[0][1:])
    for claimed in (dataclasses.replace(honest, values=(row, *honest.values[1:])), sketch(model, Challenge.public(4))):
        with pytest.raises(ProofRejected, match="sketch"):
            audit(commitment, key, model, sketches=((challenge, claimed),))


def test_the_primes_are_prime():
    for prime in PRIMES:
        assert all(prime % divisor for divisor in range(2, isqrt(prime) + 1))


def _factors(seed, rows=9, inner=5, columns=7):
    random = np.random.default_rng(seed)
    return random.integers(-(2**20), 2**20, (rows, inner)), random.integers(-(2**20), 2**20, (columns, inner))


@given(
    st.integers(0, 99),
    st.integers(0, 8),
    st.integers(0, 6),
    st.sampled_from([1, -1, PRIMES[0], -PRIMES[1], 3 * PRIMES[0], 2**40]),
)
def test_any_difference_is_caught(seed, row, column, difference):
    left, right = _factors(seed)
    claim = left @ right.T
    assert is_product(claim, left, right)
    claim[row, column] += difference
    assert not is_product(claim, left, right)


def test_differences_that_a_fixed_vector_misses_are_caught():
    left, right = _factors(1)
    claim = left @ right.T
    claim[2, 3] += 5
    claim[2, 4] -= 5  # the sum of the row is unchanged
    assert not is_product(claim, left, right)


def test_one_round_misses_at_the_stated_rate_when_the_vector_is_small():
    """With every random word equal, the vector is constant and the difference above cancels: the vector matters."""
    left, right = _factors(1)
    claim = left @ right.T
    claim[2, 3] += 5
    claim[2, 4] -= 5
    assert is_product(claim, left, right, 1, lambda count: b"\1\0\0\0" * (count // 4))
    assert error_bound(4) == pytest.approx(2.0**-124, rel=1e-6)


def test_claims_beyond_what_two_primes_tell_apart_are_refused():
    left, right = _factors(1)
    claim = (left @ right.T).astype(np.int64)
    claim[0, 0] = 2**53
    assert not is_product(claim, left, right)
    claim[0, 0] = -(2**63)
    assert not is_product(claim, left, right)
    claim[0, 0] = int(left[0] @ right[0]) + PRIMES[0] * PRIMES[1]  # the same modulo both
    assert not is_product(claim, left, right)
    with pytest.raises(Unsupported):
        is_product(claim, left << 10, right << 10)
    with pytest.raises(InvalidInput):
        is_product(claim[:-1], left, right)
    with pytest.raises(InvalidInput):
        is_product(claim, left, right, 0)
