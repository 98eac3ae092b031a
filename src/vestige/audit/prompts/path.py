"""The way that guided sampling takes out of pure noise, step by step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch

from vestige.audit.geometry.detectors.detector import predicted
from vestige.models.denoiser import Denoiser, Images, Labels, Times
from vestige.models.sampler import Spacing


@dataclass(frozen=True, eq=False)
class Step:
    """One step: where it stands ``x_t`` at times ``t``, the noise estimates with and without the condition there.

    ``clean`` is the clean image that the guided estimate points at; that of the last step is the sample.
    """

    x_t: Images
    t: Times
    told: Images
    untold: Images
    clean: Images


def guided_path(denoiser: Denoiser, noise: Images, condition: Labels, *, steps: int, guidance: float) -> Iterator[Step]:
    """Deterministic guided sampling (DDIM; arXiv 2010.02502, equation 12) from ``noise`` [n, c, h, w].

    Costs two network evaluations a step and image. Nothing is clipped, so that it holds for latents.

    Raises
    ------
    Unsupported : the model has no null condition.
    InvalidInput : fewer steps than one, or more than were trained.
    """
    times = Spacing.TRAILING.times(denoiser.schedule, steps)
    kind, x_t = denoiser.prediction, noise
    for number, (now, then) in enumerate(pairwise(times)):
        t, s = (torch.full((len(noise),), time, dtype=noise.dtype, device=noise.device) for time in (now, then))
        levels = denoiser.levels(t)
        x_t = levels[1] * noise if number == 0 else x_t
        told, untold = predicted(denoiser, x_t, t, condition)
        guided = untold + guidance * (told - untold)
        # From the prediction itself, since a noise estimate alone says nothing where no signal is left.
        clean, rest = kind.mean(guided, x_t, *levels), kind.noise(guided, x_t, *levels)
        yield Step(x_t, t, kind.noise(told, x_t, *levels), kind.noise(untold, x_t, *levels), clean)
        x_t = denoiser.noised(clean, rest, s)


def sampled(denoiser: Denoiser, noise: Images, condition: Labels, *, steps: int, guidance: float) -> Images:
    """Where the path ends: images, or latents, [n, c, h, w]."""
    *_, last = guided_path(denoiser, noise, condition, steps=steps, guidance=guidance)
    return last.clean
