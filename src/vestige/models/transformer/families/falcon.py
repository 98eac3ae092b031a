"""Falcon: one key-value head for all (7b), grouped ones (40b, 180b, 11b), or one for each (rw)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import sqrt
from typing import final

from vestige.models.transformer.block import Attention, Block, Norm, NormKind
from vestige.models.transformer.checkpoint import Checkpoint, Layer
from vestige.models.transformer.family import Family, Outline
from vestige.models.transformer.feed import plain_feed
from vestige.models.transformer.heads import Heads, Projections
from vestige.models.transformer.rope import rotary
from vestige.models.transformer.settings import Settings


@final
@dataclass(frozen=True)
class Falcon(Family):
    """Layer norms, queries, keys and values group by group, both parts at once unless the settings say otherwise."""

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Model types, two of them from before transformers knew it."""
        return ("falcon", "RefinedWeb", "RefinedWebModel")

    def outline(self, checkpoint: Checkpoint) -> Outline:
        """Checks the settings and finds the tensors."""
        settings, trunk = checkpoint.settings, _trunk(checkpoint)
        return Outline(
            architecture="falcon",
            depth=checkpoint.depth(f"{trunk}h.", settings.whole("num_hidden_layers", "n_layer")),
            width=settings.whole("hidden_size"),
            embedding=f"{trunk}word_embeddings.weight",
            head=None if settings.flag("tie_word_embeddings", default=True) else "lm_head.weight",
        )

    def final_norm(self, checkpoint: Checkpoint) -> Norm:
        """Reads ``ln_f``."""
        settings = checkpoint.settings
        return checkpoint.norm(
            f"{_trunk(checkpoint)}ln_f", NormKind.LAYER, settings.whole("hidden_size"), _epsilon(settings)
        )

    def block(self, checkpoint: Checkpoint, index: int) -> Block:
        """Reads one layer."""
        settings = checkpoint.settings
        width, epsilon = settings.whole("hidden_size"), _epsilon(settings)
        layer = checkpoint.layer(f"{_trunk(checkpoint)}h.{index}.")
        activation = settings.activation("activation", default="gelu")
        # Two norms of one input where there are two, one for both where there is one, one after the other where serial.
        first = "ln_attn" if layer.has("ln_attn.weight") else "input_layernorm"
        second = next((name for name in ("ln_mlp", "post_attention_layernorm") if layer.has(f"{name}.weight")), None)
        block = Block(
            attention=_attention(layer, settings, width),
            experts=(plain_feed(layer, "mlp.dense_h_to_4h", "mlp.dense_4h_to_h", width, activation),),
            before_attention=layer.norm(first, NormKind.LAYER, width, epsilon),
            before_feed=layer.norm(second, NormKind.LAYER, width, epsilon) if second else None,
            parallel=_is_grouped(settings) or settings.flag("parallel_attn", default=True),
        )
        layer.done()
        return block


def _attention(layer: Layer, settings: Settings, width: int) -> Attention:
    count = settings.whole("num_attention_heads", "n_head")
    if _is_grouped(settings):
        kv = settings.whole("num_kv_heads", "n_head_kv", default=count)
    else:
        kv = 1 if settings.flag("multi_query", default=True) else count
    heads = Heads.checked(settings, width, count, kv)
    parts = Projections.fused(layer, "self_attention.query_key_value", heads, width, grouped=True)
    output = layer.linear("self_attention.dense", width, width)
    if settings.flag("alibi", default=False):
        # Its slopes are scaled with the scores.
        return replace(parts.attention(output, None), alibi=True, alibi_scale=1 / sqrt(heads.width))
    return parts.attention(output, rotary(settings, heads.width))


def _is_grouped(settings: Settings) -> bool:
    """Whether it is the newer decoder; RefinedWeb is its first name."""
    return settings.flag("new_decoder_architecture", default=settings.text("model_type") == "RefinedWeb")


def _trunk(checkpoint: Checkpoint) -> str:
    return checkpoint.trunk("word_embeddings.weight", "transformer.", "")


def _epsilon(settings: Settings) -> float:
    return settings.number("layer_norm_epsilon", default=1e-5)
