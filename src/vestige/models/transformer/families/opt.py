"""OPT."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from vestige.errors import Unsupported
from vestige.models.transformer.block import Block, Matrix, Norm, NormKind
from vestige.models.transformer.checkpoint import Checkpoint
from vestige.models.transformer.family import Family, Outline
from vestige.models.transformer.feed import plain_feed
from vestige.models.transformer.heads import Heads, Projections
from vestige.models.transformer.settings import Settings

_EPSILON = 1e-5
_OFFSET = 2
"""Rows before the first position."""


@final
@dataclass(frozen=True)
class Opt(Family):
    """Layer norms before each part, learned positions, ReLU.

    The variant of 350 million weights, which normalises after each part and has a narrower embedding, is refused.
    """

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Model types."""
        return ("opt",)

    def outline(self, checkpoint: Checkpoint) -> Outline:
        """Checks the settings and finds the tensors."""
        settings, trunk = checkpoint.settings, _trunk(checkpoint)
        width = settings.whole("hidden_size")
        _only_plain(settings, width)
        tied = settings.flag("tie_word_embeddings", default=True)
        return Outline(
            architecture="opt",
            depth=checkpoint.depth(f"{trunk}layers.", settings.whole("num_hidden_layers")),
            width=width,
            embedding=f"{trunk}embed_tokens.weight",
            head=None if tied else "lm_head.weight",
        )

    def positions(self, checkpoint: Checkpoint) -> Matrix:
        """Reads ``embed_positions`` without the rows before the first position."""
        name, width = f"{_trunk(checkpoint)}embed_positions.weight", checkpoint.settings.whole("hidden_size")
        count = checkpoint.rows_of(checkpoint.needed(name), width)
        return checkpoint.tensor(name, count, width, rows=np.arange(_OFFSET, count, dtype=np.int64))

    def final_norm(self, checkpoint: Checkpoint) -> Norm | None:
        """Reads ``final_layer_norm``, which early versions lack."""
        if checkpoint.settings.flag("_remove_final_layer_norm", default=False):
            return None
        width = checkpoint.settings.whole("hidden_size")
        return checkpoint.norm(f"{_trunk(checkpoint)}final_layer_norm", NormKind.LAYER, width, _EPSILON)

    def block(self, checkpoint: Checkpoint, index: int) -> Block:
        """Reads one layer."""
        settings = checkpoint.settings
        layer = checkpoint.layer(f"{_trunk(checkpoint)}layers.{index}.")
        width, count = settings.whole("hidden_size"), settings.whole("num_attention_heads")
        heads = Heads.checked(settings, width, count, count)
        names = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
        parts = Projections.separate(layer, names, heads, width)
        activation = settings.activation("activation_function", default="relu")
        block = Block(
            attention=parts.attention(layer.linear("self_attn.out_proj", width, width), None),
            experts=(plain_feed(layer, "fc1", "fc2", width, activation),),
            before_attention=layer.norm("self_attn_layer_norm", NormKind.LAYER, width, _EPSILON),
            before_feed=layer.norm("final_layer_norm", NormKind.LAYER, width, _EPSILON),
        )
        layer.done()
        return block


def _trunk(checkpoint: Checkpoint) -> str:
    return checkpoint.trunk("embed_tokens.weight", "model.decoder.", "decoder.")


def _only_plain(settings: Settings, width: int) -> None:
    projected = settings.whole("word_embed_proj_dim", default=width) != width
    if projected or not settings.flag("do_layer_norm_before", default=True):
        raise Unsupported(
            f"{settings.origin} describes an OPT that normalises after each part or projects its embedding.",
            expected="norms before each part and an embedding of the stream's width, as in all sizes but 350m.",
            remedy="take another size.",
        )
