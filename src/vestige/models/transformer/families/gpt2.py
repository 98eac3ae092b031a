"""GPT-2."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import sqrt
from typing import final

import numpy as np

from vestige.models.transformer.block import Attention, Block, FeedForward, Matrix, Norm, NormKind
from vestige.models.transformer.checkpoint import Checkpoint, Layer
from vestige.models.transformer.family import Family, Outline
from vestige.models.transformer.heads import Heads, Projections


@final
@dataclass(frozen=True)
class Gpt2(Family):
    """Layer norms, learned positions, one matrix for queries, keys and values, all matrices stored [in, out]."""

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Model types."""
        return ("gpt2",)

    def outline(self, checkpoint: Checkpoint) -> Outline:
        """Checks the settings and finds the tensors."""
        settings, trunk = checkpoint.settings, _trunk(checkpoint)
        tied = settings.flag("tie_word_embeddings", default=True)
        return Outline(
            architecture="gpt2",
            depth=checkpoint.depth(f"{trunk}h.", settings.whole("n_layer", "num_hidden_layers")),
            width=_width(checkpoint),
            embedding=f"{trunk}wte.weight",
            head=None if tied else "lm_head.weight",
        )

    def positions(self, checkpoint: Checkpoint) -> Matrix:
        """Reads ``wpe``."""
        name, width = f"{_trunk(checkpoint)}wpe.weight", _width(checkpoint)
        return checkpoint.tensor(name, checkpoint.rows_of(checkpoint.needed(name), width), width)

    def final_norm(self, checkpoint: Checkpoint) -> Norm:
        """Reads ``ln_f``."""
        return checkpoint.norm(f"{_trunk(checkpoint)}ln_f", NormKind.LAYER, _width(checkpoint), _epsilon(checkpoint))

    def block(self, checkpoint: Checkpoint, index: int) -> Block:
        """Reads one layer."""
        settings, width = checkpoint.settings, _width(checkpoint)
        layer = checkpoint.layer(f"{_trunk(checkpoint)}h.{index}.")
        count = settings.whole("n_head", "num_attention_heads")
        heads = Heads.checked(settings, width, count, count)
        scale = 1 / sqrt(heads.width) if settings.flag("scale_attn_weights", default=True) else 1.0
        if settings.flag("scale_attn_by_inverse_layer_idx", default=False):
            scale /= index + 1
        hidden = layer.columns_of("mlp.c_fc.weight", width)
        up, up_bias = _transposed(layer, "mlp.c_fc", width, hidden)
        down, down_bias = _transposed(layer, "mlp.c_proj", hidden, width)
        activation = settings.activation("activation_function", default="gelu_new")
        block = Block(
            attention=_attention(layer, heads, width, scale),
            experts=(FeedForward(up, down, activation, up_bias=up_bias, down_bias=down_bias),),
            before_attention=layer.norm("ln_1", NormKind.LAYER, width, _epsilon(checkpoint)),
            before_feed=layer.norm("ln_2", NormKind.LAYER, width, _epsilon(checkpoint)),
        )
        layer.done()
        return block


def _trunk(checkpoint: Checkpoint) -> str:
    return checkpoint.trunk("wte.weight", "transformer.", "")


def _width(checkpoint: Checkpoint) -> int:
    return checkpoint.settings.whole("n_embd", "hidden_size")


def _epsilon(checkpoint: Checkpoint) -> float:
    return checkpoint.settings.number("layer_norm_epsilon", default=1e-5)


def _attention(layer: Layer, heads: Heads, width: int, scale: float) -> Attention:
    fused = layer.tensor("attn.c_attn.weight", width, 3 * width)
    bias = layer.tensor("attn.c_attn.bias", 3 * width)
    query, key, value = (
        (np.ascontiguousarray(fused[:, start : start + width].T), bias[start : start + width])
        for start in (0, width, 2 * width)
    )
    output = _transposed(layer, "attn.c_proj", width, width)
    return replace(Projections(heads, query, key, value).attention(output, None), scale=scale)


def _transposed(layer: Layer, name: str, width: int, out: int) -> tuple[Matrix, Matrix]:
    """A matrix that is stored [width, out], as [out, width], and its bias."""
    weight = layer.tensor(f"{name}.weight", width, out)
    return np.ascontiguousarray(weight.T), layer.tensor(f"{name}.bias", out)
