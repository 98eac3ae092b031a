"""EraseDiff (Wu et al. 2024, arXiv 2401.05779): data unlearning as constrained optimization."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import ClassVar

import numpy as np

from vestige.erase.data.balance import Gram, Weights, descend, gram, nearest
from vestige.erase.data.mean_label import start_as_others
from vestige.erase.data.sides import Sides
from vestige.erase.data.teacher import Target, Teacher
from vestige.erase.driver import Driver, row_losses
from vestige.erase.eraser import Eraser
from vestige.erase.request import Request
from vestige.errors import InvalidInput


class Balance(Enum):
    """How strongly the forget gradient is mixed in.

    ``quadratic`` is the paper's closed-form solution of its quadratic programme,
    ``cosine`` and ``fixed`` are what the public code does instead.
    """

    QUADRATIC = "quadratic"
    COSINE = "cosine"
    FIXED = "fixed"


class Start(Enum):
    """Where the label embedding of a class that is to be forgotten altogether starts.

    ``base`` is the base's own; ``others`` the mean of the retained classes' embeddings, from which the steps
    go on (:class:`vestige.erase.data.mean_label.MeanLabel`).
    """

    BASE = "base"
    OTHERS = "others"


@dataclass(frozen=True)
class EraseDiff(Eraser):
    """Descend the retain loss as far as the forget loss still falls.

    With ``g_r = grad E_retain ||eps - eps_hat||^2`` and ``g_f = grad E_forget ||eps_f - eps_hat||^2``,
    each step moves along ``d = g_r + lambda g_f``, where

    - quadratic: ``lambda = max(0, eta - <g_f, g_r> / ||g_f||^2)``, the closest direction to
      ``g_r`` with ``<g_f, d> >= eta ||g_f||^2`` (the paper's programme with
      ``a_t = eta ||grad g||^2``; the inner loop over ``phi`` then never enters the update);
    - cosine: ``lambda = max(0, eta - cos(g_f, g_r))`` (public code, dynamic mode);
    - fixed: ``lambda`` (public code, its default 0.1).

    Forgotten images are drawn in proportion to the square root of their copies. Targets
    ``eps_f`` come from the frozen base without gradients, labels are mismatched per sample among retained classes.
    The two gradients come from two disjoint backward passes, so a step costs
    seven forward-equivalents: 3 to retain, 3 to forget, 1 for the target, which a bank of targets saves.

    Parameters
    ----------
    steps, batch_size, learning_rate : of Adam on d; the batch is that of either side.
    eta : how fast the forget loss must fall, relative to its own gradient.
    fixed_lambda : used by ``balance=fixed``.
    target : what forgotten images are to be predicted as.
    start : where the label embedding of a class to be forgotten altogether starts; not in the paper.

    Source: arXiv 2401.05779, section 3 and its algorithm 1.
    """

    claim: ClassVar[str] = "erases images by gradient steps that lower the retain loss while the forget loss falls"
    source: ClassVar[str] = "Wu et al. 2024, arXiv 2401.05779"

    balance: Balance = Balance.QUADRATIC
    eta: float = 0.4
    fixed_lambda: float = 0.1
    target: Target = Target.AUTO
    start: Start = Start.BASE

    def __post_init__(self) -> None:
        if not (math.isfinite(self.eta) and math.isfinite(self.fixed_lambda)):
            raise InvalidInput(
                f"eta={self.eta}, fixed_lambda={self.fixed_lambda}.",
                expected="finite numbers.",
                remedy="change the option.",
            )

    def train(self, driver: Driver, request: Request) -> dict[str, float]:
        """Run the loop; see the class."""
        teacher, sides = Teacher.of(self.target, driver.base, request), Sides(driver, request)
        if self.start is Start.OTHERS:
            start_as_others(driver.module, driver.base, request)

        def step(index: int, rng: np.random.Generator) -> None:
            kept, gone = sides.kept(rng), sides.taught(index, rng, teacher)
            g_r = driver.gradient(kept, partial(row_losses, driver.student))
            g_f = driver.gradient(gone, partial(row_losses, driver.student))
            descend(driver.parameters, g_r, g_f, self.weights(gram(g_r, g_f)))

        return driver.run(step, f"EraseDiff, {len(request.forget)} images")

    def weights(self, gram: Gram) -> Weights:
        """1 and lambda, from the Gram matrix of the two gradients."""
        if self.balance is Balance.FIXED:
            return Weights(1.0, self.fixed_lambda)
        if self.balance is Balance.QUADRATIC:
            return nearest(gram, self.eta)
        return Weights(1.0, max(0.0, self.eta - gram.cosine) if gram.forget > 0 else 0.0)
