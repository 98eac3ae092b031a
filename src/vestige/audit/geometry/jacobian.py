"""Products with the Jacobian of a denoiser's mean, ``J = dm/dy`` at a clean point y and ratio ``r = sigma/alpha``.

``m(y) = E[x_0 | x_t = alpha y]`` is what every parametrization has in common. For the exact mean,
``J = Cov(x_0 | y) / r^2`` is symmetric, near 1 along the directions that the noise may move a point in and near 0
across them.

The network is linearised once a batch and level: the point itself is evaluated once, and products cost no further
evaluation of it. They are taken in reverse mode, with the transpose, which has the same trace and the same quadratic
forms. Forward mode would evaluate the point anew for every stack of tangents, took about twice as long on a UNet, and
does not exist for fused attention, which reverse mode leaves as it is.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from vestige.audit.geometry.estimate import Doubles
from vestige.audit.geometry.estimator import Work
from vestige.audit.geometry.levels import Batch
from vestige.errors import Unsupported
from vestige.models.denoiser import Denoiser
from vestige.models.guidance import Guided
from vestige.randomness import Stream, generator

Function = Callable[[Tensor], Tensor]
Way = Callable[[Function, Tensor], tuple[Tensor, Function]]

MOST = 4096
"""Ambient dimension above which nothing is measured along every axis: a 4 x 64 x 64 latent has 16,384."""

_LIVE = 8
"""Largest tensors of an evaluation that one product holds at the same time, about."""

_SIGNS = 1 << 32
"""Draw that random signs start at, away from the draws of normal noise for the same row."""


def signs(seed: int, rows: Sequence[int], shape: Sequence[int], draws: int) -> Tensor:
    """Rademacher probes [draws, len(rows), *shape], +1 or -1, one independent stream a row and draw."""
    found = np.empty((draws, len(rows), *shape), np.float32)
    for k in range(draws):
        for place, row in enumerate(rows):
            bits = generator(seed, Stream.GEOMETRY, row, _SIGNS + k).integers(0, 2, tuple(shape), np.int8)
            found[k, place] = 2 * bits - 1
    return torch.from_numpy(found)


def together(function: Function, y: Tensor) -> tuple[Tensor, Function]:
    """Value at y and ``v -> J' v`` for a stack of tangents at once."""
    with torch.no_grad():  # of the outer level alone: no weight is differentiated
        value, product = torch.func.vjp(function, y)[:2]
    return value, torch.func.vmap(lambda v: product(v)[0])


def one_by_one(function: Function, y: Tensor) -> tuple[Tensor, Function]:
    """Value at y and ``v -> J' v``, tangent after tangent: for a network with a part that takes no stack of them."""
    with torch.enable_grad():
        leaf = y.detach().requires_grad_()
        value = function(leaf)

    def product(tangents: Tensor) -> Tensor:
        return torch.stack([torch.autograd.grad(value, leaf, v, retain_graph=True)[0] for v in tangents])

    return value.detach(), product


WAYS: tuple[Way, ...] = (together, one_by_one)
"""In the order in which they are tried."""


def refuse_axes(ambient: int, evaluations: int) -> None:
    """Refuse what takes so many evaluations a point and level because it looks along every axis.

    Raises
    ------
    Unsupported : the ambient dimension is above ``MOST``.
    """
    if ambient > MOST:
        raise Unsupported(
            f"Looking along all {ambient:,} axes takes {evaluations:,} evaluations a point and level.",
            expected=f"at most {MOST:,} dimensions.",
            remedy="use DSM, or FLIPD or LHSD with a few probes, whose cost does not grow with the dimension.",
        )


class _Tally(TorchDispatchMode):
    """Bytes of all tensors that are computed, and of the largest."""

    def __init__(self) -> None:
        super().__init__()
        self.total = self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(tensor, Tensor):
                size = tensor.numel() * tensor.element_size()
                self.total, self.largest = self.total + size, max(self.largest, size)
        return made


