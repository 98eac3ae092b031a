"""Local intrinsic dimension as it is reported: a curve over scale, the value read off it, and why it was read there."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


class Reading(str, Enum):
    """Why a dimension was read where it was."""

    PLATEAU = "plateau"
    """The curve stays level there within its own error."""
    KNEE = "knee"
    """The curve bends there, and nowhere stays level."""
    GIVEN = "given"
    """The scale was fixed beforehand."""
    ATOM = "atom"
    """The reference repeats the point, which is then an atom of dimension 0."""
    NONE = "none"
    """Undetermined: the curve names no dimension."""


@dataclass(frozen=True, eq=False)
class Curve:
    """Estimates of the dimension at n points over a grid of scales.

    Parameters
    ----------
    scale : ascending [levels]; ``sigma/alpha`` in the units of the points for estimators that look at a model, the
        number of neighbours for those that look at data.
    dimension : [n, levels], NaN where the estimator has no answer.
    error : standard error [n, levels] of the random probes or of the sample; 0 where the answer is exact, NaN where
        it is unknown.
    ambient : dimension of the space that the points lie in.
    evaluations : network evaluations in all, one an image; the product of a Jacobian and a vector counts as one.
    """

    scale: Doubles
    dimension: Doubles
    error: Doubles
    ambient: int
    evaluations: int = 0


@dataclass(frozen=True, eq=False)
class Dimension:
    """The dimension at n points.

    Parameters
    ----------
    value : [n], NaN where undetermined.
    error : standard error [n] of ``value``, NaN where unknown.
    level : index [n] into the scales of the curve, -1 where undetermined or where no scale was looked at.
    reading : why the value was read there, one a point.
    curve : what it was read off.
    """

    value: Doubles
    error: Doubles
    level: Integers
    reading: tuple[Reading, ...]
    curve: Curve
