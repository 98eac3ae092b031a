"""Hidden states of two models on the same texts, compared by linear CKA."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vestige.errors import InvalidInput
from vestige.fingerprint.evidence.aligned_cka import cosine
from vestige.fingerprint.evidence.evidence import Evidence, Finding
from vestige.fingerprint.fold import Doubles
from vestige.fingerprint.pair import Pair
from vestige.fingerprint.words import Commonest, Rows
from vestige.models.transformer.block import Transformer
from vestige.models.transformer.forward import states, through
from vestige.randomness import Stream, generator


@dataclass(frozen=True)
class ReefLike(Evidence):
    """Linear CKA of the hidden states after one layer, at the last token of fixed prompts.

    ``|A^T B|^2 / (|A^T A| |B^T B|)`` with columns centred over prompts, biased as published. The paper takes the
    layer 18 of 32 and 200 questions of TruthfulQA; without a tokenizer the prompts here are seeded sequences of
    tokens that both models have, common ones, so that they mean nothing.

    Parameters
    ----------
    prompts, length : texts and tokens in each.
    depth : after which share of the layers states are taken.
    seed : of the prompts.
    """

    claim: ClassVar[str] = "What a model makes of texts keeps its geometry when the model is tuned."
    source: ClassVar[str] = "Zhang et al. 2025, arXiv 2410.14273 (REEF)"

    prompts: int = 64
    length: int = 12
    depth: float = 18 / 32
    seed: int = 0

    def __post_init__(self) -> None:
        if self.prompts < 4 or self.length < 1 or not 0 < self.depth <= 1:
            raise InvalidInput(
                f"ReefLike with {self.prompts} prompts of {self.length} tokens after {self.depth} of the layers.",
                expected="at least 4 prompts of a token and a share above 0 and at most 1.",
                remedy="change the setting.",
            )

    def measure(self, pair: Pair) -> Finding:
        """The CKA in [0, 1]; its deviation is about that of unrelated states, ``1 / sqrt(prompts)``."""
        ours, theirs = (entry.rows for entry in pair.entries(Commonest(4096)))
        if len(ours) < 8:
            return self.nothing("the models share too few tokens")
        texts = generator(self.seed, Stream.CONTROL, row=0).integers(len(ours), size=(self.prompts, self.length))
        first, second = (
            self._states(model, rows[texts]) for model, rows in zip(pair.models, (ours, theirs), strict=True)
        )
        return Finding(self.name, cosine(first @ first.T, second @ second.T), self.prompts**-0.5)

    def _states(self, model: Transformer, texts: Rows) -> Doubles:
        """Centred states [prompts, d] after the layer."""
        streams = [next(states(model, text)) for text in texts]
        for index in range(max(1, round(self.depth * model.depth))):
            block = model.block(index)
            streams = [through(stream, block) for stream in streams]
        held = np.stack([stream[-1] for stream in streams]).astype(np.float64)
        return held - held.mean(0)
