"""ESD: erase a concept by its own negative guidance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from vestige.erase.concept.tuning import Lesson, Points, Tuning, Weights


@dataclass(frozen=True)
class ESD(Tuning):
    """Train ``e(x_t, c; W*)`` towards ``e(x_t, c) - eta (e(x_t, c) - e(x_t, ""))`` of the untouched model.

    eta = 2 is the paper's ``e("") - 1 (e(c) - e(""))``. Targets stand in the bank: they cost nothing but the
    trajectories, and a sample costs one forward and one backward pass.

    Parameters
    ----------
    eta : how far past the empty prompt's answer (1) the target lies.
    weights : cross-attention (ESD-x), its key and value maps alone (strict), or all else (ESD-u).
    """

    claim: ClassVar[str] = "Erase a concept by training against its own guidance."
    source: ClassVar[str] = "Gandikota et al. 2023, arXiv 2303.07345, equation 7"

    eta: float = 2.0
    weights: Weights = Weights.CROSS

    @property
    def trained(self) -> Weights:
        """As the settings say."""
        return self.weights

    def loss(self, lesson: Lesson, points: Points, step: int) -> Tensor:
        """Mean squared error to the target."""
        target = points.given - self.eta * (points.given - points.empty)
        answer = lesson.student.predict_embedded(points.x_t, points.t, points.embedding)
        return (answer - target).square().mean()
