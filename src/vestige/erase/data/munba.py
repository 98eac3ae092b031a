"""MUNBa (Wu and Harandi 2025, arXiv 2411.15537): unlearning as a bargain between forgetting and retaining."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from vestige.erase.data.balance import descend, gradients, gram, nash, pull
from vestige.erase.data.erasediff import Target
from vestige.erase.driver import Batch, Driver, draw_batch, noise_loss
from vestige.erase.eraser import Eraser, Request
from vestige.errors import Unsupported
from vestige.execute import Context
from vestige.models.denoiser import Denoiser


@dataclass(frozen=True)
class MUNBa(Eraser):
    """Descend the retain and the forget loss along their Nash bargaining solution.

    With ``g_r = grad E_retain ||eps - eps_hat||^2`` and ``g_f = grad E_forget ||eps_f - eps_hat||^2`` each step moves
    along the direction that maximizes ``<g_r, d> <g_f, d>`` at a given length,

        ``d = (g_r / ||g_r|| + g_f / ||g_f||) / sqrt(1 + cos)``,

    the bisector: both losses fall, and neither gradient rules by its length. The paper writes the factor as
    ``sqrt((1 - cos) / (sin^2 + xi))``, which is the same for ``xi = 0`` but vanishes where the gradients agree; here
    the form without the removable singularity is used. Gradients that point against each other leave no
    bargain and the step follows Adam's momentum alone. Targets ``eps_f`` are those of EraseDiff.

    A step costs seven forward-equivalents: 3 to retain, 3 to forget, 1 for a mismatched target.

    Parameters
    ----------
    steps, batch_size, learning_rate : of Adam on d; the batch is that of either side.
    target : what forgotten images are to be predicted as.

    Source: arXiv 2411.15537, the closed form for two players.
    """

    claim: ClassVar[str] = "erases images along the Nash bargaining solution of the forget and the retain loss"
    source: ClassVar[str] = "Wu and Harandi 2025, arXiv 2411.15537"

    steps: int = 200
    batch_size: int = 24
    learning_rate: float = 2.2e-4
    target: Target = Target.AUTO

    def train(self, base: Denoiser, module: nn.Module, request: Request, context: Context) -> dict[str, float]:
        """Run the loop; see the class."""
        mismatched = self._mismatched(base, request)
        key = {"eraser": "MUNBa", "base": base.digest, "request": request.digest, "seed": context.seed}
        key |= self.settings()
        driver = Driver(base, module, context, key, self.steps, self.batch_size, self.learning_rate)
        weights = pull(request)

        def step(index: int, rng: np.random.Generator) -> int:
            kept = draw_batch(base, request.retain, rng, self.batch_size, request.retain_copies)
            gone = draw_batch(base, request.forget, rng, self.batch_size, weights)
            wanted = _other_class(base, gone, rng) if mismatched else _uniform(gone, rng)
            g_r = gradients(noise_loss(driver.student, kept, kept.noise), driver.parameters)
            g_f = gradients(noise_loss(driver.student, gone, wanted), driver.parameters)
            descend(driver.parameters, g_r, g_f, nash(gram(g_r, g_f)))
            return len(kept.x_t) + len(gone.x_t)

        return driver.run(step, f"MUNBa, {len(request.forget)} images")

    def _mismatched(self, base: Denoiser, request: Request) -> bool:
        labelled = base.classes >= 2 and request.forget.labels is not None
        if self.target is Target.MISMATCHED and not labelled:
            raise Unsupported(
                "Mismatched labels need a class-conditional model and labelled rows to forget.",
                expected="at least two classes.",
                remedy="use --set target=noise.",
            )
        return labelled and self.target is not Target.NOISE


def _other_class(base: Denoiser, batch: Batch, rng: np.random.Generator) -> Tensor:
    """The frozen base's answers under another class, one drawn for each image."""
    shift = torch.from_numpy(rng.integers(1, base.classes, size=len(batch.x_t))).to(batch.x_t.device)
    labels = None if batch.condition is None else (batch.condition + shift) % base.classes
    with torch.no_grad():
        return base.noise(batch.x_t, batch.t, labels)


def _uniform(batch: Batch, rng: np.random.Generator) -> Tensor:
    """Uniform noise in [0, 1]."""
    return torch.from_numpy(rng.random(tuple(batch.x_t.shape), np.float32)).to(batch.x_t.device)
