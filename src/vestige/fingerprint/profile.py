"""What a block is like whatever the tokens: singular values of its products and how strong each is.

Singular values of ``Wq_h^T Wk_h`` and ``Wv_h^T Wo_h^T`` of every head, and ``|up_i| |gate_i| |down_i|`` of every
neuron, everything folded in, do not change with the basis of the residual stream, of a head, or with the order and
scale of neurons (products: GhostSpec, arXiv 2511.06390). Of each only as many order statistics are kept as a card can
hold. ``A^T B`` and ``(A A^T)^(1/2) (B B^T)^(1/2)`` have the same singular values, so nothing wider than a head is
taken apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vestige.fingerprint.features import roots
from vestige.fingerprint.fold import Doubles, feeds, fold_attention, fold_feed
from vestige.models.transformer.block import Block, Matrix

RANKS = 64
"""Order statistics kept of one spectrum."""
_LEAST = 1e-9
"""Smaller values, relative to the largest, are counted as this one: pruned heads and neurons are zero."""


def _products(reads: Matrix, writes: Matrix) -> Doubles:
    """Singular values [heads * w] of the product of each head of the longer side with the head that it shares."""
    first, second = roots(reads), roots(writes)
    heads = max(len(first), len(second))
    first, second = (np.repeat(side, heads // len(side), axis=0) for side in (first, second))
    return np.asarray(np.linalg.svd(first @ second, compute_uv=False), np.float64).ravel()


def neuron_strengths(block: Block, unused: Doubles) -> Doubles:
    """``|up_i| |gate_i| |down_i|`` of every neuron of every expert; see :func:`profile`."""
    found: list[Doubles] = []
    for expert in feeds(block):
        part = fold_feed(block, expert).without(unused)
        sides = [part.up, part.down] if part.gate is None else [part.up, part.gate, part.down]
        found.append(np.prod([np.sqrt(np.einsum("nd,nd->n", m, m, dtype=np.float64)) for m in sides], axis=0))
    return np.concatenate(found)


@dataclass(frozen=True, eq=False)
class Profile:
    """``spectra`` [3, RANKS]: log order statistics, largest first; ``strengths`` [3]: log of their root sum of squares.

    In the order scores, values, feed.
    """

    spectra: Doubles
    strengths: Doubles


def profile(block: Block, unused: Doubles) -> Profile:
    """Spectra and strengths of one block; ``unused`` [d, k] are directions that nothing is written to."""
    part = fold_attention(block).without(unused)
    every = [_products(part.query, part.key), _products(part.value, part.output), neuron_strengths(block, unused)]
    spectra, strengths = np.zeros((3, RANKS)), np.zeros(3)
    for place, values in enumerate(every):
        ordered = np.sort(values)[::-1]
        logs = np.log(np.maximum(ordered, max(float(ordered[0]) * _LEAST, np.finfo(np.float64).tiny)))
        spectra[place] = logs[np.linspace(0, len(logs) - 1, RANKS).round().astype(np.int64)]
        strengths[place] = np.log(max(float(np.sqrt(np.sum(values**2))), np.finfo(np.float64).tiny))
    return Profile(spectra, strengths)
