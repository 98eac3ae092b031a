"""Architectures out of GGUF files, written here the way llama.cpp's converter does it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf import MODEL_ARCH as Arch

from vestige.errors import CorruptFile, Unsupported
from vestige.models.transformer.block import Pairing
from vestige.models.transformer.forward import forward
from vestige.models.transformer.memory import InMemoryTransformer
from vestige.models.transformer.open import open_transformer

ARCHITECTURES = {
    "llama": Arch.LLAMA,
    "llama-tied": Arch.LLAMA,
    "llama-linear": Arch.LLAMA,
    "llama-3": Arch.LLAMA,
    "llama-yarn": Arch.LLAMA,
    "mixtral": Arch.LLAMA,
    "qwen2": Arch.QWEN2,
    "qwen3": Arch.QWEN3,
    "qwen2_moe-sparse": Arch.QWEN2MOE,
    "qwen3_moe": Arch.QWEN3MOE,
    "gemma": Arch.GEMMA,
    "gemma2": Arch.GEMMA2,
    "gemma3": Arch.GEMMA3,
    "phi3": Arch.PHI3,
    "phi3-long": Arch.PHI3,
    "phi": Arch.PHI2,
    "gpt2": Arch.GPT2,
    "gpt_neox": Arch.GPTNEOX,
    "gpt_neox-serial": Arch.GPTNEOX,
    "bloom": Arch.BLOOM,
    "falcon-7b": Arch.FALCON,
    "falcon-40b": Arch.FALCON,
}
Tensors = dict[str, np.ndarray]


def neighbours(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows (head, half, entry) as (head, entry, half)."""
    width = len(rows) // heads
    return rows.reshape(heads, 2, width // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def stacked(rows: np.ndarray, kv: int, width: int) -> np.ndarray:
    """Groups of queries, a key and a value, as all queries, all keys, all values."""
    groups = rows.reshape(kv, -1, width, *rows.shape[1:])
    parts = groups[:, :-2], groups[:, -2], groups[:, -1]
    return np.concatenate([part.reshape(-1, *rows.shape[1:]) for part in parts])


def converted(model: Any, kind: str) -> Tensors:
    """The tensors under llama.cpp's names and in its order."""
    config = model.config
    names = gguf.get_tensor_name_map(ARCHITECTURES[kind], config.num_hidden_layers)
    out: Tensors = {}
    tied = bool(config.tie_word_embeddings)
    for name, tensor in model.state_dict().items():
        value = tensor.numpy()
        if tied and name.startswith("lm_head"):
            continue
        if kind.startswith(("gpt2",)) and name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")):
            value = value.T
        if ARCHITECTURES[kind] == Arch.LLAMA and ".q_proj." in name:
            value = neighbours(value, config.num_attention_heads)
        if ARCHITECTURES[kind] == Arch.LLAMA and ".k_proj." in name:
            value = neighbours(value, config.num_key_value_heads)
        if "query_key_value" in name:
            heads = config.num_attention_heads
            kv = {"falcon-7b": 1, "falcon-40b": 2}.get(kind, heads)
            value = stacked(value, kv, config.hidden_size // heads)
        if kind.startswith("gemma") and name.endswith("norm.weight"):
            value = value + 1
        if name.endswith("experts.gate_up_proj"):
            half = value.shape[1] // 2
            stem = name.removesuffix("gate_up_proj")
            for part, rows in (("gate_proj", value[:, :half]), ("up_proj", value[:, half:])):
                out[names.get_name(f"{stem}{part}") + ".weight"] = rows
            continue
        if name.endswith("experts.down_proj"):
            out[names.get_name(name) + ".weight"] = value
            continue
        if name.endswith("shared_expert_gate.weight"):
            value = value[0]
        name = name.removeprefix("transformer.") if kind == "bloom" else name
        found = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert found is not None, name
        out[found] = value
    return out


def values_of(model: Any, kind: str) -> dict[str, Any]:
    """The values of the header, without the architecture's name before them."""
    config = model.config.to_dict()
    first = lambda *names: next((config[n] for n in names if config.get(n) is not None), None)  # noqa: E731
    heads, width = first("num_attention_heads", "n_head"), first("hidden_size", "n_embd")
    rope = config.get("rope_parameters") or {}
    own = rope.get("full_attention", rope)
    head = config.get("head_dim") or width // heads
    share = own.get("partial_rotary_factor")
    kv = {"falcon-7b": 1}.get(kind, first("num_kv_heads", "num_key_value_heads"))
    scaling = {"linear": "linear", "yarn": "yarn"}.get(own.get("rope_type"))
    return {
        "block_count": first("num_hidden_layers", "n_layer"),
        "embedding_length": width,
        "context_length": first("max_position_embeddings", "n_positions") or 64,
        "feed_forward_length": first("intermediate_size") or 4 * width,
        "attention.head_count": heads,
        "attention.head_count_kv": kv,
        "attention.key_length": config.get("head_dim"),
        "attention.value_length": config.get("head_dim"),
        "attention.layer_norm_rms_epsilon": config.get("rms_norm_eps"),
        "attention.layer_norm_epsilon": first("layer_norm_epsilon", "layer_norm_eps"),
        "attention.sliding_window": config.get("sliding_window") if kind in ("gemma2", "gemma3", "phi3") else None,
        "attn_logit_softcapping": config.get("attn_logit_softcapping"),
        "final_logit_softcapping": config.get("final_logit_softcapping"),
        "rope.freq_base": own.get("rope_theta"),
        "rope.dimension_count": None if share is None else int(share * head),
        "rope.scaling.type": scaling,
        "rope.scaling.factor": own.get("factor") if scaling else None,
        "rope.scaling.original_context_length": own.get("original_max_position_embeddings"),
        "use_parallel_residual": config.get("use_parallel_residual"),
        "expert_count": first("num_local_experts", "num_experts"),
        "expert_used_count": config.get("num_experts_per_tok"),
        "expert_feed_forward_length": config.get("moe_intermediate_size"),
    }


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write tensors and values as a file of an architecture."""

    def write(architecture: str, tensors: Tensors, values: Mapping[str, Any], tokens: list[str] | None = None) -> Path:
        writer = gguf.GGUFWriter(tmp_path / "m.gguf", architecture)
        for name, value in values.items():
            if value is None:
                continue
            add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
            key = f"{architecture}.{name}"
            writer.add_array(key, value) if isinstance(value, list) else add[type(value)](key, value)
        if tokens is not None:
            writer.add_token_list(tokens)
        for name, value in tensors.items():
            writer.add_tensor(name, np.ascontiguousarray(value))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return tmp_path / "m.gguf"

    return write


def extra_tensors(model: Any, kind: str) -> Tensors:
    """Factors of rotary frequencies, which the converter stores as a tensor."""
    rope = model.config.rope_parameters if kind in ("llama-3", "phi3-long") else None
    if kind == "phi3-long":
        return {"rope_factors_short.weight": np.array(rope["short_factor"], np.float32)}
    if kind == "llama-3":
        frequencies = model.model.rotary_emb.inv_freq.numpy()
        plain = rope["rope_theta"] ** (-np.arange(len(frequencies)) / len(frequencies))
        return {"rope_freqs.weight": (plain / frequencies).astype(np.float32)}
    return {}


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_forward_is_that_of_transformers(kind: str, tiny, ids, logits_of, write, peculiar) -> None:
    model = peculiar(kind)
    tensors = {**converted(model, kind), **extra_tensors(model, kind)}
    values = values_of(model, kind)
    if kind == "phi3-long":
        values["rope.scaling.attn_factor"] = float(np.sqrt(1 + np.log(2) / np.log(32)))
    tokens = [f"t{i}" for i in range(40)]
    stored = open_transformer(write(gguf.MODEL_ARCH_NAMES[ARCHITECTURES[kind]], tensors, values, tokens))
    assert stored.tokens == tuple(tokens)
    np.testing.assert_allclose(forward(stored, ids), logits_of(model, ids), atol=1e-4)


@pytest.fixture
def peculiar(tiny) -> Callable[[str], Any]:
    """Tiny models within what llama.cpp's files can say: Gemma's scale is that of its heads, Qwen 2 has no window."""

    def build(kind: str) -> Any:
        model = deepcopy(tiny(kind))
        if kind in ("gemma2", "gemma3"):
            for layer in model.model.layers:
                layer.self_attn.scaling = 16**-0.5
        if kind == "qwen2":
            model.config.layer_types = ["full_attention"] * 3
            for layer in model.model.layers:
                layer.attention_type, layer.self_attn.sliding_window = "full_attention", None
        return model

    return build


def test_halves_and_neighbours_are_one_model(tiny, folder_of, ids, write) -> None:
    """Rows as llama.cpp stores them, turned as neighbours, give the same as rows put back and turned as halves."""
    model = InMemoryTransformer.of(open_transformer(folder_of("llama-tied")))

    def as_stored(block: Any) -> Any:
        part = block.attention
        return replace(
            block,
            attention=replace(
                part,
                query=neighbours(part.query, part.heads),
                key=neighbours(part.key, part.kv_heads),
                rotary=replace(part.rotary, pairing=Pairing.NEIGHBOURS),
            ),
        )

    other = replace(model, blocks=tuple(as_stored(block) for block in model.blocks))
    np.testing.assert_allclose(forward(other, ids), forward(model, ids), atol=1e-10)


LLAMA = {
    "block_count": 1,
    "embedding_length": 4,
    "attention.head_count": 2,
    "attention.layer_norm_rms_epsilon": 1e-5,
    "feed_forward_length": 8,
}


def llama_tensors() -> Tensors:
    rng = np.random.default_rng(0)
    shapes = {
        "token_embd": (5, 4),
        "output_norm": (4,),
        "blk.0.attn_norm": (4,),
        "blk.0.ffn_norm": (4,),
        **{f"blk.0.attn_{part}": (4, 4) for part in ("q", "k", "v", "output")},
        "blk.0.ffn_gate": (8, 4),
        "blk.0.ffn_up": (8, 4),
        "blk.0.ffn_down": (4, 8),
    }
    return {f"{name}.weight": rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def test_numbers_of_heads_by_layer(write) -> None:
    once = open_transformer(write("llama", llama_tensors(), LLAMA)).block(0)
    listed = {**LLAMA, "attention.head_count": [2], "attention.head_count_kv": [2]}
    again = open_transformer(write("llama", llama_tensors(), listed)).block(0)
    assert once.attention.heads == again.attention.heads == again.attention.kv_heads == 2
    np.testing.assert_array_equal(once.attention.query, again.attention.query)


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"embedding_length": None}, CorruptFile),
        ({"embedding_length": "4"}, CorruptFile),
        ({"attention.head_count": [2], "attention.head_count_kv": [3]}, CorruptFile),
        ({"attention.head_count": 3}, CorruptFile),
        ({"attention.layer_norm_rms_epsilon": None}, CorruptFile),
        ({"rope.dimension_count": 9}, CorruptFile),
        ({"rope.freq_base": -1.0}, CorruptFile),
        ({"rope.scaling.type": "spiral"}, Unsupported),
        ({"attention.key_length": 2, "attention.value_length": 3}, Unsupported),
    ],
)
def test_values_that_cannot_be(write, values: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        open_transformer(write("llama", llama_tensors(), {**LLAMA, **values})).block(0)


def test_factors_that_cannot_be(write) -> None:
    tensors = {**llama_tensors(), "rope_freqs.weight": np.zeros(1, np.float32)}
    with pytest.raises(CorruptFile):
        open_transformer(write("llama", tensors, LLAMA)).block(0)


def test_an_unknown_architecture(write) -> None:
    with pytest.raises(Unsupported, match=r"'mamba'.*gemma3"):
        open_transformer(write("mamba", {}, {}))


def test_tokens_may_be_absent_or_more_than_rows(write) -> None:
    assert open_transformer(write("llama", llama_tensors(), LLAMA)).tokens is None
    assert open_transformer(write("llama", llama_tensors(), LLAMA, list("abcdefg"))).tokens == tuple("abcde")
