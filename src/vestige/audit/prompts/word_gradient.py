"""How steeply the guidance grows with the embedding of each word."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from vestige.audit.prompts.detector import noise_of_prompts
from vestige.audit.prompts.first_guidance_norm import FirstGuidanceNorm
from vestige.audit.prompts.words import Blame, WordAttribution
from vestige.models.adapters.text_to_image import TextToImage


@dataclass(frozen=True)
class WordGradient(WordAttribution):
    """``|d A / d e_i|_2`` summed over the tokens of each word, A the length of the guidance at the first step.

    ``e_i`` are the embeddings at the bottom of the first text encoder, before words mix.

    Parameters
    ----------
    draws : starts that the gradient is averaged over.
    """

    claim: ClassVar[str] = "the words to blame are those that move the guidance most"
    source: ClassVar[str] = "Wen et al. 2024, arXiv 2407.21720, token-wise"

    draws: int = 8

    def blame(self, model: TextToImage, prompt: str, *, seed: int) -> Blame:
        """One gradient a draw."""
        tower, words = model.prompts.tower, prompt.split()
        ids = [each.ids([prompt]) for each in model.prompts.towers]
        bottom = tower.table[ids[0].to(tower.table.device)].detach().requires_grad_()
        others = [None] * (len(ids) - 1)
        empty, strength, evaluations = model.embeddings([""]), torch.zeros(bottom.shape[1]), 0
        for draw in range(self.draws):
            noise = noise_of_prompts([0], model.shape, draw, seed).to(model.device)
            with torch.enable_grad():
                rows = model.prompts.packed(*model.prompts.encode(ids, [bottom, *others]))
                denoiser = model.denoiser().with_table(torch.cat([rows, empty.to(rows)]), null_condition=1)
                value = FirstGuidanceNorm().value(denoiser, noise, torch.zeros(1, dtype=torch.int64))
                (gradient,) = torch.autograd.grad(value.sum(), bottom)
            strength += gradient[0].norm(dim=1).cpu() / self.draws
            evaluations += 3 * denoiser.evaluations
        places = _places(model, words)
        found = np.array([float(strength[spots].sum()) for spots in places])
        return Blame(tuple(words), found, evaluations)


def _places(model: TextToImage, words: list[str]) -> list[list[int]]:
    """Where the tokens of each word stand in the prompt, those that were cut off left out."""
    tower = model.prompts.tower
    at = int(tower.ids([words[0]])[0, 0] == tower.tokenizer.bos_token_id)
    found: list[list[int]] = []
    for word in words:
        count = len(tower.content(word))
        found.append([place for place in range(at, at + count) if place < tower.length])
        at += count
    return found
