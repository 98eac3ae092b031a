"""Architectures as llama.cpp stores them: one set of names for all, queries and keys of some turned.

llama.cpp's converter stacks fused matrices as all queries, all keys, all values, adds one to Gemma's gains, transposes
GPT-2's matrices, and reorders the rows of LLaMA's queries and keys so that neighbours turn together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import sqrt
from types import MappingProxyType
from typing import Any, Final, cast, final

import numpy as np

from vestige.errors import Unsupported
from vestige.models.transformer.block import Activation, Attention, Block, Matrix, Norm, NormKind, Rotary
from vestige.models.transformer.checkpoint import Checkpoint, Layer
from vestige.models.transformer.family import Family, Outline
from vestige.models.transformer.feed import ExpertNames, gated_feed, plain_feed, stacked_experts
from vestige.models.transformer.heads import Heads, Projections
from vestige.models.transformer.rope import plain, stretched
from vestige.models.transformer.settings import Settings
from vestige.models.weights.source import IndexArray, WeightSource

ARCHITECTURE, TOKENS = "general.architecture", "tokenizer.ggml.tokens"


@dataclass(frozen=True)
class _Kind:
    """What the values of a file leave unsaid about an architecture.

    ``turned`` says that rows of queries and keys are reordered; ``period`` that all layers but every so-maniest see a
    window, all where 0; ``local_base`` is the rotary base of those; ``wide`` is the depth of the size whose scores are
    divided by the root of width over heads instead of the head's.
    """

    norm: NormKind = NormKind.RMS
    activation: Activation = Activation.SILU
    turned: bool = False
    rotary: bool = True
    alibi: bool = False
    parallel: bool = False
    renormalised: bool = True
    embedding_scaled: bool = False
    period: int = 0
    local_base: float | None = None
    wide: int | None = None


_GEMMA = _Kind(activation=Activation.GELU_TANH, embedding_scaled=True)
_OLDER = _Kind(NormKind.LAYER, Activation.GELU)

_KINDS: Final[Mapping[str, _Kind]] = MappingProxyType(
    {
        "llama": _Kind(turned=True),
        "qwen2": _Kind(),
        "qwen3": _Kind(),
        "qwen2moe": _Kind(renormalised=False),
        "qwen3moe": _Kind(),
        "phi3": _Kind(),
        "gemma": _GEMMA,
        "gemma2": replace(_GEMMA, period=2, wide=46),
        "gemma3": replace(_GEMMA, period=6, local_base=10000.0, wide=62),
        "gpt2": replace(_OLDER, activation=Activation.GELU_TANH, rotary=False),
        "bloom": replace(_OLDER, activation=Activation.GELU_TANH, rotary=False, alibi=True),
        "gptneox": replace(_OLDER, parallel=True),
        "falcon": replace(_OLDER, parallel=True),
        "phi2": replace(_OLDER, activation=Activation.GELU_TANH, parallel=True),
    }
)


def is_gguf(source: WeightSource) -> bool:
    """Whether the weights come from a GGUF file."""
    return ARCHITECTURE in source.metadata


def gguf_settings(source: WeightSource, origin: str) -> Settings:
    """The values of the file's architecture, without its name before them. Raises Unsupported."""
    said = source.metadata
    name = said[ARCHITECTURE]
    if name not in _KINDS:
        raise Unsupported(
            f"{origin} names the architecture {str(name)[:60]!r}.",
            expected=f"one of {', '.join(_KINDS)}.",
            remedy="open a model of a known architecture.",
        )
    own = [key for key in said if key.startswith(f"{name}.")]
    return Settings({ARCHITECTURE: name, **{key[len(name) + 1 :]: said[key] for key in own}}, origin)


def gguf_tokens(source: WeightSource, count: int) -> tuple[str, ...] | None:
    """The tokens of the first ``count`` rows, where the file has them. Raises CorruptFile."""
    if TOKENS not in source.metadata:
        return None
    tokens = source.metadata[TOKENS]
    if not isinstance(tokens, tuple) or not all(isinstance(token, str) for token in cast("tuple[Any, ...]", tokens)):
        raise Settings({}, "the GGUF file").wrong(TOKENS, type(tokens), "a list of texts")
    return cast("tuple[str, ...]", tokens)[:count]


