from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vestige.errors import BadWeights, InvalidInput, Unsupported
from vestige.fingerprint.proof import integers
from vestige.fingerprint.proof.integers import integer_model, last_layers, on_grid
from vestige.fingerprint.terms import Term
from vestige.fingerprint.words import Words

ENTRIES = st.floats(-1e6, 1e6, width=32)


@given(arrays(np.float32, (3, 4), elements=ENTRIES))
def test_the_grid_is_within_half_a_step(matrix):
    rounded = on_grid(matrix, "it")
    step = np.abs(matrix).max().astype(float) / 127
    assert rounded.dtype == np.int8
    if step == 0:
        assert not rounded.any()
    else:
        assert np.abs(rounded).max() == 127
        assert np.all(np.abs(rounded * step - matrix) <= step * (0.5 + 1e-9))


@given(arrays(np.float32, (3, 4), elements=ENTRIES), st.sampled_from([0.5, 2.0, 1024.0]))
def test_the_grid_does_not_depend_on_scale(matrix, scale):
    assert np.array_equal(on_grid(matrix, "it"), on_grid(matrix * np.float32(scale), "it"))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers_are_refused(bad):
    with pytest.raises(BadWeights, match="here"):
        on_grid(np.array([[1.0, bad]], np.float32), "here")


def test_heads_that_share_a_key_are_added(make_tiny):
    transformer = make_tiny(heads=6, kv=2, inner=3)
    model = integer_model(transformer, Words.of(transformer), (2,))
    (block,) = model.blocks
    by_name = {term.name.term: term for term in model.terms}
    for kv in range(2):
        heads = sum(block.query[head].astype(int) for head in range(6) if head // 3 == kv)
        assert np.array_equal(by_name[Term.SCORES].left[3 * kv : 3 * kv + 3], heads)
        written = sum(block.output[head].astype(int) for head in range(6) if head // 3 == kv)
        assert np.array_equal(by_name[Term.VALUES].right[3 * kv : 3 * kv + 3], written)
    assert np.array_equal(by_name[Term.SCORES].right, block.key.reshape(6, -1))
    assert np.array_equal(by_name[Term.VALUES].left, block.value.reshape(6, -1))
    assert (by_name[Term.FEED].left.shape, by_name[Term.FEED].name.inner) == ((5, 8), 5)


def test_matrices_hold_gains_and_the_chosen_rows(make_tiny):
    transformer = make_tiny()
    words = Words.of(transformer).at(np.array([3, 7, 1]))
    model = integer_model(transformer, words, (0, 2))
    assert np.array_equal(model.rows, on_grid(transformer.embedding(np.array([3, 7, 1])), "rows"))
    block = transformer.block(2)
    expected = on_grid(block.attention.query * block.before_attention.gain, "query")
    assert np.array_equal(model.matrices["block/2/query"], expected)
    expected = on_grid(block.experts[0].up * block.before_feed.gain, "up")
    assert np.array_equal(model.matrices["block/2/up"], expected)
    assert np.array_equal(model.matrices["block/2/down"], on_grid(block.experts[0].down.T, "down"))
    assert next(iter(model.matrices)) == "words"
    assert len(model.matrices) == 1 + 2 * 6


def test_layers_and_tokens_are_checked(make_tiny, monkeypatch):
    transformer = make_tiny()
    words = Words.of(transformer)
    for layers in ((), (3,), (-1,), (1, 0), (1, 1)):
        with pytest.raises(InvalidInput, match="Layers"):
            integer_model(transformer, words, layers)
    with pytest.raises(InvalidInput, match="tokens"):
        integer_model(transformer, words.at(np.array([1])), (0,))
    assert last_layers(transformer) == (1, 2)
    assert last_layers(transformer, 9) == (0, 1, 2)
    monkeypatch.setattr(integers, "MOST_INNER", 4)
    with pytest.raises(Unsupported, match="inner width of 5"):
        integer_model(transformer, words, (0,))
