"""Say it in other words: the fewest edits that make a prompt look no longer memorized."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vestige.audit.prompts.first_guidance_norm import FirstGuidanceNorm
from vestige.audit.prompts.mitigation import Mitigated, Mitigation
from vestige.audit.prompts.words import closeness, scores
from vestige.models.adapters.text_to_image import TextToImage


@dataclass(frozen=True)
class PromptRewriting(Mitigation):
    """Leaves out or replaces one word at a time, the edit that costs least closeness for what it brings first.

    Of all single edits, those are best whose fall of the guidance's length, at the first step and on the same noise,
    is largest for each unit of closeness lost. Stops when the length is low enough, or nothing helps.

    Parameters
    ----------
    most : edits at most.
    instead : words that may take another's place.
    """

    claim: ClassVar[str] = "leaves out or replaces the words that a memorized prompt hangs on"
    source: ClassVar[str] = "after Somepalli et al. 2023, arXiv 2305.20086, and Wen et al. 2024, arXiv 2407.21720"

    most: int = 3
    instead: tuple[str, ...] = ("a", "some", "new", "other")

    def mitigate(self, model: TextToImage, prompt: str, *, seed: int) -> Mitigated:
        """One round of edits after another, each scored in one batch."""
        detector, now, spent = FirstGuidanceNorm(draws=self.draws), prompt, 0
        (first,), used = scores(detector, model, [prompt], 0, seed)
        length, spent = first, spent + used
        for _ in range(self.most):
            edits = edited(now, self.instead)
            if length <= self.share * first or not edits:
                break
            found, used = scores(detector, model, edits, 0, seed)
            spent += used
            lost = np.maximum(1 - closeness(model, prompt, edits), 1e-3)
            best = int(np.argmax(np.maximum(length - found, 0) / lost))
            if found[best] >= length:
                break
            now, length = edits[best], float(found[best])
        (before, after), used = scores(detector, model, [prompt, now], 1, seed)
        near = float(closeness(model, prompt, [now])[0])
        return Mitigated(prompt, now, model.embeddings([now]), float(before), float(after), near, spent + used)


def edited(prompt: str, instead: tuple[str, ...]) -> list[str]:
    """The prompt with one word left out or replaced, each result once; never empty and never the prompt itself."""
    words = prompt.split()
    found: list[str] = []
    for place in range(len(words)):
        for new in ("", *instead):
            parts = [*words[:place], *([new] if new else []), *words[place + 1 :]]
            found.append(" ".join(parts))
    return [text for text in dict.fromkeys(found) if text and text != " ".join(words)]
