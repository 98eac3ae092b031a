from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vestige.errors import CorruptFile, DigestMismatch
from vestige.fingerprint.proof import zero_knowledge
from vestige.fingerprint.proof.algebra import bases, holds, powers
from vestige.fingerprint.proof.challenge import Challenge
from vestige.fingerprint.proof.commitment import Commitment, Opening, check_opening, commit
from vestige.fingerprint.proof.group import ORDER, hashed, multiply
from vestige.fingerprint.proof.rejected import ProofRejected
from vestige.fingerprint.proof.sketch import IntegerSketch, projected, sketch, through
from vestige.fingerprint.proof.statement import Statement
from vestige.fingerprint.proof.zero_knowledge import Proof, prove, verify
from vestige.fingerprint.words import Words

pytest.importorskip("py_arkworks_bls12381")


@pytest.fixture(scope="module")
def proof(committed, challenge, make_entropy):
    return prove(*committed, challenge, make_entropy(b"prover"))


@settings(max_examples=6)
@given(st.integers(2, 7), st.integers(1, 5), st.sampled_from([(1, 1), (2, 1), (4, 2)]), st.integers(1, 4))
def test_honest_proofs_are_accepted_and_show_the_sketch(make_integers, tokens, width, heads, size):
    model = make_integers(size, tokens, width, *heads, inner=2, feed=size, layers=tuple(range(1 + size % 2)))
    commitment, opening = commit(model)
    challenge = Challenge.draw([commitment.digest, b"another owner's commitment......"], size + 1)
    shown = verify(commitment, prove(commitment, opening, challenge), challenge)
    assert shown.sketch == sketch(model, challenge)
    assert shown.after


def test_directions_that_were_public_are_marked(committed, model):
    challenge = Challenge.public(2)
    shown = verify(committed[0], prove(*committed, challenge), challenge)
    assert not shown.after
    assert shown.sketch == sketch(model, challenge)


def test_columns_add_up_to_commitments_of_products(committed, model, challenge):
    """What a verifier computes from column commitments is the commitment to L v, with blinders added alike."""
    commitment, opening = committed
    base, blinders = bases(commitment.inner), opening.blinders()[0]
    for at, term in enumerate(model.terms):
        vector = projected(commitment.rows, challenge, at)[0][:1]
        (image,) = through(term.left, vector)
        blind = sum(v * b for v, b in zip(vector[0].tolist(), blinders[at * 4 : at * 4 + 4], strict=True))
        direct = multiply((*base.left[: len(image)], base.blind), (*image, blind))
        assert multiply(commitment.left[at], vector[0].tolist()) == direct


def test_the_last_claim_weighs_every_column_alone(committed, model, challenge):
    statement = Statement.of(committed[0], challenge)
    taus = powers(10**6, 4 * 6)
    left, right = statement.all_columns(model.terms, taus)
    for side, found in (("left", left), ("right", right)):
        expected = [0] * len(found)
        for at, term in enumerate(model.terms):
            for column in range(4):
                for row, entry in enumerate(getattr(term, side)[:, column].tolist()):
                    expected[row] += taus[4 * at + column] * entry
        assert found == [entry % ORDER for entry in expected]


def _rejects(commitment, proof, challenge):
    with pytest.raises(ProofRejected):
        verify(commitment, proof, challenge)


def test_another_nonce_size_or_addressee_is_rejected(committed, proof, challenge):
    commitment = committed[0]
    assert verify(commitment, proof, challenge)
    nonce = bytes([challenge.nonce[0] ^ 1]) + challenge.nonce[1:]
    _rejects(commitment, proof, dataclasses.replace(challenge, nonce=nonce))
    _rejects(commitment, proof, dataclasses.replace(challenge, size=4))
    _rejects(commitment, proof, dataclasses.replace(challenge, commitments=(b"x" * 32,)))
    both = tuple(sorted((b"x" * 32, commitment.digest)))
    _rejects(commitment, proof, dataclasses.replace(challenge, commitments=both))
    _rejects(commitment, proof, dataclasses.replace(challenge, commitments=()))


def _changed_values(values):
    for term in range(len(values)):
        for entry in range(len(values[0])):
            row = list(values[term])
            row[entry] += 1
            yield (*values[:term], tuple(row), *values[term + 1 :])


