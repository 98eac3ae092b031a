"""Noise levels at which a dimension is estimated, and the sweep over them that every estimator of a model makes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vestige.audit.geometry.estimate import Curve, Doubles
from vestige.errors import EmptySet, InvalidInput, ShapeMismatch, Unsupported
from vestige.models.denoiser import Denoiser, Images, Labels
from vestige.models.schedule import Schedule
from vestige.randomness import Stream, normal

RATIOS: tuple[float, ...] = (0.01, 0.0158, 0.0251, 0.0398, 0.0631, 0.1, 0.158, 0.251, 0.398, 0.631, 1.0)
"""Ratios sigma/alpha, five to a decade, for points that fill about [-1, 1].

Below the first a pixel moves by less than a grey value of an 8-bit image; above the last nothing local is left.
"""


@dataclass(frozen=True, eq=False)
class Levels:
    """Times of a schedule [levels], ascending, and the ratio sigma/alpha [levels] that really holds at each."""

    times: Doubles
    ratios: Doubles

    def __len__(self) -> int:
        return len(self.times)


def check_ratios(ratios: Sequence[float]) -> None:
    """Raise InvalidInput unless there is a ratio and each is positive and finite."""
    if not ratios or not all(0 < r < math.inf for r in ratios):
        raise InvalidInput(
            f"The noise levels are {tuple(ratios)}.",
            expected="one or more positive ratios sigma/alpha.",
            remedy="leave `ratios` at its default, or give for example (0.05, 0.1, 0.2).",
        )


def levels(schedule: Schedule, ratios: Sequence[float]) -> Levels:
    """The times of a schedule nearest to the ratios sigma/alpha, rounded to steps that a network was trained at.

    Ratios that fall on one step are merged, and those beyond the end of the schedule, where no signal is left, are
    dropped.

    Raises
    ------
    InvalidInput : no ratio, or one that is not positive. Unsupported : the schedule reaches none of them.
    """
    check_ratios(ratios)
    found: dict[float, float] = {}
    for ratio in ratios:
        time = schedule.nearest_grid(torch.tensor(schedule.time_of_ratio(ratio), dtype=torch.float64))
        alpha, sigma = (float(v) for v in schedule.alpha_sigma(time))
        if alpha > 0 and sigma > 0:
            found[float(time)] = sigma / alpha
    if not found:
        raise Unsupported(
            f"The schedule reaches none of the noise levels {tuple(ratios)}.",
            expected="a ratio sigma/alpha between its first and last step.",
            remedy="choose other `ratios`.",
        )
    times = np.array(sorted(found))
    return Levels(times, np.array([found[t] for t in times]))


@dataclass(frozen=True, eq=False)
class Batch:
    """Some of the points [b, c, h, w] on the model's device, their names and their conditions."""

    points: Images
    rows: tuple[int, ...]
    condition: Labels | None

    def __len__(self) -> int:
        return len(self.points)

    def take(self, place: slice) -> Batch:
        """Some of them."""
        return Batch(self.points[place], self.rows[place], None if self.condition is None else self.condition[place])

    def repeat(self, times: int) -> Batch:
        """All of them, so many times over."""
        labels = None if self.condition is None else self.condition.repeat(times)
        return Batch(self.points.repeat(times, 1, 1, 1), self.rows * times, labels)

    def noised(self, ratio: float, seed: int) -> Batch:
        """``y + r z`` with one normal draw z a point, which belongs to its row."""
        z = torch.from_numpy(normal(seed, Stream.GEOMETRY, self.rows, self.points.shape[1:]))
        return Batch(self.points + ratio * z.to(self.points), self.rows, self.condition)

    def times(self, time: float) -> Tensor:
        """One time for all [b], in the precision of the points."""
        return torch.full((len(self.points),), time, dtype=self.points.dtype, device=self.points.device)


def _batches(
    points: Images, rows: Sequence[int], condition: Labels | None, size: Callable[[], int], device: torch.device
) -> Iterator[tuple[slice, Batch]]:
    start = 0
    every = Batch(points.detach(), tuple(int(r) for r in rows), condition)
    while start < len(points):
        place = slice(start, start + size())
        part = every.take(place)
        labels = None if part.condition is None else part.condition.to(device)
        # With one channel other strides pass for contiguous, and derivatives of group norm then fail.
        plain = part.points.to(device).clone(memory_format=torch.contiguous_format)
        yield place, Batch(plain, part.rows, labels)
        start = place.stop


def _check(denoiser: Denoiser, points: Images, rows: Sequence[int], condition: Labels | None) -> None:
    if len(points) == 0:
        raise EmptySet("No point was given.", expected="at least one.", remedy="name points to look at.")
    if tuple(points.shape[1:]) != denoiser.shape:
        raise ShapeMismatch(
            f"The points have shape {tuple(points.shape[1:])}.",
            expected=f"{denoiser.shape}, as the model's images.",
            remedy="resize the points, or choose the model that was trained on them.",
        )
    if len(rows) != len(points) or (condition is not None and len(condition) != len(points)):
        raise InvalidInput(
            f"{len(points)} points come with {len(rows)} names"
            + ("." if condition is None else f" and {len(condition)} conditions."),
            expected="one of each a point.",
            remedy="pass as many.",
        )
    if any(int(r) < 0 for r in rows):
        raise InvalidInput("A row is negative.", expected="rows from 0 on.", remedy="name points by their row.")


def sweep(
    denoiser: Denoiser,
    points: Images,
    rows: Sequence[int],
    condition: Labels | None,
    ratios: Sequence[float],
    size: Callable[[], int],
    measure: Callable[[Batch, Levels], tuple[Doubles, Doubles]],
    scales: Callable[[Doubles], Doubles] = lambda ratios: ratios,
) -> Curve:
    """The curve that ``measure`` gives batch by batch, as dimension and standard error [b, scales].

    ``size`` is asked before every batch how many points it may hold; ``scales`` says from the ratios of the levels
    where the estimates stand, for those that do not stand at the levels themselves.

    Raises
    ------
    EmptySet, ShapeMismatch, InvalidInput : points, names and conditions do not fit together or to the model.
    """
    _check(denoiser, points, rows, condition)
    grid = levels(denoiser.schedule, ratios)
    before, scale = denoiser.evaluations, scales(grid.ratios)
    value, error = np.full((2, len(points), len(scale)), np.nan)
    for place, batch in _batches(points, rows, condition, size, denoiser.device):
        value[place], error[place] = measure(batch, grid)
    ambient = math.prod(denoiser.shape)
    return Curve(scale, value, error, ambient, denoiser.evaluations - before)
