"""Phi 1, 1.5 and 2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from vestige.models.transformer.block import Block, Norm, NormKind
from vestige.models.transformer.checkpoint import Checkpoint
from vestige.models.transformer.family import Family, Outline
from vestige.models.transformer.feed import plain_feed
from vestige.models.transformer.heads import Heads, Projections
from vestige.models.transformer.rope import rotary


@final
@dataclass(frozen=True)
class Phi(Family):
    """One layer norm for both parts, which are added at once; rotary positions on a share of each head; biases."""

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Model types."""
        return ("phi",)

    def outline(self, checkpoint: Checkpoint) -> Outline:
        """Checks the settings and finds the tensors."""
        settings, trunk = checkpoint.settings, _trunk(checkpoint)
        tied = settings.flag("tie_word_embeddings", default=False)
        return Outline(
            architecture="phi",
            depth=checkpoint.depth(f"{trunk}layers.", settings.whole("num_hidden_layers")),
            width=settings.whole("hidden_size"),
            embedding=f"{trunk}embed_tokens.weight",
            head=None if tied else "lm_head.weight",
            head_bias=checkpoint.first("lm_head.bias"),
        )

    def final_norm(self, checkpoint: Checkpoint) -> Norm:
        """Reads ``final_layernorm``."""
        width = checkpoint.settings.whole("hidden_size")
        return checkpoint.norm(f"{_trunk(checkpoint)}final_layernorm", NormKind.LAYER, width, _epsilon(checkpoint))

    def block(self, checkpoint: Checkpoint, index: int) -> Block:
        """Reads one layer."""
        settings, epsilon = checkpoint.settings, _epsilon(checkpoint)
        layer = checkpoint.layer(f"{_trunk(checkpoint)}layers.{index}.")
        width, count = settings.whole("hidden_size"), settings.whole("num_attention_heads")
        heads = Heads.checked(settings, width, count, settings.whole("num_key_value_heads", default=count))
        names = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
        parts = Projections.separate(layer, names, heads, width)
        query_norm, key_norm = (
            layer.norm(name, NormKind.LAYER, heads.width, epsilon) if layer.has(f"{name}.weight") else None
            for name in ("self_attn.q_layernorm", "self_attn.k_layernorm")
        )
        activation = settings.activation("hidden_act", default="gelu_new")
        output = layer.linear("self_attn.dense", width, heads.queries)
        block = Block(
            attention=parts.attention(output, rotary(settings, heads.width), (query_norm, key_norm)),
            experts=(plain_feed(layer, "mlp.fc1", "mlp.fc2", width, activation),),
            before_attention=layer.norm("input_layernorm", NormKind.LAYER, width, epsilon),
            before_feed=None,
            parallel=True,
        )
        layer.done()
        return block


def _trunk(checkpoint: Checkpoint) -> str:
    return checkpoint.trunk("embed_tokens.weight", "model.", "")


def _epsilon(checkpoint: Checkpoint) -> float:
    return checkpoint.settings.number("layer_norm_eps", default=1e-5)