def test_no_entry_of_the_sketch_can_be_changed(committed, proof, challenge):
    for values in _changed_values(proof.values):
        _rejects(committed[0], dataclasses.replace(proof, values=values), challenge)
    first, *rest = proof.values
    # Changes that cancel in a plain sum, swapped terms, other shapes.
    moved = (first[0] + 1, first[1] - 1, *first[2:])
    for values in ((moved, *rest), (*rest, first), (first, *rest[:-1]), tuple(row[:-1] for row in proof.values)):
        _rejects(committed[0], dataclasses.replace(proof, values=values), challenge)


def test_every_point_and_scalar_of_a_proof_counts(committed, proof, challenge):
    other = hashed("elsewhere")
    _rejects(committed[0], dataclasses.replace(proof, known=other), challenge)
    for at, crossing in enumerate(proof.crossings):
        for name in ("down", "up"):
            held = list(proof.crossings)
            held[at] = dataclasses.replace(crossing, **{name: other})
            _rejects(committed[0], dataclasses.replace(proof, crossings=tuple(held)), challenge)
    inner = proof.inner
    for part in ("masks", "revealed"):
        for field in dataclasses.fields(getattr(inner, part)):
            value = other if part == "masks" else getattr(inner.revealed, field.name) ^ 1
            moved = dataclasses.replace(getattr(inner, part), **{field.name: value})
            _rejects(
                committed[0], dataclasses.replace(proof, inner=dataclasses.replace(inner, **{part: moved})), challenge
            )
    for name in ("left", "right"):
        moved = dataclasses.replace(inner, **{name: getattr(inner, name) ^ 1})
        _rejects(committed[0], dataclasses.replace(proof, inner=moved), challenge)
    for rounds in (inner.rounds[:-1], (*inner.rounds, inner.rounds[0])):
        _rejects(committed[0], dataclasses.replace(proof, inner=dataclasses.replace(inner, rounds=rounds)), challenge)
    for crossings in (proof.crossings[:-1], (*proof.crossings, proof.crossings[0])):
        _rejects(committed[0], dataclasses.replace(proof, crossings=crossings), challenge)


def test_any_flipped_bit_of_a_proof_file_is_rejected(committed, proof, challenge):
    data = proof.encode()
    for at in range(0, len(data), 11):
        flipped = data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1 :]
        try:
            changed = Proof.decode(flipped)
        except CorruptFile:
            continue
        _rejects(committed[0], changed, challenge)


def test_any_flipped_bit_of_a_commitment_file_is_rejected(committed, proof, challenge):
    """Also where the verifier's challenge names the changed file, as if it had been published like that."""
    data = committed[0].encoded
    for at in range(0, len(data), 29):
        flipped = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        try:
            changed = Commitment.decode(flipped)
        except CorruptFile:
            continue
        _rejects(changed, proof, dataclasses.replace(challenge, commitments=(changed.digest,)))


def _with(commitment, **changes):
    """A changed commitment, as a new object, whose digest is its own."""
    fields = {field.name: getattr(commitment, field.name) for field in dataclasses.fields(commitment)}
    return Commitment(**(fields | changes))


def test_changed_rows_names_terms_or_columns_are_rejected(committed, proof, challenge):
    commitment = committed[0]
    rows = commitment.rows.copy()
    rows[2, 1] ^= 1
    column = (hashed("elsewhere"), *commitment.left[0][1:])
    changes = [
        {"rows": rows},
        {"names": ("other", *commitment.names[1:])},
        {"by_row": True},
        {"terms": (dataclasses.replace(commitment.terms[0], layer=0), *commitment.terms[1:])},
        {"left": (column, *commitment.left[1:])},
        {"right": (commitment.right[0][::-1], *commitment.right[1:])},
        {"left": commitment.right, "right": commitment.left},
    ]
    for change in changes:
        changed = _with(commitment, **change)
        _rejects(changed, proof, challenge)
        _rejects(changed, proof, dataclasses.replace(challenge, commitments=(changed.digest,)))


