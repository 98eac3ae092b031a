"""The real manifold: the union of balls around real rows, each reaching its k-th nearest real neighbour."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from vestige.digest import digest_array, digest_json
from vestige.errors import InvalidInput
from vestige.metrics.arrays import FloatArray, matrix
from vestige.metrics.balls import Balls
from vestige.metrics.rarity import rarity_score

_CELLS = 1 << 22
_POINTS = 1024
_SCREENED = 16
"""Balls that a matrix product picks for each point, to be measured by differences: ties aside, the first is enough."""

_LEAST = 1e-12


@dataclass(frozen=True, eq=False)
class Place:
    """Where each of n points lies among the real balls, exactly.

    ``ratio`` [n] is the least of distance / radius over all balls: the point is inside where it is at most 1.
    ``rarity`` [n] is the smallest radius of a ball that holds the point (the rarity score of Han et al. 2023, arXiv
    2206.08549), NaN where none does; ``percentile`` [n] is the share of real radii below it, equal ones half.
    """

    ratio: FloatArray
    rarity: FloatArray
    percentile: FloatArray

    @property
    def inside(self) -> npt.NDArray[np.bool_]:
        """Whether each point lies in a ball."""
        return np.isfinite(self.rarity)


class Manifold(nn.Module):
    """Balls around real features.

    Parameters
    ----------
    features : real rows [n, d], n > ``neighbours``.
    neighbours : k; a ball is closed and reaches the k-th nearest other row.

    ``rows`` and ``balls`` hold both in float64 for exact answers; the module's own tensors, the same numbers in the
    precision and on the device that it is moved to, serve the search.

    Raises
    ------
    EmptySet : not more rows than neighbours. InvalidInput : features that are not finite, or all alike.
    """

    centres: Tensor
    radii: Tensor

    def __init__(self, features: npt.ArrayLike, neighbours: int = 3) -> None:
        super().__init__()
        self.rows, self.neighbours = matrix(features, "real features"), neighbours
        self.balls = Balls.around(self.rows, neighbours)
        if not self.balls.squared_radii.any():
            raise InvalidInput(
                f"Every one of {len(self.rows)} real rows has {neighbours} copies.",
                expected="real rows that differ from one another.",
                remedy="remove duplicates, or use a feature extractor that tells the images apart.",
            )
        self.register_buffer("centres", torch.from_numpy(self.rows))
        self.register_buffer("radii", torch.from_numpy(self.balls.radii))

    @property
    def digest(self) -> str:
        """Digest of the real rows and of k."""
        return digest_json({"neighbours": self.neighbours, "rows": digest_array(self.rows)})

    @torch.no_grad()
    def nearest_balls(self, features: Tensor, count: int) -> Tensor:
        """Rows [n, count] of the balls with the least distance / radius from each of the features [n, d]."""
        return _nearest(features, self.centres, self.radii, count)

    def ratio(self, features: Tensor, balls: Tensor) -> tuple[Tensor, Tensor]:
        """Least distance / radius [n] over the given balls [n, count], differentiable, and the centres [n, d] of it.

        Never below the least over all balls, so that a value of at most 1 proves the point inside.
        """
        ratio, place = _ratio(features, self.centres[balls], self.radii[balls])
        return ratio, self.centres[balls.gather(1, place[:, None])[:, 0]]

    @torch.no_grad()
    def locate(self, features: FloatArray) -> Place:
        """Exact answers for features [n, d]. Raises InvalidInput or EmptySet for features that do not fit."""
        rarity = rarity_score(features, self.balls)
        rows, radii = torch.from_numpy(self.rows), torch.from_numpy(self.balls.radii)
        ratio = [
            _ratio(part, rows[near], radii[near])[0]
            for part in torch.from_numpy(features).split(_POINTS)
            for near in [_nearest(part, rows, radii, _SCREENED)]
        ]
        return Place(torch.cat(ratio).numpy(), rarity.scores, rarity.percentiles)


def _nearest(points: Tensor, rows: Tensor, radii: Tensor, count: int) -> Tensor:
    count, step = min(count, len(rows)), max(1, _CELLS // len(rows))
    square, weight = rows.square().sum(1), radii.clamp_min(_LEAST).square().reciprocal()
    found = [
        ((square - 2 * part @ rows.T + part.square().sum(1, keepdim=True)) * weight).topk(count, 1, largest=False)
        for part in points.split(step)
    ]
    return torch.cat([part.indices for part in found])


def _ratio(points: Tensor, rows: Tensor, radii: Tensor) -> tuple[Tensor, Tensor]:
    scaled = (points[:, None, :] - rows).square().sum(2) / radii.clamp_min(_LEAST).square()
    least = scaled.min(1)
    return least.values.clamp_min(_LEAST**2).sqrt(), least.indices
