"""What a budget of generations can show: how many each condition gets, and which cliques that can support."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv

POWER = 0.95
"""Probability with which the stated replay rate makes a clique."""


@dataclass(frozen=True)
class Budget:
    """``total`` generations over ``conditions``, each of which gets ``least`` to ``most``."""

    total: int
    conditions: int
    least: int
    most: int

    @staticmethod
    def of(total: int, condition: npt.NDArray[np.int64] | None) -> Budget:
        """From the condition of every generation; without conditions all belong together."""
        if condition is None:
            return Budget(total, 1, total, total)
        counts = np.unique(condition, return_counts=True)[1]
        return Budget(total, len(counts), int(counts.min()), int(counts.max()))

    def detectable(self, clique_size: int) -> float | None:
        """Smallest share of a condition's generations that copies of one image need to make a clique.

        The rate p at which ``P(Binomial(least, p) >= clique_size) = 0.95``, by the beta quantile;
        None where a condition gets fewer generations than a clique has.
        """
        if self.least < clique_size:
            return None
        return float(betaincinv(clique_size, self.least - clique_size + 1, POWER))

    def words(self, clique_size: int) -> str:
        """What an outsider with this budget can and cannot see, as a sentence or two."""
        each = f"{self.least:,}" if self.least == self.most else f"{self.least:,} to {self.most:,}"
        spread = (
            f"The {self.total:,} generations were not asked for by condition"
            if self.conditions == 1
            else f"Each of {self.conditions:,} conditions was asked for {each} times"
        )
        rate = self.detectable(clique_size)
        if rate is None:
            return (
                f"{spread}, fewer than the {clique_size} generations of a clique: the black-box filter has no power "
                f"here, and that it claims nothing says nothing. Ask for at least "
                f"{clique_size * self.conditions:,} generations, or lower clique_size."
            )
        return (
            f"{spread}, which supports cliques of up to {self.least:,}. An image that fills at least {rate:.2%} of its "
            f"condition's generations makes a clique of {clique_size} with probability {POWER:g}; what is "
            "replayed less often can stay unseen by an outsider."
        )
