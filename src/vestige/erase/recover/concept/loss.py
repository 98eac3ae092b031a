"""The denoising loss that attackers lower: how well the erased model denoises pictures of the concept."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from vestige.errors import InvalidInput
from vestige.models.adapters.conditioned import ConditionedDenoiser
from vestige.models.adapters.text_to_image import Latents
from vestige.randomness import Stream, normal

BACKWARD = 2
"""What a backward pass counts, in forward passes."""

_DRAW = 1 << 21


def denoising_losses(
    denoiser: ConditionedDenoiser,
    clean: Latents,
    rows: Float[Tensor, "n rows features"],
    times: Sequence[float],
    seed: int,
    step: int,
    names: Sequence[int] | None = None,
) -> Float[Tensor, " n"]:
    """``|eps - eps_hat(x_t, t, rows)|^2`` a pixel, averaged over ``times`` [n]; one evaluation a time.

    The noise belongs to the seed, the name of the picture (its place, if none are given), the step and the time, so
    that conditions are compared on the same noise. Differentiable in the rows and in the network.
    """
    named, total = range(len(clean)) if names is None else names, torch.zeros(len(clean), device=clean.device)
    for place, time in enumerate(times):
        drawn = normal(seed, Stream.ERASE, named, clean.shape[1:], _DRAW + step * len(times) + place)
        noise = torch.from_numpy(drawn).to(clean)
        t = denoiser.schedule.nearest_grid(torch.full((len(clean),), time, dtype=clean.dtype, device=clean.device))
        x_t, levels = denoiser.noised(clean, noise, t), denoiser.levels(t)
        found = denoiser.prediction.noise(denoiser.predict_embedded(x_t, t, rows), x_t, *levels)
        total = total + (found - noise).square().flatten(1).mean(1)
    return total / len(times)


def check_search(times: Sequence[float], **counts: int) -> None:
    """Raise InvalidInput unless there are times above 0 and at most 1, and every count is at least 1."""
    low = [f"{name}={value}" for name, value in counts.items() if value < 1]
    if low or not times or not all(0 < time <= 1 for time in times):
        raise InvalidInput(
            f"times={tuple(times)}{''.join(f', {each}' for each in low)}.",
            expected="one or more times above 0 and at most 1, and counts of at least 1.",
            remedy="change the setting.",
        )
