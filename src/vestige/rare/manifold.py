"""The real manifold: the union of balls around real rows, each reaching its k-th nearest real neighbour."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from vestige.digest import digest_array, digest_json
from vestige.errors import InvalidInput
from vestige.metrics.arrays import FloatArray, matrix, same_width
from vestige.metrics.coverage import Balls

_CELLS = 1 << 22
_LEAST = 1e-12


@dataclass(frozen=True, eq=False)
class Place:
    """Where each of n points lies among the real balls, by float64 differences.

    ``ratio`` [n] is the least of distance / radius over all balls: the point is inside where it is at most 1.
    ``rarity`` [n] is the smallest radius of a ball that holds the point (the rarity score of Han et al. 2023, arXiv
    2206.08549), NaN where none does. ``percentile`` [n] is the share of real rows with a smaller radius, NaN alike.
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

    ``rows`` and ``squared_radii`` hold both in float64 for exact answers; the module's own tensors, the same numbers
    in the precision and on the device that it is moved to, serve the search.

    Raises
    ------
    EmptySet : not more rows than neighbours. InvalidInput : features that are not finite, or all alike.
    """

    centres: Tensor
    radii: Tensor

    def __init__(self, features: npt.ArrayLike, neighbours: int = 3) -> None:
        super().__init__()
        self.rows, self.neighbours = matrix(features, "real features"), neighbours
        self.squared_radii = Balls.around(self.rows, neighbours).squared_radii
        if not self.squared_radii.any():
            raise InvalidInput(
                f"Every one of {len(self.rows)} real rows has {neighbours} copies.",
                expected="real rows that differ from one another.",
                remedy="remove duplicates, or use a feature extractor that tells the images apart.",
            )
        self.register_buffer("centres", torch.from_numpy(self.rows))
        self.register_buffer("radii", torch.from_numpy(np.sqrt(self.squared_radii)))

    @property
    def digest(self) -> str:
        """Digest of the real rows and of k."""
        return digest_json({"neighbours": self.neighbours, "rows": digest_array(self.rows)})

    @torch.no_grad()
    def nearest_balls(self, features: Tensor, count: int) -> Tensor:
        """Rows [n, count] of the balls with the least distance / radius from each of the features [n, d]."""
        count = min(count, len(self.radii))
        step = max(1, _CELLS // len(self.radii))
        square, weight = self.centres.square().sum(1), self.radii.clamp_min(_LEAST).square().reciprocal()
        return torch.cat(
            [
                ((square - 2 * part @ self.centres.T + part.square().sum(1, keepdim=True)) * weight)
                .topk(count, dim=1, largest=False)
                .indices
                for part in features.split(step)
            ]
        )

    def ratio(self, features: Tensor, balls: Tensor) -> Tensor:
        """Least distance / radius [n] over the given balls [n, count], differentiable.

        Never below the least over all balls, so that a value of at most 1 proves the point inside.
        """
        gaps = (features[:, None, :] - self.centres[balls]).square().sum(2)
        scaled = gaps / self.radii[balls].clamp_min(_LEAST).square()
        return scaled.min(1).values.clamp_min(_LEAST**2).sqrt()

    def locate(self, features: FloatArray) -> Place:
        """Exact answers for features [n, d]. Raises InvalidInput or EmptySet for features that do not fit."""
        points = matrix(features, "features")
        same_width(points, self.rows, "features and real rows")
        radii = np.sqrt(self.squared_radii)
        order = np.argsort(radii, kind="stable")
        ratio, rarity = np.empty(len(points)), np.full(len(points), np.nan)
        step = max(1, _CELLS // len(radii))
        for top in range(0, len(points), step):
            squared = self._squared(points[top : top + step])
            part = slice(top, top + len(squared))
            ratio[part] = (np.sqrt(squared) / np.maximum(radii, _LEAST)).min(1)
            holds = (squared <= self.squared_radii)[:, order]
            rarity[part] = np.where(holds.any(1), radii[order[holds.argmax(1)]], np.nan)
        share = np.searchsorted(radii[order], rarity, side="left") / len(radii)
        return Place(ratio, rarity, np.where(np.isnan(rarity), np.nan, share))

    def _squared(self, points: FloatArray) -> FloatArray:
        """Squared distances [n, rows] by differences."""
        squared = np.empty((len(points), len(self.rows)))
        step = max(1, _CELLS // points.shape[1])
        for left in range(0, squared.shape[1], step):
            centres = self.rows[left : left + step]
            for place, point in enumerate(points):
                gap = centres - point
                squared[place, left : left + step] = np.einsum("nd,nd->n", gap, gap)
        return squared
