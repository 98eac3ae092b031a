"""The table of network answers that membership attacks and dimension estimates share.

A recipe says what is put to the network about an image and which residual is kept of the
answer: two numbers a row, the sums of its squares and of its fourth powers over pixels.
Every (model, images, recipe) is one column of the store, so an answer is computed once
however many attacks read it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import pad

from vestige.data.images import ImageSet
from vestige.errors import InvalidInput
from vestige.execute import Context
from vestige.models.denoiser import Denoiser, Labels
from vestige.randomness import Stream, normal

Rows = npt.NDArray[np.int64]
Sums = npt.NDArray[np.float32]
Opening = tuple[float, str, str]

SHARD_ROWS = 128
KEPT_FLOATS = 1 << 26
"""Floats of first answers held in memory at a time, while several recipes begin with them."""

GAUSSIAN_MEAN_ABSOLUTE = math.sqrt(2 / math.pi)
"""Mean of |z| for standard normal z."""


class Condition(str, Enum):
    """What a class-conditional model is told: the image's own label, or its null condition."""

    OWN = "own"
    NULL = "null"


class Augmentation(str, Enum):
    """What is done to an image first: nothing, a horizontal flip, or a shift by one pixel with the edge repeated."""

    NONE = "none"
    FLIP = "flip"
    UP = "up"
    DOWN = "down"
    LEFT = "left"
    RIGHT = "right"

    def apply(self, images: Tensor) -> Tensor:
        """Augmented images [n, c, h, w]."""
        match self:
            case Augmentation.NONE:
                return images
            case Augmentation.FLIP:
                return images.flip(-1)
            case Augmentation.UP:
                return pad(images[..., 1:, :], (0, 0, 0, 1), mode="replicate")
            case Augmentation.DOWN:
                return pad(images[..., :-1, :], (0, 0, 1, 0), mode="replicate")
            case Augmentation.LEFT:
                return pad(images[..., 1:], (0, 1, 0, 0), mode="replicate")
            case Augmentation.RIGHT:
                return pad(images[..., :-1], (1, 0, 0, 0), mode="replicate")


@dataclass(frozen=True, eq=False)
class Batch:
    """Some rows of a set, and the first answers that were already computed for them."""

    denoiser: Denoiser
    images: ImageSet
    rows: Rows
    seed: int
    answers: dict[tuple[Opening, int, int], Tensor]
    shared: frozenset[Opening]

    def clean(self, augmentation: Augmentation) -> Tensor:
        """The images, augmented, in [-1, 1]."""
        return augmentation.apply(self.images.floats(self.rows)).to(self.denoiser.device)

    def times(self, time: float) -> Tensor:
        """One time for every row."""
        return torch.full((len(self.rows),), time, device=self.denoiser.device)

    def condition(self, condition: Condition) -> Labels | None:
        """What the model is told of each row."""
        return None if condition is Condition.NULL else label_tensor(self.denoiser, self.images, self.rows)

    def noise(self, draw: int) -> Tensor:
        """The noise of these images in one draw."""
        names = [int(self.images.ids[row], 16) for row in self.rows]
        noise = normal(self.seed, Stream.LOSS, names, self.images.shape, draw)
        return torch.from_numpy(noise).to(self.denoiser.device)

    def first(self, time: float, condition: Condition, augmentation: Augmentation) -> Tensor:
        """``eps_hat(x, t)`` of the clean image, evaluated once while several recipes begin with it."""
        opening = (time, condition.value, augmentation.value)
        place = (opening, int(self.rows[0]), len(self.rows))
        if place in self.answers:
            return self.answers[place]
        answer = self.denoiser.noise(self.clean(augmentation), self.times(time), self.condition(condition))
        if opening in self.shared:
            self.answers[place] = answer
        return answer


class Recipe(ABC):
    """What is put to the network about an image. A subclass is a frozen dataclass of plain settings."""

    condition: Condition
    augmentation: Augmentation

    @property
    @abstractmethod
    def evaluations(self) -> int:
        """Network evaluations a row, the first answer included."""

    @abstractmethod
    def residual(self, batch: Batch) -> Tensor:
        """The residual whose power sums are kept [n, c, h, w]."""

    @abstractmethod
    def settings(self, denoiser: Denoiser, seed: int) -> dict[str, Any]:
        """Plain values that determine the residual beside model, images, condition and augmentation."""

    def opening(self, denoiser: Denoiser) -> Opening | None:
        """Time, condition and augmentation of the first answer on the clean image, if the recipe begins with one."""
        return None


