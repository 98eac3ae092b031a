"""MUNBa (Wu and Harandi 2025, arXiv 2411.15537): unlearning as a bargain between forgetting and retaining."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np

from vestige.erase.data.balance import descend, gram, nash
from vestige.erase.data.sides import Sides
from vestige.erase.data.teacher import Target, Teacher
from vestige.erase.driver import Driver, row_losses
from vestige.erase.eraser import Eraser
from vestige.erase.request import Request


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

    target: Target = Target.AUTO

    def train(self, driver: Driver, request: Request) -> dict[str, float]:
        """Run the loop; see the class."""
        teacher, sides = Teacher.of(self.target, driver.base, request), Sides(driver, request)

        def step(index: int, rng: np.random.Generator) -> None:
            kept, gone = sides.kept(rng), sides.taught(index, rng, teacher)
            g_r = driver.gradient(kept, partial(row_losses, driver.student))
            g_f = driver.gradient(gone, partial(row_losses, driver.student))
            descend(driver.parameters, g_r, g_f, nash(gram(g_r, g_f)))

        return driver.run(step, f"MUNBa, {len(request.forget)} images")
