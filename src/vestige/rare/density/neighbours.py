"""Density from the distance to the k-th nearest real row."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from vestige.errors import EmptySet, InvalidInput
from vestige.metrics.arrays import FloatArray
from vestige.rare.density.density import Density, Fitted, Sample

_LEAST = 1e-6
"""Distance below which a row counts as a copy; the unit is one standard deviation of a coordinate."""


@dataclass(frozen=True)
class NearestNeighbours(Density):
    """``log p = log k - log n - log V_m - m log r_k(u)``, V_m the volume of the unit ball.

    Its integral diverges, so it cannot be compared by held-out likelihood; as a ranking it needs no assumption on
    the shape of the density. At a training row itself that row counts as the first neighbour.

    Parameters
    ----------
    neighbours : k.
    """

    claim: ClassVar[str] = "falls with the logarithm of the distance to the k-th nearest real row"
    source: ClassVar[str] = "Loftsgaarden and Quesenberry 1965, Ann. Math. Stat. 36"
    normalised: ClassVar[bool] = False

    neighbours: int = 5

    def __post_init__(self) -> None:
        if self.neighbours < 1:
            raise InvalidInput(f"neighbours={self.neighbours}.", expected="1 or more.", remedy="change the setting.")

    def learn(self, train: Sample, held_out: Sample, seed: int) -> Fitted:
        """Keep the rows."""
        if len(train) < self.neighbours:
            raise EmptySet(
                f"{len(train)} training rows for {self.neighbours} neighbours.",
                expected="at least as many rows as neighbours.",
                remedy="use fewer neighbours or more rows.",
            )
        return _Nearest(train.rows, self.neighbours)


class _Nearest(Fitted):
    rows: Tensor

    def __init__(self, rows: FloatArray, neighbours: int) -> None:
        super().__init__()
        self.register_buffer("rows", torch.from_numpy(rows))
        n, m = rows.shape
        ball = m / 2 * math.log(math.pi) - math.lgamma(m / 2 + 1)
        self.neighbours, self.constant = neighbours, math.log(neighbours) - math.log(n) - ball

    def forward(self, coordinates: Tensor, labels: Tensor | None = None) -> Tensor:
        with torch.no_grad():
            screened = torch.cdist(coordinates, self.rows, compute_mode="use_mm_for_euclid_dist")
            # Rounding of the product may swap neighbours of nearly equal distance: a few more are measured anew.
            some = min(len(self.rows), self.neighbours + 4)
            index = screened.topk(some, dim=1, largest=False).indices
        squared = (coordinates[:, None, :] - self.rows[index]).square().sum(2)
        kth = squared.kthvalue(self.neighbours, dim=1).values.clamp_min(_LEAST**2)
        return self.constant - coordinates.shape[1] / 2 * kth.log()
