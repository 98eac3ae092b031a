"""The trace that forgotten images leave: their denoising error at small noise, against that of images never seen.

A model that memorized an image removes small noise from it almost without error; from an image that it never saw it
removes no more than its knowledge of images in general allows. The ratio of the two errors is the trace: below 1 it
remains, above 1 the image was forgotten further than one never seen, which is a trace as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vestige.data.images import ImageSet
from vestige.erase.request import Request
from vestige.errors import InvalidInput
from vestige.models.denoiser import Denoiser
from vestige.randomness import Stream, generator

TIMES = (0.1, 0.2, 0.3)
"""Where the trace is looked for, as in the report's residue."""

MOST = 64
"""Forgotten images that a stopping rule looks at."""

_CHUNK = 128
"""Noisy images that are passed through the network together."""

_NEAREST = 5
"""Retained images whose distance is a trait."""

_LOOK, _LEVEL = 6, 7
"""Draws of the noise, which the steps do not use."""


def reference(request: Request) -> ImageSet:
    """Images whose error is that of images never seen.

    Raises
    ------
    InvalidInput : the request has none.
    """
    if request.unseen is None or len(request.unseen) == 0:
        raise InvalidInput(
            "There are no images that the model has not seen.",
            expected="images of the same source that were not trained on, whose level the forgotten ones are to reach.",
            remedy="pass --non-members, or choose another --method or --loop stop.",
        )
    return request.unseen


