"""A number with its interval: binomial proportions, means, ratios and the bootstrap.

All intervals are two-sided with the given confidence (0.95 unless stated) and equal tails.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv, ndtri, stdtrit

from vestige.errors import EmptySet, InvalidInput
from vestige.metrics.arrays import FloatArray, count, open_unit, vector
from vestige.randomness import Stream, generator
from vestige.record import Estimate

_DRAW = 1
"""Keeps resampling apart from other uses of the same seed."""


@dataclass(frozen=True)
class Interval:
    """A value, its interval and ``n``: the denominator of a rate, otherwise the rows behind the value.

    ``low`` and ``high`` are infinite where the observations are too few to bound the value.
    """

    value: float
    low: float
    high: float
    n: int

    def covers(self, truth: float) -> bool:
        """Whether ``truth`` lies in [low, high]."""
        return bool(self.low <= truth <= self.high)


def estimate(name: str, interval: Interval, unit: str = "", note: str = "") -> Estimate:
    """Return the line of a record that states ``interval``; bounds that are not finite become null."""

    def finite(number: float) -> float | None:
        return float(number) if math.isfinite(number) else None

    return Estimate(
        name=name,
        value=finite(interval.value),
        low=finite(interval.low),
        high=finite(interval.high),
        n=interval.n,
        unit=unit,
        note=note,
    )


def beta_bounds(successes: float, trials: float, confidence: float) -> tuple[float, float]:
    """Clopper-Pearson bounds from beta quantiles; ``successes`` in [0, trials] need not be whole."""
    tail = (1.0 - confidence) / 2.0
    failures = trials - successes
    low = float(betaincinv(successes, failures + 1.0, tail)) if successes > 0 else 0.0
    high = float(betaincinv(successes + 1.0, failures, 1.0 - tail)) if failures > 0 else 1.0
    return low, high


def _binomial(successes: int, trials: int) -> tuple[int, int]:
    trials = count(trials, "trials")
    if trials == 0:
        raise EmptySet("No trials were made.", expected="at least one.", remedy="report the rate as not measured.")
    return count(successes, "successes", 0, trials), trials


def clopper_pearson(successes: int, trials: int, confidence: float = 0.95) -> Interval:
    """Return the exact interval of a binomial proportion, in [0, 1].

    The bounds are the beta quantiles B(a/2; s, n-s+1) and B(1-a/2; s+1, n-s); coverage is never
    below ``confidence``. Source: Clopper and Pearson, Biometrika 26 (1934).
    Raises EmptySet if ``trials`` is 0, InvalidInput if ``successes`` is outside [0, trials].
    """
    successes, trials = _binomial(successes, trials)
    low, high = beta_bounds(successes, trials, open_unit(confidence, "confidence"))
    return Interval(successes / trials, low, high, trials)


def wilson(successes: int, trials: int, confidence: float = 0.95) -> Interval:
    """Return the score interval of a binomial proportion, in [0, 1].

    It inverts |p - s/n| <= z sqrt(p (1-p) / n): shorter than Clopper-Pearson, with coverage near
    ``confidence`` on average instead of at least. Source: Wilson, JASA 22 (1927).
    Raises as :func:`clopper_pearson`.
    """
    successes, trials = _binomial(successes, trials)
    z = float(ndtri(0.5 + open_unit(confidence, "confidence") / 2.0))
    p = successes / trials
    centre = (p + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials))
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == trials else min(1.0, centre + half)
    return Interval(p, low, high, trials)


def t_quantile(degrees: float, confidence: float) -> float:
    """Two-sided Student quantile: P(|T| <= quantile) = confidence with ``degrees`` of freedom."""
    return float(stdtrit(degrees, 0.5 + confidence / 2.0))


def mean_interval(
    values: npt.ArrayLike, confidence: float = 0.95, within: tuple[float, float] = (-math.inf, math.inf)
) -> Interval:
    """Return the mean of ``values`` [n] with Student's t interval.

    ``within`` is the range that the mean cannot leave (for probabilities (0, 1)); bounds are cut to it.
    With n = 1 the bounds are those of ``within``. Values that are all equal give an interval of width zero:
    the method knows nothing of outcomes that were never seen.
    Raises EmptySet or InvalidInput for empty, NaN or infinite values.
    """
    checked = vector(values, "values")
    confidence = open_unit(confidence, "confidence")
    mean = float(np.clip(checked.mean(), checked.min(), checked.max()))
    n = checked.size
    if n == 1:
        return Interval(mean, within[0], within[1], 1)
    spread = 0.0 if np.ptp(checked) == 0 else float(checked.std(ddof=1))
    half = t_quantile(n - 1, confidence) * spread / math.sqrt(n)
    return Interval(mean, max(within[0], mean - half), min(within[1], mean + half), n)


def _resampled(
    statistic: Callable[..., float],
    arrays: tuple[npt.NDArray[np.generic], ...],
    random: np.random.Generator,
    paired: bool,
) -> float:
    if paired:
        rows = random.integers(len(arrays[0]), size=len(arrays[0]))
        return float(statistic(*(array[rows] for array in arrays)))
    return float(statistic(*(array[random.integers(len(array), size=len(array))] for array in arrays)))


def _percentiles(replicates: FloatArray, confidence: float) -> tuple[float, float]:
    """Order statistics of the replicates; an undefined replicate (NaN) counts against both bounds."""
    repeats, tail = replicates.size, (1.0 - confidence) / 2.0
    if tail * (repeats + 1) < 1.0 - 1e-9:
        raise InvalidInput(
            f"{repeats} bootstrap repeats cannot resolve a tail of {tail:g}.",
            expected=f"at least {math.ceil(1.0 / tail) - 1} repeats.",
            remedy="raise repeats.",
        )
    place = math.floor(tail * (repeats + 1) + 1e-9)
    ascending = np.sort(np.nan_to_num(replicates, nan=-np.inf, posinf=np.inf, neginf=-np.inf))
    descending = -np.sort(-np.nan_to_num(replicates, nan=np.inf, posinf=np.inf, neginf=-np.inf))
    return float(ascending[place - 1]), float(descending[place - 1])


def bootstrap(
    statistic: Callable[..., float],
    *arrays: npt.ArrayLike,
    seed: int,
    repeats: int = 1000,
    confidence: float = 0.95,
    paired: bool = False,
) -> Interval:
    """Return ``statistic(*arrays)`` with its percentile bootstrap interval.

    Rows (first axis) are drawn with replacement: the same rows from every array if ``paired``, otherwise
    from each array on its own. ``n`` is the number of rows if paired, else the sum over arrays. The result
    is a function of ``seed``, and repeat r does not depend on how many there are. The percentile interval does
    not correct bias, so it suits statistics that are nearly unbiased, and it is too narrow below about 20
    rows. If an array has one row, the bounds are infinite.
    Source: Efron, Annals of Statistics 7 (1979).
    Raises EmptySet, InvalidInput (no array, unequal lengths when paired, too few repeats).
    """
    held = tuple(np.asarray(array) for array in arrays)
    lengths = [len(array) if array.ndim else 0 for array in held]
    if not lengths or min(lengths) == 0:
        raise EmptySet("An array to resample has no rows.", expected="at least one row.", remedy="give more rows.")
    if paired and len(set(lengths)) > 1:
        raise InvalidInput(
            f"Arrays have {lengths} rows.", expected="equal numbers, since rows are paired.", remedy="align the arrays."
        )
    confidence, repeats, seed = open_unit(confidence, "confidence"), count(repeats, "repeats", 1), count(seed, "seed")
    value, n = float(statistic(*held)), lengths[0] if paired else sum(lengths)
    if min(lengths) == 1:
        return Interval(value, -math.inf, math.inf, n)
    random = generator(seed, Stream.CONTROL, row=0, draw=_DRAW)
    replicates = np.array([_resampled(statistic, held, random, paired) for _ in range(repeats)])
    return Interval(value, *_percentiles(replicates, confidence), n)


def ratio_interval(
    numerator: npt.ArrayLike, denominator: npt.ArrayLike, *, seed: int, repeats: int = 1000, confidence: float = 0.95
) -> Interval:
    """Return mean(numerator) / mean(denominator) with a paired percentile bootstrap interval.

    Both arrays are [n] and aligned row by row. A resample whose denominator sums to zero widens the
    interval to infinity on both sides instead of being dropped.
    Raises InvalidInput if the lengths differ or the denominator sums to zero.
    """
    above, below = vector(numerator, "numerator"), vector(denominator, "denominator")
    if below.sum() == 0:
        raise InvalidInput(
            "The denominator of a ratio sums to zero.", expected="a sum other than zero.", remedy="report a difference."
        )

    def ratio(top: FloatArray, bottom: FloatArray) -> float:
        total = float(bottom.sum())
        return float(top.sum()) / total if total != 0 else math.nan

    return bootstrap(ratio, above, below, seed=seed, repeats=repeats, confidence=confidence, paired=True)
