"""The second opinion: samples measured in a space that had no part in choosing them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vestige.audit.membership.rows import choose
from vestige.errors import InvalidInput
from vestige.features.extractor import FeatureExtractor
from vestige.jobs.rare_methods import Tried
from vestige.metrics.arrays import Features, FloatArray
from vestige.metrics.frechet import kernel_distance
from vestige.metrics.interval import Interval, mean_interval
from vestige.metrics.neighbours import NeighbourMetrics, neighbour_metrics
from vestige.metrics.vendi import vendi_score

FEWEST = 8
"""Fewer samples are not compared with real images."""


@dataclass(frozen=True, eq=False)
class Scored:
    """One method in the scoring space.

    ``rarity``, ``percentile``, ``inside`` and ``authentic`` are means over groups [r, N] of what a sample scores, each
    group one observation; ``near`` holds the metrics of the set as a whole.
    """

    near: NeighbourMetrics
    rarity: Interval | None
    percentile: Interval | None
    inside: Interval | None
    authentic: Interval | None
    kernel: Interval
    vendi: Interval | None
    groups: FloatArray
    """Mean percentile of each group [r]; NaN where no sample of it has one."""


@dataclass(frozen=True, eq=False)
class Judge:
    """Real and training images in the scoring space."""

    extractor: FeatureExtractor
    real: Features
    training: Features
    neighbours: int
    seed: int

    def score(self, tried: Tried) -> Scored | None:
        """What the samples of a method score; None where there are too few."""
        measured = tried.measured
        if measured is None or len(tried.pixels) < max(FEWEST, self.neighbours + 1):
            return None
        rows = self.extractor.features(tried.pixels)
        near = neighbour_metrics(rows, self.real, self.training, neighbours=self.neighbours, seed=self.seed)

        def grouped(values: FloatArray) -> FloatArray:
            whole = np.full(measured.present.shape, np.nan)
            whole[measured.present] = values
            return whole

        percentile = grouped(near.rarity.percentiles)
        authentic = grouped(np.ones(len(rows)) if near.training is None else near.training.authentic.astype(np.float64))
        return Scored(
            near=near,
            rarity=measured.mean(grouped(near.rarity.scores)),
            percentile=measured.mean(percentile, (0.0, 1.0)),
            inside=measured.mean(grouped(near.rarity.inside.astype(np.float64)), (0.0, 1.0)),
            authentic=measured.mean(authentic, (0.0, 1.0)),
            kernel=kernel_distance(rows, self.real),
            vendi=_vendi(rows, self.seed),
            groups=group_means(percentile),
        )

    def vendi_of_real(self, count: int) -> Interval | None:
        """Vendi score of as many real images."""
        return _vendi(self.real[choose(len(self.real), count, self.seed)], self.seed)


def group_means(values: FloatArray) -> FloatArray:
    """Mean of the defined values [r, N] of each group; NaN where there is none."""
    defined = ~np.isnan(values)
    return np.where(defined.any(1), np.nansum(values, axis=1) / np.maximum(defined.sum(1), 1), np.nan)


def difference(ours: FloatArray, theirs: FloatArray) -> Interval | None:
    """Mean of ``ours - theirs`` [r] over the groups in which both are defined; None for fewer than two."""
    gap = ours - theirs
    known = gap[~np.isnan(gap)]
    return mean_interval(known) if len(known) > 1 else None


def _vendi(rows: Features, seed: int) -> Interval | None:
    try:
        return vendi_score(rows, seed=seed)
    except InvalidInput:
        return None
