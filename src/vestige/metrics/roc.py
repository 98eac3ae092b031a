"""Membership scores against the truth: exact ROC curve, its area, and the rate at a low false positive rate.

Convention everywhere: a higher score means likelier member, and a row is called a member when score >= threshold.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import betaln, expit, logit, ndtri

from vestige.metrics.arrays import FloatArray, count, open_unit, vector
from vestige.metrics.interval import Interval, beta_bounds, clopper_pearson, t_quantile
from vestige.randomness import Stream, generator

MINIMUM_FALSE_POSITIVES = 10
"""Negatives expected above a threshold before a rate at that threshold is worth quoting."""

_INFORMATIVE_ROWS = 5
"""min(m, n) * min(A, 1-A) below which too few placements vary for their variance to be trusted."""


@dataclass(frozen=True, eq=False)
class Roc:
    """The empirical ROC curve, one point for every distinct score.

    ``fpr`` and ``tpr`` [p] rise from 0 to 1; ``thresholds`` [p] falls from +infinity (nothing accepted)
    to the lowest score (everything accepted).
    """

    fpr: FloatArray
    tpr: FloatArray
    thresholds: FloatArray

    def area(self) -> float:
        """Area under the curve by trapezoids: members above non-members, ties counted one half."""
        return float(np.sum(np.diff(self.fpr) * (self.tpr[1:] + self.tpr[:-1])) / 2.0)

    def corners(self) -> Roc:
        """Return the same curve without points that horizontal and vertical runs pass through."""
        flat = (np.diff(self.fpr) == 0, np.diff(self.tpr) == 0)
        inner = (flat[0][:-1] & flat[0][1:]) | (flat[1][:-1] & flat[1][1:])
        keep = np.concatenate([[True], ~inner, [True]])
        return Roc(self.fpr[keep], self.tpr[keep], self.thresholds[keep])


def _at_or_above(scores: FloatArray, thresholds: FloatArray) -> npt.NDArray[np.int64]:
    return (scores.size - np.searchsorted(np.sort(scores), thresholds, side="left")).astype(np.int64)


def roc(members: npt.ArrayLike, non_members: npt.ArrayLike) -> Roc:
    """Return the exact ROC curve of two score arrays [m] and [n].

    Every distinct score is a threshold; equal scores of members and non-members enter together, so ties
    are one slanted segment. Nothing is binned or interpolated.
    Raises EmptySet or InvalidInput for empty, NaN or infinite scores.
    """
    positives, negatives = vector(members, "member scores"), vector(non_members, "non-member scores")
    thresholds = np.unique(np.concatenate([positives, negatives]))[::-1]
    return Roc(
        fpr=np.concatenate([[0.0], _at_or_above(negatives, thresholds) / negatives.size]),
        tpr=np.concatenate([[0.0], _at_or_above(positives, thresholds) / positives.size]),
        thresholds=np.concatenate([[np.inf], thresholds]),
    )


def _wins(scores: FloatArray, against: FloatArray) -> npt.NDArray[np.int64]:
    """Twice the number of ``against`` below each score, ties counted once."""
    ordered = np.sort(against)
    return (np.searchsorted(ordered, scores, "left") + np.searchsorted(ordered, scores, "right")).astype(np.int64)


def _variance(doubled: npt.NDArray[np.int64], rivals: int, area: float) -> float:
    """Sample variance of the placements; the largest possible one when a single row leaves it unknown."""
    if doubled.size == 1:
        return area * (1.0 - area)
    return 0.0 if np.ptp(doubled) == 0 else float(np.var(doubled / (2.0 * rivals), ddof=1))


def _score_bound(area: float, m: int, n: int, confidence: float, end: float) -> float:
    """Root between ``area`` and ``end`` (0 or 1) of (area - t)^2 = z^2 V(t), by bisection.

    V(t) = t (1-t) / (mn) * (1 + (N-1) ((1-t)/(2-t) + t/(1+t))), N = (m+n)/2: the variance of the
    Mann-Whitney statistic were both scores exponential, evaluated at the bound and not at the estimate.
    """
    squared = float(ndtri(0.5 + confidence / 2.0)) ** 2
    inside, outside = area, end
    for _ in range(64):
        t = 0.5 * (inside + outside)
        shape = 1.0 + ((m + n) / 2.0 - 1.0) * ((1.0 - t) / (2.0 - t) + t / (1.0 + t))
        if (area - t) ** 2 <= squared * t * (1.0 - t) / (m * n) * shape:
            inside = t
        else:
            outside = t
    return inside


def auc(members: npt.ArrayLike, non_members: npt.ArrayLike, confidence: float = 0.95) -> Interval:
    """Return the area under the ROC curve, P(member > non-member) + P(tie) / 2, with its interval.

    With placements v_i (share of non-members below member i, ties one half) and w_j likewise, the variance
    is var(v)/m + var(w)/n (DeLong, DeLong and Clarke-Pearson, Biometrics 44, 1988). The interval is built on
    log(A / (1-A)), so it stays in [0, 1], with a Student quantile whose degrees of freedom are Welch's
    (Brunner and Munzel, Biometrical Journal 42, 2000). It is too narrow where few rows lose against the other
    group, so below min(m, n) * min(A, 1-A) = 5 it is widened to hold the score interval of Newcombe (method 5;
    Statistics in Medicine 25, 2006). When all placements are equal - complete separation, or all scores tied -
    the variance is zero and says nothing; then min(m, n) disjoint pairs are treated as trials of a proportion
    (Clopper-Pearson), which can only be too wide.

    Takes scores [m] and [n]; ``n`` of the result is m + n. Raises EmptySet or InvalidInput.
    """
    positives, negatives = vector(members, "member scores"), vector(non_members, "non-member scores")
    confidence = open_unit(confidence, "confidence")
    m, n = positives.size, negatives.size
    above, below = _wins(positives, negatives), _wins(negatives, positives)
    area = int(above.sum()) / (2 * m * n)
    parts = _variance(above, n, area) / m, _variance(below, m, area) / n
    variance = sum(parts)
    if variance == 0.0:
        pairs = min(m, n)
        return Interval(area, *beta_bounds(area * pairs, pairs, confidence), m + n)
    degrees = variance**2 / (parts[0] ** 2 / max(m - 1, 1) + parts[1] ** 2 / max(n - 1, 1))
    half = t_quantile(degrees, confidence) * math.sqrt(variance) / (area * (1.0 - area))
    centre = float(logit(area))
    low, high = float(expit(centre - half)), float(expit(centre + half))
    if min(m, n) * min(area, 1.0 - area) < _INFORMATIVE_ROWS:
        low = min(low, _score_bound(area, m, n, confidence, 0.0))
        high = max(high, _score_bound(area, m, n, confidence, 1.0))
    return Interval(area, low, high, m + n)


@dataclass(frozen=True)
class TprAtFpr:
    """True positive rate at a bounded false positive rate.

    ``threshold`` is an observed score, or +infinity when even the highest one lets too many non-members in.
    ``enough_negatives`` is False when fewer than 10 false positives are expected at the bound: the rate is
    then a statement about a handful of rows and must not be quoted.
    """

    interval: Interval
    threshold: float
    achieved_fpr: float
    enough_negatives: bool


def tpr_at_fpr(members: npt.ArrayLike, non_members: npt.ArrayLike, fpr: float, confidence: float = 0.95) -> TprAtFpr:
    """Return the true positive rate at the lowest observed threshold whose false positive rate is <= ``fpr``.

    No interpolation: the bound is met exactly on the given non-members, ties included. The interval is
    Clopper-Pearson over the members at that threshold, the threshold taken as given; the uncertainty that the
    non-members add to the threshold itself is what ``enough_negatives`` guards (n * fpr >= 10).
    Takes scores [m] and [n], 0 < fpr < 1. Raises EmptySet or InvalidInput.
    """
    fpr = open_unit(fpr, "fpr")
    curve = roc(members, non_members)
    last = int(np.searchsorted(curve.fpr, fpr, side="right")) - 1
    threshold = float(curve.thresholds[last])
    positives, negatives = vector(members, "member scores"), vector(non_members, "non-member scores")
    hits = int(np.count_nonzero(positives >= threshold))
    return TprAtFpr(
        interval=clopper_pearson(hits, positives.size, confidence),
        threshold=threshold,
        achieved_fpr=float(curve.fpr[last]),
        # A relative slack of 1e-12: 0.07 * n and the like are not exact in binary.
        enough_negatives=negatives.size * fpr >= MINIMUM_FALSE_POSITIVES * (1.0 - 1e-12),
    )


def shuffled_control(
    members: npt.ArrayLike, non_members: npt.ArrayLike, seed: int, confidence: float = 0.95
) -> Interval:
    """Return the AUC after dealing all scores at random into two groups of the original sizes.

    No score can tell such groups apart, so the interval covers 0.5 for about ``confidence`` of all seeds;
    one that does not, for most seeds, points at dependent rows or a broken evaluation.
    Raises EmptySet or InvalidInput.
    """
    positives, negatives = vector(members, "member scores"), vector(non_members, "non-member scores")
    pooled = generator(count(seed, "seed"), Stream.CONTROL, row=0).permutation(np.concatenate([positives, negatives]))
    return auc(pooled[: positives.size], pooled[positives.size :], confidence)


def either_way(area: Interval) -> Interval:
    """An AUC whichever side it favours, in [0.5, 1]: an attacker may turn his score around."""
    ends = sorted(max(v, 1 - v) for v in (area.low, area.high))
    low = 0.5 if area.covers(0.5) else ends[0]
    return Interval(max(area.value, 1 - area.value), low, ends[1], area.n)


def _log_choose(total: int, chosen: FloatArray) -> FloatArray:
    return -betaln(total - chosen + 1.0, chosen + 1.0) - np.log(total + 1.0)


def exceeds_chance(matches_members: int, n_members: int, matches_non_members: int, n_non_members: int) -> float:
    """Return the p-value that members match more often than non-members: Fisher's exact test, one-sided.

    Given the total number of matches K, p is the hypergeometric probability of ``matches_members`` or more of
    them falling on members when membership is irrelevant. In (0, 1]; 1 when nothing matched.
    Raises InvalidInput for counts out of range or an empty group.
    """
    m, n = count(n_members, "n_members", 1), count(n_non_members, "n_non_members", 1)
    hits = count(matches_members, "matches_members", 0, m)
    matched = hits + count(matches_non_members, "matches_non_members", 0, n)
    least = max(0, matched - n)
    if hits <= least:
        return 1.0
    counts = np.arange(hits, min(matched, m) + 1, dtype=np.float64)
    terms = _log_choose(m, counts) + _log_choose(n, matched - counts)
    terms -= _log_choose(m + n, np.array([float(matched)]))
    return min(1.0, float(np.exp(terms).sum()))
