"""Why a point is memorized: the model's local dimension there against that of a reference.

The manifold memorization hypothesis (Ross et al. 2024, arXiv 2411.00113): a point is memorized where the dimension of
the model is too low. If the dimension of the data is not low there, the model is at fault, which is overfitting-driven
memorization; if the data are as low, as around an image that they hold many times, a perfect model would show the
same, which is data-driven memorization.

What is low, and how far two estimators differ by themselves, is learnt on points that are known not to be memorized.
Everything here is a pure function of arrays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from vestige.audit.geometry.line import Line, robust_line
from vestige.errors import InvalidInput, ShapeMismatch
from vestige.randomness import Stream, generator

Doubles = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Index = npt.NDArray[np.int64]

FOLDS = 5
"""Parts into which known non-members are dealt, each judged by a calibration on the others."""


class Cause(str, Enum):
    """What a point is."""

    OVERFITTING = "overfitting-driven"
    DATA = "data-driven"
    NONE = "not memorized"
    UNDETERMINED = "undetermined"


class Reason(str, Enum):
    """Why it is that, in words."""

    GAP = "the model's dimension is low, and lower than the reference's leads to expect by more than chance"
    BOTH_LOW = "the dimensions of the model and of the reference are both low"
    NOT_LOW = "the model's dimension is not low"
    SIMPLE = "the model's dimension is low, but no lower than that of images as simple as this one"
    NO_GAP = "the model's dimension is low, the reference's is not, but the gap is no more than chance"
    NO_REFERENCE = "memorized, cause undetermined: no reference was given"
    REFERENCE_UNKNOWN = "memorized, cause undetermined: the reference has no answer here"
    MODEL_UNKNOWN = "the curve of the model names no dimension here"
    UNCALIBRATED = "too few points that are known not to be memorized to say what is low"

    @property
    def cause(self) -> Cause:
        """The verdict that it leads to."""
        found = {
            Reason.GAP: Cause.OVERFITTING,
            Reason.BOTH_LOW: Cause.DATA,
            Reason.NOT_LOW: Cause.NONE,
            Reason.SIMPLE: Cause.NONE,
        }
        return found.get(self, Cause.UNDETERMINED)


@dataclass(frozen=True, eq=False)
class Measured:
    """A dimension [n] and its standard error [n]; NaN where it is undetermined and where the error is unknown.

    Raises
    ------
    ShapeMismatch : values and errors differ in number.
    """

    value: Doubles
    error: Doubles

    def __post_init__(self) -> None:
        if self.value.ndim != 1 or self.value.shape != self.error.shape:
            raise ShapeMismatch(
                f"There are dimensions of shape {self.value.shape} and standard errors of shape {self.error.shape}.",
                expected="one number of each a point.",
                remedy="pass two arrays of equal length.",
            )

    def __len__(self) -> int:
        return len(self.value)

    def take(self, rows: Index | Flags) -> Measured:
        """Chosen points."""
        return Measured(self.value[rows], self.error[rows])

    @property
    def variance(self) -> Doubles:
        """Squared standard error [n], 0 where it is unknown."""
        return np.nan_to_num(self.error, nan=0.0) ** 2


@dataclass(frozen=True)
class Rule:
    """How strict the verdict is.

    Parameters
    ----------
    quantile : a dimension is low if it is among this share of non-members: the rate of false alarms that is accepted.
    level : significance that the gap between reference and model needs, one-sided.
    """

    quantile: float = 0.05
    level: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.quantile < 0.5 or not 0 < self.level < 0.5:
            raise InvalidInput(
                f"quantile={self.quantile}, level={self.level}.",
                expected="both above 0 and below 0.5.",
                remedy="change the option.",
            )

    @property
    def fewest(self) -> int:
        """Non-members without which nothing can be among the share."""
        return math.ceil(1 / self.quantile - 1 - 1e-9)

    @property
    def needed(self) -> int:
        """Non-members from which every part of them can be judged by the others, see :func:`control`."""
        return math.ceil(self.fewest * FOLDS / (FOLDS - 1))


@dataclass(frozen=True, eq=False)
class Calibration:
    """What non-members show.

    Parameters
    ----------
    non_members : the model's dimension at n of them, ascending.
    low, reference_low : below it the model's and the reference's dimension are low; NaN where nothing can be said.
    reference_least : lowest dimension of the reference; below it nothing is known of the gap.
    residual_low : below it so is what complexity leaves of the model's dimension; NaN where that is not asked.
    expected : the model's dimension at a point that is not memorized, as a function of the reference's.
    extra : standard deviation around that line beyond the standard errors of both estimates.
    rule : how strict it is.
    """

    non_members: Doubles
    low: float
    reference_low: float
    reference_least: float
    residual_low: float
    expected: Line | None
    extra: float
    rule: Rule

    @property
    def possible(self) -> bool:
        """Whether it can be said what is low."""
        return math.isfinite(self.low)

    def rank(self, values: Doubles) -> Doubles:
        """Share of the non-members that are as low, each of ``values`` [n] counted among them; NaN stays NaN."""
        below = np.searchsorted(self.non_members, values, side="right")
        return np.where(np.isnan(values), np.nan, (1.0 + below) / (1.0 + self.non_members.size))


@dataclass(frozen=True, eq=False)
class Verdicts:
    """One verdict a point.

    Parameters
    ----------
    reason : why, [n].
    low : whether the model's dimension is low, and lower than the image's complexity explains, bool [n].
    p : share of non-members that are as low, counting the point itself among them, [n], NaN where undetermined.
    gap, gap_error : expected less found dimension of the model and its standard error, [n], NaN where unknown.
    """

    reason: tuple[Reason, ...]
    low: Flags
    p: Doubles
    gap: Doubles
    gap_error: Doubles

    def __len__(self) -> int:
        return len(self.reason)

    @property
    def cause(self) -> tuple[Cause, ...]:
        """The verdicts [n]."""
        return tuple(reason.cause for reason in self.reason)

    def are(self, *causes: Cause) -> Flags:
        """Which points have one of the verdicts, bool [n]."""
        return np.array([reason.cause in causes for reason in self.reason], dtype=np.bool_)

    @property
    def memorized(self) -> Flags:
        """Which points are memorized from either cause, bool [n]."""
        return self.are(Cause.OVERFITTING, Cause.DATA)


def low_threshold(values: Doubles, quantile: float) -> float:
    """The dimension below which at most a share ``quantile`` of new points like ``values`` [n] will lie.

    The k-th smallest, ``k = floor(quantile (n + 1))``: a new point drawn as these were lies below it with probability
    at most k / (n + 1). NaN where k is 0. Unknown values are passed over.
    """
    known = np.sort(values[np.isfinite(values)])
    k = math.floor(quantile * (known.size + 1) + 1e-9)
    return float(known[k - 1]) if k >= 1 else math.nan


def calibrate(model: Measured, reference: Measured | None, rule: Rule, residual: Doubles | None = None) -> Calibration:
    """Learn from non-members what is low and how the two estimators differ by themselves.

    ``model`` and ``reference`` are dimensions at the same points, ``residual`` [n] what the complexity of the images
    leaves of the model's: where it is given, a point is low only if both are. A Theil-Sen line gives the model's
    dimension expected from the reference's; points vary around it more than the standard errors say, and what is left
    of their variance after these is kept as ``extra``.
    """
    values = np.sort(model.value[np.isfinite(model.value)])
    low = low_threshold(values, rule.quantile)
    left = math.nan if residual is None else low_threshold(residual, rule.quantile)
    if reference is None:
        return Calibration(values, low, math.nan, math.nan, left, None, math.nan, rule)
    _same_length(model, reference)
    line = robust_line(reference.value, model.value)
    both = np.isfinite(model.value) & np.isfinite(reference.value)
    own = (model.variance + line.slope**2 * reference.variance)[both]
    extra = math.sqrt(max(line.spread**2 - float(np.median(own)), 0.0)) if both.any() else math.nan
    known = reference.value[np.isfinite(reference.value)]
    least = float(known.min()) if known.size else math.nan
    return Calibration(values, low, low_threshold(reference.value, rule.quantile), least, left, line, extra, rule)


def judge(
    model: Measured, reference: Measured | None, calibration: Calibration, residual: Doubles | None = None
) -> Verdicts:
    """Judge points by their dimensions [n] of model and reference, and the model's residual [n] if calibrated on that.

    The gap is the expected dimension of the model, given the reference's, less the one found; its variance adds both
    squared standard errors (that of the reference times the squared slope) and the square of ``extra``.

    A reference that is low, but no lower than that of some non-member, explains the model only as far as the gap is
    not beyond chance. Below all non-members, as on an atom, the line would be extrapolated, and low is low.
    """
    under = model.value < calibration.low if calibration.possible else np.zeros(len(model), np.bool_)
    asked = residual is not None and math.isfinite(calibration.residual_low)
    low = under & (residual < calibration.residual_low) if residual is not None and asked else under
    gap, error = np.full(len(model), np.nan), np.full(len(model), np.nan)
    reference_low = np.zeros(len(model), np.bool_)
    usable = reference is not None and calibration.expected is not None and math.isfinite(calibration.reference_low)
    if reference is not None and calibration.expected is not None and usable:
        _same_length(model, reference)
        line = calibration.expected
        gap = line.at(reference.value) - model.value
        error = np.sqrt(model.variance + line.slope**2 * reference.variance + calibration.extra**2)
        error = np.where(np.isnan(gap), np.nan, error)
    beyond = gap > float(ndtri(1 - calibration.rule.level)) * error
    if reference is not None and usable:
        explained = ~beyond | (reference.value < calibration.reference_least)
        reference_low = (reference.value < calibration.reference_low) & explained
    reasons = [
        _reason(calibration.possible, usable, *point)
        for point in zip(np.isfinite(model.value), under, low, np.isfinite(gap), reference_low, beyond, strict=True)
    ]
    return Verdicts(tuple(reasons), low, calibration.rank(model.value), gap, error)


def _reason(
    possible: bool,
    usable: bool,
    known: np.bool_,
    under: np.bool_,
    low: np.bool_,
    gap: np.bool_,
    both: np.bool_,
    beyond: np.bool_,
) -> Reason:
    if not possible:
        return Reason.UNCALIBRATED
    if not known:
        return Reason.MODEL_UNKNOWN
    if not low:
        return Reason.SIMPLE if under else Reason.NOT_LOW
    if not usable:
        return Reason.NO_REFERENCE
    if not gap:
        return Reason.REFERENCE_UNKNOWN
    if both:
        return Reason.BOTH_LOW
    return Reason.GAP if beyond else Reason.NO_GAP


def control(
    model: Measured, reference: Measured | None, rule: Rule, seed: int, residual: Doubles | None = None
) -> Verdicts:
    """Judge non-members as if they were not known to be any: each by a calibration on other ones.

    They are dealt into ``FOLDS`` parts by ``seed``; the share that is called memorized is the rate of false alarms.
    """
    part = generator(seed, Stream.CONTROL, row=len(model), draw=2).permutation(len(model)) % FOLDS
    found: list[tuple[Index, Verdicts]] = []
    for fold in range(FOLDS):
        held, rest = np.flatnonzero(part == fold), np.flatnonzero(part != fold)
        near, far = (None if reference is None else reference.take(rows) for rows in (held, rest))
        left, known = (None if residual is None else residual[rows] for rows in (held, rest))
        calibration = calibrate(model.take(rest), far, rule, known)
        found.append((held, judge(model.take(held), near, calibration, left)))
    order = np.argsort(np.concatenate([held for held, _ in found]), kind="stable")
    parts = [verdicts for _, verdicts in found]
    reasons = [reason for verdicts in parts for reason in verdicts.reason]
    low, p, gap, error = (
        np.concatenate([getattr(verdicts, name) for verdicts in parts])[order]
        for name in ("low", "p", "gap", "gap_error")
    )
    return Verdicts(tuple(reasons[place] for place in order), low, p, gap, error)


def _same_length(model: Measured, reference: Measured) -> None:
    if len(model) != len(reference):
        raise ShapeMismatch(
            f"The model's dimension is known at {len(model)} points, the reference's at {len(reference)}.",
            expected="the same points.",
            remedy="measure both at all of them.",
        )
