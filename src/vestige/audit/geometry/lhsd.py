"""Local intrinsic dimension as a smooth count of the flat directions of the log density."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from vestige.audit.geometry.estimate import Curve, Dimension, Doubles, Reading
from vestige.audit.geometry.estimator import ModelEstimator, Work
from vestige.audit.geometry.jacobian import Differentiator, Jacobian, flattened, signs
from vestige.audit.geometry.levels import RATIOS, Batch, Levels, check_ratios, sweep
from vestige.audit.geometry.reading import check_rule, mean_and_error, read
from vestige.errors import InvalidInput
from vestige.models.access import Access
from vestige.models.denoiser import Denoiser, Images, Labels

_NEAR = 0.2
"""Half the width of the transition, in units of the normalised eigenvalue."""

_BREAKDOWN = 1e-5
"""A Krylov residual shorter than this holds rounding alone: eigenvalues are of size 1."""


@dataclass(frozen=True)
class LHSD(ModelEstimator):
    """Across what was learnt the log density bends as sharply as the noise lets it, along it hardly at all.

    The normalised Hessian ``-r^2 H = 1 - dm/dy`` has eigenvalues near 1 across and near 0 along the manifold. Its
    trace of ``f(l) = 1 / (1 + |l / c|^p)``, shifted and scaled to f(0) = 1 and f(1) = 0, counts the flat ones. The
    trace is taken by stochastic Lanczos quadrature: each of K random signs sees the spectrum through ``steps`` nodes.

    Parameters
    ----------
    ratios : noise levels sigma/alpha of the curve.
    probes : K, random signs; the same at every level.
    steps : products a probe.
    centre : c, the eigenvalue between flat and sharp, 0 .. 1.
    power : p, how sharply the count falls there.
    noised : look at ``y + r z`` with one normal draw z a point, the same at every level, instead of at y. There a
        trained network knows its way; at the clean point, which no noisy image resembles, its Hessian can be anything.
    rule : how the dimension is read off the curve.
    """

    access: ClassVar[Access] = Access.SCORES
    claim: ClassVar[str] = "dimension of what a model learnt around an image, as the number of its flat directions"
    source: ClassVar[str] = "Osada 2026, arXiv 2605.01221"

    ratios: tuple[float, ...] = RATIOS
    probes: int = 8
    steps: int = 5
    centre: float = 0.5
    power: float = 4.0
    noised: bool = True
    rule: Reading = Reading.PLATEAU

    def __post_init__(self) -> None:
        check_ratios(self.ratios)
        check_rule(self.rule)
        if self.probes < 1 or self.steps < 1 or not 0 < self.centre < 1 or not self.power > 0:
            raise InvalidInput(
                f"probes={self.probes}, steps={self.steps}, centre={self.centre:g}, power={self.power:g}.",
                expected="at least 1 probe and step, a centre between 0 and 1, a positive power.",
                remedy="change them.",
            )

    def curve(
        self, denoiser: Denoiser, points: Images, rows: Sequence[int], condition: Labels | None = None, *, work: Work
    ) -> Curve:
        """1 evaluation and ``K steps`` products a point and level. The standard error is that of the probes."""
        return self._swept(denoiser, points, rows, condition, work, self.flatness)

    def transition(
        self, denoiser: Denoiser, points: Images, rows: Sequence[int], condition: Labels | None = None, *, work: Work
    ) -> Curve:
        """Eigenvalues within 0.2 of the centre, instead of the dimension: where there are none, the count is clear.

        As many as the dimension or more mean that flat and sharp directions have not come apart at that level. It
        costs what :meth:`curve` does.
        """
        return self._swept(denoiser, points, rows, condition, work, self._between)

    def read(self, curve: Curve) -> Dimension:
        """By ``rule``."""
        return read(curve, self.rule)

    def flatness(self, eigenvalues: Doubles) -> Doubles:
        """f of normalised eigenvalues: 1 for flat, 0 for sharp, below 0 beyond 1."""
        sharp = 1 / (1 + self.centre**-self.power)
        return (1 / (1 + np.abs(eigenvalues / self.centre) ** self.power) - sharp) / (1 - sharp)

    def _between(self, eigenvalues: Doubles) -> Doubles:
        return (np.abs(eigenvalues - self.centre) < _NEAR).astype(np.float64)

    def _swept(
        self,
        denoiser: Denoiser,
        points: Images,
        rows: Sequence[int],
        condition: Labels | None,
        work: Work,
        weigh: Callable[[Doubles], Doubles],
    ) -> Curve:
        way = Differentiator(denoiser, work)

        def measure(batch: Batch, grid: Levels) -> tuple[Doubles, Doubles]:
            start = signs(work.seed, batch.rows, denoiser.shape, self.probes).to(batch.points)
            found: list[Doubles] = []
            for time, ratio in zip(grid.times.tolist(), grid.ratios.tolist(), strict=True):
                where = batch.noised(ratio, work.seed) if self.noised else batch
                nodes, weights = quadrature(way.at(where, time), start, self.steps)
                found.append(way.ambient * (weights * weigh(nodes)).sum(-1).T)
            return mean_and_error(np.stack(found, axis=1))

        return sweep(denoiser, points, rows, condition, self.ratios, way.size, measure)


def quadrature(jacobian: Jacobian, start: Tensor, steps: int) -> tuple[Doubles, Doubles]:
    """Nodes and weights [k, b, steps] of ``v' g(1 - J) v / v'v`` for every g, from starts v [k, b, c, h, w].

    Lanczos with full orthogonalisation. The Jacobian of a trained network is symmetric only nearly: the projection
    onto the Krylov space is made symmetric. Where the space is exhausted early, the nodes left over have weight 0.
    """
    vectors = [flattened(start) / flattened(start).norm(dim=-1, keepdim=True)]
    inner = torch.zeros(*start.shape[:2], steps, steps, dtype=torch.float64, device=start.device)
    for j in range(steps):
        new = vectors[j] - flattened(jacobian.times(vectors[j].view_as(start)))
        for _ in range(2):  # once more against rounding
            for i, old in enumerate(vectors):
                along = (old * new).sum(-1, keepdim=True)
                inner[..., i, j] += along[..., 0].double()
                new = new - along * old
        length = new.norm(dim=-1, keepdim=True)
        if j + 1 < steps:
            alive = length > _BREAKDOWN
            vectors.append(torch.where(alive, new / length, torch.zeros_like(new)))
            inner[..., j + 1, j] = torch.where(alive, length, torch.zeros_like(length))[..., 0].double()
    nodes, states = torch.linalg.eigh((inner + inner.mT) / 2)
    return nodes.cpu().numpy(), states[..., 0, :].square().cpu().numpy()
