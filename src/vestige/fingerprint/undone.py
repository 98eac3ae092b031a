"""What stood between two models of one lineage and was undone to compare them, by name."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

from vestige.fingerprint.alignment import Alignment, Basis
from vestige.fingerprint.features import Part, grams
from vestige.fingerprint.fold import feed_norm, gain_of
from vestige.fingerprint.pair import Pair
from vestige.models.transformer.block import Matrix, Norm, NormKind


class Transformation(Enum):
    """Ways to change a model's file that its function, or most of it, survives."""

    VOCABULARY_PERMUTED = "vocabulary permuted"
    VOCABULARY_EXTENDED = "vocabulary extended"
    VOCABULARY_TRIMMED = "vocabulary trimmed"
    ROWS_OVERWRITTEN = "rows of the embedding overwritten"
    RESIDUAL_PERMUTED = "residual stream permuted"
    RESIDUAL_SIGNS = "signs of the residual stream flipped"
    RESIDUAL_ROTATED = "residual stream rotated"
    RESIDUAL_RESIZED = "residual stream narrowed or widened"
    RESIDUAL_SCALED = "residual stream scaled"
    MEAN_FOLDED = "mean subtraction folded"
    GAINS_FOLDED = "norm gains folded"
    GAINS_SHIFTED = "norm gains shifted"
    HEADS_PERMUTED = "heads permuted"
    HEAD_BASES_CHANGED = "bases of heads changed"
    NEURONS_PERMUTED = "neurons permuted"
    NEURONS_SCALED = "neurons scaled"
    EXPERTS_PERMUTED = "experts permuted"
    LAYERS_DROPPED = "layers dropped"
    LAYERS_INSERTED = "layers inserted"


@dataclass(frozen=True)
class Undone:
    """One change and how much of it: a share in [0, 1], or in the unit given."""

    transformation: Transformation
    amount: float
    unit: str = "share"


_ALIGNED = 0.5
"""Median cosine of aligned tokens from which the basis of the residual stream counts as known."""
_CLOSE = 0.9
"""Median cosine from which rows that do not follow stand out."""
_VERY_CLOSE = 0.98
"""Median cosine from which a change of length is one of scale: mixing and noise change lengths too."""
_ROWS_ASTRAY = 0.002
"""Share of rows that follow no common change of basis, from which they count as overwritten."""
_SCALED = 0.1
"""Relative change of the residual stream's scale that training does not bring about."""
_SHIFTED = 0.02
"""Spread of the log ratio of gains from which a shift can be told from training."""


def of_words(pair: Pair) -> list[Undone]:
    """Reordered, added and missing tokens."""
    ours, theirs = pair.words
    if not len(ours):
        return []
    found: list[Undone] = []
    moved = float(np.mean(np.argsort(theirs.rows, kind="stable") != np.arange(len(theirs))))
    if moved > 0:
        found.append(Undone(Transformation.VOCABULARY_PERMUTED, moved))
    counts = {
        Transformation.VOCABULARY_EXTENDED: pair.second.words - len(ours),
        Transformation.VOCABULARY_TRIMMED: pair.first.words - len(ours),
    }
    return [*found, *(Undone(kind, float(count), "tokens") for kind, count in counts.items() if count)]


def of_residual(alignment: Alignment) -> list[Undone]:
    """A change of basis, width or scale of the residual stream, and rows that did not go along."""
    found: list[Undone] = []
    if alignment.agreement < _ALIGNED:
        return found
    theirs, ours = alignment.change.shape
    if theirs != ours:
        found.append(Undone(Transformation.RESIDUAL_RESIZED, theirs / ours, "factor"))
    if alignment.basis is Basis.ROTATED:
        found.append(Undone(Transformation.RESIDUAL_ROTATED, 1.0))
    elif alignment.basis is not Basis.SAME:
        found += _permuted(alignment)
    if theirs == ours and alignment.agreement >= _VERY_CLOSE and abs(np.log(alignment.scale)) > _SCALED:
        found.append(Undone(Transformation.RESIDUAL_SCALED, alignment.scale, "factor"))
    if alignment.agreement >= _CLOSE and 1.0 - alignment.following > _ROWS_ASTRAY:
        found.append(Undone(Transformation.ROWS_OVERWRITTEN, 1.0 - alignment.following))
    return found


