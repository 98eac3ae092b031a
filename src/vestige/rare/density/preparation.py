"""What every density does to features first: standardise, turn to principal axes, whiten."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from vestige.errors import InvalidInput
from vestige.metrics.arrays import FloatArray, count, matrix
from vestige.randomness import Stream, generator
from vestige.rare.draws import Draw

Integers = npt.NDArray[np.int64]

_RANK = 1e-10
"""Share of the largest principal variance below which an axis is rounding."""


@dataclass(frozen=True)
class Preparation:
    """How features become the coordinates that a density is fitted to.

    Each feature is centred and divided by its standard deviation, the result is turned to its principal axes, the
    leading ``dimensions`` of them are kept and each is scaled to unit variance. All of it is learnt from the training
    rows alone.

    Parameters
    ----------
    dimensions : most principal axes to keep; None keeps all with a variance.
    noise : standard deviation of the Gaussian noise added to training coordinates, whose unit is one standard
        deviation; it keeps a density from standing on the exact zeros of rectified features.
    held_out : share of the rows kept from training, for early stopping, choice and calibration.
    drop_constant : leave out features that never change; otherwise they are an error.

    Raises
    ------
    InvalidInput : a setting is outside its range.
    """

    dimensions: int | None = 64
    noise: float = 0.02
    held_out: float = 0.2
    drop_constant: bool = False

    def __post_init__(self) -> None:
        if (self.dimensions is not None and self.dimensions < 1) or self.noise < 0 or not 0 < self.held_out < 1:
            raise InvalidInput(
                f"dimensions={self.dimensions}, noise={self.noise:g}, held_out={self.held_out:g}.",
                expected="at least one dimension, noise of 0 or more, a share strictly between 0 and 1.",
                remedy="change the setting.",
            )

    def split(self, rows: int, seed: int) -> tuple[Integers, Integers]:
        """Row numbers of the training and of the held-out rows; at least two each of ``rows`` >= 4."""
        order = generator(seed, Stream.RARE, row=0, draw=Draw.SPLIT).permutation(rows)
        away = min(max(2, round(self.held_out * rows)), rows - 2)
        return np.sort(order[away:]), np.sort(order[:away])

    def whitening(self, train: FloatArray) -> Whitening:
        """Learn the map from training features [n, d].

        Raises
        ------
        InvalidInput : a feature is constant.
        """
        centre, spread = train.mean(0), train.std(0)
        # Rounding leaves the mean of a constant column, and so its deviation, off by some ulps.
        varies = spread > 1e-12 * np.abs(centre).clip(min=1e-300)
        if not varies.any() or not (varies.all() or self.drop_constant):
            constant = int((~varies).sum())
            raise InvalidInput(
                f"{constant} of {len(varies)} features are constant over {len(train)} rows.",
                expected="features that vary; nothing is rare in one that never changes.",
                remedy="use another feature extractor, or Preparation(drop_constant=True) to leave them out."
                if varies.any()
                else "use another feature extractor, and check that the images differ.",
            )
        kept = np.flatnonzero(varies)
        scaled = (train[:, kept] - centre[kept]) / spread[kept]
        variance, axes = np.linalg.eigh(scaled.T @ scaled / len(scaled))
        variance, axes = variance[::-1], axes[:, ::-1]
        rank = int((variance > _RANK * variance[0]).sum())
        m = rank if self.dimensions is None else min(rank, self.dimensions)
        turn = np.zeros((train.shape[1], m))
        turn[kept] = axes[:, :m] / np.sqrt(variance[:m]) / spread[kept, None]
        whole = m == train.shape[1]
        volume = -float(np.log(spread).sum() + 0.5 * np.log(variance).sum()) if whole else None
        explained = float(variance[:m].sum() / len(kept))
        return Whitening(torch.from_numpy(centre), torch.from_numpy(turn), volume, explained)


class Whitening(nn.Module):
    """The learnt map: ``u = (x - centre) turn``, features [n, d] to coordinates [n, m] of zero mean, unit variance.

    ``log_volume`` is log |det turn| where m = d, else None: added to a log density of coordinates it gives that of the
    features. ``explained`` is the share of the standardised variance that the m axes hold.
    """

    centre: Tensor
    turn: Tensor

    def __init__(self, centre: Tensor, turn: Tensor, log_volume: float | None, explained: float) -> None:
        super().__init__()
        self.register_buffer("centre", centre)
        self.register_buffer("turn", turn)
        self.log_volume, self.explained = log_volume, explained

    @property
    def dimensions(self) -> int:
        """m, the number of coordinates."""
        return self.turn.shape[1]

    def forward(self, features: Tensor) -> Tensor:
        """Coordinates [n, m] of features [n, d], differentiable."""
        return (features - self.centre) @ self.turn


def checked(features: npt.ArrayLike, labels: Integers | None) -> FloatArray:
    """Features as float64 [n, d], n >= 4, with one label a row if there are any. Raises EmptySet or InvalidInput."""
    rows = matrix(features, "features", rows=4)
    if labels is not None:
        count(len(labels), "the number of labels", len(rows), len(rows))
    return rows
