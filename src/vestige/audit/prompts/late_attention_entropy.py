"""Entropy of the cross-attention over the last steps of sampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from vestige.audit.geometry.detectors.detector import Values
from vestige.audit.prompts.attention import shares, spread
from vestige.audit.prompts.detector import PromptDetector
from vestige.audit.prompts.path import guided_path
from vestige.errors import InvalidInput
from vestige.models.access import Access
from vestige.models.adapters.text_to_image_network import attention_maps
from vestige.models.denoiser import Denoiser, Images, Labels


@dataclass(frozen=True)
class LateAttentionEntropy(PromptDetector):
    """``D = mean_t E_t + mean_t |S_t - S_1|`` over the last steps of guided sampling.

    ``E_t`` is the entropy of the attention over all tokens and ``S_t`` what all tokens but the first add to it. The
    paper takes for ``S_t`` the tokens that sum a prompt up, from its end on; embeddings alone do not say where a
    prompt ends, so here the words count with them.

    Parameters
    ----------
    draws : starts.
    steps, guidance : of the sampling; 50 steps in the paper.
    last : how many of the last steps count; a fifth of them in the paper.
    """

    claim: ClassVar[str] = "A prompt known by heart keeps attention spread to the end, where others fall silent."
    source: ClassVar[str] = "Ren et al. 2024, arXiv 2403.11052"
    access: ClassVar[Access] = Access.WEIGHTS

    draws: int = 2
    steps: int = 20
    guidance: float = 7.5
    last: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.last <= self.steps:
            raise InvalidInput(
                f"The last {self.last} of {self.steps} steps.", expected="1 to all of them.", remedy="set last=4."
            )

    @property
    def forwards_per_draw(self) -> int:
        """Two a step."""
        return 2 * self.steps

    def value(self, denoiser: Denoiser, noise: Images, condition: Labels) -> Values:
        """The sum of both terms for each prompt."""
        whole, summary = [], []
        with attention_maps(denoiser.module) as maps:
            for _ in guided_path(denoiser, noise, condition, steps=self.steps, guidance=self.guidance):
                told = shares(maps)[: len(noise)]  # the first half of the batch is the one with the condition
                whole.append(spread(told))
                summary.append(spread(told[:, 1:]))
        late = torch.stack(summary[-self.last :])
        return torch.stack(whole[-self.last :]).mean(0) + (late - summary[0]).abs().mean(0)
