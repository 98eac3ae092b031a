"""RealNVP: a flow of affine coupling layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from vestige.errors import InvalidInput
from vestige.rare.density.flow import Flow


@dataclass(frozen=True)
class RealNVP(Flow):
    """Affine coupling layers with random halves; cheapest to ask, forwards and backwards. Needs two dimensions."""

    claim: ClassVar[str] = "a flow of affine coupling layers"
    source: ClassVar[str] = "Dinh et al. 2017, arXiv 1605.08803"

    def build(self, zuko: Any, dimensions: int, context: int) -> nn.Module:
        """From zuko."""
        if dimensions < 2:
            raise InvalidInput(
                "RealNVP was asked for one dimension.",
                expected="at least two, of which one half moves the other.",
                remedy="use MAF, or keep more principal axes.",
            )
        hidden = (self.width,) * self.depth
        return zuko.flows.RealNVP(
            dimensions, context, transforms=self.transforms, hidden_features=hidden, randmask=True
        )
