"""Simple images have a low local dimension without being memorized: how much of a score that explains.

The complexity of an image is the number of bits of its PNG file, which follows its local dimension closely
(Kamkari et al. 2024, arXiv 2406.03537).
"""

from __future__ import annotations

import io
import math

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.special import ndtri
from scipy.stats import rankdata

from vestige.audit.geometry.line import Line, robust_line
from vestige.errors import InvalidInput
from vestige.metrics.arrays import FloatArray, open_unit, vector
from vestige.metrics.interval import Interval

Pixels = npt.NDArray[np.uint8]

_FEWEST = 4


def png_bits(pixels: Pixels) -> npt.NDArray[np.int64]:
    """Bits of the PNG file of each image, uint8 [n, c, h, w] with c = 1 or 3; [n].

    Header and checksums of the format, the same for all images of a size, are counted. Sizes depend a little on the
    version of zlib, so compare only those of one machine.
    """
    if pixels.ndim != 4 or pixels.dtype != np.uint8 or pixels.shape[1] not in (1, 3):
        raise InvalidInput(
            f"Images of type {pixels.dtype} and shape {pixels.shape}.",
            expected="uint8 [n, c, h, w] with one channel or three.",
            remedy="convert them.",
        )
    sizes = np.empty(len(pixels), np.int64)
    for place, image in enumerate(pixels):
        buffer = io.BytesIO()
        Image.fromarray(image[0] if len(image) == 1 else np.moveaxis(image, 0, -1)).save(
            buffer, format="PNG", optimize=True
        )
        sizes[place] = 8 * buffer.tell()
    return sizes


def explained(bits: npt.NDArray[np.int64], dimension: FloatArray) -> Line:
    """The dimension that the complexity of an image lets one expect: a robust line through non-members, each [n]."""
    return robust_line(bits.astype(np.float64), dimension)


def residual(line: Line, bits: npt.NDArray[np.int64], dimension: FloatArray) -> FloatArray:
    """What is left of the dimension [n] once the complexity [n] is accounted for."""
    return dimension - line.at(bits.astype(np.float64))


def spearman(x: npt.ArrayLike, y: npt.ArrayLike, confidence: float = 0.95) -> Interval:
    """Return the rank correlation of two arrays [n] with its interval, in [-1, 1].

    Ties share their mean rank. The interval is built on atanh(r) with the standard error
    ``sqrt((1 + r^2 / 2) / (n - 3))`` of Bonett and Wright (Psychometrika 65, 2000). A constant array has no
    correlation (NaN); fewer than 4 rows bound nothing. A perfect correlation is bounded
    on one side only. Raises EmptySet or InvalidInput.
    """
    first, second = vector(x, "x"), vector(y, "y")
    confidence = open_unit(confidence, "confidence")
    if first.size != second.size:
        raise InvalidInput(
            f"Arrays have {first.size} and {second.size} rows.", expected="equal numbers.", remedy="align them."
        )
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return Interval(math.nan, -1.0, 1.0, first.size)
    found = float(np.clip(np.corrcoef(rankdata(first), rankdata(second))[0, 1], -1.0, 1.0))
    if first.size < _FEWEST:
        return Interval(found, -1.0, 1.0, first.size)
    n = first.size
    # Two neighbouring ranks exchanged: the next value to a perfect one, at which the formula still bounds something.
    next_to = 1 - 12 / (n * (n**2 - 1))
    inner = max(-next_to, min(next_to, found))
    half = float(ndtri(0.5 + confidence / 2)) * math.sqrt((1 + inner**2 / 2) / (n - 3))
    low, high = math.tanh(math.atanh(inner) - half), math.tanh(math.atanh(inner) + half)
    return Interval(found, -1.0 if found <= -next_to else low, 1.0 if found >= next_to else high, n)
