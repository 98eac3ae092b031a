"""Entropy of the cross-attention at the first step of sampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vestige.audit.geometry.detectors.detector import Values
from vestige.audit.prompts.attention import shares, spread
from vestige.audit.prompts.detector import PromptDetector, start
from vestige.models.access import Access
from vestige.models.adapters.text_to_image_network import attention_maps
from vestige.models.denoiser import Denoiser, Images, Labels


@dataclass(frozen=True)
class AttentionEntropy(PromptDetector):
    """``E = -sum_i a_i log a_i`` in nats at time 1.

    ``a_i`` is the share of token i in the attention, averaged over layers, heads and pixels. The paper takes one
    chosen layer of Stable Diffusion for this form; here all layers count.
    """

    claim: ClassVar[str] = "A prompt known by heart spreads attention over its tokens instead of the first one."
    source: ClassVar[str] = "Ren et al. 2024, arXiv 2403.11052, first-step form"
    access: ClassVar[Access] = Access.WEIGHTS

    @property
    def forwards_per_draw(self) -> int:
        """One: nobody asks without the condition."""
        return 1

    def value(self, denoiser: Denoiser, noise: Images, condition: Labels) -> Values:
        """The entropy of each prompt."""
        with attention_maps(denoiser.module) as maps:
            denoiser.predict(*start(denoiser, noise), condition)
        return spread(shares(maps))
