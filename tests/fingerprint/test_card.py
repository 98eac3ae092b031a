"""Cards say the same of a model however it is laundered, and survive being written."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import numpy as np
import pytest

from vestige.errors import CorruptFile, EmptySet, InvalidInput
from vestige.fingerprint.card import Plan, fingerprint, word_share
from vestige.fingerprint.launder.extend_vocabulary import ExtendVocabulary
from vestige.fingerprint.launder.fold_gains import FoldGains
from vestige.fingerprint.launder.fold_means import FoldMeans
from vestige.fingerprint.launder.head_permutation import HeadPermutation
from vestige.fingerprint.launder.launder import laundered
from vestige.fingerprint.launder.neuron_scale import NeuronScale
from vestige.fingerprint.launder.query_key_basis import QueryKeyBasis
from vestige.fingerprint.launder.residual_rotation import ResidualRotation
from vestige.fingerprint.launder.value_basis import ValueBasis
from vestige.fingerprint.launder.vocabulary_permutation import VocabularyPermutation
from vestige.fingerprint.profile import RANKS
from vestige.fingerprint.publish import card_json, read_card
from vestige.fingerprint.words import Listed, Rarest, Sampled


def same(one, other, tolerance):
    np.testing.assert_allclose(one.vector, other.vector, atol=tolerance)
    np.testing.assert_allclose(one.layers, other.layers, atol=tolerance)
    # Small singular values hold the rounding of large ones.
    np.testing.assert_allclose(one.spectra, other.spectra, atol=0.01)
    np.testing.assert_allclose(one.strengths, other.strengths, atol=1e-4)
    np.testing.assert_array_equal(one.least_words, other.least_words)


def test_laundering_leaves_the_card_alone(model, plan):
    base = model()
    inner = HeadPermutation(), ValueBasis(), QueryKeyBasis(), NeuronScale()
    moved = laundered(base, (FoldGains(), ResidualRotation(), *inner, VocabularyPermutation()), 1)
    same(fingerprint(base, plan), fingerprint(moved, plan), 1e-4)
    layered = model("gpt2")
    moved = laundered(layered, (FoldMeans(), FoldGains(), ResidualRotation()), 1)
    same(fingerprint(layered, plan), fingerprint(moved, plan), 1e-4)


def test_a_card_has_its_shape_and_does_not_depend_on_other_bands(model, plan, kind):
    card = fingerprint(model(kind), plan)
    assert card.vector.shape == (2 * 3 * 24,)
    assert (card.layers.shape, card.spectra.shape, card.strengths.shape) == ((2, 3, 48), (2, 3, RANKS), (2, 3))
    assert np.mean(card.code**2) == pytest.approx(1)
    alone = fingerprint(model(kind), replace(plan, bands=plan.bands[:1]))
    np.testing.assert_array_equal(alone.vector, card.vector)


def test_only_the_last_layers_are_read_where_that_is_asked_for(model, plan):
    base, read = model(layers=4), []

    class Watched:
        def __getattr__(self, name):
            return getattr(base, name)

        def block(self, index):
            read.append(index)
            return base.block(index)

    from vestige.models.transformer.block import Transformer

    Transformer.register(Watched)
    card = fingerprint(Watched(), replace(plan, every_layer=False))
    assert read == [2, 3]
    assert len(card.layers) == len(card.spectra) == 0
    np.testing.assert_array_equal(card.vector, fingerprint(base, plan).vector)
    read.clear()
    fingerprint(Watched(), plan)
    assert read == [0, 1, 2, 3]


def test_a_model_of_one_layer_leaves_the_first_half_of_its_vector_empty(model, plan):
    vector = fingerprint(model(layers=1), plan).vector
    assert not vector[:72].any()
    assert vector[72:].any()


def test_the_share_of_common_tokens_is_estimated_from_cards(model, plan):
    base = model(vocabulary=1200)
    card = fingerprint(base, plan)
    assert word_share(card, card) == 1
    longer = fingerprint(ExtendVocabulary(400).apply(base, 0), plan)
    assert word_share(card, longer) == pytest.approx(0.75, abs=0.1)
    apart = replace(base, strings=tuple(f"other {row}" for row in range(1200)))
    assert word_share(card, fingerprint(apart, plan)) == 0


@pytest.mark.parametrize("text", ["llama", "gpt2"])
def test_a_card_is_read_back_number_for_number(model, plan, text):
    card = fingerprint(model(text), plan)
    back = read_card(card_json(card))
    for field in fields(card):
        one, other = getattr(card, field.name), getattr(back, field.name)
        if field.name == "bands":
            for a, b in zip(one, other, strict=True):
                assert (a.band, a.count, a.tokens) == (b.band, b.count, b.tokens)
                np.testing.assert_array_equal(a.vector, b.vector)
        else:
            np.testing.assert_array_equal(one, other)


def changed(card, **values):
    held = json.loads(card_json(card))
    return json.dumps({**held, **values})


def test_damaged_cards_are_refused(model, plan):
    card = fingerprint(model(), plan)
    whole = card_json(card)
    nan = "AADAfw=="  # a quiet NaN
    wrong = [
        "",
        "{}",
        whole[:-40],
        "[" * 100_000,
        "x" * (1 << 25),
        changed(card, depth=3),
        changed(card, depth="2"),
        changed(card, version=2),
        changed(card, sketch_size=1 << 40),
        changed(card, layers="not base64!"),
        changed(card, layers="\u00e9"),
        changed(card, spectra=""),
        changed(card, least_words=""),
        changed(card, bands=[]),
        changed(card, more=1),
        changed(card, strengths=nan * 6),
        changed(card, layers_read=1),
    ]
    for text in wrong:
        with pytest.raises(CorruptFile, match="cannot be read"):
            read_card(text)


def test_plans_and_models_without_sense_are_refused(model, plan):
    for wrong in ({"last": 0}, {"bands": ()}, {"bands": (Sampled(8), Sampled(9))}):
        with pytest.raises(InvalidInput):
            replace(plan, **wrong)
    with pytest.raises(EmptySet, match="few"):
        fingerprint(model(), replace(plan, bands=(Listed("few", ("t1",)),)))
    with pytest.raises(EmptySet, match="0 tokens"):
        fingerprint(replace(model(), strings=("a",) * 128), plan)
    assert Plan().bands[0] == Sampled()
    assert Rarest(5).name == "rarest"
