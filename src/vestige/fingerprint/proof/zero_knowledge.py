"""Zero knowledge: the sketch under a challenge is that of the committed matrices, and nothing else is shown.

Shown is that the prover knows matrices L_t and R_t that open the commitment and whose sketch
``f_tj = <L_t v_tj, R_t w_tj>`` is the one published, where ``v_tj = X^T a_tj`` and ``w_tj = X^T b_tj`` follow from the
published rows and the challenge. All entries are proven at once:

1. For a challenge tau the prover commits to ``e = <p, s>``, where p and s sum all columns of all left and of all
   right factors, weighted with powers of tau. Opening p and s later shows that every column can be opened.
2. For a challenge rho the claims become one: ``sum_k rho^k <x_k, y_k> = sum_k rho^k f_k + rho^N e``.
3. The sum is folded to one pair (:mod:`vestige.fingerprint.proof.sum_of_products`), whose commitments the verifier
   computes from the columns, and the pair is proven (:mod:`vestige.fingerprint.proof.inner_product`).

It holds in the random-oracle model if discrete logarithms in the group are hard; there is no trusted set-up. It does
not show that the matrices are small, that they come from the model that is deployed, or that the published rows do.
Each sketch tells a little: whoever collects thousands of them for one commitment can solve for the terms, so answer
few challenges. Not audited. ``docs/proof.md`` has the argument.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from operator import mul

from vestige.errors import DigestMismatch
from vestige.fingerprint.proof.algebra import Equation, bases, dot, holds, powers, rounds_for
from vestige.fingerprint.proof.challenge import MOST_SIZE, Challenge, Entropy
from vestige.fingerprint.proof.commitment import SEED_BYTES, Commitment, Opening
from vestige.fingerprint.proof.group import ORDER, Point, multiply
from vestige.fingerprint.proof.inner_product import (
    Halving,
    InnerProduct,
    Masks,
    Opened,
    Revealed,
    inner_product_equations,
    prove_inner_product,
)
from vestige.fingerprint.proof.rejected import ProofRejected
from vestige.fingerprint.proof.sketch import IntegerSketch
from vestige.fingerprint.proof.statement import Statement
from vestige.fingerprint.proof.sum_of_products import Crossing, folded_value, prove_sum, sum_challenges
from vestige.fingerprint.proof.transcript import Blinders, Transcript, say
from vestige.fingerprint.proof.wire import Reader, Writer

_MAGIC = b"VSTGprof"
_DOMAIN = "vestige fingerprint sketch, zero knowledge, 1"
_MOST_ROUNDS = 32


@dataclass(frozen=True, eq=False)
class Proof:
    """The claimed ``values`` [terms][size] and the messages of the prover."""

    values: tuple[tuple[int, ...], ...]
    known: Point
    crossings: tuple[Crossing, ...]
    inner: InnerProduct

    def encode(self) -> bytes:
        """The file. Layout: ``docs/proof.md``."""
        writer, inner = Writer(_MAGIC), self.inner
        writer.number(len(self.values), 2)
        writer.number(len(self.values[0]))
        writer.number(len(inner.rounds), 1)
        for values in self.values:
            for value in values:
                writer.signed(value)
        writer.points([self.known, *(point for cross in self.crossings for point in (cross.down, cross.up))])
        writer.points(inner.masks.points)
        writer.scalars(inner.revealed.scalars)
        for message in inner.rounds:
            writer.points(message.points)
        writer.scalars([inner.left, inner.right])
        return writer.whole()

    @staticmethod
    def decode(data: bytes, name: str = "The proof") -> Proof:
        """Read a proof from its bytes. Raises CorruptFile for anything that :meth:`encode` does not write."""
        reader = Reader(data, _MAGIC, name)
        terms, size = reader.number(1, 0xFFFF, 2), reader.number(2, MOST_SIZE)
        rounds = reader.number(0, _MOST_ROUNDS, 1)
        values = tuple(tuple(reader.signed() for _ in range(size)) for _ in range(terms))
        (known,) = reader.points(1)
        crossings = tuple(Crossing(*reader.points(2)) for _ in range(rounds_for(terms * size + 1)))
        masks, revealed = Masks(*reader.points(4)), Revealed(*reader.scalars(4))
        halvings = tuple(Halving(*reader.points(4)) for _ in range(rounds))
        last = reader.scalars(2)
        reader.end()
        return Proof(values, known, crossings, InnerProduct(masks, revealed, halvings, *last))


@dataclass(frozen=True)
class Verification:
    """What a proof that holds has shown.

    ``sketch`` is that of the committed matrices. ``after`` says that its directions depend on the commitment, so that
    the matrices could not be chosen for them; without it they were public before, and the owner may have fitted some
    numbers of the sketch.
    """

    sketch: IntegerSketch
    after: bool


def _opened_transcript(commitment: Commitment, challenge: Challenge, values: Sequence[Sequence[int]]) -> Transcript:
    transcript = Transcript(_DOMAIN)
    transcript.absorb("commitment", commitment.digest)
    transcript.absorb("challenge", challenge.encode())
    transcript.absorb("values", *(b"%d" % value for of_term in values for value in of_term))
    return transcript


def prove(
    commitment: Commitment, opening: Opening, challenge: Challenge, entropy: Entropy = secrets.token_bytes
) -> Proof:
    """Prove the sketch of the committed matrices under a challenge.

    Check that the challenge names this commitment's digest and comes from the one who asks, and count how many you
    answer. Every call draws fresh blinders; the source of them is an argument for tests alone.

    Raises
    ------
    DigestMismatch : the opening is of another commitment.
    ProofRejected : the challenge is about other commitments.
    """
    if opening.digest != commitment.digest:
        raise DigestMismatch(
            f"The opening is of the commitment {opening.digest.hex()[:12]}, this is {commitment.digest.hex()[:12]}.",
            expected="the opening that was written with the commitment.",
            remedy="look for the file of the same run.",
        )
    _check_addressed(commitment, challenge)
    statement = Statement.of(commitment, challenge)
    left, right = statement.products(opening.terms)
    flat = [sum(map(mul, *pair)) for pair in zip(left, right, strict=True)]
    values = tuple(tuple(flat[at : at + challenge.size]) for at in range(0, len(flat), challenge.size))
    transcript = _opened_transcript(commitment, challenge, values)
    taus = powers(transcript.scalar("columns"), commitment.width * len(commitment.terms))
    blinders = _blinders(opening, challenge, entropy)
    base, of_known = bases(commitment.inner), blinders.scalar("known")
    columns = statement.all_columns(opening.terms, taus)
    known = multiply((base.value, base.blind), (dot(*columns), of_known))
    say(transcript, "known", known)
    rhos = powers(transcript.scalar("claims"), statement.claims + 1)
    scaled = [[rho * entry % ORDER for entry in row] for rho, row in zip(rhos, [*right, columns[1]], strict=True)]
    crossings, folded = prove_sum([*left, columns[0]], scaled, rhos[-1] * of_known, base, transcript, blinders)
    blinds = opening.blinders()
    weights = statement.weights(taus, rhos, folded.challenges)
    on_left, on_right = (dot(weight, blind) for weight, blind in zip(weights, blinds, strict=True))
    opened = Opened(folded.left, folded.right, on_left, on_right, folded.blind_value)
    return Proof(values, known, crossings, prove_inner_product(opened, base, transcript, blinders))


def _blinders(opening: Opening, challenge: Challenge, entropy: Entropy) -> Blinders:
    """Fresh blinders, secret as long as either the entropy or the opening's seed is."""
    parts = (b"vestige proof 1", entropy(SEED_BYTES), opening.seed, opening.digest, challenge.encode())
    return Blinders(hashlib.sha512(b"".join(len(part).to_bytes(4, "big") + part for part in parts)).digest())


