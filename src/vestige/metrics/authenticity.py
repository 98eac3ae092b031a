"""How near generated rows lie to training rows, and whether they are nearer than training rows are to one another."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vestige.metrics.arrays import Features, FloatArray, IndexArray, features, same_width
from vestige.metrics.balls import Balls, varied
from vestige.metrics.closest import nearest_to
from vestige.metrics.interval import Interval, clopper_pearson
from vestige.progress import Progress, Silent


@dataclass(frozen=True, eq=False)
class Training:
    """Distinct training rows with the distance of each to its nearest other one.

    ``index`` [t] are the places of the distinct rows among the ``rows`` that were given.
    """

    balls: Balls
    index: IndexArray
    rows: int

    @staticmethod
    def of(training: npt.ArrayLike, *, progress: Progress | None = None) -> Training:
        """Prepare ``training`` [t, d], at least two different rows. Raises EmptySet or InvalidInput.

        Copies count once: the nearest other row of a row that stands twice in the data would be at distance 0, and
        whatever is generated near it would pass for new.
        """
        rows = varied(features(training, "training features", rows=2), "training features")
        index = distinct(rows)
        return Training(Balls.around(rows[index], 1, name="training features", progress=progress), index, len(rows))


def distinct(rows: Features) -> IndexArray:
    """Indices of the first of each set of equal rows [n, d], ascending."""
    seen: dict[bytes, int] = {}
    for place, row in enumerate(rows):
        # Adding zero turns -0.0 into 0.0.
        seen.setdefault(hashlib.sha256((row + row.dtype.type(0)).tobytes()).digest(), place)
    return np.fromiter(seen.values(), dtype=np.int64, count=len(seen))


@dataclass(frozen=True, eq=False)
class Authenticity:
    """m rows beside the training rows nearest to them.

    Parameters
    ----------
    nearest : distance [m] to the nearest training row. index : that row's place among those given (the first of
        copies, the lower one of ties).
    ratio : [m], ``nearest`` over the distance of that training row to its nearest other one.
    authentic : [m], whether the row is farther from that training row than this one is from every other one.
    share : share that is authentic, in [0, 1]; rows of the training distribution that were not trained on reach about
        one half. copies : share at distance 0. Both are exact intervals for this training set.
    """

    nearest: FloatArray
    index: IndexArray
    ratio: FloatArray
    authentic: npt.NDArray[np.bool_]
    share: Interval
    copies: Interval


def authenticity(
    generated: npt.ArrayLike, training: Training, *, confidence: float = 0.95, progress: Progress | None = None
) -> Authenticity:
    """Return the authenticity of ``generated`` [m, d] against the training rows.

    AuthPct, with one change: copies among the training rows count once (see :meth:`Training.of`); on distinct rows it
    is the published number. Source: Alaa et al. 2022, arXiv 2102.08921. Raises EmptySet or InvalidInput.
    """
    rows = features(generated, "generated features")
    same_width(rows, training.balls.centres, "generated and training features")
    found = nearest_to(rows, training.balls.centres, 1, progress or Silent(), "nearest training rows")
    squared, place = found.squared[:, 0], found.index[:, 0]
    authentic = squared > training.balls.squared_radii[place]
    return Authenticity(
        nearest=np.sqrt(squared),
        index=training.index[place],
        ratio=np.sqrt(squared / training.balls.squared_radii[place]),
        authentic=authentic,
        share=clopper_pearson(int(authentic.sum()), len(rows), confidence),
        copies=clopper_pearson(int(np.count_nonzero(squared == 0)), len(rows), confidence),
    )
