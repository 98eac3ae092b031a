"""Tiny models of every architecture, made by transformers from a configuration alone and filled with noise."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch

os.environ["HF_HUB_OFFLINE"] = "1"

D, HEADS, KV, LAYERS, V = 32, 4, 2, 3, 40
MODERN = {
    "vocab_size": V,
    "hidden_size": D,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV,
    "max_position_embeddings": 64,
}
OLDER = {"vocab_size": V, "hidden_size": D, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS}
EXPERTS = {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
LONG = {"max_position_embeddings": 64, "rope_theta": 500.0}


def stretched(kind: str, **values: object) -> dict[str, Any]:
    return {
        **LONG,
        "rope_scaling": {"rope_type": kind, "factor": 8.0, "original_max_position_embeddings": 16, **values},
    }


KINDS: Mapping[str, tuple[str, dict[str, Any]]] = MappingProxyType(
    {
        "llama": ("llama", {**MODERN, "attention_bias": True, "mlp_bias": True, "rms_norm_eps": 1e-3}),
        "llama-tied": ("llama", {**MODERN, "tie_word_embeddings": True, "head_dim": 16, "rope_theta": 123.0}),
        "llama-linear": ("llama", {**MODERN, **stretched("linear")}),
        "llama-dynamic": ("llama", {**MODERN, **stretched("dynamic")}),
        "llama-3": ("llama", {**MODERN, **stretched("llama3", low_freq_factor=1.0, high_freq_factor=4.0)}),
        "llama-yarn": (
            "llama",
            {
                **MODERN,
                **stretched("yarn", original_max_position_embeddings=4096),
                "max_position_embeddings": 32768,
                "head_dim": 16,
            },
        ),
        "mistral": ("mistral", {**MODERN, "sliding_window": 4}),
        "qwen2": ("qwen2", {**MODERN, "use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1}),
        "qwen3": ("qwen3", {**MODERN, "head_dim": 16}),
        "smollm3": ("smollm3", {**MODERN, "no_rope_layers": [1, 0, 1], "pad_token_id": 0}),
        "gemma": ("gemma", {**MODERN, "head_dim": 16}),
        "gemma2": ("gemma2", {**MODERN, "head_dim": 16, "sliding_window": 3, "query_pre_attn_scalar": 100}),
        "gemma3": (
            "gemma3_text",
            {**MODERN, "num_hidden_layers": 7, "head_dim": 16, "sliding_window": 3, "query_pre_attn_scalar": 100},
        ),
        "phi3": ("phi3", {**MODERN, "sliding_window": 5, "partial_rotary_factor": 0.5, "pad_token_id": 0}),
        "phi3-long": (
            "phi3",
            {
                **MODERN,
                "pad_token_id": 0,
                "original_max_position_embeddings": 32,
                "rope_scaling": {
                    "rope_type": "longrope",
                    "short_factor": [1.0, 1.2, 1.5, 2.0],
                    "long_factor": [4.0] * 4,
                },
            },
        ),
        "mixtral": ("mixtral", {**MODERN, "num_local_experts": 5, "num_experts_per_tok": 2}),
        "qwen2_moe": (
            "qwen2_moe",
            {**MODERN, **EXPERTS, "shared_expert_intermediate_size": 40, "mlp_only_layers": [1]},
        ),
        "qwen2_moe-sparse": ("qwen2_moe", {**MODERN, **EXPERTS, "shared_expert_intermediate_size": 40}),
        "qwen3_moe": ("qwen3_moe", {**MODERN, **EXPERTS, "head_dim": 8, "norm_topk_prob": True}),
        "gpt2": ("gpt2", {"vocab_size": V, "n_embd": D, "n_layer": LAYERS, "n_head": HEADS, "n_positions": 64}),
        "gpt2-scaled": (
            "gpt2",
            {
                "vocab_size": V,
                "n_embd": D,
                "n_layer": LAYERS,
                "n_head": HEADS,
                "n_positions": 64,
                "scale_attn_by_inverse_layer_idx": True,
                "n_inner": 20,
                "tie_word_embeddings": False,
            },
        ),
        "gpt_neox": ("gpt_neox", {**OLDER, "intermediate_size": 48, "rotary_pct": 0.5}),
        "gpt_neox-serial": ("gpt_neox", {**OLDER, "intermediate_size": 48, "use_parallel_residual": False}),
        "opt": ("opt", {**OLDER, "ffn_dim": 48, "word_embed_proj_dim": D, "max_position_embeddings": 64}),
        "bloom": ("bloom", {"vocab_size": V, "hidden_size": D, "n_layer": LAYERS, "n_head": HEADS}),
        "bloom-6-heads": ("bloom", {"vocab_size": V, "hidden_size": 24, "n_layer": LAYERS, "n_head": 6}),
        "falcon-7b": ("falcon", OLDER),
        "falcon-40b": ("falcon", {**OLDER, "num_kv_heads": 2, "new_decoder_architecture": True}),
        "falcon-11b": (
            "falcon",
            {**OLDER, "num_kv_heads": 2, "new_decoder_architecture": True, "num_ln_in_parallel_attn": 1},
        ),
        "falcon-rw": ("falcon", {**OLDER, "multi_query": False, "alibi": True, "parallel_attn": False, "bias": True}),
        "phi": ("phi", MODERN),
        "phi-normed": (
            "phi",
            {**MODERN, "qk_layernorm": True, "partial_rotary_factor": 0.25, "num_key_value_heads": 4},
        ),
    }
)
"""By a name of ours: model_type and configuration."""


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Every kind in turn."""
    return request.param


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Any]:
    """``tiny(kind, seed=0)``: a model of that kind; every gain and bias is random too."""
    made: dict[tuple[str, int], Any] = {}

    def build(kind: str, seed: int = 0) -> Any:
        from transformers import AutoConfig, AutoModelForCausalLM

        if (kind, seed) not in made:
            name, values = KINDS[kind]
            config = AutoConfig.for_model(name, **values)
            # Only eager code knows caps of scores; Falcon's adds its linear biases twice (transformers 5.23).
            how = "sdpa" if name == "falcon" else "eager"
            model = AutoModelForCausalLM.from_config(config, attn_implementation=how).eval()
            generator = torch.Generator().manual_seed(seed)
            with torch.no_grad():
                for parameter in model.parameters():
                    noise = 0.25 * torch.randn(parameter.shape, generator=generator)
                    parameter.copy_(1 + noise if bool((parameter == 1).all()) else noise)
            made[kind, seed] = model
        return made[kind, seed]

    return build


@pytest.fixture(scope="session")
def ids() -> np.ndarray:
    """A text of twelve tokens."""
    return np.random.default_rng(3).integers(0, V, 12)


@pytest.fixture(scope="session")
def logits_of() -> Callable[..., np.ndarray]:
    """``logits_of(model, ids)``: what transformers computes."""

    def run(model: Any, ids: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return model(torch.from_numpy(ids)[None], use_cache=False).logits[0].double().numpy()

    return run


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory, tiny: Callable[..., Any]) -> Callable[..., Path]:
    """``folder_of(kind)``: the folder that transformers saves it as."""
    saved: dict[str, Path] = {}

    def save(kind: str) -> Path:
        if kind not in saved:
            saved[kind] = tmp_path_factory.mktemp(kind)
            tiny(kind).save_pretrained(saved[kind])
        return saved[kind]

    return save