def verify(commitment: Commitment, proof: Proof, challenge: Challenge) -> Verification:
    """Check a proof; what it returns is proven, anything else raises.

    The challenge is the verifier's own, sent after the commitment was received.

    Raises
    ------
    ProofRejected : the proof does not hold, is of another size, or the challenge is about other commitments.
    """
    _check_addressed(commitment, challenge)
    if [len(values) for values in proof.values] != [challenge.size] * len(commitment.terms):
        raise _rejected("claims other entries than the challenge asks for")
    if len(proof.inner.rounds) != rounds_for(commitment.inner):
        raise _rejected("is for factors of another width")
    statement = Statement.of(commitment, challenge)
    if len(proof.crossings) != rounds_for(statement.claims + 1):
        raise _rejected("folds another number of claims")
    transcript = _opened_transcript(commitment, challenge, proof.values)
    equations = _equations(commitment, statement, proof, transcript)
    if not holds(equations, transcript.scalar("equations")):
        raise _rejected("does not hold")
    return Verification(IntegerSketch(commitment.terms, proof.values), bool(challenge.commitments))


def _equations(commitment: Commitment, statement: Statement, proof: Proof, transcript: Transcript) -> list[Equation]:
    base = bases(commitment.inner)
    taus = powers(transcript.scalar("columns"), commitment.width * len(commitment.terms))
    say(transcript, "known", proof.known)
    rhos = powers(transcript.scalar("claims"), statement.claims + 1)
    challenges = sum_challenges(proof.crossings, transcript)
    on_left, on_right = statement.weights(taus, rhos, challenges)
    flat = [value for values in proof.values for value in values]
    value: Equation = [(base.value, dot(flat, rhos)), (proof.known, rhos[-1])]
    return inner_product_equations(
        proof.inner,
        _weighted(commitment.left, on_left),
        _weighted(commitment.right, on_right),
        folded_value(value, proof.crossings, challenges),
        base,
        transcript,
    )


def _weighted(columns: Sequence[Sequence[Point]], weights: Sequence[int]) -> Equation:
    return list(zip((point for of_term in columns for point in of_term), weights, strict=True))


def _check_addressed(commitment: Commitment, challenge: Challenge) -> None:
    if challenge.commitments and commitment.digest not in challenge.commitments:
        raise ProofRejected(
            f"The challenge is about other commitments than {commitment.digest.hex()[:12]}.",
            expected="a challenge that names this commitment.",
            remedy="draw a challenge for it, or look for the commitment that the challenge names.",
        )


def _rejected(what: str) -> ProofRejected:
    return ProofRejected(
        f"The proof {what}.",
        expected="a proof of this sketch, for this commitment and this challenge.",
        remedy="do not trust the fingerprint; if files may have been mixed up, ask for them again.",
    )