@torch.no_grad()
def errors(
    denoiser: Denoiser, images: ImageSet, rows: npt.NDArray[np.int64], times: Sequence[float], seed: int, draw: int
) -> Tensor:
    """Squared error of the predicted noise, a pixel [rows, times]; noise belongs to the row and ``draw``."""
    t = denoiser.schedule.nearest_grid(torch.tensor(times, dtype=torch.float32, device=denoiser.device))
    parts: list[Tensor] = []
    together = max(1, _CHUNK // len(times))
    for start in range(0, len(rows), together):
        chosen = rows[start : start + together]
        noise = [
            generator(seed, Stream.ERASE, int(r), draw).standard_normal((len(times), *images.shape)) for r in chosen
        ]
        eps = torch.from_numpy(np.concatenate(noise).astype(np.float32)).to(denoiser.device)
        every, at = np.repeat(chosen, len(times)), t.repeat(len(chosen))
        labels = None
        if images.labels is not None and denoiser.classes:
            labels = torch.from_numpy(images.labels[every]).to(denoiser.device)
        x_t = denoiser.noised(images.floats(every).to(denoiser.device), eps, at)
        error = (denoiser.noise(x_t, at, labels) - eps).square().flatten(1).mean(1)
        parts.append(error.view(len(chosen), len(times)).cpu())
    return torch.cat(parts)


def traits(images: ImageSet, retained: ImageSet) -> Tensor:
    """What makes an image hard to denoise for any model of the data, [n, 2].

    The logarithms of its total variation and of its distance to the nearest retained images (root mean square over
    the five nearest; an image does not count as its own neighbour).
    """
    flat, others = images.floats().flatten(1), retained.floats().flatten(1)
    pixels = images.floats()
    variation = sum(pixels.diff(dim=axis).abs().flatten(1).sum(1) for axis in (2, 3))
    near: list[Tensor] = []
    for part in flat.split(256):
        squares = torch.cdist(part, others).square()
        squares[squares < 1e-6] = torch.inf
        near.append(squares.topk(min(_NEAREST, len(others)), largest=False).values.nan_to_num(posinf=0).mean(1).sqrt())
    return torch.stack([torch.as_tensor(variation), torch.cat(near)], 1).clamp_min(1e-3).log()


@dataclass(frozen=True, eq=False)
class Level:
    """The error that a model has on an image it never saw, a pixel, as a function of time and of the image.

    ``log tau = h(t) + (b_0 + b_1 t) . (traits - mean)`` with ``h`` piecewise linear, by least squares over images never
    seen; the mean of the exponential residuals turns the mean of logarithms into one of errors (Duan 1983).

    Parameters
    ----------
    knots : of ``h``, ascending [k].
    weights : of ``h`` at the knots, ``b_0`` and ``b_1`` [k + 4].
    centre : mean traits [2].
    retained : images whose distance is a trait.
    """

    knots: Tensor
    weights: Tensor
    centre: Tensor
    retained: ImageSet

    @staticmethod
    def of(denoiser: Denoiser, request: Request, seed: int, *, samples: int = 1024, knots: int = 12) -> Level:
        """Measured on at most ``samples`` noisy images that the denoiser never saw.

        Raises
        ------
        InvalidInput : see :func:`reference`.
        """
        images, rng = reference(request), generator(seed, Stream.ERASE, 0, _LEVEL)
        centres = torch.arange(knots) / knots + 0.5 / knots
        each = max(1, samples // knots)
        rows = rng.choice(len(images), size=each, replace=len(images) < each).astype(np.int64)
        found = errors(denoiser, images, rows, centres.tolist(), seed, _LEVEL).clamp_min(1e-12).log()
        described = traits(images.take(rows), request.retain)
        empty = Level(centres, torch.zeros(knots + 4), described.mean(0), request.retain)
        design = empty.design(centres.repeat(each), described.repeat_interleave(knots, 0)).double()
        # A little ridge, for traits that do not vary.
        ridge = 1e-6 * len(design) * torch.eye(design.shape[1], dtype=torch.float64)
        weights = torch.linalg.solve(design.T @ design + ridge, design.T @ found.flatten().double())
        weights[:knots] += (found.flatten().double() - design @ weights).exp().mean().log()
        return Level(centres, weights.float(), empty.centre, request.retain)

    def design(self, t: Tensor, described: Tensor) -> Tensor:
        """Regressors at times [n] for images of traits [n, 2]: hat functions of time, traits, and their products."""
        knots = self.knots.to(t.device)
        right = torch.searchsorted(knots, t.contiguous()).clamp(1, len(knots) - 1)
        share = ((t - knots[right - 1]) / (knots[right] - knots[right - 1])).clamp(0, 1)
        hats = torch.zeros(len(t), len(knots), device=t.device)
        hats.scatter_(1, right[:, None] - 1, 1 - share[:, None]).scatter_(1, right[:, None], share[:, None])
        own = (described - self.centre).to(t.device)
        return torch.cat([hats, own, own * t[:, None]], 1)

    def at(self, t: Tensor, described: Tensor) -> Tensor:
        """Level at times [n] for images of traits [n, 2]; constant in time beyond the first and last knot."""
        inside = t.clamp(float(self.knots[0]), float(self.knots[-1]))
        return (self.design(inside, described) @ self.weights.to(t.device)).exp()


@dataclass(frozen=True, eq=False)
class Reached:
    """Whether the forgotten images stand where images never seen would: the stopping rule ``residue``.

    The error of each at ``TIMES`` is compared with its level; the rule holds as soon as the geometric mean of the
    ratios is at least 1.
    """

    images: ImageSet
    rows: npt.NDArray[np.int64]
    levels: Tensor
    seed: int

    @staticmethod
    def by(base: Denoiser, request: Request, seed: int) -> Reached:
        """The rule for a request.

        Raises
        ------
        InvalidInput : see :func:`reference`.
        """
        level = Level.of(base, request, seed)
        rows = np.sort(generator(seed, Stream.ERASE, 2, _LEVEL).permutation(len(request.forget))[:MOST])
        described = traits(request.forget.take(rows), request.retain)
        levels = [level.at(torch.full((len(rows),), t), described) for t in TIMES]
        return Reached(request.forget, rows.astype(np.int64), torch.stack(levels, 1), seed)

    def ratio(self, student: Denoiser) -> float:
        """Error on the forgotten images relative to their levels, geometric mean over images and times."""
        found = errors(student, self.images, self.rows, TIMES, self.seed, _LOOK)
        return float((found.clamp_min(1e-12) / self.levels).log().mean().exp())

    def __call__(self, student: Denoiser) -> bool:
        """Whether to stop."""
        return self.ratio(student) >= 1
