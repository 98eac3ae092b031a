"""Which tokens a closed form takes for a concept, and what it puts in their place."""

from __future__ import annotations

from enum import Enum

import torch
from torch import Tensor

from vestige.erase.concept.closed_form import last_places
from vestige.erase.concept.request import ConceptRequest
from vestige.models.adapters.text_to_image import TextToImage


class Replaced(Enum):
    """Tokens of a concept's prompts."""

    LAST = "last"
    """The concept's last token in each prompt; its anchor's last one takes its place."""
    ALL = "all"
    """Every token of each prompt; the one at the same position with the anchor takes its place."""

    def pairs(self, base: TextToImage, request: ConceptRequest) -> tuple[Tensor, Tensor]:
        """Tokens to erase and what they become, [n, d] each, of all concepts."""
        erased, become = [], []
        for concept in request.concepts:
            told = zip(request.prompts(concept), request.anchored(concept), strict=True)
            for prompt, other in told:
                own, theirs = base.tokens([prompt])[0], base.tokens([other])[0]
                if self is Replaced.LAST:
                    own = own[last_places(base, prompt, concept)]
                    theirs = theirs[last_places(base, other, request.anchor(concept))]
                erased.append(own)
                become.append(theirs)
        return torch.cat(erased), torch.cat(become)


def kept_tokens(base: TextToImage, request: ConceptRequest) -> Tensor:
    """Tokens [m, d] of the empty prompt and of all prompts to keep or to guard."""
    return base.tokens(["", *request.keep, *request.guard]).flatten(0, 1)
