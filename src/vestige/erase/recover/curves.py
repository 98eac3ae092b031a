"""Relearning curves: the error on images while a copy of a model is trained on some of them."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vestige.data.images import ImageSet
from vestige.erase.driver import draw_batch, noise_loss
from vestige.erase.recover.measure import DRAW, Floats, denoising_errors
from vestige.execute import Context
from vestige.models.denoiser import Denoiser
from vestige.randomness import Stream, generator

Key = tuple[str, str]
"""Model, ``erased`` or ``reference``, and images, ``forgotten`` or ``unseen``."""

TUNED, OTHERS = 0, 1


def marks_up_to(steps: int) -> list[int]:
    """0, 1, 2, 4, 8, …, ending with ``steps``."""
    return sorted({0, *(1 << k for k in range(steps.bit_length()) if 1 << k <= steps), steps})


@dataclass(frozen=True)
class Training:
    """How a copy is trained and where its error is measured.

    ``images`` bounds how many are trained on, and how many others are looked at.
    """

    seeds: int
    images: int
    steps: int
    batch_size: int
    learning_rate: float
    times: tuple[float, ...]
    draws: int

    def size(self, total: int) -> int:
        """How many of ``total`` images a seed trains on, and at how many others it looks if there are two at all.

        Few enough that no two seeds share one, as long as there is an image a seed: the interval over seeds then
        speaks of images like these, not of these alone.
        """
        return max(1, min(self.images, total // max(self.seeds, 2)))

    def parts(self, images: ImageSet, size: int, number: int, seed: int) -> tuple[ImageSet, ImageSet]:
        """Images that seed ``number`` trains on, and others: those that the next seed trains on."""
        order = generator(seed, Stream.ERASE, len(images), DRAW + 1).permutation(len(images))
        own, next_ = ((np.arange(size) + size * place) % len(order) for place in (number, number + 1))
        return images.take(order[own]), images.take(order[np.setdiff1d(next_, own)])

    def evaluations(self, looked: int, marks: int, steps: int) -> int:
        """Network evaluations of one curve that looks at so many images; a backward pass counts two."""
        return 3 * steps * self.batch_size + marks * looked * len(self.times) * self.draws

    def curves(self, model: Denoiser, images: ImageSet, size: int, steps: int, context: Context, label: str) -> Floats:
        """Mean error a pixel [seeds, marks, 2]: of the images trained on, and of others of the set (NaN without any).

        The draw of images, batches and noise belongs to the seed's number, whatever the model. ``steps`` 0 looks
        at the model as it is. Each seed is kept in the store.
        """
        key: dict[str, Any] = {"model": model.digest, "images": images.digest, "seed": context.seed, "size": size}
        key |= {"steps": steps, "batch": self.batch_size, "rate": self.learning_rate}
        key |= {"times": list(self.times), "draws": self.draws}
        column = context.store.column("recover-relearn", key)

        def compute(rows: npt.NDArray[np.int64]) -> Floats:
            return np.stack([self._curve(model, images, size, steps, int(row), context) for row in rows])

        return column.fill(self.seeds, compute, shard_rows=1, progress=context.progress, label=label)

    def _curve(self, model: Denoiser, images: ImageSet, size: int, steps: int, number: int, context: Context) -> Floats:
        rng = generator(context.seed, Stream.ERASE, number, DRAW + 2)
        parts = self.parts(images, size, number, context.seed)
        student = model.with_module(copy.deepcopy(model.module)) if steps else model
        before, marks = student.evaluations, marks_up_to(steps)
        found = np.full((len(marks), 2), np.nan)
        optimizer = torch.optim.Adam(_trained(student), lr=self.learning_rate) if steps else None
        for step in range(steps + 1):
            if step in marks:
                for side, part in enumerate(parts):
                    if len(part):
                        errors = denoising_errors(
                            student, part, self.times, self.draws, context.seed, context.batch_size
                        )
                        found[marks.index(step), side] = errors.mean()
            if optimizer is not None and step < steps:
                optimizer.zero_grad(set_to_none=True)
                noise_loss(student, draw_batch(student, parts[0], rng, self.batch_size)).backward()
                optimizer.step()
        if student is not model:
            model.evaluations += student.evaluations - before
        return found


def _trained(student: Denoiser) -> list[torch.nn.Parameter]:
    weights = list(student.module.parameters())
    for weight in weights:
        weight.requires_grad_(True)
    return weights


def steps_to_reach(curve: Floats, marks: Sequence[int], level: float) -> float:
    """Steps until a curve [marks] first is at or below ``level``, linear between marks; infinite if it never is."""
    for place, value in enumerate(curve):
        if value <= level:
            if place == 0:
                return 0.0
            before = float(curve[place - 1])
            share = (before - level) / (before - float(value))
            return marks[place - 1] + share * (marks[place] - marks[place - 1])
    return math.inf


def saved(steps: Floats, control: Floats, budget: int) -> Floats:
    """Share of the control's steps that were not needed, in [-1, 1]: ``(c - e) / max(c, e)``, 0 where both are 0.

    What was never reached counts as the budget, which draws a share towards 0.
    """
    ours, theirs = np.minimum(steps, budget), np.minimum(control, budget)
    longest = np.maximum(ours, theirs)
    return np.where(longest > 0, (theirs - ours) / np.where(longest > 0, longest, 1), 0.0)


@dataclass(frozen=True, eq=False)
class Runs:
    """Curves [seeds, marks, 2] of error after ``marks`` steps, and the base's error on forgotten images [seeds, 2].

    The last axis tells images trained on from others of the same set, which are NaN where there are none.
    """

    marks: list[int]
    curves: dict[Key, Floats]
    base: Floats
    recovered: float

    @property
    def control(self) -> Key:
        """What the erased model's relearning of the forgotten images is compared with."""
        return ("reference", "forgotten") if ("reference", "forgotten") in self.curves else ("erased", "unseen")

    @property
    def sides(self) -> tuple[int, ...]:
        """The last axis's places that hold anything."""
        return (TUNED,) if np.isnan(self.base[:, OTHERS]).any() else (TUNED, OTHERS)

    def level(self, images: str) -> Floats:
        """Error that counts as recovered [seeds, 2].

        The control's first error times ``(base / control)^recovered``. With a reference, unseen images are asked for
        the same factor below its first error on them.
        """
        first = self.curves[self.control][:, 0]
        start = self.curves["reference", images][:, 0] if self.control[0] == "reference" else first
        return start * (self.base / first) ** self.recovered

    @cached_property
    def steps(self) -> dict[Key, Floats]:
        """Steps until the error fell to the level [seeds, 2], infinite where it did not."""
        found: dict[Key, Floats] = {}
        for (model, images), curves in self.curves.items():
            level = self.level(images)
            rows = [
                [steps_to_reach(curve[:, side], self.marks, float(goal[side])) for side in (TUNED, OTHERS)]
                for curve, goal in zip(curves, level, strict=True)
            ]
            found[model, images] = np.array(rows)
        return found

    @property
    def steps_of_base(self) -> dict[Key, Floats]:
        """The same with the base for the erased model: at the level before the first step, if it ever was below.

        On unseen images, on which it was not run, it is taken to be like the control.
        """
        there = np.where(self.base <= self.level("forgotten"), 0.0, math.inf)
        found = {**self.steps, ("erased", "forgotten"): there}
        if ("reference", "unseen") in found:
            found["erased", "unseen"] = found["reference", "unseen"]
        return found
