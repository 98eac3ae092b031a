"""Commitment to the integer matrices of a model, column by column, and the secret that opens it.

Column c of the left factor L [r, d] of a term is committed to as ``L_0c G_0 + ... + L_(r-1)c G_(r-1) + b h`` with a
fresh blinder b (Pedersen 1991, for vectors), and columns of right factors upon other points. This hides the columns
perfectly and binds to them as long as discrete logarithms are hard. Since commitments add up like vectors, anybody
computes the commitment to ``L v`` for a public v. The token rows X are published as they are.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vestige.errors import DigestMismatch
from vestige.fingerprint.proof.algebra import Bases, bases, width_for
from vestige.fingerprint.proof.challenge import DIGEST_BYTES, Entropy
from vestige.fingerprint.proof.group import Point, multiply, multiply_small
from vestige.fingerprint.proof.integers import (
    LARGEST,
    MOST_INNER,
    MOST_WORDS,
    Int8,
    Int16,
    IntegerModel,
    IntegerTerm,
    TermName,
)
from vestige.fingerprint.proof.transcript import Blinders
from vestige.fingerprint.proof.wire import Reader, Writer, corrupt
from vestige.fingerprint.terms import Term

SEED_BYTES = 32
_MAGIC, _SECRET_MAGIC = b"VSTGcomm", b"VSTGopen"
_MOST_WIDTH = 1 << 15
_MOST_TERMS = 96
_KINDS = tuple(Term)

Columns = tuple[Point, ...]


@dataclass(frozen=True, eq=False)
class Commitment:
    """What the owner publishes before any challenge.

    ``rows`` [K, d] are the tokens' rows on their grid, ``names`` the tokens (``by_row``: row numbers), and ``left`` and
    ``right`` hold, for every term, the commitments to the d columns of its factors.
    """

    names: tuple[str, ...]
    by_row: bool
    rows: Int8
    terms: tuple[TermName, ...]
    left: tuple[Columns, ...]
    right: tuple[Columns, ...]

    @property
    def width(self) -> int:
        """Width d of the residual stream."""
        return self.rows.shape[1]

    @property
    def inner(self) -> int:
        """Length of the vectors of an argument over all terms: the widest term's, rounded up to a power of two."""
        return inner_of(self.terms)

    @cached_property
    def encoded(self) -> bytes:
        """The file. Layout: ``docs/proof.md``."""
        writer = Writer(_MAGIC)
        writer.number(len(self.names))
        writer.number(self.width)
        writer.number(int(self.by_row), 1)
        for name in self.names:
            writer.text(name)
        writer.raw(self.rows.tobytes())
        _write_terms(writer, self.terms)
        for side in (*self.left, *self.right):
            writer.points(side)
        return writer.whole()

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of the file: what a challenge names."""
        return hashlib.sha256(self.encoded).digest()

    @staticmethod
    def decode(data: bytes, name: str = "The commitment") -> Commitment:
        """Read a commitment from its bytes; ``name`` is what an error calls it.

        Raises
        ------
        CorruptFile : anything that :attr:`encoded` does not write, a point outside the group included.
        """
        reader = Reader(data, _MAGIC, name)
        tokens, width = reader.number(2, MOST_WORDS), reader.number(1, _MOST_WIDTH)
        by_row = bool(reader.number(0, 1, 1))
        names = tuple(reader.text() for _ in range(tokens))
        if len(set(names)) < tokens:
            raise corrupt(name, "names a token twice")
        rows = reader.array("i1", (tokens, width)).astype(np.int8)
        terms = _read_terms(reader, name)
        left = tuple(reader.points(width) for _ in terms)
        right = tuple(reader.points(width) for _ in terms)
        reader.end()
        return Commitment(names, by_row, rows, terms, left, right)

    def matches(self, model: IntegerModel) -> bool:
        """Whether tokens, their rows and the shapes of the terms are those of the model; says nothing of weights."""
        return (
            self.names == model.words.names
            and self.by_row == model.words.by_row
            and np.array_equal(self.rows, model.rows)
            and self.terms == tuple(term.name for term in model.terms)
        )


@dataclass(frozen=True, eq=False)
class Opening:
    """What the owner keeps secret: the factors and the seed of all blinders, bound to one commitment by its digest."""

    digest: bytes
    seed: bytes
    terms: tuple[IntegerTerm, ...]

    def __repr__(self) -> str:
        return f"Opening(digest={self.digest.hex()[:12]}…)"

    @property
    def width(self) -> int:
        """Width d of the residual stream."""
        return self.terms[0].left.shape[1]

    def blinders(self) -> tuple[list[int], list[int]]:
        """The blinders of every column of the left and of the right factors, term after term."""
        left, right = (
            [b for term in range(len(self.terms)) for b in _column_blinders(self.seed, side, term, self.width)]
            for side in ("left", "right")
        )
        return left, right

    def encode(self) -> bytes:
        """The file; whoever reads it has the weights."""
        writer = Writer(_SECRET_MAGIC)
        writer.raw(self.digest)
        writer.raw(self.seed)
        writer.number(self.width)
        _write_terms(writer, tuple(term.name for term in self.terms))
        for term in self.terms:
            writer.raw(term.left.astype(">i2").tobytes())
            writer.raw(term.right.astype(">i2").tobytes())
        return writer.whole()

    @staticmethod
    def decode(data: bytes, name: str = "The opening") -> Opening:
        """Read an opening from its bytes. Raises CorruptFile for anything that :meth:`encode` does not write."""
        reader = Reader(data, _SECRET_MAGIC, name)
        digest, seed = reader.raw(DIGEST_BYTES), reader.raw(SEED_BYTES)
        width = reader.number(1, _MOST_WIDTH)
        terms: list[IntegerTerm] = []
        for term in _read_terms(reader, name):
            left, right = (reader.array(">i2", (term.inner, width)).astype(np.int16) for _ in range(2))
            terms.append(IntegerTerm(term, left, right))
        reader.end()
        return Opening(digest, seed, tuple(terms))


def inner_of(terms: Sequence[TermName]) -> int:
    """The widest term's inner width, rounded up to a power of two."""
    return width_for(max(term.inner for term in terms))


