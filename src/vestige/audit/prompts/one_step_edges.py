"""Edges that one-step images of opposite starts share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from vestige.audit.geometry.detectors.detector import Values
from vestige.audit.prompts.detector import PromptDetector
from vestige.audit.prompts.path import sampled
from vestige.models.denoiser import Denoiser, Images, Labels


@dataclass(frozen=True)
class OneStepEdges(PromptDetector):
    """``mean <grad m(x), grad m(-x)>``, m the guided clean estimate after one step from a start, grad its differences.

    The black-box form of one-step extraction counts edges that one-step images of several starts have in common:
    varied pictures average out to a blur, one picture keeps its edges. The product over a pair of opposite starts,
    which have no noise in common, is the strength of the shared edges, and needs neither a filter nor a threshold.

    Parameters
    ----------
    guidance : strength of the guidance.
    """

    claim: ClassVar[str] = "An image known by heart is there after one step, edges and all, whatever the noise."
    source: ClassVar[str] = "after Webster 2023, arXiv 2305.08694, black box"

    guidance: float = 7.5

    @property
    def forwards_per_draw(self) -> int:
        """Two at either start."""
        return 4

    def value(self, denoiser: Denoiser, noise: Images, condition: Labels) -> Values:
        """The mean over channels and neighbouring pixels of each pair."""
        both, told = torch.cat([noise, -noise]), torch.cat([condition, condition])
        drawn = sampled(denoiser, both, told, steps=1, guidance=self.guidance)
        down, right = ((side[0] * side[1]).flatten(1) for side in (drawn.diff(dim=d).chunk(2) for d in (-2, -1)))
        return torch.cat([down, right], 1).mean(1)
