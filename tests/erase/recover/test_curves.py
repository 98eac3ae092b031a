from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vestige.data.images import ImageSet
from vestige.erase.recover.curves import Runs, Training, marks_up_to, saved, steps_to_reach
from vestige.erase.recover.measure import one_sided, told_apart, two_sided
from vestige.erase.recover.relearn import Relearn
from vestige.metrics.interval import Interval, mean_interval
from vestige.metrics.roc import auc


def test_marks_double_and_end_at_the_budget() -> None:
    assert marks_up_to(0) == [0]
    assert marks_up_to(1) == [0, 1]
    assert marks_up_to(12) == [0, 1, 2, 4, 8, 12]
    assert marks_up_to(16) == [0, 1, 2, 4, 8, 16]


@given(rate=st.floats(0.01, 0.3), start=st.floats(0.5, 5), level=st.floats(0.1, 5))
def test_a_straight_curve_is_crossed_where_it_should_be(rate: float, start: float, level: float) -> None:
    marks = [0, 1, 2, 4, 8, 16]
    found = steps_to_reach(start - rate * np.array(marks, float), marks, level)
    exact = max(0.0, (start - level) / rate)
    assert found == (math.inf if exact > 16 + 1e-9 else pytest.approx(exact, abs=1e-6))


def test_what_is_never_reached_or_diverges_is_infinite() -> None:
    assert steps_to_reach(np.array([3.0, 2.0]), [0, 1], 1.0) == math.inf
    assert steps_to_reach(np.array([3.0, math.nan]), [0, 1], 1.0) == math.inf
    assert steps_to_reach(np.array([1.0, 9.0]), [0, 1], 1.0) == 0


steps = st.lists(st.one_of(st.floats(0, 64), st.just(math.inf)), min_size=1, max_size=5)


@given(steps, steps)
def test_saved_steps_are_antisymmetric_and_bounded(a: list[float], b: list[float]) -> None:
    n = min(len(a), len(b))
    ours, theirs = np.array(a[:n]), np.array(b[:n])
    share = saved(ours, theirs, 64)
    assert np.allclose(share, -saved(theirs, ours, 64))
    assert (np.abs(share) <= 1).all()
    assert (share[(ours == 0) & (theirs > 0)] == 1).all()
    assert (share[ours == theirs] == 0).all()
    assert (share[np.isinf(ours)] <= 0).all()


@given(total=st.integers(1, 40), seeds=st.integers(1, 6), most=st.integers(1, 8))
def test_seeds_share_no_image_and_others_are_others(total: int, seeds: int, most: int) -> None:
    images = ImageSet(np.arange(total, dtype=np.uint8).reshape(total, 1, 1, 1))
    training = Training(seeds, most, 1, 1, 1e-3, (0.1,), 1)
    size = training.size(total)
    assert 1 <= size <= most
    tuned: list[str] = []
    for number in range(seeds):
        own, others = training.parts(images, size, number, 0)
        assert len(own) == size
        assert len(others) == (size if total > 1 else 0)
        assert not set(own.ids) & set(others.ids)
        tuned += own.ids
    assert len(set(tuned)) == min(len(tuned), total if total < seeds else len(tuned))


def runs(**errors: list[list[float]]) -> Runs:
    """Curves over steps 0, 1, 2, 4 by ``model_images``, one a seed, of the images trained on alone."""

    def alone(rows: list[list[float]]) -> np.ndarray:
        found = np.array(rows)
        return np.stack([found, np.full_like(found, np.nan)], -1)

    base = alone(errors.pop("base"))[:, 0]
    curves = {tuple(name.split("_")): alone(rows) for name, rows in errors.items()}
    return Runs([0, 1, 2, 4], curves, base, 0.5)


