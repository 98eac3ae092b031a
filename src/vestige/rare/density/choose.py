"""Which density to trust: the one that held-out real rows like best."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy.typing as npt

from vestige.errors import EmptySet
from vestige.metrics.interval import Interval, mean_interval
from vestige.rare.density.density import Density, FittedDensity
from vestige.rare.density.kernel import KernelDensity
from vestige.rare.density.mahalanobis import Mahalanobis
from vestige.rare.density.mixture import Covariance, GaussianMixture
from vestige.rare.density.neighbours import NearestNeighbours
from vestige.rare.density.preparation import Preparation

CANDIDATES: tuple[Density, ...] = (
    Mahalanobis(),
    GaussianMixture(components=5),
    GaussianMixture(components=10),
    GaussianMixture(components=20),
    GaussianMixture(components=50, covariance=Covariance.DIAGONAL),
    KernelDensity(),
    NearestNeighbours(),
)
"""What :func:`choose` compares by default: every kind that needs neither labels nor an extra. Flows join by name."""


_ROWS_A_COMPONENT = 5
"""Real rows a component below which a mixture is not tried."""


def candidates(rows: int) -> tuple[Density, ...]:
    """Those of ``CANDIDATES`` that so many real rows are enough for."""
    return tuple(
        density
        for density in CANDIDATES
        if not isinstance(density, GaussianMixture) or rows >= _ROWS_A_COMPONENT * density.components
    )


@dataclass(frozen=True)
class Candidate:
    """One line of the comparison.

    ``behind`` is the mean over held-out rows of the chosen density's log p minus this one's, paired by row, with its
    interval: an interval that reaches 0 means the two cannot be told apart. None for the chosen one and for densities
    that do not integrate to one, whose held-out mean says nothing beside the others.
    """

    name: str
    held_out: Interval
    train_mean: float
    parameters: int
    seconds: float
    comparable: bool
    behind: Interval | None
    warnings: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Choice:
    """The chosen density and how each candidate fared, in the order given."""

    best: FittedDensity
    table: tuple[Candidate, ...]

    @property
    def decided(self) -> bool:
        """Whether the chosen one is better than every other candidate beyond the interval."""
        return all(line.behind.low > 0 for line in self.table if line.behind is not None)


def choose(
    densities: Sequence[Density],
    features: npt.ArrayLike,
    labels: npt.ArrayLike | None = None,
    *,
    preparation: Preparation | None = None,
    seed: int = 0,
) -> Choice:
    """Fit every density to the same training rows and keep the one with the best mean log p on the same held-out rows.

    Densities that do not integrate to one are shown and never chosen. The mean of the winner is that of the best of
    several, so it flatters a little; the calibration uses the same rows.

    Raises
    ------
    EmptySet : no density, or none that integrates to one. Otherwise as :meth:`Density.fit`.
    """
    if not any(density.normalised for density in densities):
        raise EmptySet(
            f"None of {len(densities)} densities integrates to one.",
            expected="at least one that does, to choose by held-out likelihood.",
            remedy="add GaussianMixture, or fit the one you want with its fit().",
        )
    fitted: list[FittedDensity] = []
    seconds: list[float] = []
    for density in densities:
        start = time.perf_counter()
        fitted.append(density.fit(features, labels, preparation=preparation, seed=seed))
        seconds.append(time.perf_counter() - start)
    able = [i for i, density in enumerate(densities) if density.normalised]
    best = max(able, key=lambda i: fitted[i].held_out.value)

    def behind(i: int) -> Interval | None:
        if i == best or i not in able:
            return None
        return mean_interval(fitted[best].held_out_values - fitted[i].held_out_values)

    table = tuple(
        Candidate(
            name=model.name,
            held_out=model.held_out,
            train_mean=model.train_mean,
            parameters=sum(t.numel() for t in model.inner.state_dict().values()),
            seconds=seconds[i],
            comparable=i in able,
            behind=behind(i),
            warnings=model.warnings,
        )
        for i, model in enumerate(fitted)
    )
    return Choice(fitted[best], table)
