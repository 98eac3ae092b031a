"""Embedding inversion: learn a word for the concept that the erased model still understands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from vestige.erase.recover.concept.attack import ConceptAttack, ConceptTarget, Try
from vestige.erase.recover.concept.loss import BACKWARD, check_search, denoising_losses
from vestige.erase.recover.concept.space import TokenSpace


@dataclass(frozen=True)
class ConceptInversion(ConceptAttack):
    """Moves the embeddings of the concept's tokens, the same in all prompts, until its pictures are denoised best.

    From its own tokens, at the bottom of the text encoders, Adam lowers ``|eps - eps_hat(x_t, t, prompt)|^2`` of the
    erased model on the base's pictures of the prompts. Weights stay as they are: what comes back was never gone.

    Parameters
    ----------
    marks : steps after which the concept is tried, ascending.
    rate : of Adam, as a share of the root mean square of the vocabulary's embeddings.
    times : noise levels that each step is taken at.
    """

    claim: ClassVar[str] = "learns a word for the concept that the erased model still understands"
    source: ClassVar[str] = "Pham et al. 2024, arXiv 2308.01508; Gal et al. 2023, arXiv 2208.01618"

    marks: tuple[int, ...] = (5, 20, 60, 150)
    rate: float = 0.1
    times: tuple[float, ...] = (0.4, 0.7)

    def __post_init__(self) -> None:
        check_search(self.times, marks=min(self.marks, default=0))

    def tries(self, target: ConceptTarget, seed: int) -> Iterator[Try]:
        """After every mark."""
        space, model = TokenSpace(target.erased), target.erased
        denoiser, clean, ids = model.denoiser(), target.of_base(seed), space.ids(target.prompts)
        places = [[tower.places(prompt, target.concept) for prompt in target.prompts] for tower in model.prompts.towers]
        words = [_own(space, which, target.concept) for which in range(len(places))]
        free = [word for word in words if word is not None]
        scale = float(model.prompts.tower.table.square().mean().sqrt())
        optimizer = torch.optim.Adam(free, lr=self.rate * scale)
        done = 0
        for mark in sorted(set(self.marks)):
            for step in range(done, mark):
                optimizer.zero_grad(set_to_none=True)
                with torch.enable_grad():
                    rows = space.rows(ids, _embedded(space, ids, places, words))
                    denoising_losses(denoiser, clean, rows, self.times, seed, step).sum().backward()
                optimizer.step()
            with torch.no_grad():
                rows = space.rows(ids, _embedded(space, ids, places, words))
            yield Try(rows, spent=(mark - done) * len(self.times) * (1 + BACKWARD))
            done = mark


def _own(space: TokenSpace, which: int, concept: str) -> Tensor | None:
    """The concept's own embeddings [tokens, width] in one encoder, free to move."""
    tower = space.model.prompts.towers[which]
    if not space.shared[which]:
        return None
    return tower.table[tower.content(concept)].detach().clone().requires_grad_()


def _embedded(
    space: TokenSpace,
    ids: Sequence[Tensor],
    places: Sequence[Sequence[Sequence[int]]],
    words: Sequence[Tensor | None],
) -> list[Tensor | None]:
    """Embeddings of the ids with the free word at the concept's places."""
    found: list[Tensor | None] = []
    for tower, each, where, word in zip(space.model.prompts.towers, ids, places, words, strict=True):
        if word is None:
            found.append(None)
            continue
        bottom = tower.table[each.to(tower.table.device)].detach().clone()
        row = torch.tensor([r for r, spots in enumerate(where) for _ in spots], device=bottom.device)
        spot = torch.tensor([s for spots in where for s in spots], device=bottom.device)
        part = torch.tensor([i % len(word) for spots in where for i in range(len(spots))], device=bottom.device)
        found.append(bottom.index_put((row, spot), word[part]))
    return found