@final
@dataclass(frozen=True)
class Gguf(Family):
    """Reads any of the architectures above; the tensors say which extras a model has."""

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """What llama.cpp calls them."""
        return tuple(_KINDS)

    def outline(self, checkpoint: Checkpoint) -> Outline:
        """Checks the values and finds the tensors."""
        settings = checkpoint.settings
        width = settings.whole("embedding_length")
        return Outline(
            architecture=settings.text(ARCHITECTURE),
            depth=checkpoint.depth("blk.", settings.whole("block_count")),
            width=width,
            embedding=checkpoint.needed("token_embd.weight"),
            head=checkpoint.first("output.weight"),
            head_bias=checkpoint.first("output.bias"),
            embedding_scale=sqrt(width) if _kind(settings).embedding_scaled else 1.0,
            logit_cap=settings.number_if("final_logit_softcapping"),
        )

    def positions(self, checkpoint: Checkpoint) -> Matrix | None:
        """Reads ``position_embd``."""
        name, width = checkpoint.first("position_embd.weight"), checkpoint.settings.whole("embedding_length")
        return None if name is None else checkpoint.tensor(name, checkpoint.rows_of(name, width), width)

    def embedding_norm(self, checkpoint: Checkpoint) -> Norm | None:
        """Reads ``token_embd_norm``."""
        return _norm(checkpoint, "token_embd_norm") if checkpoint.first("token_embd_norm.weight") else None

    def final_norm(self, checkpoint: Checkpoint) -> Norm:
        """Reads ``output_norm``."""
        return _norm(checkpoint, "output_norm")

    def block(self, checkpoint: Checkpoint, index: int) -> Block:
        """Reads one layer."""
        settings, kind = checkpoint.settings, _kind(checkpoint.settings)
        layer = checkpoint.layer(f"blk.{index}.")
        width, epsilon = settings.whole("embedding_length"), _epsilon(settings)

        def norm(name: str) -> Norm | None:
            return layer.norm(name, kind.norm, width, epsilon) if layer.has(f"{name}.weight") else None

        # Falcon's two norms: the second is that of attention.
        first, second = norm("attn_norm"), norm("attn_norm_2")
        block = Block(
            attention=_attention(layer, checkpoint, kind, index),
            experts=(),
            before_attention=second or first,
            before_feed=first if second else norm("ffn_norm"),
            after_attention=norm("post_attention_norm"),
            after_feed=norm("post_ffw_norm"),
            parallel=settings.flag("use_parallel_residual", default=kind.parallel),
        )
        block = _with_feed(block, layer, settings, kind, width)
        layer.done()
        return block


def _kind(settings: Settings) -> _Kind:
    return _KINDS[settings.text(ARCHITECTURE)]


def _epsilon(settings: Settings) -> float:
    name = "layer_norm_rms_epsilon" if _kind(settings).norm is NormKind.RMS else "layer_norm_epsilon"
    return settings.number(f"attention.{name}")


def _norm(checkpoint: Checkpoint, name: str) -> Norm:
    settings = checkpoint.settings
    return checkpoint.norm(name, _kind(settings).norm, settings.whole("embedding_length"), _epsilon(settings))


def _heads(settings: Settings, width: int, index: int) -> Heads:
    count = _of_layer(settings, "attention.head_count", index, None)
    kv = _of_layer(settings, "attention.head_count_kv", index, count)
    own = settings.whole("attention.key_length") if settings.has("attention.key_length") else None
    if own is not None and settings.whole("attention.value_length", default=own) != own:
        raise Unsupported(
            f"{settings.origin} has values of another length than keys.",
            expected="heads of one length.",
            remedy="open a model of a known architecture.",
        )
    return Heads.checked(settings, width, count, kv, own)


def _of_layer(settings: Settings, name: str, index: int, default: int | None) -> int:
    """A whole number that a file may give once or layer by layer."""
    if isinstance(settings.values.get(name), tuple):
        listed = settings.listed(name) or ()
        return Settings({name: listed[index] if index < len(listed) else None}, settings.origin).whole(name)
    return settings.whole(name, default=default)


