"""The contract of a detector: one number an image from what a denoiser answers at one noise level.

A file of this folder with a final, frozen dataclass that implements it is its registration.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vestige.audit.geometry.estimate import Doubles
from vestige.audit.geometry.estimator import Work
from vestige.errors import InvalidInput, ShapeMismatch, Unsupported
from vestige.models.access import Access
from vestige.models.denoiser import Denoiser, Images, Labels, Times
from vestige.randomness import Stream, normal

Values = Float[Tensor, " n"]


@dataclass(frozen=True, eq=False)
class Detection:
    """What a detector found at n points.

    Parameters
    ----------
    value : [n], higher = likelier memorized: the mean over draws.
    error : standard error [n] over draws; 0 where nothing was drawn, NaN after a single draw.
    evaluations : network evaluations in all, one an image; the product of a Jacobian and a vector counts as one.
    """

    value: Doubles
    error: Doubles
    evaluations: int


@dataclass(frozen=True)
class Detector(ABC):
    """Fields are settings.

    Parameters
    ----------
    time : noise level, 0 clean .. 1 noise; rounded to the nearest that the network was trained at.
    draws : how many times each point is noised. 0: not at all, the point itself is put to the network, as
        ``alpha x``, and nothing is random.
    """

    claim: ClassVar[str]
    source: ClassVar[str]
    access: ClassVar[Access] = Access.SCORES

    time: float = 0.5
    draws: int = 4

    def __post_init__(self) -> None:
        if not 0 < self.time <= 1 or self.draws < 0:
            raise InvalidInput(
                f"A {type(self).__name__} at time {self.time:g} with {self.draws} draws.",
                expected="a time above 0 and at most 1, and 0 or more draws.",
                remedy="change the setting.",
            )

    @property
    @abstractmethod
    def evaluations_per_draw(self) -> int:
        """Network evaluations that one value of one point takes."""

    @property
    def evaluations_per_point(self) -> int:
        """Network evaluations that a point takes."""
        return self.evaluations_per_draw * max(self.draws, 1)

    @abstractmethod
    def value(
        self, denoiser: Denoiser, points: Images, noise: Images, t: Times, condition: Labels | None = None
    ) -> Values:
        """The value of each point [n, c, h, w] under one draw of standard normal noise of the same shape.

        Differentiable in everything that the denoiser's answers depend on; no row looks at another.
        """

    def measure(
        self, denoiser: Denoiser, points: Images, rows: Sequence[int], condition: Labels | None = None, *, work: Work
    ) -> Detection:
        """Mean and standard error over draws at clean points [n, c, h, w].

        ``rows`` [n] names each point; its noise follows from ``work.seed`` and its name alone.

        Raises
        ------
        ShapeMismatch : the points are not of the model's shape.
        InvalidInput : there are not as many rows or conditions as points, or a condition is missing.
        Unsupported : the model lacks what the detector asks of it.
        """
        check(denoiser, points, rows, condition)
        found = np.empty((max(self.draws, 1), len(points)))
        for low in range(0, len(points), work.batch_size):
            part = slice(low, low + work.batch_size)
            chosen = points[part].to(denoiser.device)
            told = None if condition is None else condition[part].to(denoiser.device)
            t = times(denoiser, self.time, chosen)
            for draw in range(len(found)):
                noise = noise_of(chosen, rows[part], draw, work) if self.draws else torch.zeros_like(chosen)
                with torch.no_grad():
                    found[draw, part] = self.value(denoiser, chosen, noise, t, told).double().cpu().numpy()
        return Detection(found.mean(0), _error(found, self.draws), self.evaluations_per_point * len(points))

    def score(
        self, denoiser: Denoiser, points: Images, rows: Sequence[int], condition: Labels | None = None, *, work: Work
    ) -> Doubles:
        """:attr:`Detection.value` of :meth:`measure`: float64 [n], higher = likelier memorized."""
        return self.measure(denoiser, points, rows, condition, work=work).value

    def settings(self) -> dict[str, Any]:
        """Name and fields as plain values."""
        return {"detector": type(self).__name__, **{f.name: getattr(self, f.name) for f in dataclasses.fields(self)}}


def times(denoiser: Denoiser, time: float, points: Images) -> Times:
    """The trained time nearest to ``time``, one a point."""
    t = torch.full((len(points),), time, dtype=points.dtype, device=points.device)
    return denoiser.schedule.nearest_grid(t)


def noise_of(points: Images, rows: Sequence[int], draw: int, work: Work) -> Images:
    """Standard normal noise of the rows, in the shape and precision of the points."""
    return torch.from_numpy(normal(work.seed, Stream.GEOMETRY, rows, points.shape[1:], draw)).to(points)


def told_and_untold(denoiser: Denoiser, x_t: Images, t: Times, condition: Labels | None) -> tuple[Images, Images]:
    """Noise estimates with and without the condition, from one doubled batch.

    Raises
    ------
    Unsupported : the model has no label that means "no condition". InvalidInput : there is no condition.
    """
    levels = denoiser.levels(t)
    given, without = predicted(denoiser, x_t, t, condition)
    return denoiser.prediction.noise(given, x_t, *levels), denoiser.prediction.noise(without, x_t, *levels)


def predicted(denoiser: Denoiser, x_t: Images, t: Times, condition: Labels | None) -> tuple[Images, Images]:
    """The same as the network predicts it. Raises as :func:`told_and_untold`."""
    if denoiser.null_condition is None:
        raise Unsupported(
            "A guidance vector needs the model's answer without a condition, and it has no such label.",
            expected="a model trained with a null condition.",
            remedy="pass null_condition=LABEL when loading it, or use ScoreNorm, which needs none.",
        )
    told = require(condition)
    null = torch.full_like(told, denoiser.null_condition)
    given, without = denoiser.predict(x_t.repeat(2, 1, 1, 1), t.repeat(2), torch.cat([told, null])).chunk(2)
    return given, without


def require(condition: Labels | None) -> Labels:
    """The condition.

    Raises
    ------
    InvalidInput : there is none.
    """
    if condition is None:
        raise InvalidInput(
            "A guidance vector was asked for without a condition.",
            expected="a condition for every point.",
            remedy="pass the labels or prompts of the points; ScoreNorm does without.",
        )
    return condition


def check(denoiser: Denoiser, points: Images, rows: Sequence[int], condition: Labels | None) -> None:
    """Points, rows and conditions fit together and to the model.

    Raises
    ------
    ShapeMismatch, InvalidInput : they do not.
    """
    if tuple(points.shape[1:]) != denoiser.shape:
        raise ShapeMismatch(
            f"The points have shape {tuple(points.shape[1:])}.",
            expected=f"{denoiser.shape}, as the model's images.",
            remedy="resize the points, or choose the model that was trained on them.",
        )
    told = len(points) if condition is None else len(condition)
    if not len(points) == len(rows) == told:
        raise InvalidInput(
            f"{len(points)} points have {len(rows)} rows and {told} conditions.",
            expected="one of each a point.",
            remedy="pass the rows and conditions of exactly these points.",
        )


def _error(found: Doubles, draws: int) -> Doubles:
    if draws == 0:
        return np.zeros(found.shape[1])
    if draws == 1:
        return np.full(found.shape[1], np.nan)
    return found.std(0, ddof=1) / math.sqrt(draws)
