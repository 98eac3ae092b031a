"""Likelihood ratios of one model's losses under the losses of shadow models: pure functions of arrays.

Losses are ``log`` denoising losses [n] of a target and [k, n] of k shadow models, with
``inside`` bool [k, n]: whether the shadow was trained on the image.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

from vestige.audit.membership.image_statistics import quantile_fit
from vestige.audit.membership.rows import Floats

Bools = npt.NDArray[np.bool_]

LEAST_MODELS = 2
"""Shadow models with the image, and as many without it, before a row's Gaussians are fitted."""

_LEAST_DEVIATION = 1e-3
"""Of log losses: a tenth of a percent of the loss."""

_LEAST_SLOPE = 0.1


class Mode(str, Enum):
    """``online`` compares models with and without the image, ``offline`` only looks at those without it.

    ``auto`` leaves the choice to the attack; the functions below are told one of the others.
    """

    AUTO = "auto"
    ONLINE = "online"
    OFFLINE = "offline"


@dataclass(frozen=True, eq=False)
class Gaussian:
    """Mean [n] and variance [n] of a new model's log loss on each image, and how many models they rest on."""

    mean: Floats
    variance: Floats
    count: npt.NDArray[np.int64]

    def log_density(self, losses: Floats) -> Floats:
        """Log density [n]."""
        return -(np.log(2 * np.pi * self.variance) + (losses - self.mean) ** 2 / self.variance) / 2


def gaussian(losses: Floats, chosen: Bools, fix_variance: bool) -> Gaussian:
    """Gaussian of each image over the chosen models; NaN where fewer than two are chosen.

    The variance is that of the image's own models, or, if ``fix_variance``, the one pooled
    within images; either is multiplied by ``1 + 1/count`` for the uncertainty of the mean.
    """
    count = chosen.sum(0)
    enough = count >= LEAST_MODELS
    some = np.maximum(count, 1)
    mean = np.where(enough, np.where(chosen, losses, 0).sum(0) / some, np.nan)
    squares = np.where(chosen, (losses - np.where(enough, mean, 0)) ** 2, 0).sum(0)
    if fix_variance:
        variance = np.full(len(count), squares[enough].sum() / max(1, int((count[enough] - 1).sum())))
    else:
        variance = squares / np.maximum(count - 1, 1)
    spread = np.maximum(variance, _LEAST_DEVIATION**2) * (1 + 1 / some)
    return Gaussian(mean, np.where(enough, spread, np.nan), count)


def scores(
    target: Floats,
    shadows: Floats,
    inside: Bools,
    mode: Mode,
    *,
    fix_variance: bool,
    calibrate: bool,
    used: Bools | None = None,
) -> Floats:
    """Score of each image [n], higher = likelier member; NaN where the models do not suffice.

    Online: ``log N(l; in) - log N(l; out)``. Offline: ``(mean_out - l) / deviation_out``, a
    monotone function of the one-sided probability. With ``calibrate`` the target's losses
    are first mapped to the shadows' scale (:func:`calibrated`). ``used`` bool [k, n] leaves
    out models image by image.
    """
    within, without = inside, ~inside
    if used is not None:
        within, without = within & used, without & used
    out = gaussian(shadows, without, fix_variance)
    if mode is Mode.OFFLINE:
        losses = calibrated(target, out.mean) if calibrate else target
        return (out.mean - losses) / np.sqrt(out.variance)
    known = gaussian(shadows, within, fix_variance)
    losses = calibrated(target, (known.mean + out.mean) / 2) if calibrate else target
    return known.log_density(losses) - out.log_density(losses)


def calibrated(target: Floats, reference: Floats) -> Floats:
    """The target's log losses on the shadows' scale, ``(l - a) / b``, blind to membership.

    ``l ~ a + b reference`` is fitted to the median over all images. A slope below 0.1 means
    that the shadows hardly know which images are hard for the target; then only the level
    is shifted. NaN in the reference stays out of the fit.
    """
    known = ~np.isnan(reference)
    if not known.any():
        return target
    level, slope = quantile_fit(reference[known, None], target[known], 0.5)
    if slope < _LEAST_SLOPE:
        level, slope = float(np.median(target[known] - reference[known])), 1.0
    return (target - level) / slope


def each_in_turn(
    shadows: Floats, inside: Bools, mode: Mode, *, fix_variance: bool, calibrate: bool
) -> list[tuple[Floats, Bools]]:
    """Scores and truth of every shadow as the target of all the others; rows without enough models are left out.

    The target is missing on its own side of each image, and where images are dealt into
    equal halves that count would betray it: one model of the other side is left out as
    well, so that every image is judged by one model fewer on both sides.
    """
    found: list[tuple[Floats, Bools]] = []
    settings = {"fix_variance": fix_variance, "calibrate": calibrate}
    for model in range(len(shadows)):
        rest = (model + 1 + np.arange(len(shadows) - 1)) % len(shadows)
        used = ~_first(inside[rest] != inside[model])
        got = scores(shadows[model], shadows[rest], inside[rest], mode, used=used, **settings)
        known = ~np.isnan(got)
        found.append((got[known], inside[model][known]))
    return found


def _first(chosen: Bools) -> Bools:
    """The first chosen row of each column alone."""
    return chosen & (np.cumsum(chosen, axis=0) == 1)
