"""Guided trajectories of the untouched model, kept with its answers: training samples whose targets cost nothing.

Guidance asks the network twice a step, with the prompt and without. A bank keeps ``(x_t, t)`` of every step and both
answers, so that ``n`` steps give ``n`` samples with all that ESD, SepME and others compare with for 2 forwards each.
Drawing each sample anew would take on average half a trajectory and the two answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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

Answer = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Of x_t, t and the places of prompts, the raw prediction."""

_Points = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


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
    rest : the same under what stands beside the prompt, such as the prompt without a word; ``empty`` if nothing does.
    prompt : the place of each point's prompt in ``prompts`` [m].
    ends : clean latents [trajectories, c, h, w], whose prompts are ``end_prompt``.
    evaluations : of the network, spent on it.
    """

    prompts: tuple[str, ...]
    x_t: Tensor
    t: Tensor
    given: Tensor
    empty: Tensor
    rest: Tensor
    prompt: Tensor
    ends: Tensor
    end_prompt: Tensor
    evaluations: int

    @staticmethod
    def of(
        base: TextToImage,
        prompts: Sequence[str],
        each: int,
        course: Course,
        seed: int,
        beside: Sequence[str] | None = None,
        lead: Answer | None = None,
    ) -> TrajectoryBank:
        """``each`` trajectories a prompt; trajectory i of any prompt starts from the noise of row i.

        ``beside`` has a text for each prompt. ``lead`` answers the prompts in the model's place where trajectories go,
        as an erased model does; what is kept are the model's own answers. Each costs one more forward a point.
        """
        denoiser = base.denoiser([*prompts, *(beside or ())])
        wanted = [(place, row) for place in range(len(prompts)) for row in range(each)]
        found: list[_Points] = []
        for first in range(0, len(wanted), _AT_ONCE):
            chosen = wanted[first : first + _AT_ONCE]
            place = torch.tensor([place for place, _ in chosen], device=base.device)
            start = normal(seed, Stream.ERASE, [row for _, row in chosen], base.shape, 0)
            x = torch.from_numpy(start).to(base.device)
            asked = [place, torch.full_like(place, denoiser.classes), *([place + len(prompts)] if beside else [])]
            found.append(_run(denoiser, x, asked, course, lead))
        parts = [torch.cat(part) for part in zip(*found, strict=True)]
        led = 0 if lead is None else len(parts[0])
        return TrajectoryBank(tuple(prompts), *parts, evaluations=denoiser.evaluations + led)

    def points(self, prompts: Sequence[str]) -> npt.NDArray[np.int64]:
        """Places of the points that belong to these prompts."""
        wanted = [self.prompts.index(prompt) for prompt in prompts]
        return np.flatnonzero(np.isin(self.prompt.cpu().numpy(), wanted))

    def joined(self, other: TrajectoryBank) -> TrajectoryBank:
        """The points of both, whose prompts are the same."""
        mine, theirs = vars(self), vars(other)
        both = {name: torch.cat([value, theirs[name]]) for name, value in mine.items() if isinstance(value, Tensor)}
        return TrajectoryBank(self.prompts, **both, evaluations=self.evaluations + other.evaluations)

    @property
    def cost(self) -> float:
        """Forwards a point."""
        return self.evaluations / len(self.x_t)


@torch.no_grad()
def _run(
    denoiser: ConditionedDenoiser, x: Tensor, asked: Sequence[Tensor], course: Course, lead: Answer | None
) -> _Points:
    """``asked`` are the places of the prompts, of nothing, and of what stands beside the prompts if anything does."""
    times = Spacing.TRAILING.times(denoiser.schedule, course.steps)
    place, many = asked[0], len(asked)
    kept: list[list[Tensor]] = [[], [], [], [], [], []]
    for now, then in pairwise(times):
        t, s = x.new_full((len(x),), now), x.new_full((len(x),), then)
        answers = denoiser.predict(x.repeat(many, 1, 1, 1), t.repeat(many), torch.cat(list(asked))).chunk(many)
        given, empty, rest = answers[0], answers[1], answers[-1]
        for found, values in zip(kept, (x, t, given, empty, rest, place), strict=True):
            found.append(values)
        levels, (alpha, sigma) = denoiser.levels(t), denoiser.levels(s)
        guided = empty + course.guidance * ((given if lead is None else lead(x, t, place)) - empty)
        x = alpha * denoiser.prediction.mean(guided, x, *levels) + sigma * denoiser.prediction.noise(guided, x, *levels)
    x_t, t, given, empty, rest, prompt = map(torch.cat, kept)
    return x_t, t, given, empty, rest, prompt, x, place
