"""Short coordinates of uint8 images whose distances never exceed the true ones.

Let V have r columns and let ``lam`` be at least the largest eigenvalue of ``V V^T``. Then ``lam I - V V^T`` is positive
semidefinite, the root of its quadratic form is a seminorm, and by the reverse triangle inequality the map

    x -> (V^T x, sqrt(lam |x|^2 - |V^T x|^2)) / sqrt(lam)

never lengthens a distance: ``lam |a - b|^2 >= |V^T (a - b)|^2 + (rest(a) - rest(b))^2``. A pair that lies beyond a
radius in these coordinates needs no second look. Any V will do; here it holds the leading principal directions of a
sample of the rows, where natural images keep most of their variance, and ``lam`` is close to 1. Block means are such a
V as well, but need to know how pixels are arranged and keep less.

V is rounded to multiples of a power of two, coarse enough for every float32 product with integer pixels to be exact:
what is left of rounding is that of the root and of the coordinates as stored, which ``slack`` bounds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vestige.nearest.exact import Bytes

_UNIT = 2.0**-24
_CHUNK = 256  # columns after which exact float32 sums are handed on to float64
_SQUARES = 256  # 256 * 255**2 < 2**24: squares of pixels summed in float32 without rounding
_BATCH = 1 << 21  # pixels projected at a time; more leave the cache
_SAMPLE = 2048
_EXTRA = 8  # directions beyond those kept, which sharpen the last of them
_ROUNDS = 2

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


class Points(NamedTuple):
    """Coordinates float32 [n, c] of images, their squared lengths float64 [n], and how far off each may be [n].

    ``|coordinates[a] - coordinates[b]| <= |a - b| + slack[a] + slack[b]`` for the coordinates exactly as stored.
    """

    coordinates: Floats
    norm2: Doubles
    slack: Doubles


@dataclass(frozen=True, eq=False)
class Projection:
    """The centre, integers [d], and ``vectors`` [d, r]; without vectors the coordinates are the centred pixels.

    ``bound`` is at least the largest eigenvalue of ``vectors vectors^T``.
    """

    centre: Floats
    vectors: Floats | None
    bound: float = 1.0

    @property
    def columns(self) -> int:
        """How many coordinates an image has."""
        return len(self.centre) if self.vectors is None else self.vectors.shape[1] + 1

    def cut(self, rank: int) -> Projection:
        """The leading ``rank`` directions alone; the bound holds for a part of the columns as well."""
        vectors = None if self.vectors is None else np.ascontiguousarray(self.vectors[:, :rank])
        return Projection(self.centre, vectors, self.bound)

    def points(self, pixels: Bytes, out: Floats | None = None) -> Points:
        """Coordinates of uint8 images [n, d], written to the leading rows of ``out`` if that is given."""
        n, d = pixels.shape
        coordinates = np.empty((n, self.columns), np.float32) if out is None else out[:n]
        result = Points(coordinates, np.empty(n), np.zeros(n))
        step = max(1, _BATCH // d)
        for top in range(0, n, step):
            part = slice(top, top + step)
            own = None if self.vectors is not None else result.coordinates[part]
            centred = np.subtract(pixels[part], self.centre, out=own, dtype=np.float32)
            norm2 = _squares(centred)
            if self.vectors is None:
                result.norm2[part] = norm2
            else:
                own = Points(result.coordinates[part], result.norm2[part], result.slack[part])
                self._project(centred, norm2, self.vectors, own)
        return result

    def _project(self, centred: Floats, norm2: Doubles, vectors: Floats, result: Points) -> None:
        """Fill ``result`` for centred images of squared lengths ``norm2``.

        Stored coordinates are off by ``u |x|``, u = 2**-24. Sums in float64 put the square under the root off by less
        than ``1e-14 |x|^2``, hence the root by less than ``1e-7 |x|``. Together that is below ``4 u |x|``.
        """
        products = np.zeros((len(centred), vectors.shape[1]))
        part = np.empty(products.shape, np.float32)
        for left in range(0, centred.shape[1], _CHUNK):
            products += np.matmul(centred[:, left : left + _CHUNK], vectors[left : left + _CHUNK], out=part)
        products /= math.sqrt(self.bound)
        rest2 = norm2 - np.einsum("pr,pr->p", products, products)
        result.coordinates[:, :-1] = products
        result.coordinates[:, -1] = np.sqrt(np.maximum(rest2, 0))
        result.norm2[:] = np.square(result.coordinates, dtype=np.float64).sum(1)
        result.slack[:] = 4 * _UNIT * np.sqrt(norm2)


def gamma(terms: int) -> float:
    """Relative rounding of a float32 inner product of so many terms, in any order: ``n u / (1 - n u)``.

    Source: Higham, Accuracy and Stability of Numerical Algorithms, section 3.1.
    """
    return terms * _UNIT / (1 - terms * _UNIT)


def centred_pixels(rows: Bytes) -> Projection:
    """The projection that keeps every pixel: only the centre, the rounded mean of a sample, is taken off."""
    return Projection(np.rint(_sample(rows, _SAMPLE).mean(0, dtype=np.float64)).astype(np.float32), None)


def principal(rows: Bytes, rank: int) -> Projection:
    """The leading ``rank`` principal directions of a sample of uint8 rows [m, d], by subspace iteration."""
    centre = centred_pixels(rows).centre
    sample = _sample(rows, max(_SAMPLE, 2 * rank)).astype(np.float32) - centre
    wide = min(rank + _EXTRA, sample.shape[1])
    basis = np.random.default_rng(0).standard_normal((sample.shape[1], wide)).astype(np.float32)
    for _ in range(_ROUNDS):
        basis = np.linalg.qr(sample.T @ (sample @ basis))[0]
    loads = (sample @ basis).astype(np.float64)
    rotation = np.linalg.eigh(loads.T @ loads)[1][:, ::-1][:, :rank]
    vectors = _coarse(basis.astype(np.float64) @ rotation)
    largest = float(np.linalg.eigvalsh(vectors.T @ vectors)[-1])
    return Projection(centre, np.ascontiguousarray(vectors, np.float32), max(largest, 1e-3) * (1 + 1e-9))


def _coarse(vectors: Doubles) -> Doubles:
    """Vectors [d, r] as multiples of ``2**-q``, so that sums over a chunk of pixels are exact in float32.

    By Cauchy-Schwarz all partial sums over a chunk of c pixels, none above 255 in magnitude, stay within
    ``255 sqrt(c) |v|``, v the part of the vector in the chunk; times ``2**q`` that must stay below ``2**24``.
    """
    starts = np.arange(0, len(vectors), _CHUNK)
    part = math.sqrt(float(np.add.reduceat(np.square(vectors), starts).max()))
    rounded = math.sqrt(_CHUNK) / 2 / 2**11  # what rounding to 2**-11 or finer can add to the length of a part
    most = 2.0**24 / (255 * math.sqrt(min(_CHUNK, len(vectors))) * (part + rounded))
    scale = 2.0 ** math.floor(math.log2(most))  # at least 2**11, for no part is longer than 1
    return np.rint(vectors * scale) / scale


def _sample(rows: Bytes, size: int) -> Bytes:
    if len(rows) <= size:
        return np.asarray(rows)
    return rows[np.sort(np.random.default_rng(0).choice(len(rows), size, replace=False))]


def _squares(centred: Floats) -> Doubles:
    total = np.zeros(len(centred))
    for left in range(0, centred.shape[1], _SQUARES):
        chunk = centred[:, left : left + _SQUARES]
        total += np.einsum("pc,pc->p", chunk, chunk)
    return total
