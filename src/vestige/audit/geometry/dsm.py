"""Local intrinsic dimension from denoising errors alone: forward evaluations, no derivative."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vestige.audit.geometry.estimate import Curve, Dimension, Doubles, Reading
from vestige.audit.geometry.estimator import ModelEstimator, Work
from vestige.audit.geometry.levels import RATIOS, Batch, Levels, check_ratios, sweep
from vestige.audit.geometry.reading import check_rule, mean_and_error, read
from vestige.errors import InvalidInput
from vestige.models.access import Access
from vestige.models.denoiser import Denoiser, Images, Labels
from vestige.randomness import Stream, normal


class Form(str, Enum):
    """Two expectations over the same draws; for the exact score both are the dimension."""

    LOSS = "loss"
    """``E |m(y + r z) - y|^2 / r^2``, the denoising loss: never negative, and at least the dimension."""
    STEIN = "stein"
    """``E z . (m(y + r z) - y) / r``, the mean's divergence by Stein's lemma: errors of the model can cancel."""


@dataclass(frozen=True)
class DSM(ModelEstimator):
    """The noise that a denoiser cannot tell from signal at small noise, summed over pixels, is the dimension.

    With a clean point y, ``r = sigma/alpha`` and the mean m, the denoising loss ``E_z |z - eps_hat|^2`` equals
    ``E_z |m(y + r z) - y|^2 / r^2``: of the noise z only its part along the manifold stays in the mean. A memorized
    point is given back whatever the noise, and its dimension is 0. What the model failed to learn adds to the loss,
    so an under-trained network is read too high.

    Parameters
    ----------
    ratios : noise levels sigma/alpha of the curve.
    draws : m, draws of the noise z a point; the same at every level.
    form : which expectation.
    rule : how the dimension is read off the curve.
    """

    access: ClassVar[Access] = Access.LOSSES
    claim: ClassVar[str] = "dimension of what a model learnt around an image, from its denoising errors alone"
    source: ClassVar[str] = "arXiv 2510.12975"

    ratios: tuple[float, ...] = RATIOS
    draws: int = 16
    form: Form = Form.LOSS
    rule: Reading = Reading.PLATEAU

    def __post_init__(self) -> None:
        check_ratios(self.ratios)
        check_rule(self.rule)
        if self.draws < 1:
            raise InvalidInput(f"draws is {self.draws}.", expected="at least 1.", remedy="raise it; 8 to 16 is usual.")

    def curve(
        self, denoiser: Denoiser, points: Images, rows: Sequence[int], condition: Labels | None = None, *, work: Work
    ) -> Curve:
        """``draws`` evaluations a point and level."""

        def measure(batch: Batch, grid: Levels) -> tuple[Doubles, Doubles]:
            noise = [normal(work.seed, Stream.GEOMETRY, batch.rows, denoiser.shape, k) for k in range(self.draws)]
            z = torch.from_numpy(np.stack(noise)).to(batch.points)
            pairs = zip(grid.times.tolist(), grid.ratios.tolist(), strict=True)
            found = [self._values(denoiser, batch, z, time, ratio, work.batch_size) for time, ratio in pairs]
            return mean_and_error(np.stack(found, axis=1))

        each = max(1, work.batch_size // self.draws)
        return sweep(denoiser, points, rows, condition, self.ratios, lambda: each, measure)

    def read(self, curve: Curve) -> Dimension:
        """By ``rule``."""
        return read(curve, self.rule)

    @torch.no_grad()
    def _values(self, denoiser: Denoiser, batch: Batch, z: Tensor, time: float, ratio: float, size: int) -> Doubles:
        """One value a point and draw [b, draws] at a level; ``z`` is [draws, b, c, h, w]."""
        many, flat = batch.repeat(len(z)), z.flatten(0, 1)
        found: list[Tensor] = []
        for start in range(0, len(flat), size):
            part = many.take(slice(start, start + size))
            noise, t = flat[start : start + size], part.times(time)
            alpha = denoiser.levels(t)[0]
            kept = (denoiser.mean(alpha * (part.points + ratio * noise), t, part.condition) - part.points) / ratio
            product = kept * (kept if self.form is Form.LOSS else noise)
            found.append(product.flatten(1).sum(1, dtype=torch.float64).cpu())
        return torch.cat(found).view(len(z), len(batch)).T.numpy()


def dsm_dimension(errors: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Dimension of each row [rows] at fixed levels: the mean of squared noise errors [rows, times, draws]."""
    return errors.astype(np.float64).mean(axis=(1, 2))
