"""The search for copies that every extraction attack shares: nearest image, calibrated ratio, who was found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vestige.data.images import ImageSet
from vestige.digest import digest_json
from vestige.execute import Context
from vestige.nearest import calibrated

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Search:
    """For every generation its nearest row: index, rms distance, calibrated ratio, each [generations]."""

    index: Index
    distance: Floats
    ratio: Floats

    def rank(self, delta: float) -> Floats:
        """What a copy is judged by, 0 .. infinity and at most 1 for a copy, [generations].

        The calibrated ratio; without spread to compare with, 0 within ``delta`` and infinity beyond.
        """
        return np.where(np.isnan(self.ratio), np.where(self.distance <= delta, 0.0, np.inf), self.ratio)

    def copies(self, delta: float) -> Flags:
        """Which generations are copies: calibrated ratio at most 1, or (no spread to compare with) within delta."""
        return self.rank(delta) <= 1

    def found(self, delta: float) -> Index:
        """The distinct rows that some generation copies, ascending."""
        return np.unique(self.index[self.copies(delta)])

    def best(self, rows: int, delta: float) -> Floats:
        """The lowest rank that any generation gives each of ``rows`` rows, [rows]; infinity where none is nearest."""
        lowest = np.full(rows, np.inf)
        np.minimum.at(lowest, self.index, self.rank(delta))
        return lowest


@dataclass(frozen=True)
class Finder:
    """How copies are searched for: the settings of the calibrated distance."""

    neighbours: int
    alpha: float

    def search(
        self,
        flat: Pixels,
        images: ImageSet,
        cluster: Index | None,
        key: Mapping[str, Any],
        context: Context,
        name: str,
    ) -> Search:
        """Search ``images`` for the nearest of each generation ``flat`` [g, d]; ``key`` says what was generated.

        ``cluster`` [len(images)] holds near-duplicates together; None makes every image its own cluster.
        """
        labels = None if cluster is None else digest_json(cluster.tolist())
        settings = {"rows": images.digest, "cluster": labels, "neighbours": self.neighbours, "alpha": self.alpha}

        def compute(part: Index) -> Floats:
            found = self.at_once(flat[part], images, cluster)
            return np.stack([found.index.astype(np.float64), found.distance, found.ratio], axis=1)

        table = context.store.column("distances", {**key, **settings}).fill(
            len(flat), compute, shard_rows=1024, progress=context.progress, label=f"searching {len(images):,} {name}"
        )
        return Search(table[:, 0].astype(np.int64), table[:, 1], table[:, 2])

    def at_once(self, flat: Pixels, images: ImageSet, cluster: Index | None) -> Search:
        """The same, of few generations and not kept."""
        found = calibrated(flat, images.flat, cluster, neighbours=self.neighbours, alpha=self.alpha)
        return Search(found.index, found.distance, found.ratio)
