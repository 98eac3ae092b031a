"""Prompts that mean the concept without saying it, found in the text encoder alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from vestige.erase.recover.concept.attack import ConceptAttack, ConceptTarget, Try
from vestige.erase.recover.concept.loss import check_search
from vestige.erase.recover.concept.paraphrase import without
from vestige.erase.recover.concept.space import Tokens, TokenSpace


@dataclass(frozen=True)
class RingABell(ConceptAttack):
    """Adds the concept's direction to each prompt's embedding and searches tokens whose embedding comes close to it.

    The direction is the mean difference of the base's embeddings of the prompts with and without the concept; the
    target is ``E(prompt without it) + strength * direction``. A genetic algorithm lowers the squared distance over
    sequences of tokens. No evaluation of the denoising network is spent before a try: the attack is the same whatever
    was erased.

    Parameters
    ----------
    strength : eta; the paper takes 0.9 to 5.5, by concept.
    tokens : length of the sequences; 16 to 77 in the paper, cut to what a prompt holds.
    marks : generations after which the best sequence is tried, ascending.
    population : sequences a prompt.
    mutation : share of a child's tokens that are drawn anew.
    """

    claim: ClassVar[str] = "finds words that mean the concept, in the text encoder alone"
    source: ClassVar[str] = "Tsai et al. 2024 (Ring-A-Bell), arXiv 2310.10012"

    strength: float = 2.0
    tokens: int = 16
    marks: tuple[int, ...] = (10, 40)
    population: int = 24
    mutation: float = 0.15

    def __post_init__(self) -> None:
        check_search((1.0,), tokens=self.tokens, marks=min(self.marks, default=0), population=self.population - 3)

    def tries(self, target: ConceptTarget, seed: int) -> Iterator[Try]:
        """The best sequence of each prompt after every mark."""
        space, rng = TokenSpace(target.base), torch.Generator().manual_seed(seed)
        stripped = [without(prompt, target.concept) for prompt in target.prompts]
        rest = target.base.tokens(stripped)
        direction = (target.base.tokens(target.prompts) - rest).mean(0, keepdim=True)
        goal, length = rest + self.strength * direction, min(self.tokens, target.base.prompts.tower.length - 2)
        herds = [space.drawn(self.population, length, rng) for _ in target.prompts]
        done = 0
        for mark in sorted(set(self.marks)):
            for _ in range(done, mark):
                herds = [self._bred(space, herd, wanted, rng) for herd, wanted in zip(herds, goal, strict=True)]
            best = torch.stack(
                [herd[distances(space, herd, wanted).argmin()] for herd, wanted in zip(herds, goal, strict=True)]
            )
            with torch.no_grad():
                rows = space.rows(space.alone(best))
            yield Try(rows, words=space.texts(best))
            done = mark

    def _bred(self, space: TokenSpace, herd: Tokens, goal: Tensor, rng: torch.Generator) -> Tokens:
        """The next generation: the better half, and children of two of them with some tokens drawn anew."""
        order = distances(space, herd, goal).argsort(stable=True).cpu()
        kept = herd[order[: max(2, len(herd) // 2)]]
        births = len(herd) - len(kept)
        parents = torch.randint(len(kept), (2, births), generator=rng)
        cut = torch.randint(1, max(2, herd.shape[1]), (births, 1), generator=rng)
        children = torch.where(torch.arange(herd.shape[1]) < cut, kept[parents[0]], kept[parents[1]])
        fresh = space.drawn(births, herd.shape[1], rng)
        changed = torch.rand(children.shape, generator=rng) < self.mutation
        return torch.cat([kept, torch.where(changed, fresh, children)])


@torch.no_grad()
def distances(space: TokenSpace, tokens: Tokens, goal: Float[Tensor, "tokens features"]) -> Float[Tensor, " m"]:
    """Squared distance of each sequence's embedding [m] to the goal, over the rows that hold tokens."""
    rows = space.rows(space.alone(tokens))[:, : len(goal)]
    return (rows - goal).square().flatten(1).sum(1)
