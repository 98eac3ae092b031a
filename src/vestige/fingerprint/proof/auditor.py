"""An auditor: the owner publishes one digest of the weights early and later shows them to somebody under agreement.

The owner commits to every row of the integer matrices (:mod:`vestige.fingerprint.proof.integers`) with a salted tree
(:mod:`vestige.fingerprint.proof.merkle`) and publishes the root. The auditor, who gets the weights and the key of the
salts, rebuilds the root and checks what was claimed: sketches by recomputation, whole products by Freivalds' check.

Whoever trusts the auditor then knows that the claims are those of weights that were fixed when the root was
published. It does not show which model is deployed, unless the auditor looks at that too; rare rows that were
overwritten before the root was published are not noticed. The root alone proves nothing to anybody else: every
entry of a term depends on all rows, so opening a few of them would show rows and check no term.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass

from vestige.errors import InvalidInput
from vestige.fingerprint.proof import merkle
from vestige.fingerprint.proof.challenge import Challenge, Entropy
from vestige.fingerprint.proof.freivalds import Integers, error_bound, is_product
from vestige.fingerprint.proof.integers import IntegerModel, IntegerTerm, TermName
from vestige.fingerprint.proof.rejected import ProofRejected
from vestige.fingerprint.proof.sketch import IntegerSketch, exact_product, sketch

KEY_BYTES = 32
_DENSE = 1 << 13
"""Most tokens of a product that is written out: 512 MiB."""


@dataclass(frozen=True)
class RowCommitment:
    """What is published: the digest of everything, which covers names, shapes and every row."""

    root: bytes


@dataclass(frozen=True, eq=False)
class RowKey:
    """What the auditor gets beside the weights: the key of the salts of one commitment."""

    root: bytes
    key: bytes

    def __repr__(self) -> str:
        return f"RowKey(root={self.root.hex()[:12]}…)"


@dataclass(frozen=True, eq=False)
class ProductClaim:
    """That a term over the committed tokens is ``matrix`` [K, K]: ``X L^T R X^T`` in integers, not centred."""

    name: TermName
    matrix: Integers


@dataclass(frozen=True)
class Audit:
    """What an audit checked: terms by whole products and entries of sketches.

    A wrong product would have passed with probability ``error`` at most; sketches are recomputed and cannot.
    """

    root: bytes
    products: int
    entries: int
    error: float


def commit_rows(model: IntegerModel, entropy: Entropy = secrets.token_bytes) -> tuple[RowCommitment, RowKey]:
    """Commit to every row of a model's integer matrices."""
    key = entropy(KEY_BYTES)
    root = _root(model, key)
    return RowCommitment(root), RowKey(root, key)


def _root(model: IntegerModel, key: bytes) -> bytes:
    header = [b"vestige rows 1", *(name.encode("utf-8", "surrogatepass") for name in model.words.names)]
    header.append(b"by row" if model.words.by_row else b"by name")
    leaves: list[bytes] = []
    for block in model.blocks:
        header.append(b"%d/%d/%d" % (block.layer, len(block.query), len(block.key)))
    for name, matrix in model.matrices.items():
        header.append(f"{name}/{matrix.shape[0]}/{matrix.shape[1]}".encode())
        for row in matrix:
            leaves.append(merkle.leaf(merkle.salt(key, len(leaves)), row.tobytes()))
    framed = b"".join(len(part).to_bytes(8, "big") + part for part in header)
    # Token names and shapes are salted too: the first could otherwise be guessed from the digest.
    top = merkle.leaf(merkle.salt(key, len(leaves)), framed)
    return hashlib.sha256(b"\x02" + top + merkle.root(leaves)).digest()


def dense_product(model: IntegerModel, name: TermName) -> ProductClaim:
    """A term written out, to be published or compared in full; it shows far more of the weights than a sketch.

    Raises
    ------
    InvalidInput : the model has no such term, or too many tokens to write it out.
    """
    if len(model.rows) > _DENSE:
        raise InvalidInput(
            f"A product over {len(model.rows)} tokens.", expected=f"at most {_DENSE}.", remedy="claim a sketch instead."
        )
    left, right = _factors(model, name)
    return ProductClaim(name, exact_product(left, right.T))


def _factors(model: IntegerModel, name: TermName) -> tuple[Integers, Integers]:
    found: list[IntegerTerm] = [term for term in model.terms if term.name == name]
    if not found:
        raise InvalidInput(
            f"Term {name.term.value} of layer {name.layer}, {name.inner} wide.",
            expected="a term of the committed blocks.",
            remedy="check the claim.",
        )
    return exact_product(model.rows, found[0].left.T), exact_product(model.rows, found[0].right.T)


def audit(
    commitment: RowCommitment,
    key: RowKey,
    model: IntegerModel,
    products: tuple[ProductClaim, ...] = (),
    sketches: tuple[tuple[Challenge, IntegerSketch], ...] = (),
    repetitions: int = 4,
) -> Audit:
    """Check the root against a model that the auditor read and rounded, and every claim against the model.

    Raises
    ------
    ProofRejected : the root or a claim does not hold; the message names it. InvalidInput : a claim of no such term.
    """
    if _root(model, key.key) != commitment.root:
        raise _rejected("The committed root is not that of these weights.", "the root that the weights and key give")
    for claim in products:
        left, right = _factors(model, claim.name)
        fits = claim.matrix.shape == (len(left), len(right))
        if not fits or not is_product(claim.matrix, left, right, repetitions):
            raise _rejected(
                f"The product claimed for term {claim.name.term.value} of layer {claim.name.layer} is wrong.",
                "the product of the committed rows",
            )
    for challenge, claimed in sketches:
        if sketch(model, challenge) != claimed:
            raise _rejected("A claimed sketch is wrong.", "the sketch of the committed rows under its challenge")
    entries = sum(claimed.size * len(claimed.terms) for _, claimed in sketches)
    return Audit(commitment.root, len(products), entries, error_bound(repetitions) if products else 0.0)


def _rejected(found: str, expected: str) -> ProofRejected:
    return ProofRejected(
        found,
        expected=f"{expected}.",
        remedy="check that weights, tokens, layers and key are the committed ones; if so, do not trust the claim.",
    )
