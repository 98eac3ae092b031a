"""The prompt as it is, again and again: what every attack has to be compared with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from vestige.erase.recover.concept.attack import ConceptAttack, ConceptTarget, Try


@dataclass(frozen=True)
class PlainPrompt(ConceptAttack):
    """Draws the prompt from new starts. A judge that errs, and luck, bring some concepts back without any search.

    Parameters
    ----------
    draws : pictures a prompt.
    """

    claim: ClassVar[str] = "asks again, from other starts (the control of all others)"
    source: ClassVar[str] = "a baseline"

    draws: int = 4

    def tries(self, target: ConceptTarget, seed: int) -> Iterator[Try]:
        """The same embeddings every time."""
        rows = target.erased.embeddings(target.prompts)
        for _ in range(self.draws):
            yield Try(rows, words=target.prompts)
