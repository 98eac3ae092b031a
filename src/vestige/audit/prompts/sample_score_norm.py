"""Length of the score at what the model draws for a prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vestige.audit.geometry.detectors.score_norm import ScoreNorm
from vestige.audit.prompts.at_sample import AtSample


@dataclass(frozen=True)
class SampleScoreNorm(AtSample):
    """Length of the noise estimate under the prompt at the noised sample, see :class:`ScoreNorm`."""

    claim: ClassVar[str] = "The score is longest around what is drawn for a prompt known by heart."
    source: ClassVar[str] = "Ross et al. 2024, arXiv 2411.00113"

    @property
    def inner(self) -> ScoreNorm:
        """At the noise level of this detector."""
        return ScoreNorm(time=self.time)
