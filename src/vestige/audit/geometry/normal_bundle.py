"""Local intrinsic dimension as the rank of the scores around a point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from vestige.audit.geometry.estimate import Curve, Dimension, Doubles, Reading
from vestige.audit.geometry.estimator import ModelEstimator, Work
from vestige.audit.geometry.jacobian import refuse_axes
from vestige.audit.geometry.levels import RATIOS, Batch, Levels, check_ratios, sweep
from vestige.audit.geometry.reading import check_rule, mean_and_error, read
from vestige.errors import InvalidInput, Unsupported
from vestige.models.access import Access
from vestige.models.denoiser import Denoiser, Images, Labels
from vestige.randomness import Stream, generator


class Rank(str, Enum):
    """How many singular values are normal directions."""

    COUNT = "count"
    """Those from 0.5 on, of the value 1 that the noise itself would give: any number from 0 to D."""
    GAP = "gap"
    """Those before the largest gap, as published: a number from 1 to D - 1, so that dimensions 0 and D do not occur."""


_NORMAL = 0.5


@dataclass(frozen=True)
class NormalBundle(ModelEstimator):
    """Close to the manifold all scores point back to it: they span the normal directions, and the rest is tangent.

    The noise predictions ``(x - m(x)) / r`` at ``x = y + r z`` for K draws z are stacked; their singular values over
    sqrt(K) are near 1 along normal and near 0 along tangent directions. The draws are ``frames`` random orthogonal
    frames of D vectors of length sqrt(D), which show every direction equally often: for a linear denoiser the
    singular values are exact.

    Parameters
    ----------
    ratios : noise levels sigma/alpha of the curve.
    frames : K / D, orthogonal frames of draws; the same at every level.
    rank : how normal directions are counted.
    rule : how the dimension is read off the curve.
    """

    access: ClassVar[Access] = Access.SCORES
    claim: ClassVar[str] = "dimension of what a model learnt around an image, from the directions its scores span"
    source: ClassVar[str] = "Stanczuk et al. 2024, arXiv 2212.12611"

    ratios: tuple[float, ...] = RATIOS
    frames: int = 2
    rank: Rank = Rank.COUNT
    rule: Reading = Reading.PLATEAU

    def __post_init__(self) -> None:
        check_ratios(self.ratios)
        check_rule(self.rule)
        if self.frames < 1:
            raise InvalidInput(f"frames is {self.frames}.", expected="at least 1.", remedy="raise it; 2 is usual.")

    def curve(
        self, denoiser: Denoiser, points: Images, rows: Sequence[int], condition: Labels | None = None, *, work: Work
    ) -> Curve:
        """``frames D`` evaluations a point and level.

        The standard error is that of the counts which single frames give, NaN for one frame.

        Raises
        ------
        Unsupported : more than 4,096 dimensions, or matrices of D x D numbers that do not fit into the memory budget.
        """
        ambient = int(np.prod(denoiser.shape))
        refuse_axes(ambient, self.frames * ambient)
        needed = (4 + self.frames) * ambient**2 * 8  # frames, a factorisation, products of one frame and of all
        if needed > work.budget:
            raise Unsupported(
                f"The normal bundle in {ambient:,} dimensions needs {needed / 2**30:.1f} GiB and "
                f"{self.frames * ambient:,} evaluations a point and level.",
                expected=f"at most the memory budget of {work.budget / 2**30:.1f} GiB.",
                remedy="use DSM, FLIPD or LHSD, whose cost does not grow with the dimension, or raise the budget.",
            )

        def measure(batch: Batch, grid: Levels) -> tuple[Doubles, Doubles]:
            frames = [frame(work.seed, batch.rows[0], k, ambient).to(batch.points) for k in range(self.frames)]
            found = [
                self._counts(denoiser, batch, frames, time, ratio, work.batch_size)
                for time, ratio in zip(grid.times.tolist(), grid.ratios.tolist(), strict=True)
            ]
            whole, single = np.array([f[0] for f in found], float), np.array([f[1] for f in found], float)
            return whole[None], mean_and_error(single)[1][None]

        return sweep(denoiser, points, rows, condition, self.ratios, lambda: 1, measure)

    def read(self, curve: Curve) -> Dimension:
        """By ``rule``."""
        return read(curve, self.rule)

    def dimension(self, spectrum: Doubles) -> int:
        """Tangent directions, from singular values [D] of stacked noise predictions over sqrt(K)."""
        if self.rank is Rank.COUNT:
            return int((spectrum < _NORMAL).sum())
        falling = np.sort(spectrum)[::-1]
        return len(falling) - 1 - int(np.argmax(falling[:-1] - falling[1:]))

    @torch.no_grad()
    def _counts(
        self, denoiser: Denoiser, batch: Batch, frames: list[Tensor], time: float, ratio: float, size: int
    ) -> tuple[int, list[int]]:
        """Dimension from all frames together and from each alone."""
        total, single = torch.zeros_like(frames[0], dtype=torch.float64), list[int]()
        for draws in frames:
            gram = torch.zeros_like(total)
            for part in draws.split(size):
                many = batch.repeat(len(part))
                t = many.times(time)
                x = many.points + ratio * part.view_as(many.points)
                noise = (x - denoiser.mean(denoiser.levels(t)[0] * x, t, many.condition)) / ratio
                gram += _gram(noise.flatten(1))
            total += gram
            single.append(self.dimension(_spectrum(gram, len(draws))))
        return self.dimension(_spectrum(total, len(frames) * len(frames[0]))), single


def frame(seed: int, row: int, draw: int, ambient: int) -> Tensor:
    """D orthogonal vectors of length sqrt(D), float64 [D, D], uniformly turned; they belong to a row and draw."""
    normal = generator(seed, Stream.GEOMETRY, row, draw).standard_normal((ambient, ambient))
    turned, triangle = torch.linalg.qr(torch.from_numpy(normal))
    # With the signs of the diagonal the distribution is that of Haar (Mezzadri 2007).
    return (turned * triangle.diagonal().sign()).T.contiguous() * ambient**0.5


def _gram(rows: Tensor) -> Tensor:
    rows = rows.double()
    return rows.T @ rows


def _spectrum(gram: Tensor, draws: int) -> Doubles:
    """Singular values [D] over sqrt(draws) from the products of the rows."""
    return (torch.linalg.eigvalsh(gram) / draws).clamp_min(0).sqrt().cpu().numpy()
