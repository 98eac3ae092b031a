"""What a prompt's score loses with each of its words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vestige.audit.prompts.first_guidance_norm import FirstGuidanceNorm
from vestige.audit.prompts.words import Blame, WordAttribution, scores
from vestige.models.adapters.text_to_image import TextToImage


@dataclass(frozen=True)
class WordAblation(WordAttribution):
    """``A(prompt) - A(prompt without word i)``, A the length of the guidance at the first step, on the same noise.

    Asks no gradient, so it also works where only answers can be had.

    Parameters
    ----------
    draws : starts that the length is averaged over.
    """

    claim: ClassVar[str] = "the words to blame are those without which the prompt no longer looks memorized"
    source: ClassVar[str] = "leave one out"

    draws: int = 8

    def blame(self, model: TextToImage, prompt: str, *, seed: int) -> Blame:
        """One score for the prompt and one for each word left out."""
        words = prompt.split()
        shorter = [" ".join([*words[:place], *words[place + 1 :]]) for place in range(len(words))]
        found, evaluations = scores(FirstGuidanceNorm(draws=self.draws), model, [prompt, *shorter], 0, seed)
        return Blame(tuple(words), found[0] - found[1:], evaluations)