def _attention(layer: Layer, checkpoint: Checkpoint, kind: _Kind, index: int) -> Attention:
    settings = checkpoint.settings
    width = settings.whole("embedding_length")
    heads = _heads(settings, width, index)
    if layer.has("attn_qkv.weight"):
        parts = Projections.fused(layer, "attn_qkv", heads, width, grouped=False)
    else:
        layer.expect("attn_q.weight", heads.queries, width)
        parts = Projections(
            heads,
            layer.linear("attn_q", heads.queries, width, _halves(heads.count, heads.width) if kind.turned else None),
            layer.linear("attn_k", heads.keys, width, _halves(heads.kv, heads.width) if kind.turned else None),
            layer.linear("attn_v", heads.keys, width),
        )
    norms = tuple(
        layer.norm(name, kind.norm, heads.width, _epsilon(settings)) if layer.has(f"{name}.weight") else None
        for name in ("attn_q_norm", "attn_k_norm")
    )
    windowed = _window(settings, kind, index)
    output = layer.linear("attn_output", width, heads.queries)
    return replace(
        parts.attention(output, _rotary(checkpoint, heads, kind, windowed is not None), (norms[0], norms[1])),
        alibi=kind.alibi,
        scale=_scale(settings, heads, kind),
        cap=settings.number_if("attn_logit_softcapping"),
        window=windowed,
    )


def _halves(count: int, width: int) -> IndexArray:
    """Where the row of entry i of a head's half j lies: at 2i + j of its head."""
    rows = np.arange(count * width, dtype=np.int64).reshape(count, width // 2, 2)
    return rows.swapaxes(1, 2).reshape(-1)


def _scale(settings: Settings, heads: Heads, kind: _Kind) -> float | None:
    if kind.wide is not None and settings.whole("block_count") == kind.wide:
        return sqrt(heads.count / settings.whole("embedding_length"))
    return settings.number_if("attention.scale")


def _window(settings: Settings, kind: _Kind, index: int) -> int | None:
    size = settings.values.get("attention.sliding_window") or None
    if size is None or (kind.period and (index + 1) % kind.period == 0):
        return None
    return settings.whole("attention.sliding_window")


def _rotary(checkpoint: Checkpoint, heads: Heads, kind: _Kind, windowed: bool) -> Rotary | None:
    settings = checkpoint.settings
    if not kind.rotary:
        return None
    width = settings.whole("rope.dimension_count", default=heads.width)
    if width % 2 or width > heads.width:
        raise settings.wrong("rope.dimension_count", width, f"an even number up to {heads.width}")
    if windowed and kind.local_base is not None:
        return Rotary(kind.local_base, width)
    base = settings.number("rope.freq_base", default=10000.0)
    for name in ("rope_freqs.weight", "rope_factors_short.weight"):
        if checkpoint.first(name):
            factors = checkpoint.tensor(name, width // 2)
            if not (factors > 0).all():
                raise settings.wrong(name, factors.tolist(), "numbers above 0")
            frequencies = plain(base, width) / factors
            magnitude = settings.number("rope.scaling.attn_factor", default=1.0)
            return Rotary(base, width, frequencies=tuple(frequencies.tolist()), magnitude=magnitude)
    name = settings.text("rope.scaling.type", default="none")
    given = {"rope_type": "default" if name == "none" else name, "factor": settings.number_if("rope.scaling.factor")}
    longest = settings.number("context_length", default=2048)
    trained = settings.number("rope.scaling.original_context_length", default=longest)
    return stretched(Settings(given, settings.origin), base, width, longest, trained)


def _with_feed(block: Block, layer: Layer, settings: Settings, kind: _Kind, width: int) -> Block:
    """The block with its feed-forward part, or its experts."""
    if not layer.has("ffn_gate_inp.weight"):
        if layer.has("ffn_gate.weight"):
            feed = gated_feed(layer, "ffn_gate", "ffn_up", "ffn_down", width, kind.activation)
        elif kind.norm is NormKind.RMS:
            feed = gated_feed(layer, "ffn_up", "ffn_up", "ffn_down", width, kind.activation)
        else:
            feed = plain_feed(layer, "ffn_up", "ffn_down", width, kind.activation)
        return replace(block, experts=(feed,))
    count = settings.whole("expert_count")
    hidden = settings.whole("expert_feed_forward_length", "feed_forward_length")
    names = ExpertNames(*(f"ffn_{part}_exps.weight" for part in ("gate", "up", "down")))
    shared = layer.has("ffn_up_shexp.weight")
    gate = "ffn_gate_inp_shexp.weight"
    return replace(
        block,
        experts=stacked_experts(layer, names, count, hidden, width, kind.activation),
        router=layer.tensor("ffn_gate_inp.weight", count, width),
        active=settings.whole("expert_used_count"),
        renormalised=settings.flag("expert_weights_norm", default=kind.renormalised),
        shared=gated_feed(layer, "ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp", width, kind.activation)
        if shared
        else None,
        shared_gate=layer.tensor(gate, width).reshape(1, width) if layer.has(gate) else None,
    )
