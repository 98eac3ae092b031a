"""LLaMA and what grew out of it: Mistral, Qwen 2 and 3, SmolLM, Gemma 1 to 3, Phi-3, and mixtures of experts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from math import sqrt
from types import MappingProxyType
from typing import Any, Final, final

from vestige.errors import Unsupported
from vestige.models.transformer.block import Activation, Attention, Block, FeedForward, Norm, NormKind, Rotary
from vestige.models.transformer.checkpoint import Checkpoint, Layer
from vestige.models.transformer.family import Family, Outline
from vestige.models.transformer.feed import ExpertNames, Experts, gated_feed, separate_experts, stacked_experts
from vestige.models.transformer.heads import Heads, Projections
from vestige.models.transformer.rope import rotary
from vestige.models.transformer.settings import Settings

_FULL, _SLIDING = "full_attention", "sliding_attention"
_TRUNKS = ("model.", "", "language_model.model.", "model.language_model.")


class _Sliding(Enum):
    """Which layers see only a window, where the settings do not list them."""

    NONE = "none"
    ALL = "all"
    LATER = "those from max_window_layers on, where use_sliding_window says so"
    EVEN = "the first, third, …"
    FIVE_OF_SIX = "all but every sixth, or every sliding_window_pattern-th"


@dataclass(frozen=True)
class _Kind:
    """What sets an architecture apart where its tensors do not show it.

    Gemma's norms multiply by one plus their weight, its embedding is scaled by the square root of its width, and its
    head is the embedding unless the settings say otherwise.
    """

    sliding: _Sliding = _Sliding.NONE
    gemma: bool = False
    renormalised: bool = True
    defaults: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


_GEMMA3 = _Kind(
    _Sliding.FIVE_OF_SIX,
    gemma=True,
    defaults=MappingProxyType(
        {
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 256,
            "query_pre_attn_scalar": 256,
            "rope_theta": 1e6,
            "sliding_window": 4096,
        }
    ),
)
"""Its published settings leave out what equals these."""

_KINDS: Final[Mapping[str, _Kind]] = MappingProxyType(
    {
        "llama": _Kind(),
        "mistral": _Kind(_Sliding.ALL),
        "qwen2": _Kind(_Sliding.LATER),
        "qwen3": _Kind(_Sliding.LATER),
        "smollm3": _Kind(_Sliding.LATER),
        "phi3": _Kind(_Sliding.ALL),
        "gemma": _Kind(gemma=True),
        "gemma2": _Kind(_Sliding.EVEN, gemma=True),
        "gemma3": _GEMMA3,
        "gemma3_text": _GEMMA3,
        "mixtral": _Kind(_Sliding.ALL),
        "qwen2_moe": _Kind(_Sliding.LATER, renormalised=False),
        "qwen3_moe": _Kind(_Sliding.LATER, renormalised=False),
    }
)


@final
@dataclass(frozen=True)
class Llama(Family):
    """RMS norms, gated feed-forward parts and rotary positions; the tensors say which extras a model has.

    Biases, norms of queries and keys, norms after each part (Gemma 2 and 3), fused matrices (Phi-3) and mixtures are
    found by their names.
    """

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Model types."""
        return tuple(_KINDS)

    def outline(self, checkpoint: Checkpoint) -> Outline:
        """Checks the settings and finds the tensors."""
        settings, kind = _settings(checkpoint), _kind(checkpoint)
        trunk = _trunk(checkpoint)
        tied = settings.flag("tie_word_embeddings", default=kind.gemma)
        head = checkpoint.first("lm_head.weight", "language_model.lm_head.weight") or "lm_head.weight"
        width = settings.whole("hidden_size")
        return Outline(
            architecture=checkpoint.settings.text("model_type"),
            depth=checkpoint.depth(f"{trunk}layers.", settings.whole("num_hidden_layers")),
            width=width,
            embedding=f"{trunk}embed_tokens.weight",
            head=None if tied else head,
            embedding_scale=sqrt(width) if kind.gemma else 1.0,
            logit_cap=settings.number_if("final_logit_softcapping"),
        )

    def final_norm(self, checkpoint: Checkpoint) -> Norm:
        """Reads ``norm``."""
        settings = _settings(checkpoint)
        added, epsilon = float(_kind(checkpoint).gemma), settings.number("rms_norm_eps", default=1e-6)
        return checkpoint.norm(
            f"{_trunk(checkpoint)}norm", NormKind.RMS, settings.whole("hidden_size"), epsilon, added=added
        )

    def block(self, checkpoint: Checkpoint, index: int) -> Block:
        """Reads one layer."""
        settings, kind = _settings(checkpoint), _kind(checkpoint)
        layer = checkpoint.layer(f"{_trunk(checkpoint)}layers.{index}.")
        width, epsilon = settings.whole("hidden_size"), settings.number("rms_norm_eps", default=1e-6)

        def norm(name: str, size: int = width) -> Norm:
            return layer.norm(name, NormKind.RMS, size, epsilon, added=float(kind.gemma))

        sandwich = layer.has("pre_feedforward_layernorm.weight")
        heads = _heads(settings, width)
        norms = (
            (norm("self_attn.q_norm", heads.width), norm("self_attn.k_norm", heads.width))
            if layer.has("self_attn.q_norm.weight")
            else (None, None)
        )
        block = Block(
            attention=_attention(layer, settings, kind, heads, norms, index),
            experts=(),
            before_attention=norm("input_layernorm"),
            before_feed=norm("pre_feedforward_layernorm" if sandwich else "post_attention_layernorm"),
            after_attention=norm("post_attention_layernorm") if sandwich else None,
            after_feed=norm("post_feedforward_layernorm") if sandwich else None,
        )
        block = _with_feed(block, layer, settings, kind, width)
        layer.done()
        return block


