"""The way that guided sampling takes out of pure noise, step by step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch

from vestige.audit.geometry.detectors.detector import told_and_untold
from vestige.audit.prompts.detector import start
from vestige.models.denoiser import Denoiser, Images, Labels, Prediction, Times
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
    x_t = start(denoiser, noise)
    for now, then in pairwise(times):
        t, s = (torch.full((len(x_t),), time, dtype=x_t.dtype, device=x_t.device) for time in (now, then))
        told, untold = told_and_untold(denoiser, x_t, t, condition)
        guided = untold + guidance * (told - untold)
        clean = Prediction.NOISE.mean(guided, x_t, *denoiser.levels(t))
        yield Step(x_t, t, told, untold, clean)
        x_t = denoiser.noised(clean, guided, s)


def sampled(denoiser: Denoiser, noise: Images, condition: Labels, *, steps: int, guidance: float) -> Images:
    """Where the path ends: images, or latents, [n, c, h, w]."""
    *_, last = guided_path(denoiser, noise, condition, steps=steps, guidance=guidance)
    return last.clean
