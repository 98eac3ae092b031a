"""The dimension as a detector whose gradient can be taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from vestige.audit.geometry.detectors.detector import Detector, Values, require
from vestige.errors import InvalidInput
from vestige.models.denoiser import Denoiser, Images, Labels, Times
from vestige.models.guidance import Guided


@dataclass(frozen=True)
class LowDimension(Detector):
    """Minus the guided FLIPD, ``-(tr dm/dy + |y - m(y)|^2 / r^2)``, m the guided mean at ``alpha y``, r = sigma/alpha.

    The guided mean is ``m_null + scale (m_c - m_null)``, and its trace has all three terms: the public code keeps
    ``m_null`` out of the derivative and loses ``tr dm_null/dy``. One random sign vector a draw estimates the trace
    (Hutchinson); the point itself is never noised. The product with the Jacobian is taken in reverse, so that
    gradients of the value exist wherever the network has second derivatives; attention is computed by plain
    matrix products meanwhile, since fused kernels have none.

    Parameters
    ----------
    draws : number of probes, at least 1.
    scale : strength of the guidance; 1 is the conditional dimension, which needs no null condition.
    """

    claim: ClassVar[str] = "A memorized image has few directions in which the model lets it vary."
    source: ClassVar[str] = "Kamkari et al. 2024, arXiv 2406.03537; its guided form in Ross et al. 2024, 2411.00113"

    time: float = 0.1
    scale: float = 7.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.draws < 1:
            raise InvalidInput("No probe was asked for.", expected="at least 1 draw.", remedy="set draws to 1 or more.")

    @property
    def evaluations_per_draw(self) -> int:
        """The mean and one product with its Jacobian, each with and without the condition where guided."""
        return 2 if self.scale == 1 else 4

    def value(
        self, denoiser: Denoiser, points: Images, noise: Images, t: Times, condition: Labels | None = None
    ) -> Values:
        """Minus the dimension; the signs of ``noise`` are the probe. Not differentiable in the points."""
        kept = torch.is_grad_enabled()
        probe = torch.where(noise < 0, -1.0, 1.0).to(points)
        alpha, sigma = denoiser.levels(t)
        model = denoiser if self.scale == 1 else Guided(denoiser, self.scale)
        told = condition if self.scale == 1 else require(condition)
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            y, before = points.detach().requires_grad_(), denoiser.evaluations
            mean = model.mean(alpha * y, t, told)
            denoiser.evaluations += denoiser.evaluations - before  # the product, as much again
            (product,) = torch.autograd.grad((mean * probe).sum(), y, create_graph=kept)
        trace = (product * probe).flatten(1).sum(1)
        left = (points - mean if kept else points - mean.detach()).flatten(1)
        return -(trace + left.square().sum(1) * (alpha / sigma).flatten().square())
