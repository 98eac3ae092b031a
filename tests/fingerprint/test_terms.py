"""Terms against the formulas written out head by head and neuron by neuron."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from vestige.fingerprint.fold import unused_directions
from vestige.fingerprint.terms import AS_PUBLISHED, EXACT, BlockTerms, Entry, Term
from vestige.models.transformer.block import NormKind
from vestige.models.transformer.forward import normalised


def rows_of(model, recipe=EXACT):
    return Entry(model, np.arange(model.vocabulary), recipe).matrix


def product(model, term, recipe=EXACT, index=-1):
    left, right = BlockTerms.of(model.blocks[index], recipe).factors(term, rows_of(model, recipe))
    return left.astype(np.float64) @ right.T.astype(np.float64)


def through(matrix, norm):
    """A matrix behind a norm, gain and mean subtraction by matrices."""
    width = matrix.shape[1]
    centre = np.eye(width) - np.full((width, width), 1 / width)
    return matrix * norm.gain @ (centre if norm.kind is NormKind.LAYER else np.eye(width))


def test_scores_sum_every_query_head_with_the_key_head_it_reads(model):
    plain = model("llama")
    block, x = plain.blocks[-1], rows_of(plain).astype(np.float64)
    query, key = (
        through(m.astype(np.float64), block.before_attention) for m in (block.attention.query, block.attention.key)
    )
    expected = sum(
        x @ query[8 * h : 8 * h + 8].T @ key[8 * (h // 2) : 8 * (h // 2) + 8] @ x.T
        for h in range(block.attention.heads)
    )
    np.testing.assert_allclose(product(plain, Term.SCORES), expected, atol=1e-4)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2"])
def test_values_go_out_through_their_own_columns(model, kind):
    plain = model(kind)
    block, x = plain.blocks[-1], rows_of(plain).astype(np.float64)
    part = block.attention
    value, group = through(part.value.astype(np.float64), block.before_attention), part.heads // part.kv_heads
    output = part.output.astype(np.float64)
    if block.after_attention is not None:
        output = output * block.after_attention.gain[:, None]
    if kind == "gpt2":
        output = output - output.mean(0)
    heads = [(slice(8 * h, 8 * h + 8), slice(8 * (h // group), 8 * (h // group) + 8)) for h in range(part.heads)]
    expected = sum(x @ value[v].T @ output[:, q].T @ x.T for q, v in heads)
    np.testing.assert_allclose(product(plain, Term.VALUES), expected, atol=1e-4)


@pytest.mark.parametrize("kind", ["llama", "opt", "mixtral", "qwen2_moe", "gptj"])
def test_feed_multiplies_gate_and_up_token_by_token_and_sums_experts(model, kind):
    plain = model(kind)
    block, x = plain.blocks[-1], rows_of(plain).astype(np.float64)
    norm = block.before_feed or block.before_attention
    expected = np.zeros((len(x), len(x)))
    for expert in [*block.experts, *([block.shared] if block.shared else [])]:
        hidden = x @ through(expert.up.astype(np.float64), norm).T
        if expert.gate is not None:
            hidden = hidden * (x @ through(expert.gate.astype(np.float64), norm).T)
        expected += hidden @ expert.down.T.astype(np.float64) @ x.T
    np.testing.assert_allclose(product(plain, Term.FEED), expected, atol=2e-4)


def test_the_published_recipe_takes_raw_matrices_tiles_keys_and_multiplies_weights(model):
    plain = model("llama")
    block, x = plain.blocks[-1], plain.table.astype(np.float64)
    part, expert = block.attention, block.experts[0]
    tiled = np.concatenate([part.key.reshape(2, 8, -1)[h % 2] for h in range(4)])
    np.testing.assert_allclose(product(plain, Term.SCORES, AS_PUBLISHED), x @ part.query.T @ tiled @ x.T, atol=1e-4)
    surrogate = x @ (expert.gate * expert.up).T @ expert.down.T @ x.T
    np.testing.assert_allclose(product(plain, Term.FEED, AS_PUBLISHED), surrogate, atol=1e-4)


def test_rows_enter_behind_the_norm_of_the_embedding_and_without_what_norms_take_away(model):
    bloom = model("bloom")
    expected = normalised(bloom.table.astype(np.float64), bloom.first_norm)
    np.testing.assert_allclose(rows_of(bloom), expected - expected.mean(1, keepdims=True), atol=1e-5)
    np.testing.assert_array_equal(rows_of(bloom, AS_PUBLISHED), bloom.table)
    gemma = model("gemma2")
    np.testing.assert_array_equal(rows_of(gemma), gemma.table)


def test_head_norms_leave_the_length_of_a_head_without_effect(model):
    plain = model("qwen3")
    longer = plain.blocks[-1].attention.query.copy()
    longer[:8] *= 5
    block = replace(plain.blocks[-1], attention=replace(plain.blocks[-1].attention, query=longer))
    moved = replace(plain, blocks=(plain.blocks[0], block))
    np.testing.assert_allclose(product(moved, Term.SCORES), product(plain, Term.SCORES), rtol=1e-3, atol=1e-5)


def test_directions_without_any_token_are_found_wherever_they_point(model):
    rows = model().table
    assert unused_directions(rows).shape[1] == 0
    direction = np.random.default_rng(0).standard_normal(32)
    direction /= np.linalg.norm(direction)
    flat = (rows - np.outer(rows @ direction, direction)).astype(np.float32)
    found = unused_directions(flat)
    assert found.shape == (32, 1)
    assert abs(found[:, 0] @ direction) == pytest.approx(1, abs=1e-6)
    assert unused_directions(rows[:32]).shape[1] == 0
