"""Local dimension of what the model draws for a prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vestige.audit.geometry.detectors.low_dimension import LowDimension
from vestige.audit.prompts.at_sample import AtSample


@dataclass(frozen=True)
class SampleDimension(AtSample):
    """Minus the guided FLIPD at the sample, see :class:`LowDimension`."""

    claim: ClassVar[str] = "What is drawn for a prompt known by heart has few directions left to vary in."
    source: ClassVar[str] = "Ross et al. 2024, arXiv 2411.00113; Kamkari et al. 2024, arXiv 2406.03537"

    @property
    def inner(self) -> LowDimension:
        """With one probe."""
        return LowDimension(time=self.time, scale=self.guidance)
