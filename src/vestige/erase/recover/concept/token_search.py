"""Adversarial prompts: tokens in front of the prompt, searched by the gradient of the erased model's own loss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from vestige.erase.recover.concept.attack import ConceptAttack, ConceptTarget, Try
from vestige.erase.recover.concept.loss import BACKWARD, check_search, denoising_losses
from vestige.erase.recover.concept.space import Tokens, TokenSpace
from vestige.models.adapters.conditioned import ConditionedDenoiser
from vestige.models.adapters.text_to_image import Latents
from vestige.models.adapters.text_to_image_prompts import Ids


@dataclass(frozen=True)
class TokenSearch(ConceptAttack):
    """Swaps k tokens in front of each prompt, one a step, for those that make its picture easiest to denoise.

    The objective is that of UnlearnDiffAtk, ``|eps - eps_hat(x_t, t, tokens + prompt)|^2`` on the base's picture of the
    prompt, and needs no judge and no other model. Its relaxed simplex gives way to the discrete gradient: the swaps
    that promise most to first order are tried on the same noise, and the best is kept if it lowers the loss. Every
    prompt is searched on its own, all in one batch.

    Parameters
    ----------
    tokens : k; 5 for objects and 3 for styles in the paper.
    marks : steps after which the prompts are tried, ascending.
    candidates : swaps that each step tries out.
    times : noise levels of the loss.
    """

    claim: ClassVar[str] = "puts words in front of the prompt, found by the gradient of the model's own loss"
    source: ClassVar[str] = "in the manner of Zhang et al. 2024 (UnlearnDiffAtk), arXiv 2310.11868"

    tokens: int = 3
    marks: tuple[int, ...] = (5, 15, 40)
    candidates: int = 8
    times: tuple[float, ...] = (0.5, 0.8)

    def __post_init__(self) -> None:
        check_search(self.times, tokens=self.tokens, marks=min(self.marks, default=0), candidates=self.candidates)

    @property
    def forwards_per_step(self) -> int:
        """Of each prompt: one with its gradient, and one a candidate, at every time."""
        return len(self.times) * (1 + BACKWARD + self.candidates)

    def tries(self, target: ConceptTarget, seed: int) -> Iterator[Try]:
        """After every mark."""
        space, denoiser = TokenSpace(target.erased), target.erased.denoiser()
        ids, clean = space.ids(target.prompts), target.of_base(seed)
        now = space.drawn(len(target.prompts), self.tokens, torch.Generator().manual_seed(seed))
        done = 0
        for mark in sorted(set(self.marks)):
            for step in range(done, mark):
                now = self._step(space, denoiser, ids, clean, now, seed, step)
            with torch.no_grad():
                rows = space.rows(space.prefixed(ids, now))
            texts = zip(space.texts(now), target.prompts, strict=True)
            yield Try(rows, (mark - done) * self.forwards_per_step, tuple(" ".join(each) for each in texts))
            done = mark

    def _step(
        self,
        space: TokenSpace,
        denoiser: ConditionedDenoiser,
        ids: list[Ids],
        clean: Latents,
        now: Tokens,
        seed: int,
        step: int,
    ) -> Tokens:
        """The tokens after the best of the most promising swaps, each row's own."""
        whole = space.prefixed(ids, now)
        bottom = space.embedded(whole)
        with torch.enable_grad():
            losses = denoising_losses(denoiser, clean, space.rows(whole, bottom), self.times, seed, step)
            opened = [each for each in bottom if each is not None]
            found = iter(torch.autograd.grad(losses.sum(), opened))
        gains = space.gains([None if each is None else next(found) for each in bottom], now)
        swaps = swapped(now, gains, self.candidates)
        with torch.no_grad():
            tried = [self._loss(space, denoiser, ids, clean, swap, seed, step) for swap in swaps]
        best = torch.stack([losses.detach(), *tried]).argmin(0).cpu()
        return torch.stack([now, *swaps])[best, torch.arange(len(now))]

    def _loss(
        self,
        space: TokenSpace,
        denoiser: ConditionedDenoiser,
        ids: list[Ids],
        clean: Latents,
        tokens: Tokens,
        seed: int,
        step: int,
    ) -> Tensor:
        rows = space.rows(space.prefixed(ids, tokens))
        return denoising_losses(denoiser, clean, rows, self.times, seed, step)


def swapped(now: Tokens, gains: Tensor, count: int) -> list[Tokens]:
    """The ``count`` single swaps of the largest gains for each row: tokens [n, k] each, the best first."""
    k, vocabulary = gains.shape[1:]
    best = gains.flatten(1).topk(min(count, k * vocabulary), dim=1).indices
    found: list[Tokens] = []
    for choice in best.T:
        swap = now.clone()
        swap[torch.arange(len(now)), choice // vocabulary] = choice % vocabulary
        found.append(swap)
    return found
