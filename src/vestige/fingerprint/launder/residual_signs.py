"""Flip signs of the residual stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vestige.fingerprint.fold import Doubles
from vestige.fingerprint.launder.launder import Launder, Random
from vestige.fingerprint.launder.rule import Rule, norms, norms_after
from vestige.models.transformer.block import NormKind
from vestige.models.transformer.memory import InMemoryTransformer


@dataclass(frozen=True)
class ResidualSigns(Launder):
    """Each entry of the residual stream multiplied by 1 or -1; gains stay, since an RMS norm keeps signs."""

    claim: ClassVar[str] = "Breaks the published gated term; alignment by permutation alone misses it."

    def refusal(self, model: InMemoryTransformer) -> str:
        """A mean is not kept by flipping some signs."""
        every = (*norms(model), *norms_after(model))
        return "a LayerNorm takes the mean of all entries" if any(n.kind is NormKind.LAYER for n in every) else ""

    def change(self, model: InMemoryTransformer, random: Random) -> InMemoryTransformer:
        """Flipped."""
        signs = np.where(random.random(model.width) < 0.5, -1.0, 1.0)

        def flip(array: Doubles) -> Doubles:
            return array * signs

        return Rule(reads=flip, writes=flip, bias=flip).whole(model)
