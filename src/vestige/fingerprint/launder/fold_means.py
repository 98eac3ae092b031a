"""Turn LayerNorm into RMSNorm."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from vestige.fingerprint.fold import Doubles
from vestige.fingerprint.launder.launder import Launder, Random
from vestige.fingerprint.launder.rule import Rule, map_blocks, norms, norms_after, untied
from vestige.models.transformer.block import Block, Norm, NormKind
from vestige.models.transformer.memory import InMemoryTransformer


def _rms(norm: Norm | None) -> Norm | None:
    return None if norm is None else replace(norm, kind=NormKind.RMS)


@dataclass(frozen=True)
class FoldMeans(Launder):
    """All that writes to the residual stream loses its mean, so that norms need not take it; the head is untied."""

    claim: ClassVar[str] = "Makes a LayerNorm model one of another kind, which can then be rotated."

    def refusal(self, model: InMemoryTransformer) -> str:
        """Every norm must take the mean away, and nothing else may stand between writing and reading."""
        if norms_after(model):
            return "a norm stands between what is written and the residual stream"
        whole = bool(norms(model)) and all(norm.kind is NormKind.LAYER for norm in norms(model))
        return "" if whole and model.last_norm is not None else "not every norm takes the mean away"

    def change(self, model: InMemoryTransformer, random: Random) -> InMemoryTransformer:
        """Centred, with RMS norms."""

        def centre(array: Doubles) -> Doubles:
            return array - array.mean(-1, keepdims=True)

        def blocks(block: Block) -> Block:
            return replace(block, before_attention=_rms(block.before_attention), before_feed=_rms(block.before_feed))

        centred = Rule(writes=centre).whole(untied(model))
        return replace(map_blocks(centred, blocks), last_norm=_rms(centred.last_norm))
