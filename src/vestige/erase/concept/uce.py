"""UCE: unified concept editing, all layers at once by one map of the embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vestige.erase.concept.closed_form import EmbeddingMap, edit
from vestige.erase.concept.eraser import ConceptEraser
from vestige.erase.concept.replaced import Replaced, kept_tokens
from vestige.erase.concept.request import ConceptRequest
from vestige.erase.increment import Increment
from vestige.models.adapters.text_to_image import TextToImage
from vestige.progress import Progress


@dataclass(frozen=True)
class UCE(ConceptEraser):
    """Make a concept's tokens read as its anchor's, in closed form, kept tokens as they were.

    See :mod:`vestige.erase.concept.closed_form`. All concepts of a request make one increment, whose rank is at most
    the number of their tokens.

    Parameters
    ----------
    replaced : which tokens of a concept's prompts are mapped.
    erase_scale, keep_scale, ridge : s_e, s_p and lam.
    """

    claim: ClassVar[str] = "Replace concepts by others in closed form, without training."
    source: ClassVar[str] = "Gandikota et al. 2024, arXiv 2308.14761, equation 7"

    replaced: Replaced = Replaced.LAST
    erase_scale: float = 1.0
    keep_scale: float = 1.0
    ridge: float = 0.5

    def map(self, base: TextToImage, request: ConceptRequest) -> EmbeddingMap:
        """The map of the embeddings that the edit is."""
        erased, become = self.replaced.pairs(base, request)
        kept = kept_tokens(base, request)
        return edit(erased, become, kept, erase_scale=self.erase_scale, keep_scale=self.keep_scale, ridge=self.ridge)

    def increments(self, base: TextToImage, request: ConceptRequest, seed: int, progress: Progress) -> list[Increment]:
        """One increment for all concepts."""
        factors = self.map(base, request).factors(base.readers())
        cost = {"steps": 1.0, "forwards_per_step": 0.0, "forward_equivalents": 0.0}
        return [self.made(base.digest, request, {}, cost=cost, seed=seed, factors=factors)]
