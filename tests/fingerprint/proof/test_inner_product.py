from __future__ import annotations

import dataclasses
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vestige.fingerprint.proof.algebra import Bases, bases, dot, holds, inverse, rounds_for, width_for
from vestige.fingerprint.proof.group import ORDER, hashed, multiply
from vestige.fingerprint.proof.inner_product import (
    InnerProduct,
    Masks,
    Opened,
    Revealed,
    _halve,
    inner_product_equations,
    prove_inner_product,
)
from vestige.fingerprint.proof.sum_of_products import folded_value, prove_sum, sum_challenges
from vestige.fingerprint.proof.transcript import Blinders, Transcript, say, say_scalars

pytest.importorskip("py_arkworks_bls12381")


class Programmed:
    """Challenges that were fixed before anything was said: an honest verifier's, known in advance."""

    def __init__(self, *challenges):
        self.challenges = list(challenges)

    def absorb(self, label, *parts):
        pass

    def scalar(self, label):
        return self.challenges.pop(0)


def _instance(size, seed=0):
    draw = random.Random(seed)
    left, right = ([draw.randrange(ORDER) for _ in range(size)] for _ in range(2))
    return Opened(left, right, *(draw.randrange(ORDER) for _ in range(3)))


def _commitments(known, base: Bases, value=None):
    """X, Y and Z as sums of one point each; ``value`` is claimed instead of the product."""
    value = dot(known.left, known.right) if value is None else value
    size = len(known.left)
    left = multiply((*base.left[:size], base.blind), (*known.left, known.blind_left))
    right = multiply((*base.right[:size], base.blind), (*known.right, known.blind_right))
    return [(left, 1)], [(right, 1)], [(multiply((base.value, base.blind), (value, known.blind_value)), 1)]


def _accepted(proof, commitments, base, dialogue=None):
    equations = inner_product_equations(proof, *commitments, base, dialogue or Transcript("t"))
    return holds(equations, 12345)


def _proof(known, base, seed=b"b", dialogue=None):
    return prove_inner_product(known, base, dialogue or Transcript("t"), Blinders(seed))


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 9), st.integers(0, 3))
def test_true_claims_are_accepted(size, seed):
    known, base = _instance(size, seed), bases(width_for(size))
    proof = _proof(known, base)
    assert len(proof.rounds) == rounds_for(size)
    assert _accepted(proof, _commitments(known, base), base)


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 5), st.integers(1, ORDER - 1))
def test_another_product_is_rejected(size, off):
    known, base = _instance(size), bases(width_for(size))
    claimed = dot(known.left, known.right) + off
    assert not _accepted(_proof(known, base), _commitments(known, base, claimed), base)


def _tampered(proof):
    """The proof with one message changed, for each of them."""
    other = hashed("elsewhere")
    for field in dataclasses.fields(Masks):
        yield dataclasses.replace(proof, masks=dataclasses.replace(proof.masks, **{field.name: other}))
    for field in dataclasses.fields(Revealed):
        moved = dataclasses.replace(proof.revealed, **{field.name: (getattr(proof.revealed, field.name) + 1) % ORDER})
        yield dataclasses.replace(proof, revealed=moved)
    for at, message in enumerate(proof.rounds):
        for field in dataclasses.fields(message):
            rounds = list(proof.rounds)
            rounds[at] = dataclasses.replace(message, **{field.name: other})
            yield dataclasses.replace(proof, rounds=tuple(rounds))
    for name in ("left", "right"):
        yield dataclasses.replace(proof, **{name: (getattr(proof, name) + 1) % ORDER})


def test_every_message_counts():
    known, base = _instance(4), bases(4)
    proof, commitments = _proof(known, base), _commitments(known, base)
    changed = list(_tampered(proof))
    assert len(changed) == 4 + 4 + 2 * 4 + 2
    for one in changed:
        assert not _accepted(one, commitments, base)
        # Nor when the verifier's challenges do not depend on what was changed.
        fixed = [5, 6, 7, 8]
        assert not _accepted(one, commitments, base, Programmed(*fixed))
    fixed = _proof(known, base, dialogue=Programmed(5, 6, 7, 8))
    assert _accepted(fixed, commitments, base, Programmed(5, 6, 7, 8))


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("where", ["other side", "product", "value"])
def test_a_vector_may_lie_upon_its_own_points_alone(side, where):
    """The committed vector has a part upon other points, which would let it enter the product unseen."""
    known, base = _instance(2), bases(2)
    commitments = list(_commitments(known, base))
    stray = {"other side": (base.right, base.left)[side][0], "product": base.product, "value": base.value}[where]
    commitments[side] = [*commitments[side], (stray, 3)]
    assert not _accepted(_proof(known, base), commitments, base)


def test_one_side_may_not_lend_a_part_to_the_other():
    """X hides a vector upon the right side's points, and the prover counts it to y: only the sum of both would fit."""
    known, base, lent = _instance(2), bases(2), [7, 8]
    moved = Opened(known.left, [y + d for y, d in zip(known.right, lent, strict=True)], *[1, 2, 3])
    left, right, value = _commitments(moved, base)
    left = [*left, *((point, d) for point, d in zip(base.right, lent, strict=True))]
    right = [*right, *((point, -d) for point, d in zip(base.right, lent, strict=True))]
    assert not _accepted(_proof(moved, base), (left, right, value), base)