def test_a_prover_with_other_weights_is_rejected(committed, challenge, make_integers):
    """Same shapes, the same blinders, and the sketch that these other weights really have."""
    commitment, opening = committed
    other = make_integers(1)
    forged = dataclasses.replace(opening, terms=other.terms)
    _rejects(commitment, prove(commitment, forged, challenge), challenge)
    one = opening.terms[3]
    left = one.left.copy()
    left[0, 0] += 1
    terms = (*opening.terms[:3], dataclasses.replace(one, left=left), *opening.terms[4:])
    _rejects(commitment, prove(commitment, dataclasses.replace(opening, terms=terms), challenge), challenge)


def test_a_prover_without_the_blinders_is_rejected(committed, challenge):
    commitment, opening = committed
    _rejects(commitment, prove(commitment, dataclasses.replace(opening, seed=b"x" * 32), challenge), challenge)


def test_a_sketch_of_choice_is_rejected_even_if_proven_with_it(committed, challenge, monkeypatch):
    """The prover runs every step with the values it would like; its transcript is consistent with them."""
    commitment, opening = committed
    opened = zero_knowledge._opened_transcript
    wanted = tuple(tuple(range(t, t + 3)) for t in range(6))
    monkeypatch.setattr(zero_knowledge, "_opened_transcript", lambda c, q, _: opened(c, q, wanted))
    forged = dataclasses.replace(prove(commitment, opening, challenge), values=wanted)
    monkeypatch.undo()
    _rejects(commitment, forged, challenge)


def test_columns_upon_the_points_of_the_other_side_are_rejected(committed, model, challenge, make_entropy):
    """A dishonest commitment, whose first left column has a part upon the right side's points."""
    commitment, opening = committed
    base = bases(commitment.inner)
    stray = commitment.left[0][0] + multiply(base.right[:1], (5,))
    changed = _with(commitment, left=((stray, *commitment.left[0][1:]), *commitment.left[1:]))
    asked = dataclasses.replace(challenge, commitments=(changed.digest,))
    forged = prove(changed, dataclasses.replace(opening, digest=changed.digest), asked)
    _rejects(changed, forged, asked)


def test_challenges_follow_the_commitment_the_question_and_the_claims(committed, proof, challenge):
    def first(*said):
        return zero_knowledge._opened_transcript(*said).scalar("columns")

    commitment = committed[0]
    other = _with(commitment, by_row=True)
    said = (commitment, challenge, proof.values)
    ways = [said, (other, *said[1:]), (commitment, Challenge.public(3), proof.values)]
    ways += [(commitment, dataclasses.replace(challenge, size=4), proof.values)]
    ways += [(*said[:2], values) for values in _changed_values(proof.values)]
    assert len({first(*way) for way in ways}) == len(ways) == 4 + 18


def test_columns_that_were_moved_within_the_equations_are_rejected(committed, model):
    """An owner who knew the challenges could change two columns so that every equation still holds."""
    commitment, opening = committed
    challenge = Challenge.public(3)
    proof = prove(commitment, opening, challenge)
    transcript = zero_knowledge._opened_transcript(commitment, challenge, proof.values)
    on_left = zero_knowledge._equations(commitment, Statement.of(commitment, challenge), proof, transcript)[1]
    weights = {point.to_compressed_bytes(): scalar for point, scalar in on_left[:2]}
    first, second = commitment.left[0][:2]
    one, two = (weights[point.to_compressed_bytes()] for point in (first, second))
    moved = (first + multiply([hashed("any")], [two]), second - multiply([hashed("any")], [one]))
    changed = _with(commitment, left=((*moved, *commitment.left[0][2:]), *commitment.left[1:]))
    # With the old challenges nothing would show.
    transcript = zero_knowledge._opened_transcript(commitment, challenge, proof.values)
    assert holds(zero_knowledge._equations(changed, Statement.of(changed, challenge), proof, transcript), 3)
    _rejects(changed, proof, challenge)


def test_two_proofs_of_one_statement_share_no_point(committed, challenge):
    first, second = (prove(*committed, challenge) for _ in range(2))
    assert first.values == second.values
    parts = []
    for one in (first, second):
        data = one.encode()[15 + 16 * 18 :]
        parts.append({data[at : at + 16] for at in range(0, len(data), 16)})
        assert verify(committed[0], one, challenge)
    assert not parts[0] & parts[1]


