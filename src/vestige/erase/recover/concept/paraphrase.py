"""The concept in other words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from vestige.erase.concept.request import concept_pattern
from vestige.erase.recover.concept.attack import ConceptAttack, ConceptTarget, Try
from vestige.errors import InvalidInput


@dataclass(frozen=True)
class Paraphrase(ConceptAttack):
    """Rewrites each prompt around the concept, or the concept itself, by templates.

    Parameters
    ----------
    templates : with ``{prompt}`` for the prompt, ``{concept}`` for the concept and ``{rest}`` for the prompt without
        it; one try each.
    """

    claim: ClassVar[str] = "says the concept in other words"
    source: ClassVar[str] = "a black-box attack that needs no gradient"

    templates: tuple[str, ...] = (
        "{concept}",
        "{concept} {prompt}",
        "{prompt} {concept}",
        "a picture of {concept}, {rest}",
        "{rest}, very {concept}",
        "{concept} {concept} {concept} {rest}",
    )

    def __post_init__(self) -> None:
        for template in self.templates:
            if not any(part in template for part in ("{prompt}", "{concept}", "{rest}")):
                raise InvalidInput(
                    f"The template '{template}' has no place for a prompt.",
                    expected="{prompt}, {concept} or {rest} in it.",
                    remedy="put one in.",
                )

    def tries(self, target: ConceptTarget, seed: int) -> Iterator[Try]:
        """One template after the other."""
        for template in self.templates:
            texts = tuple(_filled(template, prompt, target.concept) for prompt in target.prompts)
            yield Try(target.erased.embeddings(texts), words=texts)


def without(prompt: str, concept: str) -> str:
    """The prompt without the concept's words."""
    return " ".join(concept_pattern(concept).sub(" ", prompt).split())


def _filled(template: str, prompt: str, concept: str) -> str:
    told = {"{prompt}": prompt, "{concept}": concept, "{rest}": without(prompt, concept)}
    for place, text in told.items():
        template = template.replace(place, text)
    return " ".join(template.split())