def commit(model: IntegerModel, entropy: Entropy = secrets.token_bytes) -> tuple[Commitment, Opening]:
    """Commit to every factor of a model's terms.

    Publish the commitment, or its digest with a time stamp, before anybody draws a challenge. Keep the opening secret,
    and use one opening for one model: its seed blinds every column.
    """
    seed = entropy(SEED_BYTES)
    left, right = _columns(model.terms, seed)
    commitment = Commitment(
        model.words.names, model.words.by_row, model.rows, tuple(term.name for term in model.terms), left, right
    )
    return commitment, Opening(commitment.digest, seed, model.terms)


def check_opening(commitment: Commitment, opening: Opening) -> None:
    """Recompute every column: what a judge does who is shown the opening, to tie the proofs to known weights.

    Raises
    ------
    DigestMismatch : the opening is of another commitment or does not open it.
    """
    if opening.digest == commitment.digest and tuple(term.name for term in opening.terms) == commitment.terms:
        widths = {matrix.shape[1] for term in opening.terms for matrix in (term.left, term.right)}
        if widths == {commitment.width} and _columns(opening.terms, opening.seed) == (
            commitment.left,
            commitment.right,
        ):
            return
    raise DigestMismatch(
        f"The opening does not open the commitment {commitment.digest.hex()[:12]}.",
        expected="the opening that was written with it.",
        remedy="look for the file of the same run, or commit again.",
    )


def _column_blinders(seed: bytes, side: str, term: int, width: int) -> list[int]:
    return Blinders(seed).scalars(f"column/{side}/{term}", width)


def _columns(terms: Sequence[IntegerTerm], seed: bytes) -> tuple[tuple[Columns, ...], tuple[Columns, ...]]:
    base = bases(inner_of([term.name for term in terms]))
    left = tuple(_commit_columns(term.left, base.left, base, seed, "left", at) for at, term in enumerate(terms))
    right = tuple(_commit_columns(term.right, base.right, base, seed, "right", at) for at, term in enumerate(terms))
    return left, right


def _commit_columns(factor: Int16, upon: Sequence[Point], base: Bases, seed: bytes, side: str, term: int) -> Columns:
    """Commitments to the columns; entries are shifted to be positive, which the library multiplies far faster."""
    inner, width = factor.shape
    shift = max(LARGEST, int(np.max(np.abs(factor.astype(np.int32)), initial=0)))
    upon = upon[:inner]
    shifted = -multiply(upon, [shift] * inner)
    blinders = _column_blinders(seed, side, term, width)
    return tuple(
        multiply_small(upon, (column.astype(np.int32) + shift).tolist(), 2 * shift)
        + shifted
        + multiply((base.blind,), (blinder,))
        for column, blinder in zip(factor.T, blinders, strict=True)
    )


def _write_terms(writer: Writer, terms: Sequence[TermName]) -> None:
    writer.number(len(terms), 2)
    for term in terms:
        writer.number(term.layer)
        writer.number(_KINDS.index(term.term), 1)
        writer.number(term.inner)


def _read_terms(reader: Reader, name: str) -> tuple[TermName, ...]:
    found: list[tuple[int, int, int]] = []
    for _ in range(reader.number(1, _MOST_TERMS, 2)):
        found.append((reader.number(0, 1 << 20), reader.number(0, len(_KINDS) - 1, 1), reader.number(1, MOST_INNER)))
    places = [place[:2] for place in found]
    if places != sorted(set(places)):
        raise corrupt(name, "lists its terms twice or in another order")
    return tuple(TermName(layer, _KINDS[kind], inner) for layer, kind, inner in found)
