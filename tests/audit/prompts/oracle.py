"""A conditional denoiser in closed form that knows some of its prompts by heart."""

from __future__ import annotations

import math

import numpy as np
import torch

from vestige.models.adapters.function import FunctionDenoiser
from vestige.models.denoiser import Prediction
from vestige.models.schedule import DiscreteTable

SHAPE = (1, 8, 8)
D = math.prod(SHAPE)


def sd_schedule():
    """The noise levels of Stable Diffusion."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64).square()
    return DiscreteTable((1 - betas).cumprod(0))


def by_heart(memorized, prompts, seed=0, *, alone=True, schedule=None):
    """Condition i draws from a Gaussian: one picture if i is memorized, varied ones of small mean if not.

    The null condition, the last one, is what Bayes makes of it, the even mixture of all; unless ``alone``, of all that
    are not memorized, as if those pictures were out of reach without their prompts.
    """
    rng = np.random.default_rng(seed)
    known = torch.zeros(prompts, dtype=torch.bool)
    known[list(memorized)] = True
    pictures = torch.from_numpy(rng.normal(size=(prompts, D)))
    # Pictures of one class have something in common, a single picture has all of itself.
    means = torch.where(known[:, None], pictures, 0.3 * pictures)
    variances = torch.where(known, 1e-4, 0.9)
    schedule = schedule or sd_schedule()

    def clean(x_t, t, condition):
        x = x_t.double().flatten(1)[:, None]
        alpha, sigma = (level.double().view(-1, 1) for level in schedule.alpha_sigma(t))
        total = alpha**2 * variances + sigma**2
        apart = x - alpha[:, :, None] * means
        logits = -apart.square().sum(2) / (2 * total) - D / 2 * total.log()
        logits = logits if alone else logits.masked_fill(known, -torch.inf)
        told = torch.nn.functional.one_hot(condition.clamp(max=prompts - 1), prompts).double()
        weights = torch.where((condition == prompts)[:, None], logits.softmax(1), told)
        parts = means + (alpha * variances / total)[:, :, None] * apart
        return (weights[:, :, None] * parts).sum(1).view_as(x_t).to(x_t.dtype)

    settings = {
        "identity": f"by heart {sorted(memorized)} {prompts} {seed} {alone} {schedule.key()}",
        "classes": prompts,
    }
    return FunctionDenoiser(clean, schedule, Prediction.CLEAN, SHAPE, null_condition=prompts, **settings)
