"""How far two images made from the same noise lie apart: in pixels, and in a classifier's features.

Two models that start from the same noise make comparable images, so the distance between them says what a change of
weights did to each image, which a distance between distributions cannot.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from vestige.errors import InvalidInput, ShapeMismatch
from vestige.metrics.arrays import FloatArray, matrix, same_width

_BLOCK = 4096


def _same_rows(first: int, second: int) -> None:
    if first != second:
        raise ShapeMismatch(
            f"There are {first} images of one model and {second} of the other.",
            expected="one image of each for every row of noise.",
            remedy="sample both models with the same rows and the same seed.",
        )


def pixel_distance(first: npt.NDArray[np.generic], second: npt.NDArray[np.generic]) -> FloatArray:
    """Return the root mean squared difference of each pair [n], pixels in [0, 1], so in [0, 1].

    Takes uint8 images [n, c, h, w] of equal shape; row i of both comes from the same noise.
    Raises ShapeMismatch for other shapes, InvalidInput for another dtype.
    """
    if first.dtype != np.uint8 or second.dtype != np.uint8:
        raise InvalidInput(
            f"The images are {first.dtype} and {second.dtype}.", expected="uint8.", remedy="scale them to 0..255."
        )
    _same_rows(len(first), len(second))
    if first.shape != second.shape:
        raise ShapeMismatch(
            f"The images have shapes {first.shape[1:]} and {second.shape[1:]}.",
            expected="the same shape.",
            remedy="compare models of one image size.",
        )
    found = np.empty(len(first))
    for start in range(0, len(first), _BLOCK):
        rows = slice(start, start + _BLOCK)
        gap = (first[rows].astype(np.float64) - second[rows].astype(np.float64)).reshape(len(first[rows]), -1)
        found[rows] = np.sqrt(np.mean(gap * gap, axis=1)) / 255.0
    return found


def feature_distance(first: npt.ArrayLike, second: npt.ArrayLike) -> FloatArray:
    """Return the squared distance of unit-length features of each pair [n], in [0, 4]: 2 - 2 cos.

    Takes features [n, d] of one extractor; row i of both comes from the same noise. A row of zeros stays zero, so it
    lies at 0 from another one and at 1 from every other row. This is LPIPS (Zhang et al. 2018, arXiv 1801.03924) with
    a single layer of one number a channel, no learned weights and whatever network the features come from: it is not
    the published LPIPS, and its values compare only with others in the same features.
    Raises EmptySet, InvalidInput or ShapeMismatch.
    """
    x, y = matrix(first, "first features"), matrix(second, "second features")
    same_width(x, y, "The features")
    _same_rows(len(x), len(y))
    gap = _unit(x) - _unit(y)
    return np.minimum(np.sum(gap * gap, axis=1), 4.0)


def _unit(rows: FloatArray) -> FloatArray:
    # Scaled by the largest entry first, so that squares neither vanish nor overflow.
    largest = np.abs(rows).max(axis=1, keepdims=True)
    scaled = np.divide(rows, largest, out=np.zeros_like(rows), where=largest > 0)
    norm = np.sqrt(np.sum(scaled * scaled, axis=1, keepdims=True))
    return np.divide(scaled, norm, out=np.zeros_like(rows), where=norm > 0)


def relative_distance(change: float, base: float) -> float:
    """Return ``change / base`` of two Euclidean norms; 0 for no change, infinity for a change of nothing."""
    if not (change >= 0 and base >= 0):
        raise InvalidInput(
            f"The norms are {change} and {base}.", expected="norms of at least 0.", remedy="check the weights."
        )
    if base == 0:
        return 0.0 if change == 0 else math.inf
    return change / base
