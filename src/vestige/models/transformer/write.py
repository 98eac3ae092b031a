"""Writing a transformer as a folder of transformers, so that other tools can read it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from vestige.errors import Unsupported
from vestige.models.transformer.block import Activation, Attention, Block, Matrix, NormKind, Pairing, Rotary
from vestige.models.transformer.memory import InMemoryTransformer
from vestige.models.transformer.open import CONFIGURATION
from vestige.models.transformer.tokens import VOCABULARY
from vestige.models.weights.choose import INDEX, WHOLE
from vestige.store.write import write_bytes, write_text

SHARD = 512 << 20
"""Bytes of a file after which another is begun."""


def write_llama(transformer: InMemoryTransformer, folder: str | Path) -> None:
    """Write a model of LLaMA's form: ``config.json``, safetensors in float32, and ``vocab.json`` where it has tokens.

    RMS norms without bias, rotary positions on whole heads, gated feed-forward parts with SiLU and at most biases
    beside. A head that is the embedding stays so; a scale of the embedding is multiplied into it.

    Raises
    ------
    Unsupported : the model has something that LLaMA does not, which is named. StorageFailed : see ``store.write``.
    """
    folder = Path(folder)
    fault = _fault(transformer)
    if fault is not None:
        raise Unsupported(
            f"A model {fault} cannot be written as LLaMA.",
            expected="RMS norms, rotary positions on whole heads, SiLU gates, and nothing beside but biases.",
            remedy="write a model of LLaMA's form.",
        )
    write_text(folder / CONFIGURATION, json.dumps(_configuration(transformer), indent=2) + "\n")
    if transformer.tokens is not None:
        rows = {token: row for row, token in enumerate(transformer.tokens) if token}
        write_text(folder / VOCABULARY, json.dumps(rows, ensure_ascii=False))
    _write_tensors(transformer, folder)


def _write_tensors(transformer: InMemoryTransformer, folder: Path) -> None:
    shards: list[dict[str, Matrix]] = [{}]
    for name, array in _tensors(transformer):
        if shards[-1] and sum(each.nbytes for each in shards[-1].values()) + array.nbytes > SHARD:
            shards.append({})
        shards[-1][name] = array
    if len(shards) == 1:
        write_bytes(folder / WHOLE, save(shards[0], {"format": "pt"}))
        return
    where: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        write_bytes(folder / name, save(shard, {"format": "pt"}))
        where |= dict.fromkeys(shard, name)
    write_text(folder / INDEX, json.dumps({"metadata": {}, "weight_map": where}, indent=2) + "\n")


def _tensors(transformer: InMemoryTransformer) -> Iterator[tuple[str, Matrix]]:
    tied = _is_tied(transformer)
    yield "model.embed_tokens.weight", _plain(transformer.table)
    if not tied:
        head = transformer.own_head
        yield "lm_head.weight", _plain(transformer.table / np.float32(transformer.scale) if head is None else head)
    if transformer.last_norm is not None:
        yield "model.norm.weight", _plain(transformer.last_norm.gain)
    biased, fed = _has_attention_bias(transformer), _has_feed_bias(transformer)
    for index, block in enumerate(transformer.blocks):
        for name, weight, bias, needed in _linears(block, biased, fed):
            yield f"model.layers.{index}.{name}.weight", _plain(weight)
            if needed:
                yield f"model.layers.{index}.{name}.bias", _plain(np.zeros(len(weight)) if bias is None else bias)
        for name, norm in (
            ("input_layernorm", block.before_attention),
            ("post_attention_layernorm", block.before_feed),
        ):
            if norm is not None:
                yield f"model.layers.{index}.{name}.weight", _plain(norm.gain)


def _linears(block: Block, biased: bool, fed: bool) -> Iterator[tuple[str, Matrix, Matrix | None, bool]]:
    part, feed = block.attention, block.experts[0]
    yield "self_attn.q_proj", part.query, part.query_bias, biased
    yield "self_attn.k_proj", part.key, part.key_bias, biased
    yield "self_attn.v_proj", part.value, part.value_bias, biased
    yield "self_attn.o_proj", part.output, part.output_bias, biased
    if feed.gate is not None:
        yield "mlp.gate_proj", feed.gate, feed.gate_bias, fed
    yield "mlp.up_proj", feed.up, feed.up_bias, fed
    yield "mlp.down_proj", feed.down, feed.down_bias, fed


def _plain(array: Any) -> Matrix:
    return np.ascontiguousarray(array, np.float32)


def _is_tied(transformer: InMemoryTransformer) -> bool:
    return transformer.own_head is None and transformer.scale == 1.0


def _has_attention_bias(transformer: InMemoryTransformer) -> bool:
    parts = (block.attention for block in transformer.blocks)
    return any(b is not None for a in parts for b in (a.query_bias, a.key_bias, a.value_bias, a.output_bias))


def _has_feed_bias(transformer: InMemoryTransformer) -> bool:
    parts = (block.experts[0] for block in transformer.blocks)
    return any(b is not None for f in parts for b in (f.up_bias, f.gate_bias, f.down_bias))


def _configuration(transformer: InMemoryTransformer) -> dict[str, Any]:
    first = transformer.blocks[0]
    part, rotary = first.attention, first.attention.rotary
    base = 10000.0 if rotary is None else rotary.base
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": transformer.vocabulary,
        "hidden_size": transformer.width,
        "intermediate_size": len(first.experts[0].up),
        "num_hidden_layers": transformer.depth,
        "num_attention_heads": part.heads,
        "num_key_value_heads": part.kv_heads,
        "head_dim": _head_width(part),
        "hidden_act": "silu",
        "rms_norm_eps": _epsilons(transformer).pop(),
        "max_position_embeddings": 2048,
        "rope_theta": base,
        "rope_parameters": {"rope_type": "default", "rope_theta": base},
        "attention_bias": _has_attention_bias(transformer),
        "mlp_bias": _has_feed_bias(transformer),
        "tie_word_embeddings": _is_tied(transformer),
        "torch_dtype": "float32",
    }


def _head_width(part: Attention) -> int:
    return len(part.query) // part.heads


def _epsilons(transformer: InMemoryTransformer) -> set[float]:
    norms = [transformer.last_norm, *(norm for b in transformer.blocks for norm in (b.before_attention, b.before_feed))]
    return {norm.epsilon for norm in norms if norm is not None}


def _fault(transformer: InMemoryTransformer) -> str | None:
    """What a model has that LLaMA does not, or None."""
    if not transformer.blocks:
        return "without layers"
    beside = transformer.own_head_bias, transformer.learned_positions, transformer.first_norm, transformer.cap
    if any(each is not None for each in beside):
        return "with a bias or cap of its logits, learned positions or a norm of its embedding"
    norms = [transformer.last_norm, *(norm for b in transformer.blocks for norm in (b.before_attention, b.before_feed))]
    if any(norm is None or norm.kind is not NormKind.RMS or norm.bias is not None for norm in norms):
        return "without RMS norms before both parts and the head"
    if len(_epsilons(transformer)) > 1 or len({_shape(block) for block in transformer.blocks}) > 1:
        return "whose layers differ in shape, rotary base or epsilon"
    return next(filter(None, map(_fault_of, transformer.blocks)), None)


def _shape(block: Block) -> tuple[int, int, int, int, Rotary | None]:
    part = block.attention
    return part.heads, part.kv_heads, _head_width(part), len(block.experts[0].up), part.rotary


def _fault_of(block: Block) -> str | None:
    part, feed = block.attention, block.experts[0]
    if len(block.experts) > 1 or block.router is not None or block.shared is not None:
        return "with a mixture of experts"
    if block.parallel or block.after_attention is not None or block.after_feed is not None:
        return "with parallel parts or norms after them"
    if part.rotary != Rotary(0.0 if part.rotary is None else part.rotary.base, _head_width(part), Pairing.HALVES):
        return "without plain rotary positions on the halves of whole heads"
    if part.query_norm is not None or part.key_norm is not None or part.alibi or part.cap or part.window:
        return "with norms, linear biases, caps or windows in its attention"
    if part.scale is not None and not np.isclose(part.scale, _head_width(part) ** -0.5, rtol=1e-6):
        return "with another scale of scores"
    return None if feed.gate is not None and feed.activation is Activation.SILU else "without SiLU gates"
