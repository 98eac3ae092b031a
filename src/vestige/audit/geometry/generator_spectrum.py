"""How many directions a GAN or a decoder varies in at its own generations: the spectrum of its Jacobian."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import jvp, vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from vestige.audit.geometry.estimate import Curve, Dimension, Doubles, Integers, Reading
from vestige.audit.geometry.estimator import Work
from vestige.audit.geometry.reading import at_level
from vestige.errors import InvalidInput, Unsupported
from vestige.models.access import Access
from vestige.models.adapters.gan import GanGenerator
from vestige.models.network import device_of, still_settled
from vestige.randomness import Stream, normal

Network = Callable[[Tensor], Tensor]

_HELD = 6
"""Copies of its largest layer that one tangent holds at the worst moment: input, output and their workspace."""

_NEAR = 1e-2
"""A step of the latent that shows whether an image moves where its derivative is 0."""


class Measure(str, Enum):
    """Which singular values s_1 >= s_2 >= ... count, for a threshold h."""

    RELATIVE = "relative"
    """``#{i : s_i > h s_1}``."""
    ENERGY = "energy"
    """The least k with ``s_1^2 + ... + s_k^2 >= (1 - h)`` of the whole."""
    PARTICIPATION = "participation"
    """``(sum s^2)^2 / sum s^4``, in between whole numbers; there is no threshold."""
    PIXELS = "pixels"
    """``#{i : s_i > h}``, s_i the root-mean-square change, with pixels in [0, 1], for one standard deviation of the
    latent. The only one of the four to which a generation that hardly moves at all is an atom."""

    def dimension(self, values: Doubles, thresholds: Doubles) -> Doubles:
        """Dimension [n, thresholds] of descending singular values [n, k]; 0 where all of them are 0."""
        square = np.square(values)
        whole = square.sum(1, keepdims=True)
        match self:
            case Measure.RELATIVE:
                found = (values[:, :, None] > thresholds * values[:, :1, None]).sum(1)
            case Measure.ENERGY:
                # A shortfall of rounding alone is no shortfall: what is left is summed, not what is there.
                left = np.cumsum(square[:, ::-1], axis=1)[:, ::-1]
                found = (left[:, :, None] > thresholds * whole[:, :, None]).sum(1)
            case Measure.PARTICIPATION:
                share = square / np.where(whole > 0, whole, 1)
                fourth = np.square(share).sum(1, keepdims=True)
                found = np.where(fourth > 0, 1 / np.where(fourth > 0, fourth, 1), 0).repeat(len(thresholds), 1)
            case Measure.PIXELS:
                found = (values[:, :, None] > thresholds).sum(1)
        return found.astype(np.float64)


