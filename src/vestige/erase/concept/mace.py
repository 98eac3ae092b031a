"""The closed forms of MACE: words around a concept lose its trace, and increments of many concepts are fused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from vestige.digest import digest_tensors
from vestige.erase import encoding
from vestige.erase.concept.closed_form import edit
from vestige.erase.concept.eraser import ConceptEraser
from vestige.erase.concept.replaced import Replaced, kept_tokens
from vestige.erase.concept.request import ConceptRequest
from vestige.erase.increment import Increment
from vestige.erase.manifest import Manifest
from vestige.errors import InvalidInput
from vestige.models.adapters.text_to_image import TextToImage
from vestige.progress import Progress


@dataclass(frozen=True)
class MACE(ConceptEraser):
    """Make all tokens of a concept's prompts read as those of the same prompts with the anchor in its place.

    The first of MACE's steps, ``W* = (sum W g f^T + lam sum W p p^T) (sum f f^T + lam sum p p^T)^-1``, f and g tokens
    at one position with the concept and with its anchor, p tokens to keep, with a small ridge to make it solvable.
    Its second step, a low-rank change trained on segmented pictures, is not part of it; any increments of single
    concepts can be fused as in its third by :func:`fused`.

    Parameters
    ----------
    prior : lam.
    ridge : added to the diagonal.
    """

    claim: ClassVar[str] = "Closed-form refinement: the words around a concept lose its trace too."
    source: ClassVar[str] = "Lu et al. 2024, arXiv 2403.06135, closed-form refinement and fusion"

    prior: float = 1.0
    ridge: float = 1e-2

    def increments(self, base: TextToImage, request: ConceptRequest, seed: int, progress: Progress) -> list[Increment]:
        """One increment for all concepts."""
        erased, become = Replaced.ALL.pairs(base, request)
        kept = kept_tokens(base, request)
        found = edit(erased, become, kept, erase_scale=1.0, keep_scale=self.prior, ridge=self.ridge)
        cost = {"steps": 1.0, "forwards_per_step": 0.0, "forward_equivalents": 0.0}
        return [self.made(base.digest, request, {}, cost=cost, seed=seed, factors=found.factors(base.readers()))]


def fused(
    base: TextToImage,
    increments: Sequence[Increment],
    prompts: Sequence[Sequence[str]],
    keep: Sequence[str],
    name: str,
    *,
    prior: float = 1.0,
    ridge: float = 1e-2,
) -> Increment:
    """One increment that acts on each concept's prompts as that concept's own does, and on prompts to keep as none.

    It minimizes ``sum_j |(W* - W - dW_j) C_j|^2 + lam |(W* - W) P|^2`` with a ridge:
    ``W* - W = sum_j dW_j C_j C_j^T (sum_j C_j C_j^T + lam P P^T + ridge I)^-1``.

    Parameters
    ----------
    increments : of layers that read the text alone, one a concept.
    prompts : each concept's own.
    prior : lam.

    Raises
    ------
    InvalidInput : no increment, another number of lists of prompts, or an increment that changes other layers.
    DigestMismatch : an increment belongs to another base.
    """
    digest, readers = base.digest, {f"{layer}.weight" for layer in base.readers()}
    wrong = [i.manifest.name for i in increments if set(i.delta) - readers]
    if not increments or len(prompts) != len(increments) or wrong:
        raise InvalidInput(
            f"The increment '{wrong[0]}' changes layers that do not read the text."
            if wrong
            else f"{len(increments)} increments and {len(prompts)} lists of prompts were given.",
            expected="increments of the layers that read the text, and the prompts of each.",
            remedy="compose other increments with `vestige increments compose`.",
        )
    grams = [_gram(base, own) for own in prompts]
    whole = torch.stack(grams).sum(0) + prior * _gram(base, ["", *keep])
    whole = whole + ridge * torch.eye(len(whole), dtype=whole.dtype)
    delta: dict[str, Tensor] = {}
    for increment, gram in zip(increments, grams, strict=True):
        increment.check_base(digest)
        share = torch.linalg.solve(whole, gram, left=False)
        for key, change in increment.delta.items():
            delta[key] = delta.get(key, torch.zeros(())) + change.double() @ share
    rounded = {key: change.float() for key, change in delta.items()}
    manifest = Manifest(
        format=encoding.format_of(rounded),
        name=name,
        base=digest,
        method="fuse",
        settings={"prior": prior, "ridge": ridge, "keep": list(keep), "prompts": [list(own) for own in prompts]},
        forgotten=sorted({row for increment in increments for row in increment.manifest.forgotten}),
        delta=digest_tensors(rounded),
    )
    return Increment(manifest, rounded)


def _gram(base: TextToImage, prompts: Sequence[str]) -> Tensor:
    tokens = base.tokens(prompts).flatten(0, 1).double().cpu()
    return tokens.mT @ tokens
