"""The basis of the residual stream of one model in terms of another's, recovered from the tokens both have.

Rows Y of the second model are those X of the first up to a change of basis: none, a permutation, a permutation with
signs (assignment on the correlations of columns), or any rotation (orthogonal Procrustes, Schönemann 1966). Each is
fitted on half of the tokens and judged on the other half by the median cosine between a token's row and its image, so
that a change with more freedom wins only where it explains more, and rows that were overwritten do not count. Rows
that do not follow are left out when the basis is fitted again.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
from scipy.optimize import linear_sum_assignment

from vestige.errors import EmptySet
from vestige.fingerprint.fold import Doubles, unused_directions
from vestige.fingerprint.words import Rows
from vestige.models.transformer.block import Matrix

_ROUNDS = 3
"""Fits in all, each without the rows that did not follow the last."""
_FOLLOWS = 0.5
"""A row follows the change of basis from this cosine on."""
_WORSE = 0.01
"""A simpler change of basis is preferred if its cosine is lower by no more than this."""
_MANY = 2048
"""Above this width a permutation is sought by mutual best matches alone; assignment takes cubic time."""


class Basis(Enum):
    """How the second model's residual stream lies in the first's, from the simplest on."""

    SAME = "the same"
    PERMUTED = "permuted"
    SIGNED = "permuted with signs"
    ROTATED = "rotated"


@dataclass(frozen=True, eq=False)
class Alignment:
    """``Y change`` lies where X does, up to ``scale``.

    Parameters
    ----------
    basis : the simplest kind of change that explains the tokens.
    change : [d_second, d_first], a rotation, or a partial one where widths differ.
    scale : of the second model's rows relative to the first's.
    agreement : median cosine of the rows of tokens that the fit did not see.
    following : share of all tokens whose row follows, in [0, 1].
    astray : places [m] of the tokens that do not.
    unused : directions of the first and of the second model that no token has any part in.
    """

    basis: Basis
    change: Doubles
    scale: float
    agreement: float
    following: float
    astray: Rows
    unused: tuple[Doubles, Doubles]

    def across(self, matrix: Matrix) -> Matrix:
        """A matrix [r, d_second] that reads or writes the second residual stream, in the first's basis."""
        return matrix if self.basis is Basis.SAME else matrix @ self.change.astype(np.float32)

    def both_across(self, matrix: Matrix) -> Matrix:
        """A matrix [d_second, d_second] both of whose sides lie in the second residual stream, in the first's basis."""
        return self.across(self.across(matrix).T).T


def _cosines(first: Doubles, second: Doubles) -> Doubles:
    """Cosine of each row [n] of both; 0 where one is zero."""
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return np.divide(np.sum(first * second, axis=1), lengths, out=np.zeros(len(first)), where=lengths > 0)


def _assigned(agreement: Doubles) -> tuple[Rows, Rows] | None:
    """Columns of the second model and of the first that belong together; None where no matching stands out."""
    best = agreement.argmax(0)
    if agreement.shape[0] == agreement.shape[1] and len(np.unique(best)) == len(best):
        return best.astype(np.int64), np.arange(len(best), dtype=np.int64)
    if max(agreement.shape) > _MANY:
        return None
    second, first = linear_sum_assignment(agreement, maximize=True)
    return second.astype(np.int64), first.astype(np.int64)


def _permutation(cross: Doubles, second: Doubles, first: Doubles, signed: bool) -> Doubles | None:
    """The (signed) permutation [d_second, d_first] of the largest correlation of columns."""
    lengths = np.outer(np.linalg.norm(second, axis=0), np.linalg.norm(first, axis=0))
    correlation = np.divide(cross, lengths, out=np.zeros_like(cross), where=lengths > 0)
    found = _assigned(np.abs(correlation) if signed else correlation)
    if found is None:
        return None
    change = np.zeros_like(cross)
    change[found] = np.where(correlation[found] < 0, -1.0, 1.0) if signed else 1.0
    return change


def signed_permutation(first: Doubles, second: Doubles) -> Doubles | None:
    """The permutation with signs [d_second, d_first] that brings the columns of ``second`` closest to ``first`` [n, .].

    None where widths above 2048 leave no mutual best matches.
    """
    ours, theirs = first - first.mean(0), second - second.mean(0)
    return _fit(Basis.SIGNED, ours, theirs)


def _fit(basis: Basis, first: Doubles, second: Doubles) -> Doubles | None:
    """The best change [d_second, d_first] of one kind; None where there is none of this kind."""
    cross = second.T @ first
    if basis is Basis.SAME:
        return np.eye(len(cross)) if cross.shape[0] == cross.shape[1] else None
    if basis is Basis.ROTATED:
        left, _, right = np.linalg.svd(cross, full_matrices=False)
        return left @ right
    return _permutation(cross, second, first, basis is Basis.SIGNED)


@dataclass(frozen=True, eq=False)
class _Fitted:
    basis: Basis
    change: Doubles
    agreement: float


def _judged(basis: Basis, first: Doubles, second: Doubles) -> _Fitted | None:
    """The change of one kind, fitted to every other row, with its median cosine on the rows between."""
    seen = np.arange(len(first)) % 2 == 0
    used, best = seen, None
    for _ in range(_ROUNDS):
        change = _fit(basis, first[used], second[used])
        if change is None:
            return best
        cosines = _cosines(first, second @ change)
        best = _Fitted(basis, change, float(np.median(cosines[~seen])))
        following = seen & (cosines >= _FOLLOWS)
        if following.sum() < max(8, seen.sum() // 10) or np.array_equal(following, used):
            break
        used = following
    return best


def align(first: Matrix, second: Matrix) -> Alignment:
    """The change of basis from the rows [n, d'] of the second model to those [n, d] of the first, token by token.

    Column means are taken off both: a model with positions may keep a constant in either table.

    Raises
    ------
    EmptySet : there are fewer than 8 tokens.
    """
    if len(first) < 8:
        raise EmptySet(
            f"{len(first)} tokens to align two models by.",
            expected="at least 8.",
            remedy="compare models that share their vocabulary.",
        )
    ours, theirs = (side.astype(np.float64) for side in (first, second))
    ours, theirs = ours - ours.mean(0), theirs - theirs.mean(0)
    fits: list[_Fitted] = []
    for basis in Basis:
        found = _judged(basis, ours, theirs)
        if found is not None:
            fits.append(found)
            if found.agreement >= 1.0 - _WORSE:
                break  # nothing with more freedom can be better by more than it has to
    top = max(found.agreement for found in fits)
    chosen = next(found for found in fits if found.agreement >= top - _WORSE)
    image = theirs @ chosen.change
    cosines = _cosines(ours, image)
    follows = cosines >= _FOLLOWS
    kept = follows if follows.any() else np.ones(len(ours), bool)
    scale = float(np.linalg.norm(image[kept]) / max(float(np.linalg.norm(ours[kept])), np.finfo(np.float64).tiny))
    return Alignment(
        chosen.basis,
        chosen.change,
        scale,
        chosen.agreement,
        float(follows.mean()),
        np.flatnonzero(~follows).astype(np.int64),
        (unused_directions(first), unused_directions(second)),
    )