@dataclass(frozen=True)
class GeneratorSpectrum:
    """Rank of dG/dz at the generations of a GAN, or of any decoder wrapped as one.

    The curve runs over thresholds, for all of which the singular values are computed once; they are exact, so its
    errors are 0. The dimension of the latent is an upper bound that no measure can pass, whatever the data are.

    Parameters
    ----------
    measure : which singular values count.
    thresholds : ascending, each above 0 and below 1; a participation ratio has none and reads its only level.
    threshold : one of ``thresholds``, where the dimension is read. None: at the widest stretch of thresholds over
        which the count stays the same, if it spans a factor of ``gap`` (a gap in the spectrum), else undetermined.
    gap : least ratio of thresholds, above 1, that makes a gap.
    """

    claim: ClassVar[str] = "A generator that memorizes turns its latent into few directions of the image."
    source: ClassVar[str] = (
        "Kamkari et al. 2024, arXiv 2403.18910, the flow's decoder there; Ross et al. 2024, 2411.00113"
    )
    access: ClassVar[Access] = Access.WEIGHTS

    measure: Measure = Measure.PIXELS
    thresholds: tuple[float, ...] = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
    threshold: float | None = 0.01
    gap: float = 10.0

    def __post_init__(self) -> None:
        grid, given = self.thresholds, self.threshold
        rising = bool(grid) and all(a < b for a, b in pairwise(grid))
        named = given is None or given in grid
        if not rising or grid[0] <= 0 or grid[-1] >= 1 or not named or self.gap <= 1:
            raise InvalidInput(
                f"Thresholds {grid}, read at {given} or at a gap of {self.gap:g}.",
                expected="ascending thresholds between 0 and 1, one of them chosen or None, and a gap above 1.",
                remedy="change the setting.",
            )

    def curve(self, generator: GanGenerator, rows: Sequence[int], *, work: Work) -> Curve:
        """Counts at the generations of the rows [n] of ``work.seed``, the images that ``generator.sample`` makes.

        Raises
        ------
        Unsupported : the network cannot be differentiated.
        InvalidInput : the module was put back into training mode.
        """
        ambient = int(np.prod(generator.shape))
        before = generator.evaluations
        values = singular_values(generator, rows, work=work)
        levels = np.array(self.thresholds[:1] if self.measure is Measure.PARTICIPATION else self.thresholds)
        counts = self.measure.dimension(values, levels)
        return Curve(levels, counts, np.zeros_like(counts), ambient, generator.evaluations - before)

    def read(self, curve: Curve) -> Dimension:
        """The count at the threshold, or at the widest gap."""
        if self.measure is Measure.PARTICIPATION:
            return at_level(curve, np.zeros(len(curve.dimension), np.int64))
        if self.threshold is not None:
            given = int(np.flatnonzero(curve.scale == self.threshold)[0])
            return at_level(curve, np.full(len(curve.dimension), given))
        level = np.array([_widest(row, curve.scale, self.gap) for row in curve.dimension], np.int64)
        reading = tuple(Reading.PLATEAU if at >= 0 else Reading.NONE for at in level)
        return Dimension(_taken(curve.dimension, level), _taken(curve.error, level), level, reading, curve)

    def estimate(self, generator: GanGenerator, rows: Sequence[int], *, work: Work) -> Dimension:
        """:meth:`curve`, read."""
        return self.read(self.curve(generator, rows, work=work))

    def settings(self) -> dict[str, Any]:
        """Name and fields as plain values."""
        return {"estimator": "GeneratorSpectrum", **{f.name: getattr(self, f.name) for f in dataclasses.fields(self)}}


def singular_values(generator: GanGenerator, rows: Sequence[int], *, work: Work) -> Doubles:
    """Singular values of dG/dz at the rows of ``work.seed``, descending, [n, latent].

    Unit: root-mean-square change of the image, with pixels in [0, 1], for one standard deviation of the latent. Each
    row costs 1 + latent evaluations, counted by the generator, and the first one more; twice as many, and one more a
    chunk of tangents, where the Jacobian of one image exceeds ``work.budget``. There are min(latent, pixels) that can
    differ from 0.

    Raises
    ------
    Unsupported : the network cannot be differentiated. InvalidInput : it was put back into training mode.
    """
    still_settled(generator.network, "generator")
    device = device_of(generator.network)
    chosen = np.asarray(rows, np.int64)
    latents = torch.from_numpy(normal(work.seed, Stream.SAMPLE, chosen, (generator.latent,))).to(device)
    labels = generator.condition_of(chosen)
    unit = (generator.pixels.high - generator.pixels.low) * np.sqrt(np.prod(generator.shape))
    values = np.empty((len(chosen), generator.latent))
    plan: _Plan | None = None
    for place in range(len(chosen)):
        told = [] if labels is None else [torch.from_numpy(labels[place : place + 1]).to(device)]

        def network(z: Tensor, told: list[Tensor] = told) -> Tensor:
            return generator.network(z[None], *told)[0]

        if plan is None:
            plan = _plan(network, latents[place], generator.network, work.budget)
            generator.evaluations += 1
        generator.evaluations += plan.evaluations
        values[place] = np.sqrt(np.linalg.eigvalsh(_gram(network, latents[place], plan))[::-1].clip(min=0)) / unit
    return values


