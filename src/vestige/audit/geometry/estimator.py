"""The contracts of estimators of local intrinsic dimension: those that ask a denoiser, and those that look at data.

A file of this folder with a final, frozen dataclass that implements one of them is its registration.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from vestige.audit.geometry.estimate import Curve, Dimension
from vestige.models.access import Access
from vestige.models.denoiser import Denoiser, Images, Labels
from vestige.nearest.exact import BUDGET

Vectors = npt.NDArray[np.float32] | npt.NDArray[np.float64] | npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Work:
    """How an estimate is carried out: which seed rules, how many points at a time, in how many bytes."""

    seed: int = 0
    batch_size: int = 64
    budget: int = BUDGET


@dataclass(frozen=True)
class _Estimator(ABC):
    """Fields are settings."""

    claim: ClassVar[str]
    source: ClassVar[str]

    @abstractmethod
    def read(self, curve: Curve) -> Dimension:
        """The dimension that a curve of this estimator shows: a pure function of the curve, point by point."""

    def settings(self) -> dict[str, Any]:
        """Name and fields as plain values."""
        return {"estimator": type(self).__name__, **{f.name: getattr(self, f.name) for f in dataclasses.fields(self)}}


@dataclass(frozen=True)
class ModelEstimator(_Estimator):
    """Dimension of what a denoiser has learnt, at any point."""

    access: ClassVar[Access]

    @abstractmethod
    def curve(
        self, denoiser: Denoiser, points: Images, rows: Sequence[int], condition: Labels | None = None, *, work: Work
    ) -> Curve:
        """Estimates over noise levels at clean points [n, c, h, w].

        ``rows`` [n] names each point; its random probes follow from ``work.seed`` and its name alone, are the same at
        every level, and do not depend on what else is in the batch. A :class:`~vestige.models.guidance.Guided`
        denoiser gives the guidance-adjusted dimension.
        """

    def estimate(
        self, denoiser: Denoiser, points: Images, rows: Sequence[int], condition: Labels | None = None, *, work: Work
    ) -> Dimension:
        """:meth:`curve`, read."""
        return self.read(self.curve(denoiser, points, rows, condition, work=work))


@dataclass(frozen=True)
class DataEstimator(_Estimator):
    """Dimension of a set of reference points in the neighbourhood of any query."""

    @abstractmethod
    def curve(self, queries: Vectors, reference: Vectors, *, same_index: bool = False, work: Work) -> Curve:
        """Estimates at queries [q, d] from the reference [m, d], over numbers of neighbours.

        With ``same_index`` query i is row i of the reference (the queries are its leading rows) and is left out once;
        further copies of it stay.
        A query that the reference repeats lies on an atom, and its dimension is 0 at every scale that the copies fill.
        """

    def estimate(self, queries: Vectors, reference: Vectors, *, same_index: bool = False, work: Work) -> Dimension:
        """:meth:`curve`, read."""
        return self.read(self.curve(queries, reference, same_index=same_index, work=work))
