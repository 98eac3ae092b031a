from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vestige.errors import InvalidInput
from vestige.nearest import cliques, in_clique, maximal_cliques


def graph(seed: int, n: int, density: float) -> np.ndarray:
    upper = np.triu(np.random.default_rng(seed).random((n, n)) < density, 1)
    return upper | upper.T


def is_clique(adjacency, members) -> bool:
    return all(adjacency[i, j] for i, j in combinations(members, 2))


def every_clique(adjacency) -> list[tuple[int, ...]]:
    nodes = range(len(adjacency))
    return [s for size in nodes for s in combinations(nodes, size + 1) if is_clique(adjacency, s)]


def pairs_of(adjacency) -> np.ndarray:
    return np.argwhere(np.triu(adjacency, 1))


graphs = st.builds(graph, st.integers(0, 2**32 - 1), st.integers(1, 9), st.floats(0, 1))
larger = st.builds(graph, st.integers(0, 2**32 - 1), st.integers(10, 40), st.floats(0.1, 0.6))


@given(graphs)
def test_maximal_cliques_equal_brute_force(adjacency):
    found = every_clique(adjacency)
    sets = [set(s) for s in found]
    assert maximal_cliques(adjacency) == sorted(s for s in found if not any(set(s) < other for other in sets))


@given(larger, st.integers(2, 9), st.integers(0, 2**32 - 1))
def test_groups_are_disjoint_maximal_and_leave_nothing(adjacency, size, seed):
    n, pairs = len(adjacency), pairs_of(adjacency)
    result = cliques(pairs, n, size)
    assert result.undecided == ()
    members = [m for clique in result.found for m in clique.members]
    assert len(members) == len(set(members))
    for clique in result.found:
        assert clique.members == tuple(sorted(clique.members))
        assert len(clique.members) >= size
        assert is_clique(adjacency, clique.members)
    left = np.delete(np.delete(adjacency, members, 0), members, 1)
    assert all(len(c) < size for c in maximal_cliques(left))
    rest = set(range(n)) - set(members)
    assert not any(adjacency[v, list(c.members)].all() for v in rest for c in result.found)
    # Neither the order of the pairs, nor which end comes first, nor a repetition matters.
    shuffled = np.random.default_rng(seed).permutation(np.concatenate((pairs, pairs[:, ::-1])))
    assert repr(cliques(shuffled, n, size)) == repr(result)


@given(larger, st.integers(2, 9))
def test_membership_equals_enumeration(adjacency, size):
    expected = np.zeros(len(adjacency), bool)
    for clique in maximal_cliques(adjacency):
        if len(clique) >= size:
            expected[list(clique)] = True
    found = in_clique(pairs_of(adjacency), len(adjacency), size)
    assert (found.inside == expected).all()
    assert not found.undecided.any()


@given(larger, st.integers(3, 9), st.integers(0, 4))
def test_what_a_bound_cut_short_is_said(adjacency, size, work):
    n, pairs = len(adjacency), pairs_of(adjacency)
    full = in_clique(pairs, n, size)
    short = in_clique(pairs, n, size, work=work)
    assert not (short.inside & short.undecided).any()
    assert (short.inside <= full.inside).all()
    assert (full.inside <= short.inside | short.undecided).all()
    result = cliques(pairs, n, size, work=work)
    used = [m for clique in result.found for m in clique.members]
    for clique in maximal_cliques(adjacency):
        free = set(clique) - set(used)
        assert len(free) < size or free & set(result.undecided)


def test_ranked_by_mean_distance():
    triangles = np.array([[0, 1], [0, 2], [1, 2], [5, 4], [5, 6], [4, 6], [8, 9]])
    distance = np.array([0.3, 0.1, 0.2, 0.05, 0.1, 0.15, 0.01])
    first, second = cliques(triangles, 10, 3, distance).found
    assert (first.members, second.members) == ((4, 5, 6), (0, 1, 2))
    assert first.mean_distance == pytest.approx(0.1)
    assert second.mean_distance == pytest.approx(0.2)
    assert math.isnan(cliques(triangles, 10, 3).found[0].mean_distance)
    assert [len(c.members) for c in cliques(triangles, 10, 2).found] == [3, 3, 2]


def test_a_nearly_complete_blob_is_answered_at_once():
    adjacency = graph(3, 600, 0.97)
    adjacency[:12] = adjacency[:, :12] = False
    adjacency[:12, :12] = ~np.eye(12, dtype=bool)
    result = cliques(pairs_of(adjacency), 600, 10)
    assert result.undecided == ()
    assert tuple(range(12)) in [c.members for c in result.found]
    assert max(len(c.members) for c in result.found) > 80
    assert all(is_clique(adjacency, c.members) for c in result.found)
    assert in_clique(pairs_of(adjacency), 600, 10).inside.all()


def test_a_dense_graph_without_the_clique_is_refused_by_colours():
    part = np.arange(270) % 9  # complete between nine parts: 30**9 cliques of nine nodes, none of ten
    pairs = pairs_of(part[:, None] != part)
    result = cliques(pairs, 270, 10, work=1000)
    assert (result.found, result.undecided) == ((), ())
    nine = cliques(pairs, 270, 9)
    assert [len(c.members) for c in nine.found] == [9] * 30


def test_a_clique_that_greed_misses_is_found_whole():
    # Five nodes, each drawn away by four nodes of a bipartite graph that is denser but holds no triangle.
    adjacency = np.zeros((45, 45), bool)
    adjacency[5:25, 25:] = True
    adjacency[:5, :5] = ~np.eye(5, dtype=bool)
    for v in range(5):
        adjacency[v, 5 + 4 * v : 9 + 4 * v] = True
    pairs = pairs_of(adjacency | adjacency.T)
    assert [c.members for c in cliques(pairs, 45, 4).found] == [(0, 1, 2, 3, 4)]
    without = cliques(pairs, 45, 4, work=0)
    assert without.found == ()
    assert set(without.undecided) >= {0, 1}


def test_no_pairs_is_no_clique():
    none = np.empty((0, 2), np.int64)
    assert cliques(none, 5, 2, np.empty(0)).found == ()
    assert cliques(none, 0, 2).found == ()
    assert not in_clique(none, 5, 2).inside.any()
    assert maximal_cliques(np.zeros((2, 2), bool)) == [(0,), (1,)]


def test_graphs_that_do_not_fit():
    pair = np.array([[0, 1]])
    for bad in (pair + 1, pair - 1, pair[0], np.array([[1, 1]])):
        with pytest.raises(InvalidInput):
            cliques(bad, 2, 2)
    with pytest.raises(InvalidInput, match="minimum_size = 1"):
        cliques(pair, 2, 1)
    with pytest.raises(InvalidInput, match="distance of shape"):
        cliques(pair, 2, 2, np.zeros(3))
