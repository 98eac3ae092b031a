"""Move a prompt's embedding until it pulls no harder than others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from vestige.audit.prompts.detector import noise_of_prompts
from vestige.audit.prompts.first_guidance_norm import FirstGuidanceNorm
from vestige.audit.prompts.mitigation import Mitigated, Mitigation
from vestige.errors import InvalidInput
from vestige.models.adapters.conditioned import ConditionedDenoiser
from vestige.models.adapters.text_to_image import TextToImage


@dataclass(frozen=True)
class EmbeddingOptimisation(Mitigation):
    """Adam on the prompt's embedding lowers the length of the guidance at the first step to a share of what it was.

    Parameters
    ----------
    steps : of Adam at most, each on ``draws`` starts of its own.
    rate : of Adam, as a share of the embedding's root mean square.
    """

    claim: ClassVar[str] = "moves a memorized prompt's embedding until its guidance is short"
    source: ClassVar[str] = "Wen et al. 2024, arXiv 2407.21720, mitigation at inference"

    steps: int = 30
    rate: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1 or not self.rate > 0:
            raise InvalidInput(
                f"steps={self.steps}, rate={self.rate:g}.", expected="at least 1 step, a rate above 0.", remedy="do so."
            )

    def mitigate(self, model: TextToImage, prompt: str, *, seed: int) -> Mitigated:
        """Stops at the first step whose length is low enough."""
        start, empty = model.embeddings([prompt]), model.embeddings([""])
        rows = start.clone().requires_grad_()
        optimizer = torch.optim.Adam([rows], lr=self.rate * float(start.square().mean().sqrt()))
        detector, spent, first = FirstGuidanceNorm(), 0, None
        for step in range(self.steps):
            with torch.enable_grad():
                denoiser = model.denoiser().with_table(torch.cat([rows, empty]), null_condition=1)
                length = _lengths(detector, denoiser, model, range(step * self.draws, (step + 1) * self.draws), seed)
                spent += 3 * denoiser.evaluations
                value = length.mean()
            length_now = float(value.detach())
            first = length_now if first is None else first
            if length_now <= self.share * first:
                break
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            optimizer.step()
        moved = rows.detach()
        with torch.no_grad():
            denoiser = model.denoiser().with_table(torch.cat([start, moved, empty]), null_condition=2)
            fresh = range(self.steps * self.draws, (self.steps + 1) * self.draws)
            before, after = (float(_lengths(detector, denoiser, model, fresh, seed, place).mean()) for place in (0, 1))
        tokens = model.prompts.tokens
        near = float(torch.cosine_similarity(start[:, :tokens], moved[:, :tokens], dim=2).mean())
        return Mitigated(prompt, None, moved, before, after, near, spent + denoiser.evaluations)


def _lengths(
    detector: FirstGuidanceNorm,
    denoiser: ConditionedDenoiser,
    model: TextToImage,
    draws: range,
    seed: int,
    place: int = 0,
) -> torch.Tensor:
    """The detector's value of one row of the table at each of these starts."""
    noise = torch.cat([noise_of_prompts([0], model.shape, draw, seed) for draw in draws]).to(denoiser.device)
    return detector.value(denoiser, noise, torch.full((len(noise),), place, device=noise.device))
