"""A Gaussian mixture fitted by expectation and maximisation, stopped by held-out likelihood."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

import numpy as np
import torch

from vestige.errors import EmptySet, InvalidInput
from vestige.metrics.arrays import FloatArray
from vestige.randomness import Stream, generator
from vestige.rare.density.density import Density, Fitted, Sample, full_covariance_warning
from vestige.rare.density.gaussians import Gaussians, precision_roots
from vestige.rare.draws import Draw

_LLOYD = 20
_CHUNK = 1024
_LEAST = 1e-8
"""Smallest weight of a component: one that lost all its rows stays, and may gain some again."""


class Covariance(Enum):
    """What the covariance of a component may be."""

    FULL = "full"
    DIAGONAL = "diagonal"


@dataclass(frozen=True)
class GaussianMixture(Density):
    """``log sum_k w_k N(u; mu_k, C_k)`` by expectation and maximisation from the clusters of k-means.

    The iteration with the best held-out mean is kept; it stops when neither that nor the training mean has risen by
    ``tolerance`` for ``patience`` iterations.

    Parameters
    ----------
    components : k.
    covariance : full or diagonal.
    ridge : added to the variance of every coordinate of every component; the overall variance is one.
    iterations, patience, tolerance : of the fit; tolerance in nats a row.
    starts : fits from other clusters, of which the one with the best held-out mean is kept.
    """

    claim: ClassVar[str] = "a mixture of Gaussians, fitted by expectation and maximisation"
    source: ClassVar[str] = "Dempster et al. 1977, JRSS B 39; Arthur and Vassilvitskii 2007 for the start"

    components: int = 10
    covariance: Covariance = Covariance.FULL
    ridge: float = 1e-3
    iterations: int = 200
    patience: int = 5
    tolerance: float = 1e-3
    starts: int = 1

    def __post_init__(self) -> None:
        if (
            min(self.components, self.iterations, self.patience, self.starts) < 1
            or self.ridge <= 0
            or self.tolerance < 0
        ):
            raise InvalidInput(
                f"components={self.components}, ridge={self.ridge:g}, iterations={self.iterations}, "
                f"patience={self.patience}, tolerance={self.tolerance:g}, starts={self.starts}.",
                expected="at least one component, iteration, unit of patience and start, a positive ridge.",
                remedy="change the setting.",
            )

    def learn(self, train: Sample, held_out: Sample, seed: int) -> Fitted:
        """Fit; the result depends on the rows and the seed alone."""
        if len(train) < self.components:
            raise EmptySet(
                f"{len(train)} training rows for {self.components} components.",
                expected="at least one row a component.",
                remedy="use fewer components or more rows.",
            )
        warnings = ()
        if self.covariance is Covariance.FULL:
            warnings = full_covariance_warning(len(train), train.rows.shape[1], self.components)
        fits = [self._fit(train, held_out, seed, start, warnings) for start in range(self.starts)]
        best, _ = max(fits, key=lambda fit: fit[1])
        if best is None:
            raise InvalidInput(
                "No iteration of the mixture gave a finite likelihood.",
                expected="coordinates of ordinary size.",
                remedy="look for outliers in the features, or raise the ridge.",
            )
        return best

    def _fit(
        self, train: Sample, held_out: Sample, seed: int, start: int, warnings: tuple[str, ...]
    ) -> tuple[Gaussians | None, float]:
        """The best iteration from one start, and its held-out mean."""
        best, best_score, last_score, idle = None, -np.inf, -np.inf, 0
        shares = _clusters(train.rows, self.components, seed, start)
        for _ in range(self.iterations):
            model = self._maximised(train.rows, shares, warnings)
            score, (shares, likelihood) = _expected(model, held_out.rows)[1], _expected(model, train.rows)
            idle = 0 if score > best_score + self.tolerance or likelihood > last_score + self.tolerance else idle + 1
            if score > best_score:
                best, best_score = model, score
            last_score = likelihood
            if idle >= self.patience or score < best_score - 1.0:
                break
        return best, best_score

    def _maximised(self, rows: FloatArray, shares: FloatArray, warnings: tuple[str, ...]) -> Gaussians:
        """The mixture of highest expected likelihood given the shares [n, k] of each component in each row."""
        mass = shares.sum(0).clip(min=_LEAST)
        means = shares.T @ rows / mass[:, None]
        if self.covariance is Covariance.DIAGONAL:
            variance = (shares.T @ rows**2 / mass[:, None] - means**2).clip(min=0) + self.ridge
            return Gaussians(mass / mass.sum(), means, variance**-0.5, warnings)
        covariances = np.empty((len(mass), rows.shape[1], rows.shape[1]))
        for k, mean in enumerate(means):
            about = (rows - mean) * np.sqrt(shares[:, k : k + 1])
            covariances[k] = about.T @ about / mass[k] + self.ridge * np.eye(rows.shape[1])
        return Gaussians(mass / mass.sum(), means, precision_roots(covariances), warnings)


@torch.no_grad()
def _expected(model: Gaussians, rows: FloatArray) -> tuple[FloatArray, float]:
    """Shares [n, k] of the components in each row, and the mean log density."""
    joint = torch.cat([model.joint(part) for part in torch.from_numpy(rows).split(_CHUNK)])
    total = joint.logsumexp(1, keepdim=True)
    return (joint - total).exp().numpy(), float(total.mean())


def _clusters(rows: FloatArray, count: int, seed: int, start: int) -> FloatArray:
    """Membership [n, k] in the clusters of Lloyd's iteration, from centres that start far apart (k-means++)."""
    random = generator(seed, Stream.RARE, row=start, draw=Draw.CLUSTERS)
    centres = rows[random.integers(len(rows), size=1)]
    gap = _squares(rows, centres)[:, 0]
    while len(centres) < count:
        far = gap if gap.sum() > 0 else np.ones(len(rows))
        centres = np.concatenate([centres, rows[random.choice(len(rows), size=1, p=far / far.sum())]])
        gap = np.minimum(gap, _squares(rows, centres[-1:])[:, 0])
    label = _squares(rows, centres).argmin(1)
    for _ in range(_LLOYD):
        filled = np.bincount(label, minlength=count) > 0
        for c in np.flatnonzero(filled):
            centres[c] = rows[label == c].mean(0)
        moved = _squares(rows, centres).argmin(1)
        if np.array_equal(moved, label):
            break
        label = moved
    return np.eye(count)[label]


def _squares(rows: FloatArray, centres: FloatArray) -> FloatArray:
    squared = np.square(rows).sum(1)[:, None] - 2 * rows @ centres.T + np.square(centres).sum(1)
    return squared.clip(min=0)
