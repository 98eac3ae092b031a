"""Cliques of near duplicates among generations: groups in which every two are close.

Nodes are cut down to the k-core and split into connected components; each component becomes bitsets in Python
integers, its nodes numbered in degeneracy order. A dense blob has too many maximal cliques to list, so the questions
asked here have short answers: which disjoint groups are there, and which nodes are in any clique of a given size. A
greedy clique mostly settles either; where it is too small, branch and bound with a colouring bound decides exactly.

Source: the self-consistency filter of Carlini et al. 2023, arXiv 2301.13188; branch and bound by greedy colouring
follows Tomita and Seki 2003, doi 10.1007/3-540-45066-1_22.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vestige.errors import InvalidInput
from vestige.nearest.clusters import components
from vestige.nearest.reduce import Integers

_STARTS = 64  # nodes from which a greedy clique is grown; the largest of these is taken
_WORK = 100_000


@dataclass(frozen=True)
class Clique:
    """Nodes, ascending, every two of which are joined, and the mean of their pairwise distances (nan if not given)."""

    members: tuple[int, ...]
    mean_distance: float


@dataclass(frozen=True)
class Cliques:
    """Disjoint cliques, tightest first, and the nodes for which the bound on the work was hit.

    Among the nodes that ``found`` does not use, every further clique of the minimum size holds an ``undecided`` node.
    """

    found: tuple[Clique, ...]
    undecided: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Membership:
    """Whether each of the nodes is in a clique of the minimum size: bool [n] each, and never both."""

    inside: npt.NDArray[np.bool_]
    undecided: npt.NDArray[np.bool_]


def cliques(
    pairs: Integers,
    n: int,
    minimum_size: int,
    distance: npt.NDArray[np.float64] | None = None,
    *,
    work: int = _WORK,
) -> Cliques:
    """Disjoint maximal cliques of at least ``minimum_size`` of ``n`` nodes joined by ``pairs`` [p, 2].

    A large clique is found and taken out until no clique of that size is left. A clique exists iff one is found, as
    long as nothing is undecided; each is maximal in what the ones before left, but need not be the largest there.

    Parameters
    ----------
    distance : [p], the distance of each pair, for ranking. Ranked by mean distance, the larger first among equals,
        then by members.
    work : nodes of the search trees, all together, after which the rest is left undecided.

    Raises
    ------
    InvalidInput : a minimum below two, or pairs and distances that do not fit each other or ``n``.
    """
    edges, first = _edges(pairs, n, minimum_size)
    if distance is not None and distance.shape != (len(pairs),):
        raise _unfit(f"distance of shape {distance.shape}", f"one for each of the {len(pairs)} pairs")
    steps = iter(range(work))
    groups: list[tuple[int, ...]] = []
    undecided: list[int] = []
    for nodes, adjacency in _dense_parts(edges, n, minimum_size):
        found, open_ = _peel(adjacency, minimum_size, steps)
        groups += [tuple(sorted(nodes[_bits(clique)].tolist())) for clique in found]
        undecided += nodes[_bits(open_)].tolist()
    means = _means(groups, edges, n, None if distance is None else distance[first])
    ranked = sorted(
        zip(means, groups, strict=True), key=lambda item: (0 if distance is None else item[0], -len(item[1]), item[1])
    )
    return Cliques(tuple(Clique(members, mean) for mean, members in ranked), tuple(sorted(undecided)))


def in_clique(pairs: Integers, n: int, minimum_size: int, *, work: int = _WORK) -> Membership:
    """Which of ``n`` nodes joined by ``pairs`` [p, 2] are in a clique of at least ``minimum_size``.

    Raises
    ------
    InvalidInput : a minimum below two, or pairs that do not fit ``n``.
    """
    edges, _ = _edges(pairs, n, minimum_size)
    steps = iter(range(work))
    result = Membership(np.zeros(n, bool), np.zeros(n, bool))
    for nodes, adjacency in _dense_parts(edges, n, minimum_size):
        inside, undecided = _members(adjacency, minimum_size, steps)
        result.inside[nodes[_bits(inside)]] = True
        result.undecided[nodes[_bits(undecided)]] = True
    return result


def maximal_cliques(adjacency: npt.NDArray[np.bool_]) -> list[tuple[int, ...]]:
    """Every maximal clique of a small graph given as a symmetric matrix [n, n], in lexicographic order.

    Bron-Kerbosch with pivoting over a degeneracy order (Eppstein, Loeffler and Strash 2010, arXiv 1006.5440); the
    number of cliques may grow as ``3**(n / 3)``.
    """
    nodes, joined = _degeneracy(np.argwhere(np.triu(adjacency, 1)), len(adjacency))
    found: list[tuple[int, ...]] = []
    for v, near in enumerate(joined):
        stack = [(1 << v, near >> v << v, near & ((1 << v) - 1))]
        while stack:
            chosen, candidates, excluded = stack.pop()
            if not candidates | excluded:
                found.append(tuple(sorted(nodes[_bits(chosen)].tolist())))
                continue
            pivot = max(_bits(candidates | excluded), key=lambda u: (candidates & joined[u]).bit_count())
            for u in _bits(candidates & ~joined[pivot]):
                stack.append((chosen | 1 << u, candidates & joined[u], excluded & joined[u]))
                candidates ^= 1 << u
                excluded |= 1 << u
    return sorted(found)


def _edges(pairs: Integers, n: int, minimum_size: int) -> tuple[Integers, Integers]:
    """Distinct edges i < j in lexicographic order, and where in ``pairs`` each first stands."""
    if minimum_size < 2:
        raise _unfit(f"minimum_size = {minimum_size}", "at least two nodes in a clique")
    if pairs.ndim != 2 or pairs.shape[1] != 2 or (len(pairs) and not 0 <= pairs.min() <= pairs.max() < n):
        raise _unfit(f"pairs of shape {pairs.shape} for {n} nodes", f"shape [p, 2] and values from 0 to {n - 1}")
    if (pairs[:, 0] == pairs[:, 1]).any():
        raise _unfit("a pair of a node with itself", "pairs of different nodes")
    edges = np.sort(pairs, axis=1)
    _, first = np.unique(edges[:, 0] * n + edges[:, 1], return_index=True)
    return edges[first], first


def _unfit(found: str, expected: str) -> InvalidInput:
    return InvalidInput(f"{found}.", expected=f"{expected}.", remedy="pass what pairs_within returned for the n rows.")


def _dense_parts(edges: Integers, n: int, minimum_size: int) -> Iterator[tuple[Integers, list[int]]]:
    """Connected components of the core that can hold a clique, each as nodes in degeneracy order and bitsets."""
    while True:
        wide = np.bincount(edges.ravel(), minlength=n) >= minimum_size - 1
        kept = wide[edges].all(axis=1)
        if kept.all():
            break
        edges = edges[kept]
    label = components(edges, n)[edges[:, 0]]
    edges = edges[label.argsort(kind="stable")]
    for part in np.split(edges, np.flatnonzero(np.diff(np.sort(label))) + 1):
        if len(part):
            names, local = np.unique(part, return_inverse=True)
            nodes, adjacency = _degeneracy(local.reshape(-1, 2), len(names))
            yield names[nodes], adjacency


def _degeneracy(edges: Integers, n: int) -> tuple[Integers, list[int]]:
    """Nodes, each of least degree among those after it (lowest first), and bitsets of neighbours in that numbering."""
    ends = np.concatenate((edges, edges[:, ::-1]))
    ends = ends[ends[:, 0].argsort(kind="stable")]
    degree = np.bincount(ends[:, 0], minlength=n)
    near = np.split(ends[:, 1], degree.cumsum()[:-1]) if n else []
    order = np.empty(n, np.int64)
    for position in range(n):
        order[position] = v = int(degree.argmin())
        degree[near[v]] -= 1
        degree[v] = 2 * n  # out of the way, also after its neighbours have been taken out in turn
    rank = np.empty(n, np.int64)
    rank[order] = np.arange(n)
    return order, [_bitset(rank[near[v]], n) for v in order]


def _bitset(nodes: Integers, n: int) -> int:
    row = np.zeros(n, np.uint8)
    row[nodes] = 1
    return int.from_bytes(np.packbits(row, bitorder="little").tobytes(), "little")


def _bits(bitset: int) -> list[int]:
    raw = np.frombuffer(bitset.to_bytes((bitset.bit_length() + 7) // 8, "little"), np.uint8)
    return np.flatnonzero(np.unpackbits(raw, bitorder="little")).tolist()


def _peel(adjacency: list[int], size: int, steps: Iterator[int]) -> tuple[list[int], int]:
    """Disjoint cliques of at least ``size``, and the nodes left undecided."""
    found: list[int] = []
    remaining, undecided = (1 << len(adjacency)) - 1, 0
    while remaining:
        lowest = remaining & -remaining
        v = lowest.bit_length() - 1
        if (adjacency[v] & remaining).bit_count() < size - 1:
            remaining ^= lowest
            continue
        clique: int | None = _largest_greedy(adjacency, remaining)
        if clique.bit_count() < size:
            clique = _through(adjacency, v, remaining, size, steps)
        if clique:
            found.append(clique)
            remaining &= ~clique
        else:
            undecided |= lowest if clique is None else 0
            remaining ^= lowest
    return found, undecided


def _members(adjacency: list[int], size: int, steps: Iterator[int]) -> tuple[int, int]:
    """Nodes in a clique of at least ``size``, and the nodes left undecided."""
    remaining = unknown = (1 << len(adjacency)) - 1
    inside = undecided = 0
    while unknown:
        lowest = unknown & -unknown
        clique = _through(adjacency, lowest.bit_length() - 1, remaining, size, steps)
        inside |= clique or 0
        unknown &= ~(lowest | inside)
        if clique is None:
            undecided |= lowest
        elif not clique:
            remaining ^= lowest
    return inside, undecided & ~inside


def _largest_greedy(adjacency: list[int], allowed: int) -> int:
    """The largest of the greedy cliques grown from the densest nodes."""
    best, size, starts = 0, 0, allowed
    for _ in range(min(_STARTS, allowed.bit_count())):
        v = starts.bit_length() - 1
        starts ^= 1 << v
        near = adjacency[v] & allowed
        if near.bit_count() >= size:
            clique = _greedy(adjacency, 1 << v, near)
            if clique.bit_count() > size:
                best, size = clique, clique.bit_count()
    return best


def _greedy(adjacency: list[int], chosen: int, candidates: int) -> int:
    """Extend a clique by the densest candidate, the last in degeneracy order, until none is left."""
    while candidates:
        v = candidates.bit_length() - 1
        chosen |= 1 << v
        candidates &= adjacency[v]
    return chosen


def _through(adjacency: list[int], v: int, allowed: int, size: int, steps: Iterator[int]) -> int | None:
    """A maximal clique of at least ``size`` through v within ``allowed``; 0 if there is none, None if not decided."""
    near = adjacency[v] & allowed
    clique = _greedy(adjacency, 1 << v, near)
    if clique.bit_count() >= size:
        return clique
    seed = _decide(adjacency, near, size - 1, steps)
    if not seed:
        return seed
    for u in _bits(seed):
        near &= adjacency[u]
    return _greedy(adjacency, seed | 1 << v, near)


def _decide(adjacency: list[int], candidates: int, size: int, steps: Iterator[int]) -> int | None:
    """A clique of ``size`` among the candidates; 0 if there is none, None if the steps ran out first."""
    stack = [(0, candidates, size)]
    while stack:
        chosen, candidates, need = stack.pop()
        if not need:
            return chosen
        if next(steps, None) is None:
            return None
        stack.extend(_branches(adjacency, chosen, candidates, need))
    return 0


def _branches(adjacency: list[int], chosen: int, candidates: int, need: int) -> Iterator[tuple[int, int, int]]:
    """Ways to go on towards ``need`` more nodes.

    Nodes are taken colour by colour, no two of a colour joined. A clique of ``need`` nodes has that many colours, so
    its last node, from which the branch is made, has colour ``need`` or later.
    """
    before, colour, uncoloured = 0, 0, candidates
    while uncoloured:
        colour, free = colour + 1, uncoloured
        while free:
            v = free.bit_length() - 1
            free &= ~(adjacency[v] | 1 << v)
            if colour >= need:
                yield chosen | 1 << v, before & adjacency[v], need - 1
            before |= 1 << v
            uncoloured ^= 1 << v


def _means(
    groups: list[tuple[int, ...]], edges: Integers, n: int, distance: npt.NDArray[np.float64] | None
) -> list[float]:
    """Mean distance over the edges inside each of the disjoint groups."""
    if distance is None:
        return [math.nan] * len(groups)
    group = np.full(n, -1)
    for number, members in enumerate(groups):
        group[list(members)] = number
    left = group[edges[:, 0]]
    inside = (left == group[edges[:, 1]]) & (left >= 0)
    total = np.bincount(left[inside], distance[inside], len(groups))
    return (total / np.bincount(left[inside], minlength=len(groups))).tolist()
