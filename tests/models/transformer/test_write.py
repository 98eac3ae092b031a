"""A model that is written as LLaMA is read alike by us and by transformers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vestige.errors import Unsupported
from vestige.models.transformer import write as writing
from vestige.models.transformer.block import Activation, NormKind, Pairing, Rotary
from vestige.models.transformer.forward import forward
from vestige.models.transformer.memory import InMemoryTransformer
from vestige.models.transformer.open import open_transformer
from vestige.models.transformer.write import write_llama


@pytest.fixture
def held(folder_of) -> InMemoryTransformer:
    return InMemoryTransformer.of(open_transformer(folder_of("llama")))


def with_block(model: InMemoryTransformer, **changes: Any) -> InMemoryTransformer:
    return replace(model, blocks=tuple(replace(block, **changes) for block in model.blocks))


def with_attention(model: InMemoryTransformer, **changes: Any) -> InMemoryTransformer:
    return replace(model, blocks=tuple(replace(b, attention=replace(b.attention, **changes)) for b in model.blocks))


@pytest.mark.parametrize("kind", ["llama", "llama-tied", "mistral"])
def test_transformers_computes_the_same(kind: str, folder_of, ids, logits_of, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = InMemoryTransformer.of(open_transformer(folder_of(kind)))
    model = with_attention(model, window=None)
    write_llama(model, tmp_path)
    expected = forward(model, ids)
    np.testing.assert_array_equal(forward(open_transformer(tmp_path), ids), expected)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager")
    np.testing.assert_allclose(logits_of(theirs, ids), expected, atol=1e-4)


def test_what_was_written_is_what_was_held(held, tmp_path: Path) -> None:
    write_llama(held, tmp_path)
    assert InMemoryTransformer.of(open_transformer(tmp_path)).digest == held.digest


def test_qwen_biases_and_gemma_scale_become_llama(folder_of, ids, tmp_path: Path) -> None:
    qwen = with_attention(InMemoryTransformer.of(open_transformer(folder_of("qwen2"))), window=None)
    write_llama(qwen, tmp_path / "qwen")
    np.testing.assert_array_equal(forward(open_transformer(tmp_path / "qwen"), ids), forward(qwen, ids))
    scaled = replace(qwen, table=qwen.table * np.float32(2), scale=2.0, own_head=None)
    write_llama(scaled, tmp_path / "scaled")
    assert json.loads((tmp_path / "scaled/config.json").read_text())["tie_word_embeddings"] is False
    np.testing.assert_allclose(forward(open_transformer(tmp_path / "scaled"), ids), forward(scaled, ids), atol=1e-9)


def test_tokens_come_along(held, tmp_path: Path) -> None:
    tokens = ("a", "", "Ġé", "c")
    write_llama(replace(held, strings=tokens), tmp_path)
    assert open_transformer(tmp_path).tokens == tokens


def test_large_models_are_written_in_parts(held, ids, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(writing, "SHARD", 20_000)
    write_llama(held, tmp_path)
    parts = sorted(tmp_path.glob("*.safetensors"))
    assert len(parts) > 2
    assert all(path.stat().st_size < 30_000 for path in parts)
    np.testing.assert_array_equal(forward(open_transformer(tmp_path), ids), forward(held, ids))


def test_what_llama_does_not_have_is_refused(kind: str, folder_of, tmp_path: Path) -> None:
    model = InMemoryTransformer.of(open_transformer(folder_of(kind)))
    if kind in ("llama", "llama-tied", "llama-dynamic"):
        write_llama(model, tmp_path)
        return
    with pytest.raises(Unsupported, match="cannot be written as LLaMA"):
        write_llama(model, tmp_path)
    assert not list(tmp_path.iterdir())


def test_each_difference_is_noticed(held, tmp_path: Path) -> None:
    first = held.blocks[0]
    norm = replace(held.last_norm, kind=NormKind.LAYER)
    feed = replace(first.experts[0], activation=Activation.RELU)
    different = [
        replace(held, blocks=()),
        replace(held, cap=30.0),
        replace(held, first_norm=norm),
        replace(held, last_norm=norm),
        replace(held, last_norm=None),
        replace(held, last_norm=replace(held.last_norm, epsilon=1e-9)),
        replace(held, blocks=(replace(first, attention=replace(first.attention, kv_heads=4)), *held.blocks[1:])),
        with_block(held, parallel=True),
        with_block(held, after_feed=held.last_norm),
        with_block(held, experts=(feed,)),
        with_block(held, experts=(replace(feed, gate=None),)),
        with_block(held, experts=first.experts * 2),
        with_attention(held, rotary=None),
        with_attention(held, rotary=Rotary(1e4, 4)),
        with_attention(held, rotary=Rotary(1e4, 8, Pairing.NEIGHBOURS)),
        with_attention(held, rotary=Rotary(1e4, 8, magnitude=2.0)),
        with_attention(held, alibi=True),
        with_attention(held, window=3),
        with_attention(held, cap=3.0),
        with_attention(held, scale=3.0),
        with_attention(held, query_norm=held.last_norm),
    ]
    for model in different:
        with pytest.raises(Unsupported):
            write_llama(model, tmp_path)
    write_llama(with_attention(held, scale=8**-0.5), tmp_path)
