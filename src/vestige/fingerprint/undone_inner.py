"""What was done inside the blocks: order and bases of heads, order and scale of neurons, order of experts."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

from vestige.fingerprint.alignment import Alignment
from vestige.fingerprint.fold import Doubles, FoldedAttention, FoldedFeed, fold_attention, fold_feed
from vestige.fingerprint.layers import cosines
from vestige.fingerprint.pair import Pair
from vestige.fingerprint.undone import Transformation, Undone
from vestige.fingerprint.words import Rows
from vestige.models.transformer.block import Block, Matrix
from vestige.randomness import Stream, generator

_MATCHED = 0.5
"""Mean cosine from which a matching of heads, neurons or experts counts as found."""
_NEURONS = 128
"""Neurons of the first model that are looked for in the second."""
_BY_CHANCE = 0.05
"""Share of neurons that may find another than their own, alike by chance."""
_SPREAD = 0.05
"""Spread of the log ratio of neurons' lengths from which a change of scale can be told from training."""
_PROBES = 4


def _lengths(rows: Matrix) -> Doubles:
    return np.sqrt(np.einsum("...nd,...nd->...n", rows, rows, dtype=np.float64))


def _per_head(first: tuple[Matrix, Matrix], second: tuple[Matrix, Matrix]) -> Doubles:
    """Inner products [m, n] of the products ``A_h = R_h^T S_h`` of two sets of heads, each R and S [., w, d]."""
    sides = [
        np.tensordot(ours.astype(np.float64), theirs.astype(np.float64), axes=((2,), (2,)))
        for ours, theirs in zip(first, second, strict=True)
    ]
    return np.einsum("mwnv,mwnv->mn", *sides)


def _shared(heads: Matrix, count: int) -> Matrix:
    return np.repeat(heads, count // len(heads), axis=0)


def _head_cosines(first: tuple[Matrix, Matrix], second: tuple[Matrix, Matrix]) -> Doubles:
    own, other = (np.sqrt(np.maximum(np.diag(_per_head(side, side)), 1e-300)) for side in (first, second))
    return _per_head(first, second) / np.outer(own, other)


def _across(part: FoldedAttention, alignment: Alignment) -> FoldedAttention:
    def turned(heads: Matrix) -> Matrix:
        return alignment.across(heads.reshape(-1, heads.shape[2])).reshape(*heads.shape[:2], -1)

    return FoldedAttention(turned(part.query), turned(part.key), turned(part.value), turned(part.output))


def of_heads(pair: Pair, blocks: tuple[Block, Block]) -> list[Undone]:
    """Heads of the last matched layer that moved or changed their basis."""
    ours = fold_attention(blocks[0])
    theirs = _across(fold_attention(blocks[1]), pair.alignment)
    if ours.query.shape != theirs.query.shape or ours.key.shape != theirs.key.shape:
        return []
    count = len(ours.query)
    scores = _head_cosines(*((part.query, _shared(part.key, count)) for part in (ours, theirs)))
    values = _head_cosines(*((part.output, _shared(part.value, count)) for part in (ours, theirs)))
    rows, columns = linear_sum_assignment(scores + values, maximize=True)
    agreement = (scores[rows, columns] + values[rows, columns]) / 2
    if float(agreement.mean()) < _MATCHED:
        return []
    found: list[Undone] = []
    moved = float(np.mean(rows != columns))
    if moved > 0:
        found.append(Undone(Transformation.HEADS_PERMUTED, moved))
    changed = [
        scores[rows, columns] - _raw(ours.query, theirs.query, rows, columns) > 0.1,
        values[rows, columns] - _raw(ours.output, theirs.output, rows, columns) > 0.1,
    ]
    share = float(np.mean(np.logical_or(*changed)))
    return [*found, Undone(Transformation.HEAD_BASES_CHANGED, share)] if share > 0 else found


def _raw(first: Matrix, second: Matrix, rows: Rows, columns: Rows) -> Doubles:
    """Cosine of the matrices of matched heads as they are."""
    ours, theirs = (side.reshape(len(side), -1).astype(np.float64) for side in (first[rows], second[columns]))
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    return np.sum(ours * theirs, axis=1) / np.maximum(lengths, 1e-300)


def of_neurons(pair: Pair, ours: FoldedFeed, theirs: FoldedFeed) -> list[Undone]:
    """Neurons of one feed-forward part that moved or were scaled."""
    chosen = np.linspace(0, len(ours.up) - 1, min(_NEURONS, len(ours.up))).round().astype(np.int64)
    gated = ours.gate is not None and theirs.gate is not None
    known, sought = (side.gate if gated and side.gate is not None else side.up for side in (ours, theirs))
    likeness = cosines(known[chosen].astype(np.float64), pair.alignment.across(sought).astype(np.float64))
    best = likeness.argmax(1)
    if float(np.median(likeness.max(1))) < _MATCHED:
        return []
    found: list[Undone] = []
    moved = float(np.mean(best != chosen))
    if moved > _BY_CHANCE:
        found.append(Undone(Transformation.NEURONS_PERMUTED, moved))
    up, down = (
        np.log(np.maximum(_lengths(second[best]), 1e-30) / np.maximum(_lengths(first[chosen]), 1e-30))
        for first, second in ((ours.up, theirs.up), (ours.down, theirs.down))
    )
    if float(np.std(up)) > _SPREAD and float(np.std(up + down)) < float(np.std(up)) / 2:
        found.append(Undone(Transformation.NEURONS_SCALED, float(np.std(up)), "spread of log scale"))
    return found


def _expert_marks(block: Block, alignment: Alignment | None, width: int) -> Doubles:
    """What each expert's ``down up^T`` makes of a few fixed vectors [experts, probes * d]: no order, no scale."""
    probes = generator(0, Stream.CONTROL, row=0).standard_normal((width, _PROBES)).astype(np.float32)
    marks: list[Doubles] = []
    for expert in block.experts:
        part = fold_feed(block, expert)
        up, down = (part.up, part.down) if alignment is None else map(alignment.across, (part.up, part.down))
        marks.append((down.T @ (up @ probes)).astype(np.float64).ravel())
    return np.stack(marks)


def of_experts(pair: Pair, blocks: tuple[Block, Block]) -> tuple[list[Undone], tuple[int, int]]:
    """Experts that moved, and a pair of experts that belong together."""
    if len(blocks[0].experts) == 1 or len(blocks[0].experts) != len(blocks[1].experts):
        return [], (0, 0)
    width = pair.first.width
    likeness = cosines(_expert_marks(blocks[0], None, width), _expert_marks(blocks[1], pair.alignment, width))
    rows, columns = linear_sum_assignment(likeness, maximize=True)
    moved = float(np.mean(rows != columns))
    known = moved > 0 and float(likeness[rows, columns].mean()) >= _MATCHED
    return [Undone(Transformation.EXPERTS_PERMUTED, moved)] if known else [], (int(rows[0]), int(columns[0]))


def inside_blocks(pair: Pair) -> list[Undone]:
    """Everything found inside the last matched layer."""
    blocks = pair.blocks(pair.layers[-1])
    experts, (first, second) = of_experts(pair, blocks)
    feeds = fold_feed(blocks[0], blocks[0].experts[first]), fold_feed(blocks[1], blocks[1].experts[second])
    return [*of_heads(pair, blocks), *experts, *of_neurons(pair, *feeds)]
