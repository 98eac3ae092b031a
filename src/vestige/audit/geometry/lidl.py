"""Local intrinsic dimension as the slope of the log density over the noise, from one diffusion model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vestige.audit.geometry.estimate import Curve, Dimension, Doubles, Reading
from vestige.audit.geometry.estimator import ModelEstimator, Work
from vestige.audit.geometry.flipd import probed
from vestige.audit.geometry.jacobian import Differentiator
from vestige.audit.geometry.levels import RATIOS, Batch, Levels, check_ratios, levels, sweep
from vestige.audit.geometry.reading import check_rule, mean_and_error, read
from vestige.errors import InvalidInput, Unsupported
from vestige.models.access import Access
from vestige.models.denoiser import Denoiser, Images, Labels


@dataclass(frozen=True)
class LIDL(ModelEstimator):
    """The log density of a point blurred by noise r falls along a line over log r whose slope is d - D.

    LIDL trains a density model for every noise level; one diffusion model knows them all. FLIPD - D is the derivative
    of ``log rho_r`` over ``log r``: it is integrated along the grid, and ``D + slope`` of the least-squares line
    through the integral over ``window`` neighbouring levels is the estimate at their middle. A slope of an integral is
    a mean of its derivative that weighs the middle of the window most, so an estimate is FLIPD smoothed over levels.

    Parameters
    ----------
    ratios : noise levels sigma/alpha at which the derivative is taken.
    window : levels that a line is laid through; a window that covers them all gives the one slope of FPRegress.
    probes : K, random signs for the trace (Hutchinson); the same at every level.
    exact : ambient dimension up to which the trace is taken over all axes instead, as it always is where D <= K.
    rule : how the dimension is read off the curve of slopes.
    """

    access: ClassVar[Access] = Access.SCORES
    claim: ClassVar[str] = "dimension of what a model learnt around an image, as the slope of its log density"
    source: ClassVar[str] = "Tempczyk et al. 2022, arXiv 2206.14882; Kamkari et al. 2024, arXiv 2406.03537"

    ratios: tuple[float, ...] = RATIOS
    window: int = 5
    probes: int = 16
    exact: int = 64
    rule: Reading = Reading.PLATEAU

    def __post_init__(self) -> None:
        check_ratios(self.ratios)
        check_rule(self.rule)
        if self.window < 2 or self.probes < 1 or self.exact < 0:
            raise InvalidInput(
                f"window={self.window}, probes={self.probes}, exact={self.exact}.",
                expected="a window of at least 2 levels, 1 probe, and exact from 0 on.",
                remedy="raise them.",
            )

    def curve(
        self, denoiser: Denoiser, points: Images, rows: Sequence[int], condition: Labels | None = None, *, work: Work
    ) -> Curve:
        """As FLIPD: 1 evaluation and K products a point and level. Slopes stand at the weighted mean of log r.

        The standard error is that of the slopes of the single probes.

        Raises
        ------
        Unsupported : the schedule has fewer than two levels near the ratios, so that there is no slope; the exact trace
            in more than 4,096 dimensions.
        """
        way = Differentiator(denoiser, work)
        grid = levels(denoiser.schedule, self.ratios)
        if len(grid) < 2:
            raise Unsupported(
                f"The ratios {self.ratios} fall on one noise level of the schedule.",
                expected="two levels or more for a slope.",
                remedy="give `ratios` that lie farther apart.",
            )
        weights = slope_weights(np.log(grid.ratios), min(self.window, len(grid)))

        def middles(ratios: Doubles) -> Doubles:
            return np.exp(weights @ np.log(ratios))

        def measure(batch: Batch, at: Levels) -> tuple[Doubles, Doubles]:
            single = np.einsum("wl,nlk->nwk", weights, probed(way, batch, at, self.probes, self.exact))
            value, error = mean_and_error(single)
            exact = way.all_axes(self.probes, self.exact)
            return value, np.zeros_like(value) if exact else error

        return sweep(denoiser, points, rows, condition, self.ratios, way.size, measure, middles)

    def read(self, curve: Curve) -> Dimension:
        """By ``rule``."""
        return read(curve, self.rule)


def slope_weights(x: Doubles, window: int) -> Doubles:
    """Weights [len(x) - window + 1, len(x)] that turn a derivative at ascending x into slopes of its integral.

    The trapezoidal integral over each window, then the slope of its least-squares line; each row sums to 1.
    """
    rows: list[Doubles] = []
    for first in range(len(x) - window + 1):
        part = x[first : first + window]
        integral, step = np.zeros((window, window)), np.diff(part)
        for i in range(1, window):
            integral[i] = integral[i - 1]
            integral[i, i - 1 : i + 1] += step[i - 1] / 2
        centred = part - part.mean()
        row = np.zeros(len(x))
        row[first : first + window] = centred @ integral / (centred @ centred)
        rows.append(row)
    return np.stack(rows)