@dataclass(frozen=True)
class Noised(Recipe):
    """``eps_hat(alpha x + sigma eps, t) - eps``: the denoising error. The noise is that of the image and the draw."""

    time: float
    draw: int = 0
    condition: Condition = Condition.OWN
    augmentation: Augmentation = Augmentation.NONE

    @property
    def evaluations(self) -> int:
        """One."""
        return 1

    def residual(self, batch: Batch) -> Tensor:
        """The error of the predicted noise."""
        noise = batch.noise(self.draw)
        t = batch.times(snapped(batch.denoiser, self.time))
        x_t = batch.denoiser.noised(batch.clean(self.augmentation), noise, t)
        return batch.denoiser.noise(x_t, t, batch.condition(self.condition)) - noise

    def settings(self, denoiser: Denoiser, seed: int) -> dict[str, Any]:
        """Time, draw and the seed of the noise."""
        return {"input": "noised", "time": snapped(denoiser, self.time), "draw": self.draw, "seed": seed}


@dataclass(frozen=True)
class Clean(Recipe):
    """``eps_hat(x, t)``: the noise that the model sees in the image itself."""

    time: float
    condition: Condition = Condition.OWN
    augmentation: Augmentation = Augmentation.NONE

    @property
    def evaluations(self) -> int:
        """One."""
        return 1

    def residual(self, batch: Batch) -> Tensor:
        """The predicted noise."""
        return batch.first(snapped(batch.denoiser, self.time), self.condition, self.augmentation)

    def settings(self, denoiser: Denoiser, seed: int) -> dict[str, Any]:
        """The time alone."""
        return {"input": "clean", "time": snapped(denoiser, self.time)}

    def opening(self, denoiser: Denoiser) -> Opening | None:
        """The answer itself."""
        return snapped(denoiser, self.time), self.condition.value, self.augmentation.value


@dataclass(frozen=True)
class Implied(Recipe):
    """``eps_hat(alpha x + sigma e, t) - e`` with ``e = eps_hat(x, start)``, the noise that the model itself implies.

    ``normalised`` scales each ``e`` to the mean absolute value of a standard normal, sqrt(2 / pi).
    """

    time: float
    start: float
    normalised: bool = False
    condition: Condition = Condition.OWN
    augmentation: Augmentation = Augmentation.NONE

    @property
    def evaluations(self) -> int:
        """Two."""
        return 2

    def residual(self, batch: Batch) -> Tensor:
        """How far the second answer is from the first."""
        denoiser = batch.denoiser
        e = batch.first(snapped(denoiser, self.start), self.condition, self.augmentation)
        if self.normalised:
            size = e.abs().flatten(1).mean(1).clamp_min(torch.finfo(e.dtype).tiny)
            e = e * (GAUSSIAN_MEAN_ABSOLUTE / size).view(-1, 1, 1, 1)
        t = batch.times(snapped(denoiser, self.time))
        x_t = denoiser.noised(batch.clean(self.augmentation), e, t)
        return denoiser.noise(x_t, t, batch.condition(self.condition)) - e

    def settings(self, denoiser: Denoiser, seed: int) -> dict[str, Any]:
        """Both times and the normalisation."""
        times = {"time": snapped(denoiser, self.time), "start": snapped(denoiser, self.start)}
        return {"input": "implied", **times, "normalised": self.normalised}

    def opening(self, denoiser: Denoiser) -> Opening | None:
        """The implied noise."""
        return snapped(denoiser, self.start), self.condition.value, self.augmentation.value


@dataclass(frozen=True)
class Chain(Recipe):
    """``x_t - back(forth(x_t))``, x_t reached by deterministic DDIM inversion in ``steps`` equal steps of time.

    The clean image lies at time 0; its noise is asked for at ``start``. With one DDIM step
    ``phi(x, s -> r) = alpha_r mean(x, s) + sigma_r noise(x, s)``, forth is ``phi(., t -> t + t / steps)``
    and back is ``phi(., t + t / steps -> t)``.
    """

    time: float
    steps: int
    start: float
    condition: Condition = Condition.OWN
    augmentation: Augmentation = Augmentation.NONE

    @property
    def evaluations(self) -> int:
        """Two more than the steps."""
        return self.steps + 2

    def grid(self, denoiser: Denoiser) -> list[float]:
        """Times of the chain after the clean image: ``steps`` up to ``time``, and one beyond."""
        return [snapped(denoiser, self.time * (k + 1) / self.steps) for k in range(self.steps + 1)]

    def residual(self, batch: Batch) -> Tensor:
        """What one step forth and back changes."""
        denoiser, condition = batch.denoiser, batch.condition(self.condition)
        *way, beyond = self.grid(denoiser)
        e = batch.first(snapped(denoiser, self.start), self.condition, self.augmentation)
        x = denoiser.noised(batch.clean(self.augmentation), e, batch.times(way[0]))

        def step(x: Tensor, here: float, there: float) -> Tensor:
            return denoiser.noised(*denoiser.mean_and_noise(x, batch.times(here), condition), batch.times(there))

        for here, there in pairwise(way):
            x = step(x, here, there)
        return x - step(step(x, way[-1], beyond), beyond, way[-1])

    def settings(self, denoiser: Denoiser, seed: int) -> dict[str, Any]:
        """Every time of the chain."""
        return {"input": "chain", "times": self.grid(denoiser), "start": snapped(denoiser, self.start)}

    def opening(self, denoiser: Denoiser) -> Opening | None:
        """The noise of the clean image."""
        return snapped(denoiser, self.start), self.condition.value, self.augmentation.value


