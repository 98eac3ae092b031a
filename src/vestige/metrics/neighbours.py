"""All metrics that ask which rows are neighbours, from one pass over generated and reference rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vestige.metrics.arrays import FloatArray, IndexArray, features, same_width
from vestige.metrics.authenticity import Authenticity, Training, authenticity
from vestige.metrics.balls import Balls, Held, among_themselves, varied
from vestige.metrics.clipped import ClippedDensityCoverage, clipped_coverage, clipped_density, clipped_radii
from vestige.metrics.closest import Closest
from vestige.metrics.coverage import DensityCoverage, PrecisionRecall, density_coverage_of, rows_inside
from vestige.metrics.jackknife import dealt
from vestige.metrics.probabilistic import Likely, ProbabilisticPrecisionRecall
from vestige.metrics.rarity import Rarity, rarity_of
from vestige.metrics.tiles import Side, Tiles
from vestige.progress import Progress, Silent


@dataclass(frozen=True, eq=False)
class NeighbourMetrics:
    """How m generated rows lie among n reference rows, all with the same number of ``neighbours`` k.

    Numbers depend on m, n, k and the features, so they compare only where all of these agree.

    Parameters
    ----------
    fidelity : improved precision and recall. density : density and coverage. probabilistic : P-precision and P-recall.
    clipped : clipped density and coverage.
    rarity : score, percentile and manifold membership of each generated row. real_rarity : the same of each reference
        row against the balls of the others, for comparison.
    nearest, nearest_index : distance [m] to the nearest reference row, and its index; the lower one of ties.
    training, real_training : the generated rows and the reference rows beside the training rows, None without these.
    """

    neighbours: int
    generated: int
    reference: int
    fidelity: PrecisionRecall
    density: DensityCoverage
    probabilistic: ProbabilisticPrecisionRecall
    clipped: ClippedDensityCoverage
    rarity: Rarity
    real_rarity: Rarity
    nearest: FloatArray
    nearest_index: IndexArray
    training: Authenticity | None
    real_training: Authenticity | None


def neighbour_metrics(
    generated: npt.ArrayLike,
    reference: npt.ArrayLike,
    training: npt.ArrayLike | None = None,
    *,
    neighbours: int = 3,
    seed: int = 0,
    confidence: float = 0.95,
    progress: Progress | None = None,
) -> NeighbourMetrics:
    """Return every neighbour metric of ``generated`` [m, d] against ``reference`` [n, d], m, n > ``neighbours`` >= 1.

    Each set is passed over once for its radii, then all pairs once for everything else; with ``training`` [t, d] there
    follow a pass over it and one of either set with it. Every comparison is that of float64 differences of the rows as
    given, whatever the tiles and threads; only the probabilistic metrics are sums of rounded numbers. Memory is that of
    the rows, about a kilobyte a row and one tile. ``seed`` deals the groups of the jackknifes.
    Sources: see each part. Balls are closed, where the public code of most papers asks for strictly less: they differ
    only where a distance equals a radius, as with copies.
    Raises EmptySet (too few rows) or InvalidInput (NaN, different widths, or a reference whose rows are all equal).
    """
    told = progress or Silent()
    rows = features(generated, "generated features", rows=neighbours + 1)
    real_rows = varied(features(reference, "reference features", rows=neighbours + 1), "reference features")
    same_width(rows, real_rows, "generated and reference features")
    seen = None if training is None else features(training, "training features", rows=2)
    if seen is not None:
        same_width(rows, seen, "generated and training features")
    real = Balls.around(real_rows, neighbours, name="reference features", progress=told)
    fake = Balls.around(rows, neighbours, name="generated features", progress=told)
    found = _Pass(fake, real, dealt(len(rows), seed), dealt(len(real_rows), seed), told)
    known = None if seen is None else Training.of(seen, progress=told)
    return NeighbourMetrics(
        neighbours=real.neighbours,
        generated=len(rows),
        reference=len(real_rows),
        fidelity=PrecisionRecall(rows_inside(found.precise, confidence), rows_inside(found.recalled, confidence)),
        density=density_coverage_of(found.precise, real.neighbours, confidence),
        probabilistic=ProbabilisticPrecisionRecall(found.likely.share(confidence), found.reached.share(confidence)),
        clipped=found.clipped_metrics(confidence),
        rarity=rarity_of(found.precise, real, confidence),
        real_rarity=rarity_of(found.themselves, real, confidence),
        nearest=np.sqrt(found.closest.squared[:, 0]),
        nearest_index=found.closest.index[:, 0],
        training=None if known is None else authenticity(rows, known, confidence=confidence, progress=told),
        real_training=None if known is None else authenticity(real_rows, known, confidence=confidence, progress=told),
    )


class _Pass:
    """What one pass over all pairs collects."""

    def __init__(
        self, fake: Balls, real: Balls, fake_groups: IndexArray, real_groups: IndexArray, progress: Progress
    ) -> None:
        self._real, cut = real, clipped_radii(real)
        self.precise = Held(Side.SECOND, real.squared_radii, real_groups, fake_groups)
        self.recalled = Held(Side.FIRST, fake.squared_radii, fake_groups, real_groups)
        self.cut = Held(Side.SECOND, cut, real_groups, fake_groups)
        self.likely = Likely(Side.FIRST, len(fake_groups), real, real_groups)
        self.reached = Likely(Side.SECOND, len(real_groups), fake, fake_groups)
        self.closest = Closest(len(fake_groups), 1)
        # Rows of one group lie together, so that products over a group are products over a part of a tile.
        orders = np.argsort(fake_groups, kind="stable"), np.argsort(real_groups, kind="stable")
        for tile in Tiles(fake.centres, real.centres, orders).watched(progress, "generated and reference features"):
            for part in (self.precise, self.recalled, self.cut, self.likely, self.reached):
                part.add(tile)
            self.closest.add(tile, Side.FIRST)
        self.themselves = among_themselves(real, real.squared_radii, real_groups, progress)
        self._cut_themselves = among_themselves(real, cut, real_groups, progress)

    def clipped_metrics(self, confidence: float) -> ClippedDensityCoverage:
        k = self._real.neighbours
        density = clipped_density(self.cut, self._cut_themselves, k, confidence)
        return ClippedDensityCoverage(density, clipped_coverage(self.precise, k, confidence))
