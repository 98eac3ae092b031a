"""BLOOM."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

from vestige.errors import Unsupported
from vestige.models.transformer.block import Activation, Block, Norm, NormKind
from vestige.models.transformer.checkpoint import Checkpoint
from vestige.models.transformer.family import Family, Outline
from vestige.models.transformer.feed import plain_feed
from vestige.models.transformer.heads import Heads, Projections


@final
@dataclass(frozen=True)
class Bloom(Family):
    """Layer norms, one of them on the embedding, linear biases for positions, queries, keys and values by head."""

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Model types."""
        return ("bloom",)

    def outline(self, checkpoint: Checkpoint) -> Outline:
        """Checks the settings and finds the tensors."""
        settings, trunk = checkpoint.settings, _trunk(checkpoint)
        if settings.flag("apply_residual_connection_post_layernorm", default=False):
            raise Unsupported(
                f"{settings.origin} describes a BLOOM whose stream passes through its norms.",
                expected="apply_residual_connection_post_layernorm false, as in all published sizes.",
                remedy="take another model.",
            )
        return Outline(
            architecture="bloom",
            depth=checkpoint.depth(f"{trunk}h.", settings.whole("n_layer", "num_hidden_layers")),
            width=_width(checkpoint),
            embedding=f"{trunk}word_embeddings.weight",
            head=None if settings.flag("tie_word_embeddings", default=True) else "lm_head.weight",
        )

    def embedding_norm(self, checkpoint: Checkpoint) -> Norm:
        """Reads ``word_embeddings_layernorm``."""
        return _norm(checkpoint, "word_embeddings_layernorm")

    def final_norm(self, checkpoint: Checkpoint) -> Norm:
        """Reads ``ln_f``."""
        return _norm(checkpoint, "ln_f")

    def block(self, checkpoint: Checkpoint, index: int) -> Block:
        """Reads one layer."""
        settings, width = checkpoint.settings, _width(checkpoint)
        layer = checkpoint.layer(f"{_trunk(checkpoint)}h.{index}.")
        count = settings.whole("n_head", "num_attention_heads")
        heads = Heads.checked(settings, width, count, count)
        parts = Projections.fused(layer, "self_attention.query_key_value", heads, width, grouped=True)
        attention = parts.attention(layer.linear("self_attention.dense", width, width), None)
        epsilon = _epsilon(checkpoint)
        block = Block(
            attention=replace(attention, alibi=True),
            experts=(plain_feed(layer, "mlp.dense_h_to_4h", "mlp.dense_4h_to_h", width, Activation.GELU_TANH),),
            before_attention=layer.norm("input_layernorm", NormKind.LAYER, width, epsilon),
            before_feed=layer.norm("post_attention_layernorm", NormKind.LAYER, width, epsilon),
        )
        layer.done()
        return block


def _trunk(checkpoint: Checkpoint) -> str:
    return checkpoint.trunk("word_embeddings.weight", "transformer.", "")


def _width(checkpoint: Checkpoint) -> int:
    return checkpoint.settings.whole("hidden_size", "n_embed")


def _epsilon(checkpoint: Checkpoint) -> float:
    return checkpoint.settings.number("layer_norm_epsilon", default=1e-5)


def _norm(checkpoint: Checkpoint, name: str) -> Norm:
    return checkpoint.norm(_trunk(checkpoint) + name, NormKind.LAYER, _width(checkpoint), _epsilon(checkpoint))
