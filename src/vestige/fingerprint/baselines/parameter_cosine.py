"""Cosine of all parameters in the order of the model, as they are."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import ClassVar

import numpy as np

from vestige.fingerprint.evidence.evidence import Evidence, Finding
from vestige.fingerprint.pair import Pair
from vestige.models.transformer.block import Block, Matrix, Norm, Transformer


def _arrays(part: object, name: str) -> Iterator[tuple[str, Matrix]]:
    """Every array of a dataclass, and of those inside it, by its path."""
    if isinstance(part, np.ndarray):
        yield name, part
    elif isinstance(part, tuple):
        for place, item in enumerate(part):
            yield from _arrays(item, f"{name}.{place}")
    elif is_dataclass(part) and not isinstance(part, type):
        for field in fields(part):
            yield from _arrays(getattr(part, field.name), f"{name}.{field.name}")


def _pieces(transformer: Transformer, index: int) -> dict[str, Matrix]:
    """Arrays of one block; -1 for what lies outside the blocks."""
    if index >= 0:
        block: Block = transformer.block(index)
        return dict(_arrays(block, "block"))
    outside: dict[str, Norm | Matrix | None] = {
        "embedding": transformer.embedding(),
        "positions": transformer.positions(),
        "embedding norm": transformer.embedding_norm(),
        "final norm": transformer.final_norm(),
        "head": transformer.head(),
    }
    return {key: array for name, part in outside.items() for key, array in _arrays(part, name)}


@dataclass(frozen=True)
class ParameterCosine(Evidence):
    """Cosine of the concatenation of all parameters; parts whose shapes differ are skipped, as published.

    Nothing is aligned: any permutation brings matrices to about 0. Independent parameters of mean zero give
    ``1 / sqrt(n)``; gains, which all lie near one, make small models alike that have nothing in common.
    """

    claim: ClassVar[str] = "The direction of all parameters hardly changes after pretraining."
    source: ClassVar[str] = "Zeng et al. 2024, arXiv 2312.04828 (PCS)"

    def measure(self, pair: Pair) -> Finding:
        """The cosine; the part is the share of the first model's parameters that was compared."""
        first, second = pair.models
        sums, counted, held = np.zeros(3), 0, 0
        for index in range(-1, first.depth):
            theirs = _pieces(second, index) if index < second.depth else {}
            for name, ours in _pieces(first, index).items():
                held += ours.size
                if name in theirs and theirs[name].shape == ours.shape:
                    one, other = ours.astype(np.float64).ravel(), theirs[name].astype(np.float64).ravel()
                    sums += one @ other, one @ one, other @ other
                    counted += ours.size
        if sums[1] == 0 or sums[2] == 0:
            return self.nothing("no parameters of equal shape, or all are zero")
        value = float(sums[0]) / math.sqrt(float(sums[1]) * float(sums[2]))
        return Finding(self.name, value, counted**-0.5, (("share compared", counted / held),))
