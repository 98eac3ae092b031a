"""What in a condition drives memorization: which token of a prompt, or which label."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from vestige.audit.geometry.detectors.detector import Detection, Detector, check, noise_of, times
from vestige.audit.geometry.detectors.guidance_norm import GuidanceNorm
from vestige.audit.geometry.estimate import Doubles, Integers
from vestige.audit.geometry.estimator import Work
from vestige.errors import InvalidInput, Unsupported
from vestige.models.adapters.conditioned import ConditionedDenoiser
from vestige.models.denoiser import Denoiser, Images, Labels


@dataclass(frozen=True, eq=False)
class Attribution:
    """How much each part of the condition matters to each of n points.

    Parameters
    ----------
    strength : [n, parts], higher = drives memorization more; NaN where the model has no answer.
    error : standard error [n, parts], NaN where unknown.
    evaluations : network evaluations in all, one an image; a backward pass counts as much as what it goes back over.
    """

    strength: Doubles
    error: Doubles
    evaluations: int

    @property
    def order(self) -> Integers:
        """Parts [n, parts] of each point, the strongest first; the earlier of two equals first."""
        return np.argsort(-self.strength, axis=1, kind="stable")


@dataclass(frozen=True)
class TokenAttribution:
    """Length of the gradient of a detector in each token's embedding, averaged over levels and draws.

    ``g_i = mean |d A / d e_i|_2`` with A the detector's value at one point. The null condition's embedding is held
    fixed. Of the public code two defects are left out: the answer without the condition stays inside the derivative
    in the point (:class:`~vestige.audit.geometry.detectors.low_dimension.LowDimension`), and the halves of the batch
    with and without the condition are not swapped, so that no sampling step is guided backwards; the points are given,
    not passed on the way. Every point has a gradient of its own, whatever else is in its batch.

    Parameters
    ----------
    detector : whose value is attributed. Its own time and number of draws play no part.
    at : noise levels, 0 clean .. 1 noise.
    draws : draws of noise, or of probes, a level; the same at every level.
    """

    claim: ClassVar[str] = "The tokens that a memorized image hangs on are those that move its detector most."
    source: ClassVar[str] = "Ross et al. 2024, arXiv 2411.00113; Wen et al. 2024"

    detector: Detector = dataclasses.field(default_factory=GuidanceNorm)
    at: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    draws: int = 4

    def __post_init__(self) -> None:
        if not self.at or not all(0 < time <= 1 for time in self.at) or self.draws < 1:
            raise InvalidInput(
                f"Attribution at times {self.at} with {self.draws} draws.",
                expected="one or more times above 0 and at most 1, and at least 1 draw.",
                remedy="change the setting.",
            )

    def attribute(
        self, denoiser: Denoiser, points: Images, rows: Sequence[int], condition: Labels, *, work: Work
    ) -> Attribution:
        """Strength [n, tokens] of every token of the prompts ``condition`` [n] at clean points [n, c, h, w].

        The standard error is that of the mean over draws, each averaged over levels first; NaN after a single draw.

        Raises
        ------
        Unsupported : the model is told labels, not embeddings, or does not let gradients through to them.
        ShapeMismatch, InvalidInput : points, rows and conditions do not fit together or to the model.
        """
        if not isinstance(denoiser, ConditionedDenoiser):
            raise Unsupported(
                f"A {type(denoiser).__name__} is told no embeddings, so there are no tokens to tell apart.",
                expected="a ConditionedDenoiser.",
                remedy="ask ConditionAttribution which label matters.",
            )
        check(denoiser, points, rows, condition)
        found, before = np.zeros((self.draws, len(points), denoiser.table.shape[1])), denoiser.evaluations
        for low in range(0, len(points), work.batch_size):
            part = slice(low, low + work.batch_size)
            chosen, told = points[part].to(denoiser.device), condition[part].to(denoiser.device)
            for draw in range(self.draws):
                noise = noise_of(chosen, rows[part], draw, work)
                for time in self.at:
                    found[draw, part] += self._gradient(denoiser, chosen, noise, time, told)
        found /= len(self.at)
        unknown = np.full(found.shape[1:], np.nan)
        error = unknown if self.draws == 1 else found.std(0, ddof=1) / math.sqrt(self.draws)
        return Attribution(found.mean(0), error, denoiser.evaluations - before)

    def _gradient(
        self, denoiser: ConditionedDenoiser, points: Images, noise: Images, time: float, condition: Labels
    ) -> Doubles:
        """Length of the gradient [n, tokens] of each point's value at one level and draw."""
        with torch.enable_grad(), _frozen(denoiser.network):
            told = denoiser.embedding(condition, len(condition)).detach().clone().requires_grad_()
            view = _asked_with(denoiser, told)
            own = torch.arange(len(points), device=condition.device)
            value = self.detector.value(view, points, noise, times(denoiser, time, points), own)
            denoiser.evaluations += 2 * view.evaluations  # there and back
            gradient = None
            if value.requires_grad:
                (gradient,) = torch.autograd.grad(value.sum(), told, allow_unused=True)
        if gradient is None:
            raise Unsupported(
                "The network lets no gradient through to its embeddings.",
                expected="a network that torch can differentiate in the embedding.",
                remedy="remove no_grad, detach and numpy from it, or rank whole prompts with ConditionAttribution.",
            )
        return gradient.double().norm(dim=2).cpu().numpy()

    def settings(self) -> dict[str, Any]:
        """Name and fields as plain values."""
        own = {"at": list(self.at), "draws": self.draws}
        return {"attribution": "TokenAttribution", "detector": self.detector.settings(), **own}


