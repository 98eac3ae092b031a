"""Unbiased centred kernel alignment of weights over the aligned residual stream."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vestige.errors import InvalidInput
from vestige.fingerprint.evidence.evidence import Evidence, Finding
from vestige.fingerprint.features import grams
from vestige.fingerprint.fold import Doubles
from vestige.fingerprint.pair import Pair
from vestige.models.transformer.block import Matrix


def u_centred(gram: Matrix | Doubles) -> Doubles:
    """A Gram matrix [n, n], n > 3, whose diagonal is left out and whose rows and columns sum to zero without bias.

    ``K_ij - r_i / (n-2) - r_j / (n-2) + s / ((n-1)(n-2))`` off the diagonal, with row sums r and sum s
    (Székely and Rizzo, Annals of Statistics 42, 2014).
    """
    held = gram.astype(np.float64)
    n = len(held)
    np.fill_diagonal(held, 0.0)
    rows, total = held.sum(1), float(held.sum())
    held += total / ((n - 1) * (n - 2)) - (rows[:, None] + rows[None, :]) / (n - 2)
    np.fill_diagonal(held, 0.0)
    return held


def cosine(first: Doubles, second: Doubles) -> float:
    """Cosine of two arrays of one shape; NaN where one is zero."""
    length = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(np.sum(first * second)) / length if length > 0 else math.nan


def haar_deviation(width: int) -> float:
    """Deviation of the cosine of two traceless symmetric matrices [d, d] of which one is turned at random.

    ``E tr(K O L O^T)^2 = 2 |K|^2 |L|^2 / ((d - 1)(d + 2))`` over Haar rotations O.
    """
    return math.sqrt(2.0 / ((width - 1) * (width + 2)))


@dataclass(frozen=True)
class AlignedCKA(Evidence):
    """Mean over layers and matrices of the unbiased linear CKA between the columns that two models' matrices share.

    Columns are those of the residual stream, the second model's brought into the first's basis by
    :mod:`vestige.fingerprint.alignment`; gains are folded and inner bases divided out (:mod:`.features`). Beyond the
    published method it undoes rotations, gain shifts and changes of a head's basis.

    Parameters
    ----------
    layers : pairs of matched layers at most, evenly spread.
    """

    claim: ClassVar[str] = "Which columns of a matrix belong together outlasts even long continued training."
    source: ClassVar[str] = "Zeng et al. 2026 (AWM, ICLR); Kornblith et al. 2019, arXiv 1905.00414"

    layers: int = 4

    def __post_init__(self) -> None:
        if self.layers < 1:
            raise InvalidInput(
                f"AlignedCKA over {self.layers} layers.", expected="at least 1.", remedy="change the setting."
            )

    def measure(self, pair: Pair) -> Finding:
        """The mean; parts are the mean over layers of every matrix."""
        reason = unalignable(pair)
        if reason:
            return self.nothing(reason)
        found: dict[str, list[float]] = {}
        for layers in pair.some_layers(self.layers):
            ours, theirs = (grams(*side) for side in zip(pair.blocks(layers), pair.alignment.unused, strict=True))
            for part in [part for part in ours if part in theirs]:
                value = cosine(u_centred(ours[part]), u_centred(pair.alignment.both_across(theirs[part])))
                if not math.isnan(value):
                    found.setdefault(part.value, []).append(value)
        every = [value for values in found.values() for value in values]
        if not every:
            return self.nothing("the matrices of one of the models are zero")
        means = tuple((name, sum(values) / len(values)) for name, values in found.items())
        return Finding(self.name, sum(every) / len(every), haar_deviation(pair.first.width), means)


def unalignable(pair: Pair) -> str:
    """Why the residual streams cannot be aligned; empty where they can."""
    if len(pair.aligned_by[0]) < 8:
        return "the models share too few tokens"
    return "" if min(pair.first.width, pair.second.width) > 3 else "the residual stream is too narrow"
