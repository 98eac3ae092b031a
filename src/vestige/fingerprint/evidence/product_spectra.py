"""Spectra of a block's products: the only evidence that needs no common tokens and no alignment."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.special import ndtri

from vestige.errors import InvalidInput
from vestige.fingerprint.evidence.evidence import Evidence, Finding
from vestige.fingerprint.fold import Doubles
from vestige.fingerprint.pair import Pair

_COMMON = 6
"""From this many layers on, what all layers of a model have in common is taken off."""


@dataclass(frozen=True)
class ProductSpectra(Evidence):
    """Correlation of the fine structure of spectra, averaged over layers and products.

    Smooth spectra are alike in all models of one make; what marks one model is how each order statistic departs from
    the smooth curve. A polynomial in the normal quantile of the rank is taken off each log spectrum, then the mean
    over matched layers. For independent matrices the departures are independent; they are correlated along the ranks,
    which the deviation takes into account (Bartlett 1935: ``Var r = (1 + 2 sum_k rho_k rho'_k) / n``).

    Parameters
    ----------
    degree : of the polynomial.
    """

    claim: ClassVar[str] = "Singular values of the products of a block do not depend on any basis."
    source: ClassVar[str] = "GhostSpec, arXiv 2511.06390; SELF, arXiv 2512.03620"
    needs_weights: ClassVar[bool] = False

    degree: int = 5

    def __post_init__(self) -> None:
        if not 0 <= self.degree <= 12:
            raise InvalidInput(
                f"ProductSpectra with a polynomial of degree {self.degree}.",
                expected="0 to 12.",
                remedy="change the setting.",
            )

    def measure(self, pair: Pair) -> Finding:
        """The mean correlation; parts are the mean over layers of every product."""
        if not min(len(pair.first.spectra), len(pair.second.spectra)):
            return self.nothing("a card holds no spectra")
        layers = (list(side) for side in zip(*pair.layers, strict=True))
        cards = pair.first, pair.second
        ours, theirs = (self._departures(card.spectra[side]) for card, side in zip(cards, layers, strict=True))
        values = np.full((len(pair.layers), 3), np.nan)
        variances = np.zeros_like(values)
        for place in np.ndindex(values.shape):
            values[place], variances[place] = _correlation(ours[place], theirs[place])
        told = np.isfinite(values)
        if not told.any():
            return self.nothing("the spectra have no structure")
        deviation = math.sqrt(float(variances[told].sum())) / int(told.sum())
        names = ("scores", "values", "feed")
        parts = [(name, float(np.nanmean(values[:, k]))) for k, name in enumerate(names) if told[:, k].any()]
        return Finding(self.name, float(values[told].mean()), deviation, tuple(parts))

    def _departures(self, spectra: Doubles) -> Doubles:
        """Log spectra [layers, 3, ranks] less their smooth part and what all layers share."""
        ranks = spectra.shape[2]
        place = ndtri((np.arange(ranks) + 0.5) / ranks)
        basis, _ = np.linalg.qr(np.vander(place, self.degree + 1))
        rough = spectra - (spectra @ basis) @ basis.T
        return rough - rough.mean(0) if len(rough) >= _COMMON else rough


def _correlation(first: Doubles, second: Doubles) -> tuple[float, float]:
    """Correlation of two series [n] of mean about 0, and its variance where they are independent."""
    powers = float(first @ first), float(second @ second)
    if min(powers) <= 1e-24:
        return math.nan, 0.0
    own, other = (
        np.correlate(series, series, "full")[len(series) :] / power
        for series, power in zip((first, second), powers, strict=True)
    )
    variance = max(1.0 + 2.0 * float(own @ other), 1.0) / len(first)
    return float(first @ second) / math.sqrt(powers[0] * powers[1]), variance
