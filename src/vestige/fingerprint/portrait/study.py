"""Do portraits tell relatives from strangers? A study over vectors whose kinship is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.stats import rankdata

from vestige.errors import InvalidInput
from vestige.fingerprint.portrait.distance import looks_apart
from vestige.fingerprint.portrait.painter import Painter
from vestige.fingerprint.portrait.plate import table
from vestige.fingerprint.portrait.public import Doubles, gaussian
from vestige.metrics.interval import Interval, bootstrap, mean_interval, wilson

_BASES, _OFFSPRING = 2, 3


@dataclass(frozen=True)
class FamilyStudy:
    """A family tree of vectors: independent bases, and offspring of each at known cosines to it.

    Parameters
    ----------
    bases : number of base vectors, standard normal.
    cosines : of the offspring to their base, one offspring each.
    size : dimension of a vector.
    seed : of all vectors.

    Raises
    ------
    InvalidInput : there are fewer than 3 bases, a cosine is not within (-1, 1), or the vectors are shorter than 3.
    """

    bases: int = 40
    cosines: tuple[float, ...] = (0.999, 0.99, 0.9, 0.7, 0.5)
    size: int = 510
    seed: int = 0

    def __post_init__(self) -> None:
        if self.bases < 3 or self.size < 3 or not self.cosines or any(abs(value) >= 1 for value in self.cosines):
            raise InvalidInput(
                f"{self.bases} bases of {self.size} numbers with offspring at {self.cosines}.",
                expected="at least 3 bases of at least 3 numbers, cosines between -1 and 1.",
                remedy="correct the study.",
            )

    def vectors(self) -> tuple[Doubles, Doubles]:
        """Bases [bases, size], and offspring [bases, cosines, size] at exactly the cosines, as long as their base."""
        bases = gaussian(self.seed, self.bases, self.size, _BASES)
        lengths = np.linalg.norm(bases, axis=1, keepdims=True)
        units = bases / lengths
        others = gaussian(self.seed, self.bases * len(self.cosines), self.size, _OFFSPRING)
        others = others.reshape(self.bases, len(self.cosines), self.size)
        others -= np.einsum("bcd,bd->bc", others, units)[:, :, None] * units[:, None]
        others /= np.linalg.norm(others, axis=2, keepdims=True)
        cosines = np.array(self.cosines)[:, None]
        return bases, lengths[:, None] * (cosines * units[:, None] + np.sqrt(1 - cosines**2) * others)

    def run(self, painter: Painter) -> FamilyPortraits:
        """Paint everybody and compare."""
        bases, offspring = self.vectors()
        first = painter.pixels(bases)
        second = painter.pixels(offspring.reshape(-1, self.size))
        apart = looks_apart(second, first).reshape(self.bases, len(self.cosines), self.bases)
        among = looks_apart(first, first)
        return FamilyPortraits(self, first, second.reshape(*apart.shape[:2], *first.shape[1:]), apart, among)


@dataclass(frozen=True, eq=False)
class FamilyPortraits:
    """What was found.

    Parameters
    ----------
    study : its settings.
    bases, offspring : portraits, uint8 [bases, c, h, w] and [bases, cosines, c, h, w].
    apart : distance of every offspring's portrait to every base's, [bases, cosines, bases].
    among : of the bases' portraits to one another, [bases, bases].
    """

    study: FamilyStudy
    bases: npt.NDArray[np.uint8]
    offspring: npt.NDArray[np.uint8]
    apart: Doubles
    among: Doubles

    def identified(self) -> list[Interval]:
        """For each cosine, how many offspring's portraits are nearest to that of their base; chance is 1 / bases."""
        right = self.apart.argmin(2) == np.arange(len(self.bases))[:, None]
        return [wilson(int(column.sum()), len(column)) for column in right.T]

    def to_base(self) -> list[Interval]:
        """For each cosine, the mean distance of an offspring's portrait to its base's, over the families."""
        return [mean_interval(column) for column in self._own().T]

    def to_strangers(self) -> Interval:
        """The mean distance of a base's portrait to those of the other bases, over the bases."""
        count = len(self.bases)
        return mean_interval(self.among.sum(1) / (count - 1))

    def monotone(self) -> Interval:
        """Spearman correlation of 1 - cosine with the portraits' distance, over all pairs of base and offspring.

        The interval is the bootstrap's over families.
        """
        angles = np.tile(1 - np.array(self.study.cosines), (len(self.bases), 1))
        return bootstrap(_spearman, self._own(), angles, seed=self.study.seed, paired=True)

    def contact_sheet(self, families: int = 8) -> Image.Image:
        """Bases and their offspring, a family a row, and beside each the next family's base as a stranger."""
        chosen = min(families, len(self.bases))
        strangers = np.roll(self.bases, -1, axis=0)[:chosen, None]
        pictures = np.concatenate([self.bases[:chosen, None], self.offspring[:chosen], strangers], 1)
        columns = ["base", *(f"cos {value:g}" for value in self.study.cosines), "stranger"]
        return table(pictures, columns, [f"family {row + 1}" for row in range(chosen)])

    def _own(self) -> Doubles:
        rows = np.arange(len(self.bases))
        return self.apart[rows, :, rows]


def _spearman(distances: Doubles, angles: Doubles) -> float:
    first, second = rankdata(distances), rankdata(angles)
    return float(np.corrcoef(first, second)[0, 1])
