"""The contract of evidence: a similarity of two models, and what it would be by chance."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from vestige.fingerprint.pair import Pair


@dataclass(frozen=True)
class Finding:
    """What one kind of evidence says of two models.

    Parameters
    ----------
    evidence : its name.
    value : similarity, 1 = the same, about 0 = unrelated; None where it cannot be told.
    deviation : standard deviation of the value for models whose weights have nothing to do with each other, by its
        formula or its estimate; what independent training on like data adds is known from measured models
        (:class:`vestige.fingerprint.calibration.Calibration`).
    parts : values of the parts that ``value`` sums up, by name.
    reason : why there is no value.
    """

    evidence: str
    value: float | None
    deviation: float = 0.0
    parts: tuple[tuple[str, float], ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class Evidence(ABC):
    """One way to see that two models have common weights. Fields are its settings; a subclass is final."""

    claim: ClassVar[str]
    source: ClassVar[str]
    needs_weights: ClassVar[bool] = True
    """Whether the published cards are not enough."""

    @abstractmethod
    def measure(self, pair: Pair) -> Finding:
        """Look at both models."""

    @property
    def name(self) -> str:
        """How a table calls it."""
        return type(self).__name__

    def nothing(self, reason: str) -> Finding:
        """The finding where there is nothing to compare."""
        return Finding(self.name, None, reason=reason)
