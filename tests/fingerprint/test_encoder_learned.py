"""The learned encoder: its data are related as they should be, and training brings kin together."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vestige.errors import InvalidInput
from vestige.fingerprint.encoder_learned import SMALLEST, ConvolutionalEncoder, Lessons, Triples, standardised
from vestige.fingerprint.encoder_learned import train_encoder as train
from vestige.fingerprint.similarity import Layer, Term
from vestige.fingerprint.terms import BlockTerms, Entry

SMALL = Lessons(terms=1, inner=16, size=32, rounds=3, steps=6, batch=4, rate=5e-3)


@pytest.fixture(autouse=True)
def one_thread():
    """Steps this small are slower on two."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def cosines(first, second):
    return torch.cosine_similarity(first.flatten(1), second.flatten(1)).numpy()


def test_anchor_and_positive_are_related_and_negatives_are_not():
    drawn = Triples.drawn(Lessons(terms=1, batch=4), torch.Generator().manual_seed(0))
    assert np.mean(cosines(drawn.anchor, drawn.positive)) == pytest.approx(0.854, abs=0.03)
    assert np.abs(cosines(drawn.anchor, drawn.negative)).max() < 0.05


def test_an_independent_right_factor_would_undo_the_relation():
    """What the released code draws: its anchor is unrelated to its positive, so nothing can be learnt from them."""
    random = torch.Generator().manual_seed(0)
    x, y, q, k = (torch.randn(1, 1, *shape, generator=random) for shape in ((256, 64), (256, 64), (64, 64), (64, 64)))
    anchor, positive = (standardised(x @ q @ k @ right.transpose(2, 3)) for right in (y, x))
    assert abs(cosines(anchor, positive)[0]) < 0.03


def test_standardised_terms_are_double_centred_and_of_one_length():
    terms = torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(0)) * 5 + 7
    found = standardised(terms)
    for axis in (2, 3):
        torch.testing.assert_close(found.mean(axis), torch.zeros(2, 3, 9), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.square().mean((2, 3)), torch.ones(2, 3))
    assert not standardised(torch.zeros(1, 1, 4, 4)).any()


def test_training_brings_kin_together_and_leaves_strangers_apart():
    encoder = train(SMALL)
    seen = Triples.drawn(Lessons(terms=1, inner=16, batch=16), torch.Generator().manual_seed(9))
    with torch.no_grad():
        anchor, positive, negative = (encoder(side) for side in (seen.anchor, seen.positive, seen.negative))
    near, far = cosines(anchor, positive), np.abs(cosines(anchor, negative))
    assert np.median(near) > 0.5
    assert np.median(far) < 0.4
    assert np.mean(near[:, None] > far[None]) > 0.9


def test_training_depends_on_its_seed_alone():
    short = Lessons(terms=1, inner=4, size=8, rounds=1, steps=1, batch=2)
    torch.manual_seed(1)
    first = train(short).state_dict()
    torch.manual_seed(2)
    second = train(short).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_models_are_encoded_over_their_tokens(model):
    def layers(seed, count=SMALLEST):
        held = model(seed=seed, vocabulary=300)
        entry = Entry(held, np.arange(count))
        return [Layer(BlockTerms.of(block), entry) for block in held.blocks]

    encoder = ConvolutionalEncoder(2 * len(Term), 16)
    vector = encoder.encode(layers(0))
    assert vector.shape == (16,)
    assert np.mean(vector**2) == pytest.approx(1, abs=1e-5)
    np.testing.assert_array_equal(vector, encoder.encode(layers(0)))
    assert not np.allclose(vector, encoder.encode(layers(1)), atol=1e-3)
    with pytest.raises(InvalidInput, match="tokens"):
        encoder.encode(layers(0, SMALLEST - 1))


@pytest.mark.parametrize("setting", [{"tokens": SMALLEST - 1}, {"batch": 1}, {"rate": 1e-9}, {"size": 0}])
def test_settings_that_cannot_work_are_refused(setting):
    with pytest.raises(InvalidInput):
        Lessons(**setting)
