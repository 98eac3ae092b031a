"""RECE: closed-form edits repeated against the embeddings that still bring the concept back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from vestige.erase.concept.closed_form import EmbeddingMap, edit, layer_gram
from vestige.erase.concept.eraser import ConceptEraser
from vestige.erase.concept.replaced import Replaced, kept_tokens
from vestige.erase.concept.request import ConceptRequest
from vestige.erase.increment import Increment
from vestige.models.adapters.text_to_image import TextToImage
from vestige.progress import Progress


@dataclass(frozen=True)
class RECE(ConceptEraser):
    """UCE, then again and again the embeddings that the edited layers read most like the concept.

    Of all embeddings c', the one that minimizes ``sum over layers of |W T c' - W c|^2 + lam |c'|^2`` is
    ``c' = (T^T K T + lam I)^-1 T^T K c`` with ``K = sum W^T W``, computed once: no epoch touches the layers or needs a
    picture. It is mapped where c was.

    Parameters
    ----------
    epochs : edits after the first.
    search_ridge : lam of the search.
    replaced, erase_scale, keep_scale, ridge : as in UCE.
    """

    claim: ClassVar[str] = "Closed-form erasure, repeated against the embeddings that would undo it."
    source: ClassVar[str] = "Gong et al. 2024, arXiv 2407.12383"

    epochs: int = 3
    search_ridge: float = 0.1
    replaced: Replaced = Replaced.ALL
    erase_scale: float = 1.0
    keep_scale: float = 1.0
    ridge: float = 0.1

    def map(self, base: TextToImage, request: ConceptRequest) -> EmbeddingMap:
        """The map of the embeddings that all edits make together."""
        erased, become = self.replaced.pairs(base, request)
        kept, gram = kept_tokens(base, request), layer_gram(base)
        found = self._edit(erased, become, kept)
        for _ in range(self.epochs):
            again = adversary(found, gram, erased, self.search_ridge)
            found = found.then(self._edit(again, become, kept))
        return found

    def _edit(self, erased: Tensor, become: Tensor, kept: Tensor) -> EmbeddingMap:
        return edit(erased, become, kept, erase_scale=self.erase_scale, keep_scale=self.keep_scale, ridge=self.ridge)

    def increments(self, base: TextToImage, request: ConceptRequest, seed: int, progress: Progress) -> list[Increment]:
        """One increment for all concepts."""
        factors = self.map(base, request).factors(base.readers())
        cost = {"steps": 1.0 + self.epochs, "forwards_per_step": 0.0, "forward_equivalents": 0.0}
        return [self.made(base.digest, request, {}, cost=cost, seed=seed, factors=factors)]


def adversary(found: EmbeddingMap, gram: Tensor, tokens: Tensor, ridge: float) -> Tensor:
    """Embeddings [n, d] that the edited layers read most as the others read ``tokens`` [n, d], see :class:`RECE`."""
    t = found.whole()
    inner = t.mT @ gram @ t + ridge * torch.eye(len(t), dtype=t.dtype)
    return torch.linalg.solve(inner, t.mT @ gram @ tokens.double().cpu().mT).mT
