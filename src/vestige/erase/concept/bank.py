"""Guided trajectories of the untouched model, kept with its answers: training samples whose targets cost nothing.

Guidance asks the network twice a step, with the prompt and without. A bank keeps ``(x_t, t)`` of every step and both
answers, so that ``n`` steps give ``n`` samples with all that ESD, SepME and others compare with for 2 forwards each.
Drawing each sample anew would take on average half a trajectory and the two answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vestige.models.adapters.conditioned import ConditionedDenoiser
from vestige.models.adapters.text_to_image import TextToImage
from vestige.models.sampler import Spacing
from vestige.randomness import Stream, normal

_AT_ONCE = 32

_Points = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Course:
    """How trajectories run: deterministic steps (DDIM) under guidance."""

    steps: int = 25
    guidance: float = 3.0


@dataclass(frozen=True, eq=False)
class TrajectoryBank:
    """Points on trajectories [m] and the model's answers there.

    Parameters
    ----------
    x_t, t : noisy latents [m, c, h, w] and times [m].
    given, empty : raw predictions under the prompt and under the empty one.
    prompt : the place of each point's prompt in ``prompts`` [m].
    ends : clean latents [trajectories, c, h, w], whose prompts are ``end_prompt``.
    evaluations : of the network, spent on it.
    """

    prompts: tuple[str, ...]
    x_t: Tensor
    t: Tensor
    given: Tensor
    empty: Tensor
    prompt: Tensor
    ends: Tensor
    end_prompt: Tensor
    evaluations: int

    @staticmethod
    def of(base: TextToImage, prompts: Sequence[str], each: int, course: Course, seed: int) -> TrajectoryBank:
        """``each`` trajectories a prompt; trajectory i of any prompt starts from the noise of row i."""
        denoiser = base.denoiser(prompts)
        asked = [(place, row) for place in range(len(prompts)) for row in range(each)]
        found: list[_Points] = []
        for first in range(0, len(asked), _AT_ONCE):
            chosen = asked[first : first + _AT_ONCE]
            place = torch.tensor([place for place, _ in chosen], device=base.device)
            start = normal(seed, Stream.ERASE, [row for _, row in chosen], base.shape, 0)
            x = torch.from_numpy(start).to(base.device)
            found.append(_run(denoiser, x, place, course))
        x_t, t, given, empty, prompt, ends, end_prompt = map(torch.cat, zip(*found, strict=True))
        return TrajectoryBank(
            tuple(prompts), x_t, t, given, empty, prompt, ends, end_prompt, evaluations=denoiser.evaluations
        )

    def points(self, prompts: Sequence[str]) -> npt.NDArray[np.int64]:
        """Places of the points that belong to these prompts."""
        wanted = [self.prompts.index(prompt) for prompt in prompts]
        return np.flatnonzero(np.isin(self.prompt.cpu().numpy(), wanted))

    @property
    def cost(self) -> float:
        """Forwards a point."""
        return self.evaluations / len(self.x_t)


@torch.no_grad()
def _run(denoiser: ConditionedDenoiser, x: Tensor, place: Tensor, course: Course) -> _Points:
    times = Spacing.TRAILING.times(denoiser.schedule, course.steps)
    kept: list[list[Tensor]] = [[], [], [], [], []]
    nothing = torch.full_like(place, denoiser.classes)
    for now, then in pairwise(times):
        t, s = x.new_full((len(x),), now), x.new_full((len(x),), then)
        both = denoiser.predict(x.repeat(2, 1, 1, 1), t.repeat(2), torch.cat([place, nothing]))
        given, empty = both.chunk(2)
        for found, values in zip(kept, (x, t, given, empty, place), strict=True):
            found.append(values)
        levels, (alpha, sigma) = denoiser.levels(t), denoiser.levels(s)
        guided = empty + course.guidance * (given - empty)
        x = alpha * denoiser.prediction.mean(guided, x, *levels) + sigma * denoiser.prediction.noise(guided, x, *levels)
    x_t, t, given, empty, prompt = map(torch.cat, kept)
    return x_t, t, given, empty, prompt, x, place