def _permuted(alignment: Alignment) -> list[Undone]:
    """Reordering and flipped signs; entries that were left out without reordering the others count as neither."""
    rows, columns = np.nonzero(alignment.change)
    found: list[Undone] = []
    if np.any(np.diff(columns) < 0):
        # Both ascending where nothing moved: the share of entries that would have to move for that.
        moved = float(np.mean(columns != np.sort(columns)))
        found.append(Undone(Transformation.RESIDUAL_PERMUTED, moved))
    negative = float(np.mean(alignment.change[rows, columns] < 0))
    return [*found, Undone(Transformation.RESIDUAL_SIGNS, negative)] if negative > 0 else found


def of_layers(pair: Pair) -> list[Undone]:
    """Layers that went or came."""
    if pair.match is None or not pair.layers_match:
        return []
    counts = {
        Transformation.LAYERS_DROPPED: len(pair.match.dropped),
        Transformation.LAYERS_INSERTED: len(pair.match.inserted),
    }
    return [Undone(kind, float(count), "layers") for kind, count in counts.items() if count]


def _constant(gain: Matrix) -> bool:
    return float(np.ptp(gain)) <= 1e-5 * float(np.abs(gain).max())


def _spread(gain: Matrix) -> float:
    return float(np.std(np.log(np.abs(gain) + 1e-12)))


def _gains(
    ours: Norm | None, theirs: Norm | None, columns: tuple[Matrix, Matrix], alignment: Alignment
) -> list[Undone]:
    """What happened to one norm, from its gains and the lengths of the columns behind it, gains folded in."""
    first, second = (gain_of(norm, len(length)) for norm, length in zip((ours, theirs), columns, strict=True))
    rotated, even = alignment.basis is Basis.ROTATED, (_constant(first), _constant(second))
    found: list[Undone] = []
    if even[0] != even[1] or (rotated and not even[0]):
        # A rotation does not commute with gains: they were folded first, whatever stands there now.
        folded = first if even[1] or rotated else second
        found.append(Undone(Transformation.GAINS_FOLDED, _spread(folded), "spread of log gains"))
    if rotated:
        shifted = not even[1]
        return (
            [*found, Undone(Transformation.GAINS_SHIFTED, _spread(second), "spread of log gains")] if shifted else found
        )
    if any(even):
        return found
    # A permutation with or without signs carries squared lengths along.
    carried = [np.sqrt(np.square(side) @ np.square(alignment.change)) for side in (second, columns[1])]
    ratio, length = (
        np.log((now + 1e-12) / (np.abs(before) + 1e-12))
        for before, now in zip((first, columns[0]), carried, strict=True)
    )
    spread = float(np.std(ratio))
    # Training that moves gains moves the folded columns as much; a shift leaves them.
    shifted = spread > _SHIFTED and float(np.std(length)) < spread / 2
    return [Undone(Transformation.GAINS_SHIFTED, spread, "spread of log ratio")] if shifted else []


def of_norms(pair: Pair) -> list[Undone]:
    """Folded means, folded gains and shifted gains of the last matched layer."""
    ours, theirs = pair.blocks(pair.layers[-1])
    folded = [grams(*side) for side in zip((ours, theirs), pair.alignment.unused, strict=True)]
    lengths = [{part: np.sqrt(np.diag(gram)) for part, gram in every.items()} for every in folded]
    norms = (
        (Part.QUERY, ours.before_attention, theirs.before_attention),
        (Part.UP, feed_norm(ours), feed_norm(theirs)),
    )
    found: dict[Transformation, Undone] = {}
    for part, first, second in norms:
        if first is not None and second is not None and first.kind is NormKind.LAYER and second.kind is NormKind.RMS:
            found[Transformation.MEAN_FOLDED] = Undone(Transformation.MEAN_FOLDED, 1.0)
        if pair.first.width == pair.second.width:
            for done in _gains(first, second, (lengths[0][part], lengths[1][part]), pair.alignment):
                found.setdefault(done.transformation, done)
    return list(found.values())
