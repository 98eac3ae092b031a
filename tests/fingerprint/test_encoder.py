"""Sketches keep cosines, belong to words and not to rows, and are linear."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import kstest, kurtosis

from vestige.errors import InvalidInput
from vestige.fingerprint.encoder import Sketch
from vestige.fingerprint.launder.noise import Noise
from vestige.fingerprint.similarity import Layer, term_cosine
from vestige.fingerprint.terms import BlockTerms, Entry, Term
from vestige.fingerprint.words import Words


def layer(model, words):
    return Layer(BlockTerms.of(model.blocks[-1]), Entry(model, words.rows))


def encoded(model, sketch, term=Term.SCORES, order=None):
    words = Words.of(model)
    words = words if order is None else words.at(order)
    return sketch.encode(layer(model, words), term, sketch.directions(words, 1)[0])


def test_directions_belong_to_the_word_the_seed_the_slot_and_the_draw(model):
    words, sketch = Words.of(model()), Sketch(size=5)
    order = np.random.default_rng(0).permutation(len(words))
    first, second = sketch.directions(words, 2)
    moved = sketch.directions(words.at(order), 2)
    np.testing.assert_array_equal(moved[1].second, second.second[order])
    alone = sketch.directions(words.at(np.array([7])), 1)
    np.testing.assert_array_equal(alone[0].first[0], first.first[7])
    others = [Sketch(5, seed=1).directions(words, 1)[0], sketch.directions(words, 1, draw=1)[0], second]
    for other in others:
        assert abs(np.corrcoef(other.first.ravel(), first.first.ravel())[0, 1]) < 0.2
    assert abs(np.corrcoef(first.first.ravel(), first.second.ravel())[0, 1]) < 0.2


def test_directions_are_standard_normal(model):
    drawn = Sketch(size=40).directions(Words.of(model()), 1)[0].first.ravel()
    assert kstest(drawn, "norm").pvalue > 1e-3


@pytest.mark.parametrize("term", Term)
def test_the_order_of_rows_does_not_count(model, term):
    base, sketch = model(), Sketch(size=30)
    order = np.random.default_rng(1).permutation(base.vocabulary)
    np.testing.assert_allclose(encoded(base, sketch, term, order), encoded(base, sketch, term), atol=1e-5)


@pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("term", Term)
def test_the_mean_product_of_sketches_estimates_the_cosine(model, term, level):
    base = model()
    moved, sketch, words = Noise(level).apply(base, 0), Sketch(size=4000), Words.of(base)
    truth = term_cosine(layer(base, words), layer(moved, words), term).value
    products = encoded(base, sketch, term) * encoded(moved, sketch, term)
    assert abs(products.mean() - truth) < 4 * products.std() / math.sqrt(len(products))


def test_a_sketch_of_a_zero_term_is_zero(model):
    from dataclasses import replace

    base = model()
    part = base.blocks[-1].attention
    dead = replace(base.blocks[-1], attention=replace(part, query=np.zeros_like(part.query)))
    assert not encoded(replace(base, blocks=(dead,)), Sketch(size=4)).any()


def test_mixing_keeps_cosines_and_makes_entries_normal():
    random, sketch = np.random.default_rng(0), Sketch()
    first = random.standard_normal(510) * random.standard_normal(510)
    second = first + random.standard_normal(510) * random.standard_normal(510)
    mixed = sketch.mixed(first), sketch.mixed(second)

    def cosine(a, b):
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    assert cosine(*mixed) == pytest.approx(cosine(first, second), abs=1e-10)
    assert np.mean(mixed[0] ** 2) == pytest.approx(1)
    assert kurtosis(first) > 3
    assert abs(kurtosis(mixed[0])) < 0.8
    assert kstest(mixed[0], "norm").pvalue > 1e-3
    np.testing.assert_allclose(sketch.mixed(5 * first), mixed[0])
    assert abs(cosine(Sketch(seed=1).mixed(first), mixed[0])) < 0.2


def test_wrong_settings_and_a_zero_vector_are_refused():
    for wrong in ({"size": 0}, {"seed": -1}, {"seed": 2**64}):
        with pytest.raises(InvalidInput):
            Sketch(**wrong)
    with pytest.raises(InvalidInput, match="zero"):
        Sketch().mixed(np.zeros(8))
