"""How much of each parent is in a merged model.

The child's weights are written as ``sum_k s_k W_k`` over parents brought into its basis, by least squares. Used are
rows that every linear merge mixes and no symmetry scales: tokens of the embedding and the gates of neurons (or their
first matrices, where there are no gates), neurons matched by their direction. Parents that share a base are told
apart by where they differ.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from vestige.errors import InvalidInput, Unsupported
from vestige.fingerprint.alignment import align
from vestige.fingerprint.fold import Doubles, feed_norm, feeds, read_through
from vestige.fingerprint.layers import cosines
from vestige.fingerprint.terms import Entry
from vestige.fingerprint.words import Rows, Sampled, Words, shared
from vestige.metrics.interval import Interval, t_quantile
from vestige.models.transformer.block import Block, Matrix, Transformer

_TOKENS = 4096
_NEURONS = 1024


@dataclass(frozen=True)
class Shares:
    """Share of every parent with its interval over blocks of weights, and what they leave unexplained.

    ``unexplained`` is the length of the rest relative to the child's weights, in [0, 1]; near 0, the child is a linear
    merge of these parents and nothing else.
    """

    shares: tuple[Interval, ...]
    unexplained: float


def foreign_share(cosine: float) -> float:
    """Share of an unknown parent in [0, 1], from the cosine of a child's aligned weights with the known one.

    For ``W = (1 - s) A + s B`` with A and B of equal length and orthogonal, ``s / (1 - s) = sqrt(1 / cos^2 - 1)``. An
    upper bound for fine-tuned models, whose update takes the place of B.

    Raises
    ------
    InvalidInput : the cosine lies outside (0, 1].
    """
    if not 0.0 < cosine <= 1.0:
        raise InvalidInput(
            f"The cosine is {cosine}.", expected="above 0 and at most 1.", remedy="compare models of one lineage."
        )
    ratio = math.sqrt(1.0 / cosine**2 - 1.0)
    return ratio / (1.0 + ratio)


def _gates(block: Block) -> Matrix:
    """The rows of all neurons [n, d] that no symmetry scales, gain folded in."""
    rows = [expert.up if expert.gate is None else expert.gate for expert in feeds(block)]
    return read_through(np.concatenate(rows), feed_norm(block))


Change = Callable[[Matrix], Matrix]
"""Brings a parent's matrix into the child's basis."""


def _unmoved(matrix: Matrix) -> Matrix:
    return matrix


def _matches(ours: Matrix, theirs: Matrix) -> Rows:
    """For each of our neurons the place of the one of theirs with the closest direction."""
    return cosines(ours.astype(np.float64), theirs.astype(np.float64)).argmax(1).astype(np.int64)


def _check(child: Transformer, parents: Sequence[Transformer]) -> None:
    if not parents:
        raise InvalidInput("No parents were given.", expected="at least one.", remedy="name the models to look for.")
    shapes = {(model.depth, model.width) for model in (child, *parents)}
    if len(shapes) > 1:
        raise Unsupported(
            f"The models have depths and widths {sorted(shapes)}.",
            expected="one shape, as a linear merge needs.",
            remedy="compare the models in pairs instead.",
        )


def _in_common(child: Words, parents: Sequence[Words]) -> tuple[Words, list[Words]]:
    """The words that all models have, in the child's order."""
    for words in parents:
        child = shared(child, words)[0]
    return child, [shared(child, words)[1] for words in parents]


def merge_shares(
    child: Transformer, parents: Sequence[Transformer], layers: int = 4, confidence: float = 0.95
) -> Shares:
    """The share of each parent in a linear merge; shares need not sum to 1.

    Parameters
    ----------
    layers : of whose neurons the gates are used, evenly spread.
    confidence : of the intervals, from leaving out one block of weights at a time (jackknife).

    Raises
    ------
    InvalidInput : no parents were given, or two of them are the same.
    Unsupported : depths or widths differ.
    EmptySet : the models share fewer than 8 tokens.
    """
    _check(child, parents)
    ours, theirs = _in_common(Words.of(child), [Words.of(parent) for parent in parents])
    places = Sampled(_TOKENS).choose(ours)
    tokens = Entry(child, ours.at(places).rows).matrix
    others = [Entry(parent, words.at(places).rows).matrix for parent, words in zip(parents, theirs, strict=True)]
    own = [align(tokens, matrix) for matrix in others]
    leader = max(range(len(own)), key=lambda place: own[place].agreement)
    # A merge mixes its parents as they lie in their files. The child may have been moved since, with all that is in
    # it; or one parent's file was. What explains the child best holds.
    ways: list[tuple[list[Change], int | None]] = [
        ([each.across for each in own], None),
        ([own[leader].across] * len(own), leader),
        ([_unmoved] * len(own), leader),
    ]
    found: list[Shares] = []
    for changes, follow in ways:
        systems = [_system(tokens, [across(m) for across, m in zip(changes, others, strict=True)])]
        for index in sorted({round(place) for place in np.linspace(0, child.depth - 1, layers).tolist()}):
            systems.append(_layer(child, parents, changes, index, follow))
        found.append(_solved(np.array(systems), confidence))
    return min(found, key=lambda shares: shares.unexplained)


def _layer(
    child: Transformer, parents: Sequence[Transformer], changes: list[Change], index: int, follow: int | None
) -> Doubles:
    """Inner products of the neurons of one layer; those of all parents are ordered as ``follow``'s, or each its own."""
    every = _gates(child.block(index))
    chosen = every[np.linspace(0, len(every) - 1, min(_NEURONS, len(every))).round().astype(np.int64)]
    moved = [across(_gates(parent.block(index))) for across, parent in zip(changes, parents, strict=True)]
    if follow is None:
        return _system(chosen, [rows[_matches(chosen, rows)] for rows in moved])
    order = _matches(chosen, moved[follow])
    return _system(chosen, [rows[order] for rows in moved])


def _system(ours: Matrix, theirs: list[Matrix]) -> Doubles:
    """Inner products [k + 1, k + 1] of the child, first, and all parents, relative to the child's length."""
    every = np.stack([side.astype(np.float64).ravel() for side in (ours, *theirs)])
    gram = every @ every.T
    return gram / max(float(gram[0, 0]), np.finfo(np.float64).tiny)


def _solved(systems: Doubles, confidence: float) -> Shares:
    total = systems.sum(0)
    if np.linalg.cond(total[1:, 1:]) > 1e12:
        raise InvalidInput(
            "Two of the parents have the same weights.", expected="different parents.", remedy="name each parent once."
        )
    shares = np.linalg.solve(total[1:, 1:], total[1:, 0])
    rest = float(total[0, 0] - 2 * shares @ total[1:, 0] + shares @ total[1:, 1:] @ shares)
    n = len(systems)
    without = np.array([np.linalg.solve((total - s)[1:, 1:], (total - s)[1:, 0]) for s in systems])
    error = np.sqrt((n - 1) / n * np.sum((without - without.mean(0)) ** 2, axis=0))
    half = t_quantile(n - 1, confidence) * error
    intervals = [Interval(float(s), float(s - h), float(s + h), n) for s, h in zip(shares, half, strict=True)]
    return Shares(tuple(intervals), math.sqrt(max(rest, 0.0) / float(total[0, 0])))
