"""The search gives what brute force gives, and every model-free estimator keeps the promises of its contract."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vestige.audit.geometry.empirical_diffusion import EmpiricalDiffusion
from vestige.audit.geometry.ess import ESS
from vestige.audit.geometry.estimate import Curve, Reading
from vestige.audit.geometry.estimator import Work
from vestige.audit.geometry.local_pca import LocalPCA, Rule
from vestige.audit.geometry.manifolds import ball, gaussian, lollipop, sphere
from vestige.audit.geometry.mle import MLE
from vestige.audit.geometry.neighbourhood import distinct, prepared, read_neighbours, search
from vestige.audit.geometry.two_nn import Fit, TwoNN
from vestige.errors import EmptySet, InvalidInput, ShapeMismatch

WORK = Work()
NEIGHBOURLY = {
    "MLE": MLE((10, 20, 40)),
    "TwoNN": TwoNN((10, 20, 40)),
    "TwoNN linear": TwoNN((10, 20, 40), fit=Fit.LINEAR),
    "LocalPCA": LocalPCA((10, 20, 40)),
    "LocalPCA participation": LocalPCA((10, 20, 40), rule=Rule.PARTICIPATION),
    "LocalPCA gap": LocalPCA((10, 20, 40), rule=Rule.GAP),
    "ESS": ESS((10, 20, 40)),
}
EVERY = {**NEIGHBOURLY, "EmpiricalDiffusion": EmpiricalDiffusion((0.05, 0.1, 0.2, 0.4))}


def _points(kind, n, seed=0):
    rng = np.random.default_rng(seed)
    match kind:
        case "pixels":
            return rng.integers(0, 6, (n, 5), dtype=np.uint8)
        case "grid":
            return rng.integers(0, 6, (n, 3)).astype(np.float64)
        case "few features":
            return rng.standard_normal((n, 3))
        case "float32":
            return rng.standard_normal((n, 40)).astype(np.float32)
        case "many features":
            return rng.standard_normal((n, 40))
        case "many on a grid":
            return rng.integers(0, 2, (n, 16)).astype(np.float64)
        case "far away":
            return rng.standard_normal((n, 16)) + 1e7


KINDS = ["pixels", "grid", "few features", "float32", "many features", "many on a grid", "far away"]


def _brute(queries, rows, k):
    """Nearest distinct rows that are not the query, by subtraction; the lower index first."""
    wide = queries.astype(np.float64)[:, None] - rows.astype(np.float64)
    distance = np.sqrt(np.square(wide).sum(2))
    distance[distance == 0] = np.inf
    order = np.argsort(distance, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distance, order, 1), order


@pytest.mark.parametrize("budget", [1 << 30, 1 << 20])
@pytest.mark.parametrize("kind", KINDS)
def test_search_is_brute_force(kind, budget):
    everything = _points(kind, 500)
    queries, reference = everything[:60], everything[20:]
    points, rows = prepared(queries, reference, same_index=False)
    found = search(points, rows, 12, same_index=False, budget=budget)
    distance, index = _brute(points, rows.rows, 12)
    # float64 differences of numbers of 1e7 carry 1e7 * 2**-53 each, next to distances of about 4
    np.testing.assert_allclose(found.distance, distance, rtol=1e-9)
    np.testing.assert_array_equal(found.index, index)
    equal = (points[:, None] == reference).all(2).sum(1)
    np.testing.assert_array_equal(found.copies, equal)


@pytest.mark.parametrize("kind", KINDS)
def test_the_own_row_is_left_out_once(kind):
    everything = _points(kind, 300)
    everything[7] = everything[3]
    points, rows = prepared(everything, everything, same_index=True)
    found = search(points, rows, 5, same_index=True, budget=1 << 30)
    equal = (everything[:, None] == everything).all(2).sum(1)
    np.testing.assert_array_equal(found.copies, equal - 1)
    np.testing.assert_array_equal(found.index, _brute(points, rows.rows, 5)[1])


@pytest.mark.parametrize("name", EVERY)
def test_leading_rows_are_asked_about_alone(name):
    rows = _points("few features", 300)
    rows[200] = rows[5]
    every, some = (EVERY[name].curve(part, rows, same_index=True, work=WORK) for part in (rows, rows[:20]))
    np.testing.assert_allclose(some.dimension, every.dimension[:20], rtol=1e-9)
    np.testing.assert_allclose(some.error, every.error[:20], rtol=1e-9)


def test_too_few_rows_leave_gaps():
    points, rows = prepared(np.zeros((1, 2)), np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 2.0]]), same_index=False)
    found = search(points, rows, 4, same_index=False, budget=1 << 30)
    assert sorted(found.distance[0]) == [1, 2, np.inf, np.inf]
    assert found.index[0, 2:].tolist() == [-1, -1]


def test_rows_that_repeat_are_collapsed():
    rows = np.array([[0.0, 1.0], [2.0, 3.0], [-0.0, 1.0], [0.0, 1.0]])
    found = prepared(rows, rows, same_index=True)[1]
    np.testing.assert_array_equal(found.rows[found.place], rows)
    assert found.counts[found.place].tolist() == [3, 1, 3, 3]


@pytest.mark.parametrize("shared", [False, True])
def test_distinct_of_pixels_is_unique(shared, monkeypatch):
    if shared:  # keys that tell nothing apart
        monkeypatch.setattr("vestige.audit.geometry.neighbourhood._keys", lambda rows: np.zeros(len(rows), np.uint64))
    rows = _points("pixels", 2000)
    found, (_, counts) = distinct(rows), np.unique(rows, axis=0, return_counts=True)
    assert sorted(found.counts) == sorted(counts)
    np.testing.assert_array_equal(found.rows[found.place], rows)


@pytest.mark.parametrize(
    ("queries", "reference", "same_index", "error"),
    [
        (np.zeros((2, 3)), np.zeros((4, 2)), False, ShapeMismatch),
        (np.zeros((5, 3)), np.zeros((4, 3)), True, ShapeMismatch),
        (np.zeros((2, 3)), np.zeros((0, 3)), False, EmptySet),
        (np.zeros((2, 3)), np.full((4, 3), np.nan), False, InvalidInput),
        (np.zeros((2, 3), np.uint8), np.zeros((4, 3)), False, InvalidInput),
        (np.zeros((2, 3, 1)), np.zeros((4, 3)), False, InvalidInput),
        (np.eye(3), np.eye(3)[::-1].copy(), True, InvalidInput),
    ],
)
@pytest.mark.parametrize("name", EVERY)
def test_what_cannot_be_measured_is_refused(name, queries, reference, same_index, error):
    with pytest.raises(error):
        EVERY[name].curve(queries, reference, same_index=same_index, work=WORK)


@pytest.mark.parametrize("kind", [MLE, TwoNN, LocalPCA, ESS])
def test_too_few_neighbours_are_refused(kind):
    for neighbours in ((), (2,), (20, 1)):
        with pytest.raises(InvalidInput):
            kind(neighbours)


def _curve(dimension, error):
    dimension, error = np.atleast_2d(dimension).astype(float), np.atleast_2d(error).astype(float)
    return Curve(np.arange(10.0, 10 + dimension.shape[1]), dimension, error, 5)


@pytest.mark.parametrize(
    ("dimension", "error", "reading", "level"),
    [
        ([3.0], [0.5], Reading.GIVEN, 0),
        ([np.nan], [np.nan], Reading.NONE, -1),
        ([3.0, 3.2, 2.9], [0.5, 0.3, 0.2], Reading.PLATEAU, 2),
        ([3.0, 3.2, 1.0], [0.5, 0.3, 0.2], Reading.PLATEAU, 1),
        ([3.0, 3.2, np.nan], [0.5, 0.3, np.nan], Reading.PLATEAU, 1),
        ([3.0, np.nan, np.nan], [0.5, np.nan, np.nan], Reading.NONE, -1),
        ([3.0, 1.0, 1.0], [0.5, 0.1, 0.1], Reading.NONE, -1),
        ([2.0, 2.0, 2.0], [0.0, 0.0, 0.0], Reading.PLATEAU, 2),
        ([0.0, 0.0, 0.0], [0.0, 0.0, 0.0], Reading.ATOM, 2),
        ([0.0], [0.0], Reading.ATOM, 0),
        # 5 and 3.8 agree, as do 3.8 and 3, but no value lies within the errors of all three
        ([5.0, 3.8, 3.0], [0.4, 0.4, 0.4], Reading.PLATEAU, 1),
    ],
)
def test_the_rule_of_reading(dimension, error, reading, level):
    curve = _curve(dimension, error)
    read = read_neighbours(curve)
    assert (read.reading[0], read.level[0]) == (reading, level)
    expected = np.nan if level < 0 else curve.dimension[0, level]
    np.testing.assert_array_equal(read.value, [expected])


@pytest.mark.parametrize("name", EVERY)
def test_leaving_out_is_removing(name):
    points = np.concatenate((gaussian(80, 3, 6, np.random.default_rng(1)).points * 0.3, np.zeros((3, 6))))
    whole = EVERY[name].curve(points, points, same_index=True, work=WORK)
    for i in (0, 41, 81):
        alone = EVERY[name].curve(points[i : i + 1], np.delete(points, i, 0), work=WORK)
        np.testing.assert_allclose(whole.dimension[i], alone.dimension[0], rtol=1e-9)
        np.testing.assert_allclose(whole.error[i], alone.error[0], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.uint8])
@pytest.mark.parametrize("name", EVERY)
def test_neither_order_nor_batches_nor_budget_matter(name, dtype):
    rng = np.random.default_rng(2)
    points = np.clip(128 + 40 * gaussian(150, 4, 20, rng).points, 0, 255).astype(dtype)
    points[:20] = points[20:40]
    queries = points[::10]
    whole = EVERY[name].curve(queries, points, work=WORK)
    again = EVERY[name].curve(queries, points[rng.permutation(len(points))], work=Work(budget=1 << 21))
    parts = [EVERY[name].curve(queries[i : i + 4], points, work=WORK) for i in range(0, len(queries), 4)]
    for other in (again.dimension, np.concatenate([p.dimension for p in parts])):
        np.testing.assert_allclose(other, whole.dimension, rtol=1e-9)


@pytest.mark.parametrize("name", EVERY)
def test_copies_are_atoms(name):
    rng = np.random.default_rng(3)
    points = ball(400, 2, 5, rng).points
    reference = np.concatenate((points, np.repeat(points[:1], 3, axis=0), points[1:2]))
    finest = {"ratios": (0.001, 0.01)} if name == "EmpiricalDiffusion" else {}
    estimator = dataclasses.replace(EVERY[name], **finest)
    own = estimator.estimate(reference, reference, same_index=True, work=WORK)
    repeated = np.zeros(len(reference), bool)
    repeated[[0, 1, *range(400, 404)]] = True
    assert (own.value[repeated] == 0).all()
    assert (own.error[repeated] == 0).all()
    assert [reading is Reading.ATOM for reading in own.reading] == repeated.tolist()
    new = estimator.estimate(points[:5], reference, work=WORK)  # not left out: the reference holds each of them
    assert new.reading == (Reading.ATOM,) * 5
    beside = estimator.curve(points[:1] + 1e-3, reference, work=WORK)
    assert not np.isnan(beside.dimension).any()
    assert (beside.dimension > 0).all()


@pytest.mark.parametrize("name", EVERY)
def test_copies_of_neighbours_do_not_change_the_dimension_of_others(name):
    if name == "EmpiricalDiffusion":
        pytest.skip("copies weigh there")
    points = ball(300, 3, 5, np.random.default_rng(4)).points
    plain = EVERY[name].curve(points[:20], points[20:], work=WORK)
    copied = EVERY[name].curve(points[:20], np.concatenate((points[20:], np.repeat(points[20:60], 7, 0))), work=WORK)
    np.testing.assert_array_equal(plain.dimension, copied.dimension)


@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(1e-6, 1e6), d=st.sampled_from([4, 20]))
@pytest.mark.parametrize("name", NEIGHBOURLY)
def test_scale_and_rotation_do_not_matter(name, seed, scale, d):
    rng = np.random.default_rng(seed)
    points = gaussian(90, 3, d, rng).points + 1e-3 * rng.standard_normal((90, d))
    turn = np.linalg.qr(rng.standard_normal((d, d)))[0]
    plain = NEIGHBOURLY[name].curve(points[:10], points[10:], work=WORK)
    moved = NEIGHBOURLY[name].curve(scale * points[:10] @ turn, scale * points[10:] @ turn, work=WORK)
    np.testing.assert_allclose(moved.dimension, plain.dimension, rtol=1e-6)


SETS = {
    "circle": (sphere, 1, 2),
    "sphere": (sphere, 2, 5),
    "sphere of 7": (sphere, 7, 8),
    "segment": (ball, 1, 2),
    "disc": (ball, 2, 2),
    "disc in 20": (ball, 2, 20),
    "gaussian": (gaussian, 4, 4),
    "gaussian of 3 in 10": (gaussian, 3, 10),
}


@pytest.mark.parametrize("shape", SETS)
@pytest.mark.parametrize("name", ["MLE", "TwoNN", "TwoNN linear", "LocalPCA", "ESS"])
def test_known_dimensions_within_the_standard_error(name, shape):
    """At 60 points away from edges: as a rule within 3 errors each, and so is their mean within its own error.

    Curvature, and a density that is not even, move an estimate by up to some 5 % at 40 of 3000 neighbours; the line
    through 40 ratios is too large by another 5 %. Mutual neighbours make errors of TwoNN too small by a fifth.
    Neighbourhoods of 60 x 40 of 3000 points overlap, so that the mean is worth fewer than 60: half are assumed.
    """
    make, d, ambient = SETS[shape]
    sample = make(3000, d, ambient, np.random.default_rng(5))
    length = np.linalg.norm(sample.points, axis=1)
    inner = np.flatnonzero(length <= np.median(length) + 1e-9)[:60]
    curve = EVERY[name].curve(sample.points, sample.points, same_index=True, work=WORK)
    value, error = curve.dimension[inner, -1], curve.error[inner, -1] * (1.2 if "TwoNN" in name else 1)
    bias = (0.1 if name == "TwoNN linear" else 0.05) * d
    assert (np.abs(value - d) <= 3 * error + bias).mean() >= 0.95
    assert abs(value.mean() - d) <= 3 * error.mean() / np.sqrt(30) + bias


@pytest.mark.parametrize("name", ["MLE", "TwoNN", "LocalPCA", "ESS"])
def test_the_parts_of_a_lollipop(name):
    sample = lollipop(3000, np.random.default_rng(6))
    radius = np.linalg.norm(sample.points - 3, axis=1)
    along = sample.points[:, 0]
    inner = [sample.dimension == 0, (sample.dimension == 1) & (along > 1.6) & (along < 2.2), radius < 0.7]
    read = EVERY[name].estimate(sample.points, sample.points, same_index=True, work=WORK)
    assert (read.value[inner[0]] == 0).all()
    for d in (1, 2):
        value = read.value[inner[d] & (sample.dimension == d)]
        assert np.isfinite(value).mean() > 0.95  # a level curve is read for nearly all
        assert abs(np.nanmean(value) - d) < 0.15 * d
