"""GPT-NeoX and Pythia."""

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
class GptNeox(Family):
    """Layer norms, both parts at once, rotary positions on a share of each head, queries, keys and values by head."""

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Model types."""
        return ("gpt_neox",)

    def outline(self, checkpoint: Checkpoint) -> Outline:
        """Checks the settings and finds the tensors."""
        settings, trunk = checkpoint.settings, _trunk(checkpoint)
        tied = settings.flag("tie_word_embeddings", default=False)
        return Outline(
            architecture="gpt_neox",
            depth=checkpoint.depth(f"{trunk}layers.", settings.whole("num_hidden_layers")),
            width=settings.whole("hidden_size"),
            embedding=f"{trunk}embed_in.weight",
            head=None if tied else checkpoint.first("embed_out.weight", "lm_head.weight") or "embed_out.weight",
        )

    def final_norm(self, checkpoint: Checkpoint) -> Norm:
        """Reads ``final_layer_norm``."""
        width = checkpoint.settings.whole("hidden_size")
        return checkpoint.norm(f"{_trunk(checkpoint)}final_layer_norm", NormKind.LAYER, width, _epsilon(checkpoint))

    def block(self, checkpoint: Checkpoint, index: int) -> Block:
        """Reads one layer."""
        settings, epsilon = checkpoint.settings, _epsilon(checkpoint)
        layer = checkpoint.layer(f"{_trunk(checkpoint)}layers.{index}.")
        width, count = settings.whole("hidden_size"), settings.whole("num_attention_heads")
        heads = Heads.checked(settings, width, count, count)
        parts = Projections.fused(layer, "attention.query_key_value", heads, width, grouped=True)
        output = layer.linear("attention.dense", width, width)
        activation = settings.activation("hidden_act", default="gelu")
        block = Block(
            attention=parts.attention(output, rotary(settings, heads.width)),
            experts=(plain_feed(layer, "mlp.dense_h_to_4h", "mlp.dense_4h_to_h", width, activation),),
            before_attention=layer.norm("input_layernorm", NormKind.LAYER, width, epsilon),
            before_feed=layer.norm("post_attention_layernorm", NormKind.LAYER, width, epsilon),
            parallel=settings.flag("use_parallel_residual", default=True),
        )
        layer.done()
        return block


def _trunk(checkpoint: Checkpoint) -> str:
    return checkpoint.trunk("embed_in.weight", "gpt_neox.", "")


def _epsilon(checkpoint: Checkpoint) -> float:
    return checkpoint.settings.number("layer_norm_eps", default=1e-5)
