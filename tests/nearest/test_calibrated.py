from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vestige.errors import InvalidInput
from vestige.nearest import calibrated, clusters, rms


def by_hand(distance2, labels, dim, neighbours, alpha, include_nearest):
    """Nearest row, distance, ratio and size of S of one query, from a row of squared distances."""
    order = distance2.argsort(kind="stable")
    nearest_of: dict[int, float] = {}
    for i in order:
        nearest_of.setdefault(int(labels[i]), float(rms(distance2[i], dim)))
    near = list(nearest_of.values())
    others = near[:neighbours] if include_nearest else near[1 : neighbours + 1]
    ratio = near[0] / (alpha * np.mean(others)) if others and np.mean(others) > 0 else np.nan
    return order[0], near[0], ratio, len(others)


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 30),
    st.integers(1, 12),
    st.integers(1, 8),
    st.booleans(),
    st.booleans(),
    st.integers(0, 200_000),
)
def test_equals_brute_force(brute, images, seed, m, kinds, neighbours, include_nearest, raw, extra):
    dim = 6
    queries, rows = images(seed, 5, dim), images(seed + seed % 2, m, dim)
    labels = None if raw else np.random.default_rng(seed).integers(-3, kinds, m)
    budget = 2 * (96 + 2 * 12 * dim + 64 * 4 * m + 1000) + extra
    found = calibrated(
        queries, rows, labels, neighbours=neighbours, alpha=0.4, include_nearest=include_nearest, budget=budget
    )
    names = np.arange(m) if labels is None else labels
    for q, distance2 in enumerate(brute(queries, rows)):
        index, distance, ratio, used = by_hand(distance2, names, dim, neighbours, 0.4, include_nearest)
        assert found.index[q] == index
        assert found.distance[q] == distance
        assert found.used == used
        np.testing.assert_allclose(found.ratio[q], ratio, rtol=1e-12)


def test_duplicates_hide_a_copy_from_the_raw_form_only():
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 256, (300, 48), dtype=np.uint8)
    copy = rows[7] ^ 1
    rows[20:120] = rows[7]  # a hundred more of the row that was copied
    labels = clusters(rows, 0.0)
    raw = calibrated(copy[None], rows)
    clean = calibrated(copy[None], rows, labels)
    assert raw.index.tolist() == clean.index.tolist() == [7]
    assert raw.ratio[0] == pytest.approx(2)
    assert clean.ratio[0] < 0.05
    assert raw.used == clean.used == 50


def test_fewer_clusters_than_neighbours_are_used_as_they_are():
    rows = np.array([[0], [0], [100], [255]], np.uint8)
    found = calibrated(np.array([[10]], np.uint8), rows, np.array([4, 4, 2, 9]))
    assert found.used == 3
    assert found.distance[0] == pytest.approx(10 / 255)
    assert found.ratio[0] == pytest.approx(10 / (0.5 * (10 + 90 + 245) / 3))
    apart = calibrated(np.array([[10]], np.uint8), rows, np.array([4, 4, 2, 9]), include_nearest=False)
    assert apart.used == 2
    assert apart.ratio[0] == pytest.approx(10 / (0.5 * (90 + 245) / 2))


def test_undefined_ratios_are_nan():
    rows = np.zeros((3, 2), np.uint8)
    assert np.isnan(calibrated(rows[:1], rows).ratio).all()
    alone = calibrated(rows[:1] + 1, rows, np.zeros(3, int), include_nearest=False)
    assert alone.used == 0
    assert np.isnan(alone.ratio).all()
    assert calibrated(rows[:0], rows).index.shape == (0,)


@pytest.mark.parametrize(
    "options", [{"neighbours": 0}, {"alpha": 0.0}, {"alpha": np.nan}, {"labels": np.zeros(2, int)}]
)
def test_settings_that_do_not_fit(options):
    rows = np.zeros((3, 2), np.uint8)
    with pytest.raises(InvalidInput):
        calibrated(rows, rows, **options)
