"""Cheap descriptions of images, linear models on them, and folds: what can be said of an image without the model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import linprog
from scipy.sparse import csr_array, eye_array, hstack
from torch.nn.functional import adaptive_avg_pool2d

from vestige.audit.membership.rows import Floats, Index
from vestige.data.images import ImageSet
from vestige.errors import EmptySet, Unsupported
from vestige.randomness import Stream, generator

_THUMBNAIL = 16
_SMALLEST = 1e-3
"""Added to mean differences of pixels in [0, 1] before their logarithm: a quarter of a grey level."""

_FOLDS = 1
_ROWS_A_COLUMN = 10
"""Training rows for each column of a linear model."""


@dataclass(frozen=True, eq=False)
class Described:
    """Images as numbers: ``statistics`` [n, s] (moments and roughness) and ``thumbnails`` [n, d] (pooled pixels)."""

    statistics: Floats
    thumbnails: Floats

    def __len__(self) -> int:
        return len(self.statistics)

    def design(self, train: npt.NDArray[np.bool_], most: int = 24) -> Floats:
        """Columns [n, p], standardised on the rows ``train``: statistics, then principal components of thumbnails.

        Components and scales see the training rows alone. There is at most one column for
        ten training rows, and at most ``most``.
        """
        columns = _standardised(self.statistics, train)
        middle = self.thumbnails[train].mean(0)
        _, _, axes = np.linalg.svd(self.thumbnails[train] - middle, full_matrices=False)
        columns = np.hstack([columns, _standardised((self.thumbnails - middle) @ axes[:most].T, train)])
        return columns[:, : max(1, min(most, int(train.sum()) // _ROWS_A_COLUMN))]


def describe(images: ImageSet) -> Described:
    """Statistics and thumbnails of every image."""
    pixels = torch.from_numpy(images.pixels).float() / 255
    height, width = images.shape[1:]
    small = adaptive_avg_pool2d(pixels, (min(_THUMBNAIL, height), min(_THUMBNAIL, width))).flatten(1)
    flat = pixels.flatten(1)
    mean, deviation = flat.mean(1), flat.std(1, unbiased=False)
    centred = (flat - mean[:, None]) / (deviation[:, None] + _SMALLEST)
    across, down = pixels.diff(dim=-1).abs().flatten(1).mean(1), pixels.diff(dim=-2).abs().flatten(1).mean(1)
    bent = torch.cat([pixels.diff(n=2, dim=axis).abs().flatten(1) for axis in (-1, -2)], 1)
    curved = bent.sum(1) / flat.shape[1]
    extreme = ((flat == 0) | (flat == 1)).float().mean(1)
    named = [
        *(torch.log(torch.nan_to_num(part) + _SMALLEST) for part in (curved, deviation, across, down)),
        *(mean, centred.pow(3).mean(1), centred.pow(4).mean(1), extreme),
    ]
    if images.shape[0] > 1:
        named += list(pixels.mean((2, 3)).T)
    return Described(torch.stack(named, 1).double().numpy(), small.double().numpy())


def together(one: Described, two: Described) -> Described:
    """Both, one after the other."""
    return Described(np.concatenate([one.statistics, two.statistics]), np.concatenate([one.thumbnails, two.thumbnails]))


def fold_numbers(count: int, folds: int, seed: int, side: int) -> Index:
    """A fold 0 .. folds-1 for each of ``count`` rows, dealt at random in sizes that differ by one at most.

    Raises
    ------
    EmptySet : fewer rows than folds.
    """
    if count < folds:
        raise EmptySet(
            f"{count} rows cannot be dealt into {folds} folds.",
            expected=f"at least {folds} members and as many non-members.",
            remedy="give more images, or fewer folds.",
        )
    return generator(seed, Stream.SUBSET, count, draw=_FOLDS + side).permutation(count) % folds


def quantile_fit(columns: Floats, values: Floats, level: float, penalty: float = 0.0) -> Floats:
    """Intercept and weights [1 + p] of the linear quantile regression of ``values`` [n] on ``columns`` [n, p].

    Minimizes ``mean pinball(values - b - columns w) + penalty ||w||_1``, pinball(u) =
    ``level u`` for u >= 0 and ``(level - 1) u`` below, exactly, as a linear programme
    (Koenker and Bassett, Econometrica 46, 1978).

    Raises
    ------
    Unsupported : the solver failed.
    """
    n, p = columns.shape
    design = csr_array(np.hstack([np.ones((n, 1)), columns]))
    price = np.full(1 + p, penalty)
    price[0] = 0.0
    cost = np.concatenate([price, price, np.full(n, level / n), np.full(n, (1 - level) / n)])
    found = linprog(cost, A_eq=hstack([design, -design, eye_array(n), -eye_array(n)]).tocsc(), b_eq=values)
    if found.status != 0:
        raise Unsupported(
            f"Quantile regression of {n} rows on {p} columns failed: {found.message}.",
            expected="finite losses that differ between images.",
            remedy="look at the denoising losses first.",
        )
    return np.asarray(found.x[: 1 + p] - found.x[1 + p : 2 + 2 * p], dtype=np.float64)


def ridge_fit(columns: Floats, values: Floats) -> Floats:
    """Intercept and weights [1 + p] of ridge regression, its penalty chosen by generalized cross-validation.

    The penalty minimizes ``||values - fit||^2 / (1 - (1 + trace H) / n)^2`` over powers of
    ten times n, H the hat matrix of the centred columns (Golub, Heath and Wahba, Technometrics 21, 1979).
    """
    n = len(values)
    middle, level = columns.mean(0), values.mean()
    left, sizes, right = np.linalg.svd(columns - middle, full_matrices=False)
    along, best = left.T @ (values - level), np.inf
    weights = np.zeros(columns.shape[1])
    for penalty in n * 10.0 ** np.arange(-4, 4):
        shrink = sizes**2 / (sizes**2 + penalty)
        error = np.sum((values - level - left @ (shrink * along)) ** 2) / max(1 - (1 + shrink.sum()) / n, 1e-9) ** 2
        if error < best:
            best = error
            weights = right.T @ (sizes / (sizes**2 + penalty) * along)
    return np.concatenate([[level - middle @ weights], weights])


def apply_fit(fit: Floats, columns: Floats) -> Floats:
    """Values [n] of a linear fit."""
    return fit[0] + columns @ fit[1:]


def _standardised(columns: Floats, train: npt.NDArray[np.bool_]) -> Floats:
    spread = columns[train].std(0)
    # A constant column says nothing; what other rows have there is left out as well.
    return np.where(spread > 1e-12, (columns - columns[train].mean(0)) / np.where(spread > 1e-12, spread, 1.0), 0.0)
