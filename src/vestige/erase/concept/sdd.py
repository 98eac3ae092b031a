"""SDD: safe self-distillation towards the model's own answer to the empty prompt."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from vestige.erase.concept.tuning import Lesson, Points, Tuning, Weights


@dataclass(frozen=True)
class SDD(Tuning):
    """Train ``e(x_t, c; W*)`` towards ``sg[e(x_t, ""; W*)]``; the result is a moving average of the weights.

    Latents are those of a teacher with the averaged weights. Its trajectories are drawn anew every ``refresh`` steps
    rather than for every sample, so that they lag behind by at most that.

    Parameters
    ----------
    decay : of the moving average, m.
    refresh : steps between banks; 0 keeps the first one, of the untouched model.
    weights : which are trained.
    """

    claim: ClassVar[str] = "Distil a concept towards the model's own unconditional answer."
    source: ClassVar[str] = "Kim et al. 2023, arXiv 2307.05977, algorithm 1"

    decay: float = 0.999
    refresh: int = 0
    weights: Weights = Weights.CROSS

    @property
    def trained(self) -> Weights:
        """As the settings say."""
        return self.weights

    def loss(self, lesson: Lesson, points: Points, step: int) -> Tensor:
        """Mean squared error to the student's own answer without a prompt."""
        with torch.no_grad():
            target = lesson.student.predict(points.x_t, points.t, None)
        answer = lesson.student.predict_embedded(points.x_t, points.t, points.embedding)
        return (answer - target).square().mean()

    def after_step(self, lesson: Lesson, state: dict[str, Tensor], step: int) -> Lesson:
        """Average the weights; now and then sample with them."""
        before = lesson.base.module.state_dict()
        for name, weight in self.trained.of(lesson.network).items():
            old = state.setdefault(name, before[name].clone())
            old.lerp_(weight.detach(), 1 - self.decay)
        if not self.refresh or (step + 1) % self.refresh or step + 1 == self.steps:
            return lesson
        current = {name: weight.detach().clone() for name, weight in self.trained.of(lesson.network).items()}
        _put(lesson, state)
        teacher = lesson.base.with_module(lesson.network)
        bank = self.new_bank(teacher, lesson.bank.prompts, lesson.seed + step + 1)
        _put(lesson, current)
        for weight in self.trained.of(lesson.network).values():
            weight.requires_grad_(True)
        return dataclasses.replace(lesson, bank=bank)

    def result(self, lesson: Lesson, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The average."""
        return state


@torch.no_grad()
def _put(lesson: Lesson, values: Mapping[str, Tensor]) -> None:
    own = lesson.network.state_dict()
    for name, value in values.items():
        own[name].copy_(value)