def test_no_two_proofs_are_alike_and_all_are_uniform():
    """Over proofs of one statement, all challenges fixed, every revealed scalar is spread evenly."""
    known, base = Opened([1, 2], [3, 4], 5, 6, 7), bases(2)
    proofs = [_proof(known, base, bytes([number]), Programmed(5, 6, 7)) for number in range(60)]
    for pick in (
        lambda p: p.revealed.product,
        lambda p: p.revealed.blind_left,
        lambda p: p.revealed.blind_right,
        lambda p: p.revealed.blind_product,
        lambda p: p.left,
        lambda p: p.right,
    ):
        values = sorted(pick(proof) / ORDER for proof in proofs)
        assert len(set(values)) == len(values)
        worst = max(abs(value - (at + 0.5) / len(values)) for at, value in enumerate(values))
        assert worst < 0.2  # Kolmogorov-Smirnov, p about 0.01


def _simulated(commitments, base, challenges, seed):
    """A proof made without any vector, for challenges known in advance: what shows that proofs show nothing."""
    draw = random.Random(seed)
    z, w, *halves = challenges
    size = len(base.left)
    left, right = ([draw.randrange(ORDER) for _ in range(size)] for _ in range(2))
    blind_left, blind_right, blind_product = (draw.randrange(ORDER) for _ in range(3))
    ((x, _),), ((y, _),), ((value, _),) = commitments
    product, square = dot(left, right), hashed("random", seed)
    back = inverse(z)
    masks = Masks(
        multiply((*base.left, base.blind, x), [back * s for s in (*left, blind_left, -1)]),
        multiply((*base.right, base.blind, y), [back * s for s in (*right, blind_right, -1)]),
        multiply((base.value, base.blind, value, square), [back * s for s in (product, blind_product, -1, -z * z)]),
        square,
    )
    # From here on the prover's own steps, which know left and right.
    rounds, a, b = _halve(left, right, base, multiply((base.product,), (w,)), Programmed(*halves))
    return InnerProduct(masks, Revealed(product, blind_left, blind_right, blind_product), rounds, a, b)


def test_a_simulator_without_the_vectors_is_accepted():
    base = bases(4)
    challenges = [11, 12, 13, 14]
    # Commitments that nobody can open, and even to a product that is not theirs.
    commitments = [[(hashed("x"), 1)], [(hashed("y"), 1)], [(hashed("z"), 1)]]
    for seed in range(3):
        proof = _simulated(commitments, base, challenges, seed)
        assert _accepted(proof, commitments, base, Programmed(*challenges))
        assert not _accepted(proof, commitments, base)  # not with challenges that follow the messages


def test_two_answers_to_one_mask_give_the_vectors_away():
    """Special soundness: a prover who can answer two challenges knows the vectors, here of one entry each."""
    known, base = Opened([17], [19], 1, 2, 3), bases(1)
    first, second = (_proof(known, base, dialogue=Programmed(z, 9)) for z in (5, 8))
    assert first.masks == second.masks
    slope = (second.left - first.left) * inverse(3) % ORDER
    assert (first.left - 5 * slope) % ORDER == 17
    slope = (second.right - first.right) * inverse(3) % ORDER
    assert (first.right - 5 * slope) % ORDER == 19


def _list_instance(count, longest, seed):
    draw = random.Random(seed)
    return (
        [[draw.randrange(ORDER) for _ in range(1 + at % longest)] for at in range(count)],
        [[draw.randrange(ORDER) for _ in range(1 + at % longest)] for at in range(count)],
    )


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 9), st.integers(1, 4))
def test_many_products_fold_to_one(count, longest):
    base = bases(4)
    left, right = _list_instance(count, longest, count)
    total = sum(dot(x, y) for x, y in zip(left, right, strict=True)) % ORDER
    rounds, folded = prove_sum(left, right, 77, base, Transcript("t"), Blinders(b"b"))
    assert len(rounds) == rounds_for(count)
    assert sum_challenges(rounds, Transcript("t")) == folded.challenges

    def value(claimed):
        start = [(base.value, claimed), (base.blind, 77)]
        last = [(base.value, -dot(folded.left, folded.right)), (base.blind, -folded.blind_value)]
        return holds([folded_value(start, rounds, folded.challenges) + last], 1)

    assert value(total)
    assert not value(total + 1)


def test_crossings_show_nothing_without_their_blinders():
    """The same list twice, with other blinders: no point is sent twice."""
    left, right = _list_instance(4, 2, 0)
    sent = []
    for seed in (b"a", b"b"):
        rounds, _ = prove_sum(left, right, 0, bases(2), Programmed(5, 6), Blinders(seed))
        sent += [point.to_compressed_bytes() for message in rounds for point in (message.down, message.up)]
    assert len(set(sent)) == 8


def test_what_is_said_enters_the_challenges():
    transcript, other = Transcript("t"), Transcript("t")
    say(transcript, "mask", hashed("x"))
    say_scalars(other, "mask", 1)
    assert transcript.scalar("c") != other.scalar("c")
