"""Rotate the residual stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vestige.fingerprint.fold import Doubles
from vestige.fingerprint.launder.launder import Launder, Random
from vestige.fingerprint.launder.rule import Rule, norms, norms_after
from vestige.models.transformer.block import NormKind
from vestige.models.transformer.memory import InMemoryTransformer


def orthogonal(random: Random, width: int) -> Doubles:
    """A Haar-random rotation or reflection [d, d]."""
    basis, upper = np.linalg.qr(random.standard_normal((width, width)))
    return basis * np.sign(np.diag(upper))


@dataclass(frozen=True)
class ResidualRotation(Launder):
    """The residual stream in any other orthonormal basis, as quantisation and slicing methods turn it."""

    claim: ClassVar[str] = "Leaves no entry of any matrix where it was; alignment by assignment finds nothing."

    def refusal(self, model: InMemoryTransformer) -> str:
        """Only norms that treat all directions alike commute with a rotation."""
        every = (*norms(model), *norms_after(model))
        if any(norm.kind is NormKind.LAYER for norm in every):
            return "a LayerNorm takes the mean of all entries"
        uneven = any(float(np.ptp(norm.gain)) > 1e-6 * float(np.abs(norm.gain).max()) for norm in every)
        return "the gains of a norm differ from entry to entry" if uneven else ""

    def change(self, model: InMemoryTransformer, random: Random) -> InMemoryTransformer:
        """Rotated."""
        basis = orthogonal(random, model.width)

        def turn(array: Doubles) -> Doubles:
            return array @ basis

        return Rule(reads=turn, writes=turn, bias=turn).whole(model)
