"""Relearning: a few steps of training on pictures of the concept."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch

from vestige.erase.recover.concept.attack import ConceptAttack, ConceptTarget, Try
from vestige.erase.recover.concept.loss import BACKWARD, check_search, denoising_losses


@dataclass(frozen=True)
class RelearnConcept(ConceptAttack):
    """Trains a copy of the erased network on the base's pictures of the prompts, and asks again.

    What was hidden rather than removed comes back in fewer steps than it took to learn.

    Parameters
    ----------
    marks : steps of Adam after which the prompts are tried, ascending.
    learning_rate : of Adam, on all weights of the network.
    times : noise levels of each step, over all pictures.
    """

    claim: ClassVar[str] = "trains a few steps on pictures of the concept"
    source: ClassVar[str] = "the relearning test of machine unlearning"

    marks: tuple[int, ...] = (5, 20, 60)
    learning_rate: float = 1e-4
    times: tuple[float, ...] = (0.3, 0.6, 0.9)

    def __post_init__(self) -> None:
        check_search(self.times, marks=min(self.marks, default=0))

    def tries(self, target: ConceptTarget, seed: int) -> Iterator[Try]:
        """After every mark, drawn by the trained copy."""
        student = target.erased.with_module(copy.deepcopy(target.erased.module))
        weights = [weight for weight in student.module.parameters() if weight.is_floating_point()]
        clean, rows, denoiser = target.of_base(seed), student.embeddings(target.prompts), student.denoiser()
        optimizer, done = torch.optim.Adam(weights, lr=self.learning_rate), 0
        for mark in sorted(set(self.marks)):
            for weight in weights:
                weight.requires_grad_(True)
            for step in range(done, mark):
                optimizer.zero_grad(set_to_none=True)
                with torch.enable_grad():
                    denoising_losses(denoiser, clean, rows.to(clean.device), self.times, seed, step).mean().backward()
                optimizer.step()
            for weight in weights:
                weight.requires_grad_(False)
            yield Try(rows, spent=(mark - done) * len(self.times) * (1 + BACKWARD), model=student)
            done = mark
