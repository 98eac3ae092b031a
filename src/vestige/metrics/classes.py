"""What a classifier says of images: how often, how surely and how decidedly they show a class."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import entr

from vestige.errors import InvalidInput
from vestige.metrics.arrays import FloatArray, count, matrix
from vestige.metrics.interval import Interval, clopper_pearson, mean_interval

_SUM_TOLERANCE = 5e-3
"""Room for probabilities that were rounded to half precision."""


@dataclass(frozen=True)
class ClassScores:
    """Three means over the same n images, for one class.

    ``accuracy`` [0, 1]: share of images for which the class is the single most probable one.
    ``probability`` [0, 1]: mean probability of the class.
    ``entropy`` [0, ln k] nats: mean entropy of the class probabilities; ln k means undecided among all k.
    """

    accuracy: Interval
    probability: Interval
    entropy: Interval


def _probabilities(values: npt.ArrayLike) -> FloatArray:
    checked = matrix(values, "class probabilities")
    worst = float(np.abs(checked.sum(axis=1) - 1.0).max())
    if checked.shape[1] < 2 or checked.min() < 0.0 or worst > _SUM_TOLERANCE:
        raise InvalidInput(
            f"Class probabilities have {checked.shape[1]} columns, a least value of {checked.min():g} "
            f"and rows whose sums differ from 1 by up to {worst:g}.",
            expected="shape [n, k], k >= 2, no negative value, each row summing to 1.",
            remedy="apply a softmax to the logits first.",
        )
    return checked / checked.sum(axis=1, keepdims=True)


def _recognised(probabilities: FloatArray, labels: npt.NDArray[np.intp]) -> int:
    """Rows whose label is more probable than every other class; a tie is not a recognition."""
    rows = np.arange(len(labels))
    others = probabilities.copy()
    others[rows, labels] = -1.0
    return int(np.count_nonzero(probabilities[rows, labels] > others.max(axis=1)))


def accuracy(probabilities: npt.ArrayLike, labels: npt.ArrayLike, confidence: float = 0.95) -> Interval:
    """Return the share of rows of ``probabilities`` [n, k] whose label [n] is the single most probable class.

    In [0, 1], Clopper-Pearson. Ties for the first place count as wrong, so a constant classifier scores 0.
    Raises EmptySet, or InvalidInput for rows that are no probabilities or labels outside 0..k-1.
    """
    checked, given = _probabilities(probabilities), np.asarray(labels)
    if given.shape != (len(checked),) or given.dtype.kind not in "iu" or given.min() < 0:
        raise InvalidInput(
            f"labels have shape {given.shape} and dtype {given.dtype}.",
            expected=f"{len(checked)} whole numbers, 0 or more.",
            remedy="give one label for each row of probabilities.",
        )
    if given.max() >= checked.shape[1]:
        raise InvalidInput(
            f"The largest label is {given.max()}.",
            expected=f"labels below {checked.shape[1]}, the number of columns.",
            remedy="use the classifier that knows these classes.",
        )
    return clopper_pearson(_recognised(checked, given.astype(np.intp)), len(checked), confidence)


def class_scores(probabilities: npt.ArrayLike, target: int, confidence: float = 0.95) -> ClassScores:
    """Return how strongly images are seen as class ``target``, from ``probabilities`` [n, k].

    Intervals: Clopper-Pearson for the accuracy, Student's for both means, cut to their ranges.
    Raises EmptySet, or InvalidInput for rows that are no probabilities or a target outside 0..k-1.
    """
    checked = _probabilities(probabilities)
    n, k = checked.shape
    target = count(target, "target", 0, k - 1)
    return ClassScores(
        accuracy=clopper_pearson(_recognised(checked, np.full(n, target, dtype=np.intp)), n, confidence),
        probability=mean_interval(checked[:, target], confidence, within=(0.0, 1.0)),
        entropy=mean_interval(np.minimum(entr(checked).sum(axis=1), math.log(k)), confidence, (0.0, math.log(k))),
    )