def snapped(denoiser: Denoiser, time: float) -> float:
    """The nearest time at which the network was trained."""
    return float(denoiser.schedule.nearest_grid(torch.tensor(time, dtype=torch.float64)))


def label_tensor(denoiser: Denoiser, images: ImageSet, rows: Rows) -> Labels | None:
    """The condition of each row for this model, or None."""
    if not denoiser.classes or images.labels is None:
        return None
    return torch.from_numpy(images.labels[rows]).to(denoiser.device)


def told(denoiser: Denoiser, images: ImageSet, condition: Condition) -> str:
    """What the model is in fact told: "own" labels, "null", or "nothing" if it knows no classes."""
    if not denoiser.classes:
        return "nothing"
    return "own" if condition is Condition.OWN and images.labels is not None else "null"


def power_sums(
    denoiser: Denoiser, images: ImageSet, recipes: Sequence[Recipe], context: Context, *, label: str
) -> Sums:
    """Sums over pixels of second and fourth powers of the residuals [rows, recipes, 2].

    Only columns that the store lacks are computed. Recipes of one call that begin with the
    same answer on the clean image share it.

    Raises
    ------
    InvalidInput : the network answered with NaN or infinity.
    """
    begins = Counter(opening for recipe in recipes if (opening := recipe.opening(denoiser)) is not None)
    shared = frozenset(opening for opening, times in begins.items() if times > 1)
    block = max(SHARD_ROWS, KEPT_FLOATS // math.prod(images.shape) // SHARD_ROWS * SHARD_ROWS)
    parts: list[Sums] = [np.empty((0, len(recipes), 2), np.float32)]
    with context.progress.task(label, len(images) * len(recipes)) as task:
        for start in range(0, len(images), block):
            part = images if len(images) <= block else images.take(np.arange(start, min(start + block, len(images))))
            answers: dict[tuple[Opening, int, int], Tensor] = {}
            table = np.empty((len(part), len(recipes), 2), np.float32)
            for place, recipe in enumerate(recipes):
                table[:, place] = _column(denoiser, part, recipe, context, answers, shared)
                task.advance(len(part))
            parts.append(table)
    return np.concatenate(parts)


def _column(
    denoiser: Denoiser,
    images: ImageSet,
    recipe: Recipe,
    context: Context,
    answers: dict[tuple[Opening, int, int], Tensor],
    shared: frozenset[Opening],
) -> Sums:
    condition = told(denoiser, images, recipe.condition)
    key = {
        "model": denoiser.digest,
        "images": images.digest,
        "condition": condition,
        "augmentation": recipe.augmentation.value,
        **recipe.settings(denoiser, context.seed),
    }

    @torch.no_grad()
    def compute(rows: Rows) -> Sums:
        sums = np.empty((len(rows), 2), np.float32)
        for start in range(0, len(rows), context.batch_size):
            some = rows[start : start + context.batch_size]
            squares = recipe.residual(Batch(denoiser, images, some, context.seed, answers, shared)).square().flatten(1)
            sums[start : start + len(some)] = torch.stack([squares.sum(1), squares.square().sum(1)], 1).cpu().numpy()
        if not np.isfinite(sums).all():
            raise InvalidInput(
                f"The network answers {key['input']} images with NaN or infinity.",
                expected="finite predictions at every time that an attack asks for.",
                remedy="check the weights, or choose times further from 0 and 1.",
            )
        return sums

    return context.store.column("probes", key).fill(len(images), compute, shard_rows=SHARD_ROWS)
