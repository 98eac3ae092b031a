"""Generators in closed form: their density is known, and so is where the rare ones are.

They decide whether a search, a density or a baseline is right. Their outputs are plain vectors [n, d] in float64,
without a range, and features are the outputs themselves (:func:`~vestige.rare.space.plain_space`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vestige.digest import digest_json, digest_tensors
from vestige.errors import InvalidInput, ShapeMismatch
from vestige.metrics.arrays import FloatArray
from vestige.models.latent import LatentGenerator
from vestige.randomness import Stream, generator
from vestige.rare.density.density import Fitted, FittedDensity, Sample
from vestige.rare.density.preparation import Whitening
from vestige.rare.draws import Draw

_HALVINGS = 52
_LOG_ROOT = 0.5 * math.log(2 * math.pi)


@dataclass(frozen=True, eq=False)
class Linear:
    """``x = A z + b``: outputs are Gaussian with mean b and covariance ``A A^T``.

    Parameters
    ----------
    matrix : A, float64 [d, latent] of rank d.
    offset : b, float64 [d].

    Raises
    ------
    ShapeMismatch : the shapes do not fit. InvalidInput : A has not full row rank, so that outputs have no density.
    """

    matrix: Tensor
    offset: Tensor

    def __post_init__(self) -> None:
        if self.matrix.ndim != 2 or self.offset.shape != self.matrix.shape[:1]:
            raise ShapeMismatch(
                f"A has shape {tuple(self.matrix.shape)}, b {tuple(self.offset.shape)}.",
                expected="[d, latent] and [d].",
                remedy="give one offset a row of A.",
            )
        if int(torch.linalg.matrix_rank(self.matrix)) < len(self.matrix):
            raise InvalidInput(
                "The rows of A are linearly dependent.",
                expected="a matrix of full row rank.",
                remedy="use no more outputs than latents.",
            )

    def generator(self) -> LatentGenerator:
        """The generator."""
        matrix, offset = self.matrix.double(), self.offset.double()
        identity = digest_tensors({"matrix": matrix, "offset": offset})

        def network(z: Tensor) -> Tensor:
            return z.double() @ matrix.T + offset

        return LatentGenerator(network, (matrix.shape[1],), identity=f"linear-{identity}", pixels=None)

    def log_prob(self, outputs: Tensor) -> Tensor:
        """log density [n] of outputs [n, d], in nats."""
        lower = torch.linalg.cholesky(self.matrix.double() @ self.matrix.double().T)
        gap = torch.linalg.solve_triangular(lower, (outputs.double() - self.offset.double()).T, upper=False)
        return -gap.square().sum(0) / 2 - lower.diagonal().log().sum() - len(lower) * _LOG_ROOT


@dataclass(frozen=True)
class PlantedMode:
    """A standard normal cloud with a second, rare mode at a known place.

    The first output has the density ``(1 - w) N(0, 1) + w N(distance, width^2)``; it is the monotone transport of the
    first latent coordinate that gives it that distribution. The other outputs are their latents. So a generation of
    the prior lies in the rare mode with probability w, and the gradient of the generator is exact everywhere.

    Parameters
    ----------
    dimension : of latent and output.
    weight : w.
    distance, width : where the rare mode is, and its standard deviation along the first output.

    Raises
    ------
    InvalidInput : a value is outside its range, or the modes overlap (distance below 4 + 4 width).
    """

    dimension: int = 8
    weight: float = 1e-4
    distance: float = 8.0
    width: float = 0.5

    def __post_init__(self) -> None:
        if self.dimension < 1 or not 0 < self.weight < 1 or self.width <= 0 or self.distance < 4 + 4 * self.width:
            raise InvalidInput(
                f"dimension={self.dimension}, weight={self.weight:g}, distance={self.distance:g}, "
                f"width={self.width:g}.",
                expected="a dimension of at least 1, a weight within (0, 1), modes at least 4 + 4 widths apart.",
                remedy="change the setting.",
            )

    def generator(self) -> LatentGenerator:
        """The generator."""

        def network(z: Tensor) -> Tensor:
            first = _Transport.apply(z[:, :1].double(), self)
            return torch.cat([first, z[:, 1:].double()], dim=1)

        return LatentGenerator(
            network, (self.dimension,), identity=f"planted-{digest_json(asdict(self))}", pixels=None, batch_size=4096
        )

    def log_prob(self, outputs: Tensor) -> Tensor:
        """log density [n] of outputs [n, d], in nats."""
        first, others = outputs[:, 0].double(), outputs[:, 1:].double()
        return self.log_first(first) - others.square().sum(1) / 2 - others.shape[1] * _LOG_ROOT

    def log_first(self, first: Tensor) -> Tensor:
        """log density of the first output."""
        rare = (first - self.distance) / self.width
        common = math.log1p(-self.weight) - first.square() / 2
        return torch.logaddexp(common, math.log(self.weight / self.width) - rare.square() / 2) - _LOG_ROOT

    def transport(self, first: Tensor) -> Tensor:
        """The first output of first latents (float64), by halving an interval; exact to rounding."""
        low, high = first.clamp(max=0) - 1, first.clamp(min=0) + self.distance + 40 * self.width
        # Each half of the line by its own tail: one minus the other would round the rare mode away.
        side = torch.where(first > 0, -1.0, 1.0).to(first)
        wanted = torch.special.log_ndtr(side * first)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            short = (self._log_tail(middle, side) < wanted) == (side > 0)
            low, high = torch.where(short, middle, low), torch.where(short, high, middle)
        return (low + high) / 2

    def _log_tail(self, first: Tensor, side: Tensor) -> Tensor:
        """log P(X <= first) where side is 1, log P(X >= first) where it is -1."""
        common = math.log1p(-self.weight) + torch.special.log_ndtr(side * first)
        rare = math.log(self.weight) + torch.special.log_ndtr(side * (first - self.distance) / self.width)
        return torch.logaddexp(common, rare)

    def is_rare(self, outputs: FloatArray) -> npt.NDArray[np.bool_]:
        """Whether each output [n, d] lies in the rare mode: within 4 widths of its centre along the first axis."""
        return np.abs(outputs[:, 0] - self.distance) <= 4 * self.width

    def sample(self, rows: int, seed: int) -> FloatArray:
        """Outputs [rows, d] drawn from the density, without the generator: a stand-in for real data."""
        random = generator(seed, Stream.RARE, row=0, draw=Draw.ORACLE)
        drawn = random.standard_normal((rows, self.dimension))
        rare = random.random(rows) < self.weight
        drawn[rare, 0] = self.distance + self.width * drawn[rare, 0]
        return drawn


class _Transport(torch.autograd.Function):
    """T(z) with its derivative ``phi(z) / p(T(z))``, which halving does not give."""

    @staticmethod
    def forward(ctx: Any, first: Tensor, mode: PlantedMode) -> Tensor:
        moved = mode.transport(first)
        slope = (-first.square() / 2 - _LOG_ROOT - mode.log_first(moved)).exp()
        ctx.save_for_backward(slope)
        return moved

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (slope,) = ctx.saved_tensors
        return gradients[0] * slope, None


def known_density(log_prob: Callable[[Tensor], Tensor], features: FloatArray, *, identity: str) -> FittedDensity:
    """A known log density of features as a fitted one, calibrated on real ``features`` [n, d], n >= 2.

    ``identity`` names it in digests.
    """
    width = features.shape[1]
    whitening = Whitening(torch.zeros(width).double(), torch.eye(width).double(), 0.0, 1.0)
    rows = Sample(features)
    return FittedDensity(identity, {"density": identity}, whitening, _Known(log_prob), rows, rows)


class _Known(Fitted):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, coordinates: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.function(coordinates).to(coordinates.dtype)