def test_a_broken_source_of_randomness_alone_does_not_repeat_blinders(committed):
    """With constant fresh bytes, proofs under two challenges still share no blinder; under one they are the same."""
    commitment = committed[0]
    asked = [Challenge.draw([commitment.digest], 2) for _ in range(2)]
    proofs = [prove(*committed, one, lambda count: bytes(count)) for one in (*asked, asked[0])]
    assert proofs[0].encode() == proofs[2].encode()
    assert proofs[0].known != proofs[1].known
    assert proofs[0].inner.masks.left != proofs[1].inner.masks.left


def test_commitments_hide_and_bind(model, make_entropy):
    """Equal columns do not look equal, and the opening is of this commitment alone."""
    same = dataclasses.replace(model, rows=model.rows, words=Words(model.words.names, model.words.rows))
    first, second = commit(model), commit(same)
    points = [
        point
        for commitment, _ in (first, second)
        for side in (commitment.left, commitment.right)
        for c in side
        for point in c
    ]
    assert len({point.to_compressed_bytes() for point in points}) == len(points) == 2 * 2 * 6 * 4
    # No two columns share a blinder, whose commitments could then be compared without it.
    assert len({blinder for side in first[1].blinders() for blinder in side}) == 2 * 6 * 4
    check_opening(*first)
    for commitment, opening in ((first[0], second[1]), (second[0], first[1])):
        with pytest.raises(DigestMismatch):
            check_opening(commitment, opening)
        with pytest.raises(DigestMismatch):
            prove(commitment, opening, Challenge.public(2))
        with pytest.raises(DigestMismatch):
            check_opening(commitment, dataclasses.replace(opening, digest=commitment.digest))
    assert first[1].seed.hex()[:8] not in repr(first[1])
    assert commit(model, make_entropy())[0].encoded == commit(model, make_entropy())[0].encoded


def test_a_column_is_the_sum_of_its_entries(model, committed):
    commitment, opening = committed
    base = bases(commitment.inner)
    on_left, on_right = opening.blinders()
    for at, term in enumerate(model.terms):
        for side, upon, blinders in ((0, base.left, on_left), (1, base.right, on_right)):
            factor = (term.left, term.right)[side]
            for column in range(4):
                entries = factor[:, column].tolist()
                expected = multiply((*upon[: len(entries)], base.blind), (*entries, blinders[at * 4 + column]))
                assert (commitment.left, commitment.right)[side][at][column] == expected


def test_an_opening_with_other_blocks_is_refused(committed, make_integers):
    commitment, opening = committed
    for terms in (make_integers(feed=2).terms, make_integers(width=5).terms, opening.terms[:3]):
        with pytest.raises(DigestMismatch):
            check_opening(commitment, dataclasses.replace(opening, terms=terms))


def test_a_commitment_made_after_the_challenge_is_not_accepted(committed, monkeypatch):
    """The owner knew the directions before it committed; a challenge to others is not answered, and not accepted."""
    challenge = Challenge.draw([b"x" * 32], 2)
    with pytest.raises(ProofRejected, match="other commitments"):
        prove(*committed, challenge)
    monkeypatch.setattr(zero_knowledge, "_check_addressed", lambda *_: None)
    forged = prove(*committed, challenge)
    assert verify(committed[0], forged, challenge)
    monkeypatch.undo()
    with pytest.raises(ProofRejected, match="other commitments"):
        verify(committed[0], forged, challenge)


def test_large_entries_are_exact(make_integers):
    """Group sums at the ends of their range, many tokens: all values stay exact."""
    model = make_integers(tokens=64, heads=16, kv=1, inner=1)
    blocks = tuple(
        dataclasses.replace(block, query=np.full_like(block.query, -127), key=np.full_like(block.key, 127))
        for block in model.blocks
    )
    model = dataclasses.replace(model, blocks=blocks)
    commitment, opening = commit(model)
    challenge = Challenge.draw([commitment.digest], 2)
    shown = verify(commitment, prove(commitment, opening, challenge), challenge).sketch
    assert isinstance(shown, IntegerSketch)
    assert shown == sketch(model, challenge)
    assert isinstance(Opening.decode(opening.encode()), Opening)
