from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from vestige.errors import EmptySet, InvalidInput
from vestige.metrics.classes import accuracy, class_scores
from vestige.metrics.interval import clopper_pearson, mean_interval

shapes = st.tuples(st.integers(1, 30), st.integers(2, 6))
seeds = st.integers(0, 10**6)


@given(shapes, seeds)
def test_equals_plain_means(shape: tuple[int, int], seed: int) -> None:
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet(np.full(shape[1], 0.5), size=shape[0])
    target = int(random.integers(shape[1]))
    found = class_scores(probabilities, target)
    assert found.accuracy.value == np.mean(probabilities.argmax(axis=1) == target)
    assert found.probability.value == pytest.approx(probabilities[:, target].mean())
    assert found.entropy.value == pytest.approx(np.mean([stats.entropy(row) for row in probabilities]))
    for interval, top in ((found.accuracy, 1), (found.probability, 1), (found.entropy, math.log(shape[1]))):
        assert 0 <= interval.low <= interval.value <= interval.high <= top
        assert interval.n == shape[0]


def test_intervals_by_hand() -> None:
    probabilities = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.6, 0.3, 0.1], [0.4, 0.3, 0.3]])
    found = class_scores(probabilities, 0, 0.9)
    assert found.accuracy == clopper_pearson(3, 4, 0.9)
    assert found.probability.high == pytest.approx(mean_interval([0.7, 0.1, 0.6, 0.4], 0.9).high)
    assert accuracy(probabilities, [0, 1, 1, 2], 0.9) == clopper_pearson(2, 4, 0.9)


@given(shapes, seeds)
def test_accuracy_equals_scikit_learn(shape: tuple[int, int], seed: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet(np.ones(shape[1]), size=shape[0])
    labels = random.integers(shape[1], size=shape[0])
    expected = metrics.accuracy_score(labels, probabilities.argmax(axis=1))
    assert accuracy(probabilities, labels).value == pytest.approx(expected)


def test_an_undecided_classifier_recognises_nothing() -> None:
    undecided = np.full((6, 10), 0.1)
    found = class_scores(undecided, 0)
    assert found.accuracy.value == 0
    assert found.entropy.value == pytest.approx(math.log(10))
    assert found.entropy.high <= math.log(10)
    assert accuracy(undecided, np.arange(6)).value == 0


def test_a_certain_classifier_has_no_entropy() -> None:
    found = class_scores(np.eye(3)[[1, 1, 1, 1]], 1)
    assert (found.accuracy.value, found.probability.value, found.entropy.value) == (1, 1, 0)


def test_half_precision_is_accepted_and_normalised() -> None:
    exact = np.random.default_rng(0).dirichlet(np.ones(100), size=8)
    rounded = class_scores(exact.astype(np.float16), 3)
    assert rounded.probability.value == pytest.approx(class_scores(exact, 3).probability.value, rel=1e-2)


@pytest.mark.parametrize("bad", [[[2.0, -1.0]], [[0.2, 0.2]], [[1.0]], [[math.nan, 1.0]], [0.5, 0.5]])
def test_logits_and_other_things_are_no_probabilities(bad: list[object]) -> None:
    with pytest.raises(InvalidInput):
        class_scores(bad, 0)


def test_labels_must_fit() -> None:
    probabilities = np.full((2, 2), 0.5)
    for labels in ([0], [0, 2], [0, -1], [0.0, 1.0], [[0, 1]]):
        with pytest.raises(InvalidInput, match="label"):
            accuracy(probabilities, labels)
    with pytest.raises(InvalidInput, match="target"):
        class_scores(probabilities, 2)
    with pytest.raises(EmptySet):
        class_scores(np.empty((0, 3)), 0)
