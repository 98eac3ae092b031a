"""NSF: a flow of autoregressive layers of monotonic rational-quadratic splines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from vestige.rare.density.flow import Flow


@dataclass(frozen=True)
class NSF(Flow):
    """Autoregressive layers of rational-quadratic splines with ``bins`` bins on [-5, 5].

    Beyond them a spline is the identity, so in the far tail only the Gaussian base pulls. Costly above some hundred
    dimensions.
    """

    claim: ClassVar[str] = "a flow of autoregressive layers of monotonic rational-quadratic splines"
    source: ClassVar[str] = "Durkan et al. 2019, arXiv 1906.04032"

    transforms: int = 3
    bins: int = 8

    def build(self, zuko: Any, dimensions: int, context: int) -> nn.Module:
        """From zuko."""
        hidden = (self.width,) * self.depth
        return zuko.flows.NSF(dimensions, context, transforms=self.transforms, hidden_features=hidden, bins=self.bins)
