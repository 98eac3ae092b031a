"""MAF: a flow of masked autoregressive affine layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from vestige.rare.density.flow import Flow


@dataclass(frozen=True)
class MAF(Flow):
    """Masked autoregressive affine layers."""

    claim: ClassVar[str] = "a flow of masked autoregressive affine layers"
    source: ClassVar[str] = "Papamakarios et al. 2017, arXiv 1705.07057"

    transforms: int = 3

    def build(self, zuko: Any, dimensions: int, context: int) -> nn.Module:
        """From zuko."""
        hidden = (self.width,) * self.depth
        return zuko.flows.MAF(dimensions, context, transforms=self.transforms, hidden_features=hidden)
