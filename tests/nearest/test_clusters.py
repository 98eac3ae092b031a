from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from vestige.nearest import cluster_sizes, clusters, components, pairs_within


def by_scipy(pairs: np.ndarray, n: int) -> np.ndarray:
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    _, label = connected_components(graph, directed=False)
    _, first = np.unique(label, return_index=True)
    return first[label]


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.floats(0, 2))
def test_components_equal_scipy(seed, n, density):
    pairs = np.random.default_rng(seed).integers(0, n, (int(density * n), 2))
    assert (components(pairs, n) == by_scipy(pairs, n)).all()


@pytest.mark.parametrize("order", [1, -1])
def test_a_long_chain_in_any_order(order):
    n = 20_000
    line = np.stack((np.arange(n - 1), np.arange(1, n)), 1)
    assert not components(line[::order], n).any()
    shuffled = np.random.default_rng(0).permutation(n)[line]
    assert not components(shuffled, n).any()


@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.sampled_from([0.0, 0.02, 0.1, 0.4]), st.integers(0, 20_000))
def test_clusters_are_the_components_of_the_pairs(images, seed, n, radius, extra):
    rows = images(seed, n, 2)
    labels = clusters(rows, radius, budget=1000 + extra)
    assert (labels == by_scipy(pairs_within(rows, radius), n)).all()
    assert (labels <= np.arange(n)).all()


def test_a_chain_of_close_rows_is_one_cluster_and_sizes_count_it():
    rows = np.array([[0], [200], [10], [20], [201], [90]], np.uint8)
    labels = clusters(rows, 10 / 255)
    assert labels.tolist() == [0, 1, 0, 0, 1, 5]
    assert cluster_sizes(labels).tolist() == [3, 2, 3, 3, 2, 1]