@dataclass(frozen=True)
class ConditionAttribution:
    """A detector's value under every condition: which label, or which of several prompts, a point hangs on.

    The condition of the largest value (longest guidance vector, smallest dimension) is the first of
    :attr:`Attribution.order`.
    """

    claim: ClassVar[str] = "The label that a memorized image hangs on is the one under which it looks most memorized."
    source: ClassVar[str] = "Ross et al. 2024, arXiv 2411.00113: a condition can only take dimensions away"

    detector: Detector = dataclasses.field(default_factory=GuidanceNorm)

    def attribute(self, denoiser: Denoiser, points: Images, rows: Sequence[int], *, work: Work) -> Attribution:
        """Strength [n, classes] of every condition at clean points [n, c, h, w]; the null condition is left out.

        Raises
        ------
        Unsupported : the model takes no conditions.
        """
        if not denoiser.classes:
            raise Unsupported(
                "The model takes no condition.",
                expected="a class-conditional or text-conditioned model.",
                remedy="look at the unconditional dimension of the points instead.",
            )
        every: list[Detection] = []
        for label in range(denoiser.classes):
            told = torch.full((len(points),), label, device=points.device)
            every.append(self.detector.measure(denoiser, points, rows, told, work=work))
        strength, error = np.stack([d.value for d in every], axis=1), np.stack([d.error for d in every], axis=1)
        return Attribution(strength, error, sum(d.evaluations for d in every))

    def settings(self) -> dict[str, Any]:
        """Name and fields as plain values."""
        return {"attribution": "ConditionAttribution", "detector": self.detector.settings()}


def _asked_with(denoiser: ConditionedDenoiser, told: Tensor) -> ConditionedDenoiser:
    """The same network with one row of the table a point, and the null condition last."""
    if denoiser.null_condition is None:
        return denoiser.with_table(told)
    null = denoiser.table[-1:].detach().to(told)
    return denoiser.with_table(torch.cat([told, null]), null_condition=len(told))


@contextmanager
def _frozen(network: object) -> Generator[None, None, None]:
    """Ask for no gradients of weights meanwhile: a graph then holds only what the embeddings touch."""
    asked = [p for p in network.parameters() if p.requires_grad] if isinstance(network, nn.Module) else []
    for parameter in asked:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in asked:
            parameter.requires_grad_(True)
