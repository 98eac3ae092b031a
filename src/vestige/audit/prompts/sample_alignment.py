"""Direction of the guidance at what the model draws for a prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vestige.audit.geometry.detectors.guidance_alignment import GuidanceAlignment
from vestige.audit.prompts.at_sample import AtSample


@dataclass(frozen=True)
class SampleAlignment(AtSample):
    """Cosine of the guidance vector and the score without the prompt at the sample, see :class:`GuidanceAlignment`."""

    claim: ClassVar[str] = "At what is drawn for a prompt known by heart, the prompt and the model alone agree."
    source: ClassVar[str] = "after Asthana and Belagiannis 2026, arXiv 2601.20642"

    @property
    def inner(self) -> GuidanceAlignment:
        """At the noise level of this detector."""
        return GuidanceAlignment(time=self.time)
