"""Kernel density: a Gaussian on every training row, of the width that held-out rows like best."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from vestige.errors import InvalidInput
from vestige.metrics.arrays import FloatArray
from vestige.rare.density.density import Density, Fitted, Sample

_CELLS = 1 << 24


@dataclass(frozen=True)
class KernelDensity(Density):
    """``log (1/n) sum_i N(u; u_i, h^2 I)``.

    Parameters
    ----------
    bandwidths : widths h to try, in standard deviations of a coordinate; the best by held-out likelihood is kept.
    """

    claim: ClassVar[str] = "a Gaussian of one width on every real row"
    source: ClassVar[str] = "Parzen 1962, Ann. Math. Stat. 33"

    bandwidths: tuple[float, ...] = (0.1, 0.14, 0.2, 0.28, 0.4, 0.56, 0.8, 1.1)

    def __post_init__(self) -> None:
        if not self.bandwidths or min(self.bandwidths) <= 0:
            raise InvalidInput(
                f"bandwidths={self.bandwidths}.", expected="at least one, all positive.", remedy="change the setting."
            )

    def learn(self, train: Sample, held_out: Sample, seed: int) -> Fitted:
        """Choose the width; a choice at the end of the grid is a warning."""
        away = torch.from_numpy(held_out.rows)
        scores = [float(_Kernels(train.rows, h)(away).mean()) for h in self.bandwidths]
        best = max(range(len(scores)), key=scores.__getitem__)
        width, end = self.bandwidths[best], len(scores) > 1 and best in (0, len(scores) - 1)
        warnings = (f"The best bandwidth, {width:g}, is at the end of the grid that was tried.",) if end else ()
        return _Kernels(train.rows, width, warnings)


class _Kernels(Fitted):
    rows: Tensor

    def __init__(self, rows: FloatArray, width: float, warnings: tuple[str, ...] = ()) -> None:
        super().__init__(warnings)
        self.register_buffer("rows", torch.from_numpy(rows))
        self.register_buffer("width", torch.tensor(width, dtype=torch.float64))
        n, m = rows.shape
        self.precision, self.constant = width**-2, -math.log(n) - m / 2 * math.log(2 * math.pi * width**2)

    def forward(self, coordinates: Tensor, labels: Tensor | None = None) -> Tensor:
        step = max(1, _CELLS // len(self.rows))
        return torch.cat([self._block(part) for part in coordinates.split(step)])

    def _block(self, part: Tensor) -> Tensor:
        product = part @ self.rows.T
        squared = part.square().sum(1, keepdim=True) - 2 * product + self.rows.square().sum(1)
        return (-self.precision / 2 * squared).logsumexp(1) + self.constant
