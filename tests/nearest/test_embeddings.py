from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vestige.errors import EmptySet, InvalidInput, MissingExtra, ShapeMismatch
from vestige.nearest import Metric, embeddings, embeddings_within, nearest_embeddings

seeds = st.integers(0, 2**32 - 1)
metrics = st.sampled_from(Metric)


def drawn(seed: int, n: int, d: int, offset: float) -> np.ndarray:
    """Embeddings far from the origin, in which the expansion of a distance cancels, with near and exact copies."""
    rng = np.random.default_rng(seed)
    rows = (rng.normal(size=(n, d)) + offset).astype(np.float32)
    source, target = rng.integers(0, n, (2, max(1, n // 3)))
    rows[target] = rows[source] * (
        1 + rng.choice([0, 1e-6, 1e-4], (len(source), 1)) * rng.normal(size=(len(source), d))
    )
    return rows


def by_hand(queries: np.ndarray, rows: np.ndarray, metric: Metric) -> np.ndarray:
    one, two = queries.astype(np.float64), rows.astype(np.float64)
    if metric is Metric.COSINE:
        one, two = (x / np.sqrt(np.einsum("nd,nd->n", x, x))[:, None] for x in (one, two))
    difference = one[:, None] - two
    distance2 = np.einsum("nmd,nmd->nm", difference, difference)
    return np.sqrt(distance2) if metric is Metric.EUCLIDEAN else distance2 / 2


@given(seeds, st.integers(1, 9), st.integers(1, 40), st.integers(1, 40), metrics, st.sampled_from([0, 3, 100]), seeds)
def test_nearest_equal_float64_brute_force(seed, n, m, d, metric, offset, extra):
    rows = drawn(seed, m, d, offset)
    queries = np.concatenate((drawn(seed + 1, n, d, offset), rows[:3]))
    k = 1 + extra % 7
    found = nearest_embeddings(queries, rows, k, metric=metric, budget=50_000 + extra % 10**6)
    truth = by_hand(queries, rows, metric)
    assert found.index.shape == (len(queries), min(k, m))
    assert (np.diff(found.index, axis=1) != 0).all()
    taken = np.take_along_axis(truth, found.index, 1)
    np.testing.assert_allclose(found.distance, taken, rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(found.distance, np.sort(truth, axis=1)[:, :k], rtol=1e-9, atol=1e-15)
    assert found.recall.value == 1


@given(seeds, st.integers(1, 40), st.integers(1, 40), metrics, st.sampled_from([0, 3, 100]), seeds)
def test_pairs_equal_float64_brute_force(seed, m, d, metric, offset, extra):
    rows = drawn(seed, m, d, offset)
    queries = np.concatenate((drawn(seed + 1, 5, d, offset), rows[:3]))
    truth = by_hand(queries, rows, metric)
    radius = float(np.quantile(truth, (extra % 101) / 100)) * (1 + 1e-7)
    pairs, distance = embeddings_within(queries, rows, radius, metric=metric, budget=50_000 + extra % 10**6)
    assert (pairs == np.argwhere(truth <= radius)).all()
    np.testing.assert_allclose(distance, truth[truth <= radius], rtol=1e-9, atol=1e-15)


def test_the_plain_expansion_would_have_failed_here():
    rows = drawn(0, 60, 32, 100)
    expanded = np.square(rows).sum(1)[:, None] + np.square(rows).sum(1) - 2 * rows @ rows.T
    truth = by_hand(rows, rows, Metric.EUCLIDEAN)
    assert (expanded < 0).any()
    near = (truth > 0) & (truth < 0.5)
    assert (abs(expanded[near] - truth[near] ** 2) > truth[near] ** 2).any()
    assert (nearest_embeddings(rows, rows, 1).distance == 0).all()


def test_ties_go_to_the_lower_index():
    rows = np.ones((9, 4), np.float32)
    assert (nearest_embeddings(rows[:2], rows, 3, budget=1000).index == [0, 1, 2]).all()
    assert len(embeddings_within(rows, rows, 0.0)[0]) == 81


@pytest.mark.parametrize("metric", Metric)
def test_an_index_takes_over_beyond_the_threshold_and_is_checked(metric, monkeypatch):
    pytest.importorskip("faiss")
    rows = drawn(5, 1500, 16, 0)
    queries = drawn(6, 40, 16, 0)
    exact = nearest_embeddings(queries, rows, 5, metric=metric)
    every = nearest_embeddings(queries, rows, 5, metric=metric, exact_up_to=1000)
    assert every.recall.n == 40
    assert every.recall.value == 1  # all lists are looked into
    np.testing.assert_array_equal(every.distance, exact.distance)
    monkeypatch.setattr(embeddings, "_PROBES", 1)
    few = nearest_embeddings(queries, rows, 5, metric=metric, exact_up_to=1000, checked=30)
    assert few.recall.n == 30
    assert 0.05 < few.recall.value < 1
    again = nearest_embeddings(queries, rows, 5, metric=metric, exact_up_to=1000, checked=40)
    shared = [len(np.intersect1d(a, b)) for a, b in zip(exact.index, again.index, strict=True)]
    assert again.recall.value == pytest.approx(np.sum(shared) / 200)
    assert (np.diff(few.distance, axis=1) >= 0).all()


def test_without_faiss_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    monkeypatch.setattr("vestige.dependencies.find_spec", lambda name: None)
    rows = drawn(0, 20, 4, 0)
    with pytest.raises(MissingExtra, match="faiss"):
        nearest_embeddings(rows, rows, 1, exact_up_to=10)


def test_inputs_that_do_not_fit_are_named():
    good = np.ones((3, 4), np.float32)
    with pytest.raises(InvalidInput, match="k = 0"):
        nearest_embeddings(good, good, 0)
    with pytest.raises(InvalidInput, match="nan"):
        nearest_embeddings(good * np.nan, good, 1)
    with pytest.raises(InvalidInput, match="zeros"):
        nearest_embeddings(good, good * 0, 1, metric=Metric.COSINE)
    with pytest.raises(InvalidInput, match="shape"):
        nearest_embeddings(good, good[0], 1)
    with pytest.raises(InvalidInput, match="a radius"):
        embeddings_within(good, good, -1.0)
    with pytest.raises(ShapeMismatch):
        nearest_embeddings(good, good[:, :3], 1)
    with pytest.raises(EmptySet):
        nearest_embeddings(good, good[:0], 1)
    assert nearest_embeddings(good[:0], good, 2).index.shape == (0, 2)
