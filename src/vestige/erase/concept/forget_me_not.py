"""Forget-Me-Not: the picture stops attending to the concept's words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from vestige.erase.concept.tuning import Lesson, Points, Tuning, Weights
from vestige.models.adapters.text_to_image_network import attention_maps


@dataclass(frozen=True)
class ForgetMeNot(Tuning):
    """Train the norm of all cross-attention to the concept's tokens down.

    The loss is the Euclidean norm of the probabilities of all layers, heads and pixels at the positions of the concept,
    neither squared nor divided by their number, as in the paper; large maps weigh most. Textual inversion, which the
    paper runs first for concepts without a name, is not part of it.

    Parameters
    ----------
    weights : which are trained; all in the paper's code.
    """

    claim: ClassVar[str] = "Train attention to a concept's words away."
    source: ClassVar[str] = "Zhang et al. 2023, arXiv 2303.17591, attention resteering"

    weights: Weights = Weights.ALL

    @property
    def trained(self) -> Weights:
        """As the settings say."""
        return self.weights

    def loss(self, lesson: Lesson, points: Points, step: int) -> Tensor:
        """The norm of the attention, averaged over the batch."""
        prompts = lesson.bank.prompts
        tower = lesson.base.prompts.tower
        rows = torch.zeros(len(prompts), lesson.base.prompts.tokens, device=points.x_t.device)
        for row, prompt in zip(rows, prompts, strict=True):
            row[tower.places(prompt, lesson.concept)] = 1
        wanted = rows[points.prompt]
        with attention_maps(lesson.network) as maps:
            lesson.student.predict_embedded(points.x_t, points.t, points.embedding)
        total = torch.stack([(found * wanted[:, None, None]).square().flatten(1).sum(1) for found in maps.values()])
        return total.sum(0).sqrt().mean()
