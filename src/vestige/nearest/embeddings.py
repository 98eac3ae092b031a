"""Nearest float32 embeddings, exactly as float64 differences give them, or by an index whose recall is measured.

The exact search screens by ``|x|^2 - 2 q x`` in one float32 product a tile. Of n terms in any order such a product is
off by at most ``gamma(n) |q| |x|``, gamma(n) = n u / (1 - n u), u = 2**-24, so each estimate is off by at most an
``error`` known for each query. Let v be the k-th smallest estimate. k rows have true values at most ``v + error``;
hence so has each of the k nearest, and an estimate of at most ``v + 2 error``. Rows up to that estimate are the
candidates; their distances are taken anew in float64 from differences, which near duplicates need: there the two
terms of the expansion cancel, and differences do not. Float64 itself rounds: two rows whose distances differ by less
than about ``d * 2**-53`` of them may come in either order, the lower index first where they come out equal.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vestige.dependencies import need
from vestige.errors import EmptySet, InvalidInput, ShapeMismatch
from vestige.nearest.exact import BUDGET, full_precision
from vestige.nearest.projection import Doubles, Floats, gamma

Integers = npt.NDArray[np.int64]

_TILE = 2048
_TAKEN = 1 << 20  # numbers of candidate rows gathered at a time
_LISTS = 16  # lists of an index for each root of the number of rows
_PROBES = 32
_TRAINING = 64  # rows of the sample for each list


class Metric(Enum):
    """What is near: Euclidean distance, or one less the cosine of the angle (0 to 2; zero rows have no angle)."""

    EUCLIDEAN = "euclidean"
    COSINE = "cosine"


@dataclass(frozen=True)
class Recall:
    """Share of the true k nearest that an index found, over ``n`` queries answered exactly as well; 1 if exact."""

    value: float
    n: int


@dataclass(frozen=True, eq=False)
class NearestEmbeddings:
    """The nearest rows of each query, nearest first: ``distance`` float64 and ``index`` int64 [n, k].

    ``recall`` says how far the result can be trusted. An index that finds fewer than k rows leaves index -1 and
    distance inf at the end.
    """

    distance: Doubles
    index: Integers
    recall: Recall


def nearest_embeddings(
    queries: Floats,
    rows: Floats,
    k: int,
    *,
    metric: Metric = Metric.EUCLIDEAN,
    exact_up_to: int = 1_000_000,
    checked: int = 100,
    seed: int = 0,
    budget: int = BUDGET,
) -> NearestEmbeddings:
    """The k nearest of float32 ``rows`` [m, d] of each of the ``queries`` [n, d].

    Parameters
    ----------
    exact_up_to : rows beyond which an inverted-file index of faiss takes the place of the exact search. It finds
        candidates; their distances are as exact as ever.
    checked : queries, drawn at random, that are searched exactly as well to measure the recall of the index.
    budget : bytes of working memory; an index is not counted.

    Raises
    ------
    InvalidInput : not finite float32 [n, d], k or ``checked`` below one, or a row of zeros with the cosine.
    ShapeMismatch : different d.
    EmptySet : no rows.
    MissingExtra : more rows than ``exact_up_to`` and faiss is not installed.
    """
    _check(queries, rows, metric)
    if k < 1 or checked < 1:
        raise InvalidInput(f"k = {k}, checked = {checked}.", expected="both at least 1.", remedy="ask for one or more.")
    k = min(k, len(rows))
    if len(rows) <= exact_up_to or not len(queries):
        distance2, index = _exact(queries, rows, k, metric, budget)
        return NearestEmbeddings(_published(distance2, metric), index, Recall(1.0, len(queries)))
    distance2, index = _indexed(queries, rows, k, metric)
    some = np.random.default_rng(seed).choice(len(queries), min(checked, len(queries)), replace=False)
    truth = _exact(queries[some], rows, k, metric, budget)[1]
    found = [len(np.intersect1d(a, b)) for a, b in zip(truth, index[some], strict=True)]
    recall = Recall(float(np.sum(found)) / truth.size if truth.size else float("nan"), len(some))
    return NearestEmbeddings(_published(distance2, metric), index, recall)


def embeddings_within(
    queries: Floats, rows: Floats, radius: float, *, metric: Metric = Metric.EUCLIDEAN, budget: int = BUDGET
) -> tuple[Integers, Doubles]:
    """All pairs (query, row) [p, 2] of float32 embeddings within ``radius``, lexicographic, and their distances [p].

    Raises
    ------
    InvalidInput, ShapeMismatch, EmptySet : as for :func:`nearest_embeddings`; also a radius that is negative or nan.
    """
    _check(queries, rows, metric)
    if not radius >= 0:
        raise InvalidInput(f"a radius of {radius}.", expected="zero or more.", remedy="give a number such as 0.5.")
    limit = _squared(radius, metric)
    pairs: list[Integers] = [np.empty((0, 2), np.int64)]
    distances = [np.empty(0)]
    for top, left, estimates, scaled in _estimates(queries, rows, metric, budget):
        reach = limit - scaled.norm2 + scaled.error + 1e-10 * limit
        found = np.argwhere(estimates <= np.nextafter(reach.astype(np.float32), np.float32(np.inf))[:, None])
        found += np.array([top, left])
        distance = _published(_distances(queries, rows, found, metric), metric)
        pairs.append(found[distance <= radius])
        distances.append(distance[distance <= radius])
    joined = np.concatenate(pairs)
    order = np.lexsort((joined[:, 1], joined[:, 0]))
    return joined[order], np.concatenate(distances)[order]


@dataclass(frozen=True, eq=False)
class _Scaled:
    """Rows as they are multiplied (for the cosine of length one, about), ``|x|^2`` and the error of an estimate."""

    rows: Floats
    norm2: Doubles
    error: Doubles


def _check(queries: Floats, rows: Floats, metric: Metric) -> None:
    for name, array in (("queries", queries), ("rows", rows)):
        if array.dtype != np.float32 or array.ndim != 2 or not array.shape[1]:
            raise InvalidInput(
                f"{name} is {array.dtype} of shape {array.shape}.",
                expected="float32 of shape [rows, features] with at least one feature.",
                remedy="convert with astype('float32').",
            )
        norm2 = np.einsum("nd,nd->n", array, array, dtype=np.float64)
        # Beyond these, squares of float32 overflow or vanish.
        if not (norm2 < 1e37).all():
            raise InvalidInput(
                f"{name} holds nan, infinity or rows longer than 1e18.",
                expected="finite features of ordinary size.",
                remedy="look for a fault in the features, or divide them all by one number.",
            )
        if metric is Metric.COSINE and not (norm2 > 1e-30).all():
            raise InvalidInput(
                f"{name} holds a row of zeros.", expected="rows that have a direction.", remedy="leave such rows out."
            )
    if queries.shape[1] != rows.shape[1]:
        raise ShapeMismatch(
            f"queries have {queries.shape[1]} features, rows {rows.shape[1]}.",
            expected="the same number of features in both.",
            remedy="extract both with the same extractor.",
        )
    if not len(rows):
        raise EmptySet("rows is empty.", expected="at least one row to compare with.", remedy="check the data set.")


def _published(distance2: Doubles, metric: Metric) -> Doubles:
    """Distances from squared ones; of directions, ``|a - b|^2 = 2 - 2 cos``."""
    return np.sqrt(distance2) if metric is Metric.EUCLIDEAN else distance2 / 2


def _squared(radius: float, metric: Metric) -> float:
    """The squared distance of a radius, rounded up."""
    return (radius**2 if metric is Metric.EUCLIDEAN else 2 * radius) * (1 + 1e-15)


def _direction(rows: Floats, metric: Metric) -> Doubles:
    wide = rows.astype(np.float64)
    if metric is Metric.COSINE:
        wide /= np.sqrt(np.einsum("nd,nd->n", wide, wide))[:, None]
    return wide


def _scaled(part: Floats, metric: Metric) -> tuple[Floats, Doubles]:
    stored = _direction(part, metric).astype(np.float32)
    return stored, np.einsum("nd,nd->n", stored, stored, dtype=np.float64)


def _estimates(
    queries: Floats, rows: Floats, metric: Metric, budget: int
) -> Iterator[tuple[int, int, Floats, _Scaled]]:
    """``|x|^2 - 2 q x`` of a tile, where it begins, and its queries with the error of each.

    Directions are rounded to float32 before they are multiplied, each by at most ``u |x|``; that moves a squared
    distance by at most ``4 u (|q| + |x|)^2``, which the error includes, as it does the rounding of the last sum.
    """
    d = rows.shape[1]
    height = min(len(queries), _TILE, max(1, budget // (64 * d)))
    width = min(len(rows), 4 * _TILE, max(1, budget // (64 * d)), max(1, budget // (96 * height or 1)))
    for top in range(0, len(queries), height or 1):
        left_rows, left_norm2 = _scaled(queries[top : top + height], metric)
        for left in range(0, len(rows), width):
            right, norm2 = _scaled(rows[left : left + width], metric)
            with torch.no_grad(), full_precision(torch.device("cpu")):
                product = (torch.from_numpy(left_rows) @ torch.from_numpy(right).T).numpy()
            product *= -2
            product += norm2.astype(np.float32)
            length, longest = np.sqrt(left_norm2), float(np.sqrt(norm2.max()))
            error = (2 * gamma(d + 4) + 8 * 2.0**-24) * (length + longest) ** 2 + 1e-37
            yield top, left, product, _Scaled(left_rows, left_norm2, error)


def _exact(queries: Floats, rows: Floats, k: int, metric: Metric, budget: int) -> tuple[Doubles, Integers]:
    """Squared distances and indices [n, k] of the nearest rows."""
    best = np.full((len(queries), k), np.inf)
    index = np.full((len(queries), k), -1, np.int64)
    for top, left, estimates, scaled in _estimates(queries, rows, metric, budget):
        part = slice(top, top + len(estimates))
        bound = best[part, -1] * (1 + 1e-10) - scaled.norm2 + scaled.error
        if estimates.shape[1] > k:
            kth = torch.from_numpy(estimates).topk(k, dim=1, largest=False).values[:, -1].numpy()
            bound = np.minimum(bound, kth + 2 * scaled.error)
        bound = np.nextafter(bound.astype(np.float32), np.float32(np.inf))
        found = np.argwhere(estimates <= bound[:, None])
        found += np.array([top, left])
        _keep(best, index, found, _distances(queries, rows, found, metric))
    return best, index


def _keep(best: Doubles, index: Integers, pairs: Integers, distance2: Doubles) -> None:
    """Put the pairs, grouped by query, in the order of distance, then index, among what there is."""
    queries, starts = np.unique(pairs[:, 0], return_index=True)
    for query, start, end in zip(queries, starts, [*starts[1:], len(pairs)], strict=True):
        distances = np.concatenate((best[query], distance2[start:end]))
        names = np.concatenate((index[query], pairs[start:end, 1]))
        order = np.lexsort((names, distances))[: best.shape[1]]
        best[query], index[query] = distances[order], names[order]


def _distances(queries: Floats, rows: Floats, pairs: Integers, metric: Metric) -> Doubles:
    """Squared distances [p] of pairs in float64, by subtraction."""
    total = np.empty(len(pairs))
    step = max(1, _TAKEN // rows.shape[1])
    for top in range(0, len(pairs), step):
        part = pairs[top : top + step]
        difference = _direction(queries[part[:, 0]], metric) - _direction(rows[part[:, 1]], metric)
        total[top : top + step] = np.einsum("pd,pd->p", difference, difference)
    return total


def _indexed(queries: Floats, rows: Floats, k: int, metric: Metric) -> tuple[Doubles, Integers]:
    """Squared distances and indices [n, k] of what an inverted-file index finds."""
    faiss: Any = need("faiss", "faiss")
    lists = max(1, min(_LISTS * int(len(rows) ** 0.5), len(rows) // _TRAINING))
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(rows.shape[1]), rows.shape[1], lists)
    stored = np.ascontiguousarray(_direction(rows, metric), np.float32)
    sample = np.random.default_rng(0).choice(len(rows), min(len(rows), _TRAINING * lists), replace=False)
    index.train(stored[sample])
    index.add(stored)
    index.nprobe = min(lists, _PROBES)
    names = np.asarray(index.search(np.ascontiguousarray(_direction(queries, metric), np.float32), k)[1], np.int64)
    found = np.argwhere(names >= 0)
    distance2 = np.full(names.shape, np.inf)
    pairs = np.stack((found[:, 0], names[names >= 0]), 1)
    distance2[names >= 0] = _distances(queries, rows, pairs, metric)
    order = np.lexsort((np.where(names < 0, len(rows), names), distance2), axis=1)
    return np.take_along_axis(distance2, order, 1), np.take_along_axis(names, order, 1)