class Differentiator:
    """Linearises the mean of a denoiser at batches of points, within a memory budget.

    The first batch holds one point, which shows how much memory a point takes. A network that fails on a stack of
    tangents is evaluated again, and from then on given one after the other.
    """

    def __init__(self, denoiser: Denoiser, work: Work, ways: Sequence[Way] = WAYS) -> None:
        self.denoiser, self.work, self._ways = denoiser, work, list(ways)
        self._counted = [denoiser]
        while isinstance(inner := self._counted[-1], Guided):
            self._counted.append(inner.inner)
        self._tally: _Tally | None = None

    @property
    def ambient(self) -> int:
        """Pixels times channels."""
        return math.prod(self.denoiser.shape)

    def all_axes(self, probes: int, exact: int) -> bool:
        """Whether the trace is to be taken along every axis: in up to ``exact`` dimensions, or as many as probes.

        Raises
        ------
        Unsupported : it is, in more than ``MOST`` dimensions.
        """
        if self.ambient > max(probes, exact):
            return False
        refuse_axes(self.ambient, self.ambient)
        return True

    def size(self) -> int:
        """How many points the next batch may hold."""
        if self._tally is None:
            return 1
        return max(1, min(self.work.batch_size, self.work.budget // max(1, 2 * self._tally.total)))

    def chunk(self, points: int) -> int:
        """How many tangents so many points may be multiplied with at once."""
        if self._tally is None:
            return 1
        left = self.work.budget - points * self._tally.total
        fit = left // max(1, points * _LIVE * self._tally.largest)
        return max(1, min(fit, self.work.batch_size // points))  # a stack is a batch of images to the network

    def at(self, batch: Batch, time: float) -> Jacobian:
        """The mean and its Jacobian at the points of a batch, one evaluation each."""
        t = batch.times(time)
        denoiser, levels = self.denoiser, self.denoiser.levels(t)

        def mean(y: Tensor) -> Tensor:
            x_t = levels[0] * y
            prediction = denoiser.predict(x_t, t, batch.condition)
            if not prediction.requires_grad:
                raise Unsupported(
                    "The network's answer carries no derivative.",
                    expected="a network that autograd follows from its image to its prediction.",
                    remedy="remove no_grad, inference_mode or detach from it, or use DSM, which needs no derivative.",
                )
            return denoiser.prediction.mean(prediction, x_t, *levels)

        return Jacobian(self, mean, batch.points)

    def counts(self) -> list[int]:
        """Evaluations so far of the denoiser and of those that it wraps."""
        return [d.evaluations for d in self._counted]

    def count(self, counts: Sequence[int]) -> None:
        """Set :meth:`counts`."""
        for denoiser, value in zip(self._counted, counts, strict=True):
            denoiser.evaluations = value

    def linearise(self, function: Function, y: Tensor) -> tuple[Tensor, Function, list[int]]:
        """Value and products by the first way that works, and what one evaluation adds to :meth:`counts`."""
        while True:
            before = self.counts()
            try:
                value, product = self._tallied(function, y) if self._tally is None else self._ways[0](function, y)
                return value, product, [now - then for now, then in zip(self.counts(), before, strict=True)]
            except (RuntimeError, NotImplementedError) as error:
                self.give_up(error)

    def _tallied(self, function: Function, y: Tensor) -> tuple[Tensor, Function]:
        with _Tally() as tally:
            found = self._ways[0](function, y)
        self._tally = tally
        return found

    def give_up(self, error: Exception) -> None:
        """Turn to the next way, or raise the error if there is none or it tells of something else."""
        if len(self._ways) == 1 or isinstance(error, torch.OutOfMemoryError):
            raise error
        del self._ways[0]


class Jacobian:
    """The mean [b, c, h, w] of a batch at one level, and products with its Jacobian.

    A product counts as one evaluation a point (two for a guided model, which asks its network twice).
    """

    def __init__(self, owner: Differentiator, function: Function, y: Tensor) -> None:
        self._owner, self._function, self._y = owner, function, y
        self.mean, self._product, self._cost = owner.linearise(function, y)

    def times(self, tangents: Tensor) -> Tensor:
        """Products [k, b, c, h, w] of the transpose with tangents of that shape."""
        parts = tangents.split(self._owner.chunk(len(self._y)))
        return torch.cat([self._multiplied(part) for part in parts])

    def _multiplied(self, tangents: Tensor) -> Tensor:
        before = self._owner.counts()
        while True:
            try:
                with torch.no_grad(), warnings.catch_warnings():
                    # Fused attention has no rule for stacks of tangents: torch takes them in turn, and says so.
                    warnings.filterwarnings("ignore", message="There is a performance drop")
                    found = self._product(tangents)
                break
            except (RuntimeError, NotImplementedError) as error:
                self._owner.give_up(error)
                self.mean, self._product, self._cost = self._owner.linearise(self._function, self._y)
                before = self._owner.counts()
        self._owner.count([b + len(tangents) * c for b, c in zip(before, self._cost, strict=True)])
        return found

    def quadratic(self, probes: Tensor) -> Doubles:
        """``v' J v`` [b, k] of probes [k, b, c, h, w]: with random signs, each an unbiased estimate of the trace."""
        found: list[Tensor] = []
        for part in probes.split(self._owner.chunk(len(self._y))):
            found.append((part * self.times(part)).flatten(2).sum(2, dtype=torch.float64).cpu())
        return torch.cat(found).T.numpy()

    def trace(self) -> Doubles:
        """The trace [b] from a product with every axis."""
        ambient, total = self._y[0].numel(), torch.zeros(len(self._y), dtype=torch.float64)
        for start in range(0, ambient, step := self._owner.chunk(len(self._y))):
            axes = torch.arange(start, min(start + step, ambient), device=self._y.device)
            one = torch.nn.functional.one_hot(axes, ambient).to(self._y)
            tangents = one.view(-1, 1, *self._y.shape[1:]).expand(-1, len(self._y), -1, -1, -1)
            total += (tangents * self.times(tangents)).flatten(2).sum((0, 2), dtype=torch.float64).cpu()
        return total.numpy()


def flattened(images: Tensor) -> Tensor:
    """[..., c, h, w] as [..., d]."""
    return images.flatten(-3)


def squared(images: Tensor) -> Doubles:
    """Sum of squares [n] of images [n, c, h, w]."""
    return flattened(images).square().sum(-1, dtype=torch.float64).cpu().numpy()
