"""Local intrinsic dimension from the Fokker-Planck equation of diffusion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vestige.audit.geometry.estimate import Curve, Dimension, Doubles, Reading
from vestige.audit.geometry.estimator import ModelEstimator, Work
from vestige.audit.geometry.jacobian import Differentiator, Jacobian, signs, squared
from vestige.audit.geometry.levels import RATIOS, Batch, Levels, check_ratios, sweep
from vestige.audit.geometry.reading import check_rule, mean_and_error, read
from vestige.errors import InvalidInput
from vestige.models.access import Access
from vestige.models.denoiser import Denoiser, Images, Labels


@dataclass(frozen=True)
class FLIPD(ModelEstimator):
    """How fast the log density at a point falls as it is blurred tells the dimension of what lies there.

    With ``rho_r`` the density blurred by noise of scale ``r = sigma/alpha``, ``log rho_r(y) = (d - D) log r + O(1)``,
    so ``d = D + d log rho_r / d log r``, which the model knows as
    ``D + sigma^2 (tr ds/dx + |s|^2)`` at ``x = alpha y``. Written with the mean m it is the same for every
    parametrization, and two numbers of size D no longer cancel: ``tr dm/dy + |y - m|^2 / r^2``.

    Parameters
    ----------
    ratios : noise levels sigma/alpha of the curve.
    probes : K, random signs for the trace (Hutchinson); the same at every level.
    exact : ambient dimension up to which the trace is taken over all axes instead, as it always is where D <= K.
    noised : take the trace alone, at ``y + r z`` with one normal draw z a point, the same at every level. Its mean over
        z is the dimension as well (Stein), and a trained network knows its way there: at the clean point, which no
        noisy image resembles, a network on images can answer with large negative numbers.
    rule : how the dimension is read off the curve.
    """

    access: ClassVar[Access] = Access.SCORES
    claim: ClassVar[str] = "dimension of what a model learnt around an image, from the change of its log density"
    source: ClassVar[str] = "Kamkari et al. 2024, arXiv 2406.03537"

    ratios: tuple[float, ...] = RATIOS
    probes: int = 16
    exact: int = 64
    noised: bool = False
    rule: Reading = Reading.PLATEAU

    def __post_init__(self) -> None:
        check_ratios(self.ratios)
        check_rule(self.rule)
        if self.probes < 1 or self.exact < 0:
            raise InvalidInput(
                f"probes={self.probes}, exact={self.exact}.",
                expected="at least 1 probe, and exact from 0 on.",
                remedy="raise them.",
            )

    def curve(
        self, denoiser: Denoiser, points: Images, rows: Sequence[int], condition: Labels | None = None, *, work: Work
    ) -> Curve:
        """1 evaluation and K products a point and level, or D products for the exact trace.

        The standard error is that of the probes: 0 for the exact trace, NaN for a single probe.

        Raises
        ------
        Unsupported : the exact trace in more than 4,096 dimensions.
        """
        way = Differentiator(denoiser, work)
        exact = way.all_axes(self.probes, self.exact)

        def measure(batch: Batch, grid: Levels) -> tuple[Doubles, Doubles]:
            found = probed(way, batch, grid, self.probes, self.exact, noised=self.noised)
            value, error = mean_and_error(found)
            return (value, np.zeros_like(value)) if exact else (value, error)

        return sweep(denoiser, points, rows, condition, self.ratios, way.size, measure)

    def read(self, curve: Curve) -> Dimension:
        """By ``rule``."""
        return read(curve, self.rule)


def probed(
    way: Differentiator, batch: Batch, grid: Levels, probes: int, exact: int, *, noised: bool = False
) -> Doubles:
    """FLIPD of a batch as each probe shows it [b, levels, K]; the exact value [b, levels, 1] where D <= K or exact."""
    whole = way.all_axes(probes, exact)
    draws = None if whole else signs(way.work.seed, batch.rows, way.denoiser.shape, probes).to(batch.points)

    def traces(jacobian: Jacobian) -> Doubles:
        return jacobian.trace()[:, None] if draws is None else jacobian.quadratic(draws)

    found: list[Doubles] = []
    for time, ratio in zip(grid.times.tolist(), grid.ratios.tolist(), strict=True):
        jacobian = way.at(batch.noised(ratio, way.work.seed) if noised else batch, time)
        residual = 0.0 if noised else squared(batch.points - jacobian.mean)[:, None] / ratio**2
        found.append(traces(jacobian) + residual)
    return np.stack(found, axis=1)
