"""SepME for concepts that are named in sentences: prompts lose the concept, and no others lose anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vestige.erase.concept.request import ConceptRequest
from vestige.erase.concept.sepme import SepME
from vestige.erase.increment import Increment
from vestige.errors import InvalidInput
from vestige.models.adapters.text_to_image import TextToImage
from vestige.progress import Progress


@dataclass(frozen=True)
class GuardedSepME(SepME):
    """SepME with all that the paper's has not: ``aim``, ``within``, ``retain`` and ``refresh``.

    What is listed is still kept exactly. Guards are trained to stay as well, and what is like them stays with them; the
    concept is taken out of the prompts that name it and their other words are left, on the erased model's own
    trajectories. A sample costs 6 forward-equivalents, 3 of them for a guard, and one of a bank 3 or 4. Fewer and
    shorter trajectories of a prompt are enough where there are many prompts.

    Raises
    ------
    InvalidInput : the request guards no prompt.
    """

    claim: ClassVar[str] = "Erase concepts that sentences name; listed prompts do not change, guarded ones hardly."
    source: ClassVar[str] = "Zhao et al. 2024, arXiv 2402.05947, with guards of its own"

    steps: int = 200
    batch_size: int = 12
    rank: int = 64
    threshold: float = -9.0
    leak: float = 1e-2
    retain: float = 40.0
    aim: float | None = -1.0
    within: bool = True
    refresh: int = 40
    trajectories: int = 1
    sampling_steps: int = 12

    def increments(self, base: TextToImage, request: ConceptRequest, seed: int, progress: Progress) -> list[Increment]:
        """One increment a concept."""
        if not request.guard:
            raise InvalidInput(
                f"GuardedSepME was given no prompt to guard while it erases '{request.concepts[0]}'.",
                expected="sentences that do not name the concept, and best some hundred.",
                remedy="pass a file of sentences with --captions, or some with --guard; or choose --method sepme.",
            )
        return super().increments(base, request, seed, progress)