def _settings(checkpoint: Checkpoint) -> Settings:
    """The settings of the language model, which may be a part of a larger one."""
    settings = checkpoint.settings
    text = settings.part("text_config")
    values = {**settings.values, **text.values} if text else settings.values
    return Settings({**_kind(checkpoint).defaults, **values}, settings.origin)


def _kind(checkpoint: Checkpoint) -> _Kind:
    return _KINDS[checkpoint.settings.text("model_type")]


def _trunk(checkpoint: Checkpoint) -> str:
    return checkpoint.trunk("embed_tokens.weight", *_TRUNKS)


def _heads(settings: Settings, width: int) -> Heads:
    count = settings.whole("num_attention_heads")
    own = settings.whole("head_dim") if settings.has("head_dim") else None
    return Heads.checked(settings, width, count, settings.whole("num_key_value_heads", default=count), own)


def _attention(
    layer: Layer, settings: Settings, kind: _Kind, heads: Heads, norms: tuple[Norm | None, Norm | None], index: int
) -> Attention:
    width = settings.whole("hidden_size")
    if layer.has("self_attn.qkv_proj.weight"):
        parts = Projections.fused(layer, "self_attn.qkv_proj", heads, width, grouped=False)
    else:
        names = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
        parts = Projections.separate(layer, names, heads, width)
    sliding = _is_sliding(settings, kind, index)
    attention = parts.attention(
        layer.linear("self_attn.o_proj", width, heads.queries), _rotary(settings, heads, sliding, index), norms
    )
    scalar = settings.number_if("query_pre_attn_scalar")
    return replace(
        attention,
        scale=None if scalar is None else 1 / sqrt(scalar),
        cap=settings.number_if("attn_logit_softcapping"),
        window=settings.whole("sliding_window") if sliding else None,
    )


def _is_sliding(settings: Settings, kind: _Kind, index: int) -> bool:
    if not settings.has("sliding_window"):
        return False
    listed = settings.listed("layer_types")
    if listed is not None:
        which = listed[index] if index < len(listed) else None
        if which not in (_FULL, _SLIDING):
            raise Unsupported(
                f"{settings.origin} asks for {str(which)[:60]!r} in layer {index}.",
                expected=f"{_FULL} or {_SLIDING}.",
                remedy="open a model of a known architecture.",
            )
        return which == _SLIDING
    if kind.sliding is _Sliding.LATER:
        return settings.flag("use_sliding_window", default=False) and index >= settings.whole("max_window_layers")
    if kind.sliding is _Sliding.FIVE_OF_SIX:
        return bool((index + 1) % settings.whole("sliding_window_pattern", "_sliding_window_pattern", default=6))
    return kind.sliding is _Sliding.ALL or (kind.sliding is _Sliding.EVEN and index % 2 == 0)


def _rotary(settings: Settings, heads: Heads, sliding: bool, index: int) -> Rotary | None:
    unturned = settings.listed("no_rope_layers")
    if unturned is not None and index < len(unturned) and not unturned[index]:
        return None
    if sliding and settings.has("rope_local_base_freq"):
        return Rotary(settings.number("rope_local_base_freq"), heads.width)
    return rotary(settings, heads.width, _SLIDING if sliding else _FULL)


def _with_feed(block: Block, layer: Layer, settings: Settings, kind: _Kind, width: int) -> Block:
    """The block with its feed-forward part, or its experts."""
    default = "gelu_pytorch_tanh" if kind.gemma else "silu"
    activation = settings.activation("hidden_activation", "hidden_act", default=default)
    if kind.gemma and activation is Activation.GELU:
        activation = Activation.GELU_TANH  # what Gemma's first settings mean by gelu
    mixture = next((name for name in ("mlp", "block_sparse_moe") if layer.has(f"{name}.gate.weight")), None)
    if mixture is None:
        return replace(block, experts=(_feed(layer, "mlp", width, activation),))
    experts = _experts(layer, mixture, settings, width, activation)
    shared = layer.has(f"{mixture}.shared_expert.up_proj.weight")
    gated = layer.has(f"{mixture}.shared_expert_gate.weight")
    return replace(
        block,
        experts=experts,
        router=layer.tensor(f"{mixture}.gate.weight", len(experts), width),
        active=settings.whole("num_experts_per_tok"),
        renormalised=settings.flag("norm_topk_prob", default=kind.renormalised),
        shared=_feed(layer, f"{mixture}.shared_expert", width, activation) if shared else None,
        shared_gate=layer.tensor(f"{mixture}.shared_expert_gate.weight", 1, width) if gated else None,
    )


def _feed(layer: Layer, name: str, width: int, activation: Activation) -> FeedForward:
    gate, up, down = f"{name}.gate_proj", f"{name}.up_proj", f"{name}.down_proj"
    if layer.has(f"{name}.gate_up_proj.weight"):
        gate = up = f"{name}.gate_up_proj"
    return gated_feed(layer, gate, up, down, width, activation)


def _experts(layer: Layer, name: str, settings: Settings, width: int, activation: Activation) -> Experts:
    count = settings.whole("num_local_experts", "num_experts")
    if layer.has(f"{name}.experts.gate_up_proj"):
        hidden = settings.whole("moe_intermediate_size", "intermediate_size")
        names = ExpertNames(*(f"{name}.experts.{end}" for end in ("gate_up_proj", "gate_up_proj", "down_proj")))
        return stacked_experts(layer, names, count, hidden, width, activation)
    names = ExpertNames("w1", "w3", "w2") if layer.has(f"{name}.experts.0.w1.weight") else _QWEN
    return separate_experts(layer, f"{name}.experts", names, count, width, activation)


_QWEN = ExpertNames("gate_proj", "up_proj", "down_proj")
