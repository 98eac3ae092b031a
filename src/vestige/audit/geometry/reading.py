"""How a dimension is read off its curve over scale: where it stays level, else where it bends, else not at all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vestige.audit.geometry.estimate import Curve, Dimension, Doubles, Integers, Reading
from vestige.errors import InvalidInput

LEAST_LEVELS = 3
"""Consecutive levels that a plateau needs."""

RELATIVE = 0.1
"""How much a plateau may rise and fall in all, as a share of its mean."""

FLOOR = 0.1
"""The same in units of sqrt(ambient dimension), for dimensions near 0."""

UNRESOLVED = 0.9
"""Share of the ambient dimension from which the finest levels are suspected of showing the network, not the data."""

SHOULDER = 0.75
"""Share of the steepest falls beside it that a shoulder may fall with."""

BEND = 0.15
"""Least distance of a knee from the chord, both axes scaled to [0, 1]."""

_RULES = (Reading.PLATEAU, Reading.KNEE)


@dataclass(frozen=True)
class _Spot:
    value: float
    error: float
    level: int
    reading: Reading
    first: int = 0
    """Level that it begins at."""


_NOWHERE = _Spot(np.nan, np.nan, -1, Reading.NONE)


@dataclass(frozen=True, eq=False)
class _Line:
    """The curve of one point over log scale."""

    x: Doubles
    value: Doubles
    error: Doubles
    ambient: int

    @property
    def floor(self) -> float:
        return FLOOR * float(np.sqrt(self.ambient))


def mean_and_error(draws: Doubles) -> tuple[Doubles, Doubles]:
    """Mean over the last axis and its standard error, NaN for a single draw."""
    count = draws.shape[-1]
    error = draws.std(axis=-1, ddof=1) / np.sqrt(count) if count > 1 else np.full(draws.shape[:-1], np.nan)
    return draws.mean(axis=-1), error


def check_rule(rule: Reading) -> None:
    """Raise InvalidInput unless a dimension can be read by this rule."""
    if rule not in _RULES:
        raise InvalidInput(
            f"The rule of reading is {Reading(rule).value}.",
            expected=f"{' or '.join(r.value for r in _RULES)}.",
            remedy="for a level fixed beforehand, give a single ratio.",
        )


def read(curve: Curve, rule: Reading = Reading.PLATEAU) -> Dimension:
    """The dimension that a curve shows, point by point.

    A curve of a single level is read there (``GIVEN``). Otherwise ``PLATEAU`` looks for a plateau and, where there is
    none or a shoulder stands before it, for a bend: a shoulder, else a knee. ``KNEE`` looks for a bend alone. Values
    are reported as they stand: one below 0 or above the ambient dimension says that the estimate is off by so much.

    Raises
    ------
    InvalidInput : another rule.
    """
    check_rule(rule)
    if len(curve.scale) == 1:
        return at_level(curve, np.zeros(len(curve.dimension), np.int64))
    return _each(curve, rule)


def at_ratio(curve: Curve, ratio: float) -> Dimension:
    """The value at the level nearest to a ratio that was fixed beforehand."""
    level = int(np.argmin(np.abs(np.log(curve.scale) - np.log(ratio))))
    return at_level(curve, np.full(len(curve.dimension), level))


def at_level(curve: Curve, level: Integers) -> Dimension:
    """The value of each point at its level [n] (``GIVEN``), ``NONE`` where the curve has no answer there."""
    each = np.arange(len(level))
    value, error = curve.dimension[each, level], curve.error[each, level]
    known = np.isfinite(value)
    reading = tuple(Reading.GIVEN if k else Reading.NONE for k in known)
    return Dimension(value, np.where(known, error, np.nan), np.where(known, level, -1), reading, curve)


def _each(curve: Curve, rule: Reading) -> Dimension:
    x = np.log(curve.scale)
    spots = [_spot(_Line(x, v, e, curve.ambient), rule) for v, e in zip(curve.dimension, curve.error, strict=True)]
    return Dimension(
        np.array([s.value for s in spots]),
        np.array([s.error for s in spots]),
        np.array([s.level for s in spots], np.int64),
        tuple(s.reading for s in spots),
        curve,
    )


def _spot(line: _Line, rule: Reading) -> _Spot:
    bend = _shoulder(line)
    if rule is Reading.PLATEAU:
        level, unresolved = _plateaus(line)
        if level is not None and (bend is None or level.first <= bend.first + 1):
            return level
        if bend is None and unresolved is not None:
            return unresolved
    return bend or _knee(line) or _NOWHERE


def _plateaus(line: _Line) -> tuple[_Spot | None, _Spot | None]:
    """Median over the longest run of levels that stays level; of equals the flattest, then the one at least noise.

    A run stays level while it rises and falls by no more than a standard error (their median), or a tenth of its
    mean, or a tenth of sqrt(ambient). Errors of a curve are shared by its levels, so they hardly widen a run. One at
    the ambient dimension on the finest levels comes second: it is also what a network shows that does not resolve so
    little noise.
    """
    value, noise = line.value, np.nan_to_num(line.error)
    full = value + 2 * noise >= UNRESOLVED * line.ambient
    best: dict[bool, tuple[int, float, int]] = {}
    for first in range(len(value) - LEAST_LEVELS + 1):
        for last in range(first + LEAST_LEVELS, len(value) + 1):
            run = value[first:last]
            if not np.isfinite(run).all():
                break
            spread = float(np.ptp(run))
            if spread <= max(RELATIVE * abs(run.mean()), line.floor, float(np.median(noise[first:last]))):
                found, unresolved = (first - last, spread, first), bool(full[:last].all())
                best[unresolved] = min(found, best.get(unresolved, found))
    level, unresolved = (None if found is None else _run(line, *found) for found in (best.get(False), best.get(True)))
    return level, unresolved


def _run(line: _Line, minus_length: int, spread: float, first: int) -> _Spot:
    run = slice(first, first - minus_length)
    value, error = line.value[run], line.error[run]
    middle = float(np.median(value))  # the ends of a run may already bend
    own = np.nan if np.isnan(error).all() else float(np.sqrt(np.nanmean(np.square(error))))
    return _Spot(middle, _within(own, spread), first + int(np.argmin(np.abs(value - middle))), Reading.PLATEAU, first)


def _shoulder(line: _Line) -> _Spot | None:
    """The middle of two neighbouring levels between which a falling curve falls least, with steeper falls both sides.

    Where the dimension shows only over a short stretch, between noise that the network does not resolve and noise
    that blurs the shape away.
    """
    value, noise = line.value, np.nan_to_num(line.error)
    if not np.isfinite(value).all() or len(value) < LEAST_LEVELS + 1:
        return None
    slope, best = -np.diff(value) / np.diff(line.x), (SHOULDER, -1)
    for j in range(1, len(slope) - 1):
        beside, least = min(slope[:j].max(), slope[j + 1 :].max()), max(line.floor, noise[j])
        drops = min(value[: j + 1].max() - value[j], value[j + 1] - value[j + 1 :].min())
        if beside > 0 and drops >= least:
            best = min(best, (float(abs(slope[j]) / beside), j))
    if (j := best[1]) < 0:
        return None
    middle, near = float(value[j : j + 2].mean()), line.error[j : j + 2]
    own = np.nan if np.isnan(near).any() else float(near.max())
    level = j + int(np.argmin(np.abs(value[j : j + 2] - middle)))
    return _Spot(middle, _within(own, float(np.ptp(value[j : j + 2]))), level, Reading.KNEE, j)


def _knee(line: _Line) -> _Spot | None:
    """The level of a falling curve farthest from the chord between its ends, if that is far enough.

    With both axes scaled to [0, 1], after Satopaa et al. 2011; below the chord the fall ends there, above it begins
    there. The standard error covers both neighbours.
    """
    known = np.flatnonzero(np.isfinite(line.value))
    if len(known) < LEAST_LEVELS + 1:
        return None
    x, value, error = line.x[known], line.value[known], line.error[known]
    fall = value[0] - value[-1]
    if fall <= max(line.floor, 2 * float(np.nan_to_num(error).max())):
        return None
    across, down = (x - x[0]) / (x[-1] - x[0]), (value - value[-1]) / fall
    distance = np.abs(down - (1 - across))
    best = 1 + int(np.argmax(distance[1:-1]))
    if distance[best] < BEND:
        return None
    spread = float(np.ptp(value[best - 1 : best + 2]))
    return _Spot(float(value[best]), _within(float(error[best]), spread), int(known[best]), Reading.KNEE)


def _within(error: float, spread: float) -> float:
    """Standard error of a value that lies anywhere within a spread, on top of its own; NaN if that is unknown."""
    return float(np.hypot(error, spread / np.sqrt(12)))
