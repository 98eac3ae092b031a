"""Which concepts to erase, in which prompts, and which prompts to keep."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from vestige.digest import digest_json
from vestige.errors import EmptySet, InvalidInput
from vestige.models.adapters.text_to_image import TextToImage
from vestige.randomness import Stream, generator

NAMING, GUARDING = 24, 300
"""Of captions, how many at most are a concept's own prompts, and how many guards."""
TEMPLATES = ("{}", "a {}", "a picture of {}")
"""Prompts that stand for a concept, if none are given."""


@dataclass(frozen=True)
class ConceptRequest:
    """Concepts to erase.

    Parameters
    ----------
    concepts : words, as they stand in prompts.
    templates : prompts that name a concept, ``{}`` in its place. The first is the one that other concepts' increments
        keep exactly; they guard the others.
    keep : prompts whose pictures must not change at all, as far as a method can promise it.
    guard : prompts whose pictures should change as little as possible.
    anchors : what stands in a concept's place in methods that replace it, one for all or one each; "" for nothing.

    Raises
    ------
    EmptySet : no concept or no template.
    InvalidInput : a concept is named twice or is to be kept, a template has no place for it, or anchors do not match.
    """

    concepts: tuple[str, ...]
    templates: tuple[str, ...] = TEMPLATES
    keep: tuple[str, ...] = ()
    guard: tuple[str, ...] = ()
    anchors: tuple[str, ...] = ("",)

    def __post_init__(self) -> None:
        if not self.concepts or not self.templates:
            raise EmptySet(
                f"{len(self.concepts)} concepts and {len(self.templates)} templates were named.",
                expected="at least one of each.",
                remedy='pass --concept "red", and again for more.',
            )
        twice = sorted({concept for concept in self.concepts if self.concepts.count(concept) > 1})
        without = [template for template in self.templates if "{}" not in template]
        both = sorted({prompt for own in map(self.prompts, self.concepts) for prompt in own} & set(self.keep))
        if twice or without or both:
            raise InvalidInput(
                f"The concept '{twice[0]}' is named twice."
                if twice
                else f"The template '{without[0]}' has no place {{}} for the concept."
                if without
                else f"The prompt '{both[0]}' is to be erased and to be kept.",
                expected="distinct concepts, templates such as 'a picture of {}', and other prompts to keep.",
                remedy="correct --concept, --template or --keep; --add keeps what earlier increments erase.",
            )
        if len(self.anchors) not in (1, len(self.concepts)):
            raise InvalidInput(
                f"{len(self.anchors)} anchors were given for {len(self.concepts)} concepts.",
                expected="one for all, or one each.",
                remedy="correct --anchor.",
            )

    def in_captions(self, captions: Sequence[str], seed: int) -> list[ConceptRequest]:
        """A request for each concept: captions that name it are its own prompts too, others are guards.

        Of more than ``NAMING`` and ``GUARDING`` so many are drawn.

        Raises
        ------
        InvalidInput : no caption names a concept, or all do.
        """
        return [self._in_captions(concept, captions, seed) for concept in self.concepts]

    def _in_captions(self, concept: str, captions: Sequence[str], seed: int) -> ConceptRequest:
        named = concept_pattern(concept)
        own = [caption for caption in captions if named.search(caption)]
        others = [caption for caption in captions if not named.search(caption)]
        if not own or not others:
            raise InvalidInput(
                f"{'Every' if own else 'None'} of {len(captions)} captions names '{concept}'.",
                expected="captions that do, to erase it in, and others to leave as they are.",
                remedy="correct --concept, or write more sentences into --captions.",
            )
        rng = generator(seed, Stream.SUBSET, 0)
        templates = [named.sub("{}", own[i]) for i in sorted(rng.permutation(len(own))[:NAMING])]
        guard = [others[i] for i in sorted(rng.permutation(len(others))[:GUARDING])]
        one = self.only(concept)
        guards = [prompt for prompt in (*one.guard, *guard) if prompt not in one.keep]
        return replace(one, templates=_once([*one.templates, *templates]), guard=_once(guards))

    def prompts(self, concept: str) -> list[str]:
        """Prompts that name a concept."""
        return [template.replace("{}", concept) for template in self.templates]

    def anchor(self, concept: str) -> str:
        """What stands in its place."""
        return self.anchors[0] if len(self.anchors) == 1 else self.anchors[self.concepts.index(concept)]

    def anchored(self, concept: str) -> list[str]:
        """Its prompts with the anchor in its place; the empty prompt where the anchor is empty."""
        anchor = self.anchor(concept)
        return [template.replace("{}", anchor) if anchor else "" for template in self.templates]

    def rests(self, concept: str) -> list[str]:
        """Its prompts without it."""
        return [" ".join(template.replace("{}", " ").split()) for template in self.templates]

    def check(self, base: TextToImage) -> None:
        """Raise InvalidInput unless every text is one that the model's tokenizer can say."""
        tower = base.prompts.tower
        for concept in self.concepts:
            tower.check(concept)
        told = [prompt for concept in self.concepts for prompt in self.prompts(concept)]
        for prompt in [*told, *self.keep, *self.guard, *self.anchors]:
            if prompt:
                tower.check(prompt)

    def only(self, concept: str) -> ConceptRequest:
        """The request for one of the concepts alone; the others' prompts are kept."""
        others = [other for other in self.concepts if other != concept]
        keep = [*self.keep, *(self.prompts(other)[0] for other in others)]
        guard = [*self.guard, *(prompt for other in others for prompt in self.prompts(other)[1:])]
        return ConceptRequest((concept,), self.templates, _once(keep), _once(guard), (self.anchor(concept),))

    @property
    def digest(self) -> str:
        """Digest of all of it."""
        return digest_json({name: list(value) for name, value in vars(self).items()})


def concept_pattern(concept: str) -> re.Pattern[str]:
    """What finds the concept's words in a text, in any case and as no part of other words."""
    return re.compile(rf"(?<!\w){re.escape(concept)}(?!\w)", re.IGNORECASE)


def _once(prompts: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(prompts))
