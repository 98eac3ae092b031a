"""Concept ablation: a concept is drawn as its anchor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

import torch
from torch import Tensor

from vestige.erase.concept.request import ConceptRequest
from vestige.erase.concept.tuning import Lesson, Points, Tuning, Weights


class Objective(Enum):
    """What the concept's prediction is trained towards."""

    MODEL = "model"
    """The student's own answer to the anchor, without a gradient, on the anchor's trajectories."""
    NOISE = "noise"
    """The noise put into pictures of the anchor that are called by the concept's name."""


@dataclass(frozen=True)
class ConceptAblation(Tuning):
    """Train ``e(x_t, c; W*)`` towards ``sg[e(x_t, anchor; W*)]``, or towards the noise in the anchor's pictures.

    Noise-based training adds ``prior |e(x_t, anchor) - eps|^2``. The anchor's pictures are ends of the bank's
    trajectories and never leave the latent space.

    Parameters
    ----------
    objective : model- or noise-based.
    prior : weight of the anchor's own loss, in noise-based training.
    weights : which are trained; key and value maps in the paper's default.
    """

    claim: ClassVar[str] = "Draw a concept as its anchor."
    source: ClassVar[str] = "Kumari et al. 2023, arXiv 2303.13516, equations 3 and 5"

    objective: Objective = Objective.MODEL
    prior: float = 1.0
    weights: Weights = Weights.KEYS_AND_VALUES

    @property
    def trained(self) -> Weights:
        """As the settings say."""
        return self.weights

    @property
    def graded(self) -> int:
        """Two of noise-based training."""
        return 2 if self.objective is Objective.NOISE else 1

    def bank_prompts(self, request: ConceptRequest) -> Sequence[str]:
        """Those with the anchor in the concept's place, each once."""
        return list(dict.fromkeys(request.anchored(request.concepts[0])))

    def loss(self, lesson: Lesson, points: Points, step: int) -> Tensor:
        """As the objective says."""
        told = _concept_embeddings(lesson, step, len(points.x_t))
        if self.objective is Objective.MODEL:
            with torch.no_grad():
                target = lesson.student.predict_embedded(points.x_t, points.t, points.embedding)
            return (lesson.student.predict_embedded(points.x_t, points.t, told) - target).square().mean()
        t, noise = lesson.noise(step, len(points.x_t))
        x_t = lesson.student.noised(points.end, noise, t)
        target = lesson.student.prediction.target(points.end, noise, *lesson.student.levels(t))
        own, anchor = (lesson.student.predict_embedded(x_t, t, each) for each in (told, points.embedding))
        return (own - target).square().mean() + self.prior * (anchor - target).square().mean()


def _concept_embeddings(lesson: Lesson, step: int, count: int) -> Tensor:
    """Embeddings of the concept's prompts in turn, a new one each sample."""
    rows = lesson.base.embeddings(lesson.request.prompts(lesson.concept))
    return rows[(torch.arange(count) + step * count) % len(rows)]