@dataclass(frozen=True)
class _Plan:
    """Whether the whole Jacobian is held, in chunks of how many tangents it is made, and what an image then costs."""

    whole: bool
    chunk: int
    evaluations: int


@torch.no_grad()
def _plan(network: Network, z: Tensor, module: object, budget: int) -> _Plan:
    """From the sizes of the layers, seen in one evaluation."""
    largest = [z.numel()]

    def look(_: nn.Module, __: object, answer: object) -> None:
        if isinstance(answer, Tensor):
            largest.append(answer.numel())

    hooks = [part.register_forward_hook(look) for part in module.modules()] if isinstance(module, nn.Module) else []
    try:
        image = network(z)
    finally:
        for hook in hooks:
            hook.remove()
    # A plain function shows no layers; four images stand for the largest.
    layer = max(*largest, image.numel()) if hooks else 4 * max(image.numel(), z.numel())
    jacobian = len(z) * image.numel() * image.element_size()
    whole = 2 * jacobian <= budget
    left = budget - (jacobian if whole else 0)
    chunk = max(1, min(len(z), left // (_HELD * image.element_size() * layer)))
    passes = math.ceil(len(z) / chunk)
    return _Plan(whole, chunk, passes + len(z) if whole else 2 * (passes + len(z)))


def _gram(network: Network, z: Tensor, plan: _Plan) -> Doubles:
    """``J^T J`` in float64 [latent, latent] of the network at z [latent]."""
    axes = torch.eye(len(z), dtype=z.dtype, device=z.device)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        try:
            found = torch.cat([_products(network, z, part, plan.whole) for part in axes.split(plan.chunk)])
        except (RuntimeError, NotImplementedError) as error:
            raise _refusal(" ".join(str(error).split())[:200]) from error
        if not bool(found.any()) and not torch.equal(network(z + _NEAR), network(z)):
            raise _refusal("its image moves with the latent, and its derivative is 0")
    if not plan.whole:
        return ((found + found.T) / 2).double().cpu().numpy()
    # Pixels a block at a time, so that float64 copies stay within what the Jacobian itself takes.
    gram = torch.zeros(len(z), len(z), dtype=torch.float64, device=z.device)
    for block in found.split(max(1, found.shape[1] // 4), dim=1):
        gram += block.double() @ block.double().T
    return gram.cpu().numpy()


def _products(network: Network, z: Tensor, tangents: Tensor, whole: bool) -> Tensor:
    """``J v`` [chunk, pixels] of each tangent v, or ``J^T J v`` [chunk, latent] where the Jacobian is too large.

    Only tangents are batched: the image itself is carried along once a chunk.
    """

    def forward(tangent: Tensor) -> Tensor:
        return jvp(network, (z,), (tangent,))[1]

    along = vmap(forward)(tangents)
    if whole:
        return along.flatten(1)
    pull = vjp(network, z)[1]
    return vmap(lambda v: pull(v)[0])(along)


def _refusal(reason: str) -> Unsupported:
    return Unsupported(
        f"The generator cannot be differentiated ({reason}).",
        expected="a network whose every step has a forward-mode derivative in torch.",
        remedy="switch custom kernels, no_grad and numpy off inside it, or use GeneratedNeighbourhood, "
        "which only looks at images.",
    )


def _widest(counts: Doubles, scale: Doubles, gap: float) -> int:
    """Middle of the longest stretch of equal counts by ratio of thresholds; -1 where none reaches ``gap``."""
    best, middle, low = gap, -1, 0
    for high in range(len(counts)):
        if counts[high] != counts[low]:
            low = high
        ratio = scale[high] / scale[low]
        if ratio >= best * (1 - 1e-9) and (ratio > best or middle < 0):
            best, middle = ratio, (low + high) // 2
    return middle


def _taken(table: Doubles, level: Integers) -> Doubles:
    return np.where(level >= 0, table[np.arange(len(table)), level], np.nan)