def test_levels_lie_half_way_from_the_control_to_the_base() -> None:
    with_reference = runs(
        base=[[1.0], [4.0]],
        erased_forgotten=[[9.0, 3.0, 1.0, 1.0], [9.0, 9.0, 9.0, 7.0]],
        erased_unseen=[[8.0, 8.0, 6.0, 2.0], [8.0, 8.0, 8.0, 8.0]],
        reference_forgotten=[[4.0, 4.0, 4.0, 2.0], [9.0, 9.0, 6.0, 6.0]],
        reference_unseen=[[8.0, 8.0, 4.0, 4.0], [3.0, 2.0, 1.0, 1.0]],
    )
    assert with_reference.level("forgotten")[:, 0] == pytest.approx([2, 6])
    assert with_reference.level("unseen")[:, 0] == pytest.approx([4, 2])
    steps = {key: found[:, 0].tolist() for key, found in with_reference.steps.items()}
    assert steps["erased", "forgotten"] == [1.5, math.inf]
    assert steps["reference", "forgotten"] == [4, 2]
    assert steps["erased", "unseen"] == [3, math.inf]
    assert steps["reference", "unseen"] == [2, 1]
    assert with_reference.sides == (0,)
    attack = Relearn(steps=4)
    plain, unseen = np.array([2.5 / 4, -0.5]), np.array([-1 / 3, -0.75])
    expected = min(mean_interval(plain, 0.9), mean_interval(plain - unseen, 0.9), key=lambda part: part.low)
    found = attack._advantage(with_reference, with_reference.steps, 0.9)
    assert found.value == pytest.approx(expected.value)
    assert found.low == max(-1, expected.low)
    of_base = with_reference.steps_of_base
    assert of_base["erased", "forgotten"][:, 0].tolist() == [0, 0]
    assert of_base["erased", "unseen"] is of_base["reference", "unseen"]
    alone = runs(base=[[1.0]], erased_forgotten=[[3.0, 1.0, 1.0, 1.0]], erased_unseen=[[4.0, 3.0, 3.0, 3.0]])
    assert alone.level("forgotten")[0, 0] == alone.level("unseen")[0, 0] == 2
    assert alone.steps["erased", "forgotten"][0, 0] == 0.5


def test_a_base_that_is_worse_than_its_control_recovers_nothing() -> None:
    worse = runs(base=[[9.0]], erased_forgotten=[[9.0] * 4], reference_forgotten=[[4.0] * 4])
    assert worse.steps_of_base["erased", "forgotten"][0, 0] == math.inf
    assert Relearn(steps=4)._advantage(worse, worse.steps_of_base, 0.95).value <= 0


def test_what_a_reference_tells_as_well_is_not_told() -> None:
    rng = np.random.default_rng(0)
    inside, outside = rng.normal(1, 1, 40), rng.normal(0, 1, 60)
    scores = {"erased": (inside, outside), "base": (inside + 3, outside)}
    assert told_apart(scores, "erased", 0.95).value == pytest.approx(2 * auc(inside, outside).value - 1)
    assert told_apart(scores, "erased", 0.95).low > 0
    same = {**scores, "reference": scores["erased"]}
    assert told_apart(same, "erased", 0.95) == Interval(0, 0, 0, 100)
    below = {"erased": (inside - 3, outside), "reference": scores["erased"]}
    assert told_apart(below, "erased", 0.95).low > 0
    gone = told_apart(same, "base", 0.95)
    assert gone.value == pytest.approx(2 * (auc(inside + 3, outside).value - auc(inside, outside).value))


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_two_sides_tell_exactly_when_chance_is_excluded(a: float, b: float, c: float) -> None:
    low, value, high = sorted((a, b, c))
    found = two_sided(Interval(value, low, high, 10))
    assert (found.low > 0) == (not low <= 0.5 <= high)
    assert found.low <= found.value <= found.high
    assert found.value == pytest.approx(2 * abs(value - 0.5))


def test_one_side_is_the_share_of_pairs_won_less_lost() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(1, 1, 30), rng.normal(0, 1, 40)
    won = (a[:, None] > b).mean() - (a[:, None] < b).mean()
    assert one_sided(a, b, 0.95).value == pytest.approx(won)
