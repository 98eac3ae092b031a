"""EraseDiff (Wu et al. 2024, arXiv 2401.05779): data unlearning as constrained optimization."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from vestige.erase.data.balance import gradients, pull
from vestige.erase.driver import Batch, Driver, draw_batch, noise_loss
from vestige.erase.eraser import Eraser, Request
from vestige.errors import InvalidInput, Unsupported
from vestige.execute import Context
from vestige.models.denoiser import Denoiser


class Balance(Enum):
    """How strongly the forget gradient is mixed in.

    ``quadratic`` is the paper's closed-form solution of its quadratic programme,
    ``cosine`` and ``fixed`` are what the public code does instead.
    """

    QUADRATIC = "quadratic"
    COSINE = "cosine"
    FIXED = "fixed"


class Target(Enum):
    """What the network should predict on forgotten images.

    ``mismatched`` is the frozen model's answer under another class, one drawn per sample;
    ``noise`` is uniform noise in [0, 1]; ``auto`` is mismatched for class-conditional
    models and noise for others.
    """

    AUTO = "auto"
    MISMATCHED = "mismatched"
    NOISE = "noise"


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
    ``eps_f`` come from the frozen base without gradients, labels are mismatched per sample.
    The two gradients come from two disjoint backward passes, so a step costs
    seven forward-equivalents: 3 to retain, 3 to forget, 1 for the target.

    Parameters
    ----------
    steps, batch_size, learning_rate : of Adam on d; the batch is that of either side.
    eta : how fast the forget loss must fall, relative to its own gradient.
    fixed_lambda : used by ``balance=fixed``.
    target : what forgotten images are to be predicted as.

    Source: arXiv 2401.05779, section 3 and its algorithm 1.
    """

    claim: ClassVar[str] = "erases images by gradient steps that lower the retain loss while the forget loss falls"
    source: ClassVar[str] = "Wu et al. 2024, arXiv 2401.05779"

    steps: int = 200
    batch_size: int = 24
    learning_rate: float = 2.2e-4
    balance: Balance = Balance.QUADRATIC
    eta: float = 0.4
    fixed_lambda: float = 0.1
    target: Target = Target.AUTO

    def __post_init__(self) -> None:
        if not (math.isfinite(self.eta) and math.isfinite(self.fixed_lambda)):
            raise InvalidInput(
                f"eta={self.eta}, fixed_lambda={self.fixed_lambda}.",
                expected="finite numbers.",
                remedy="change the option.",
            )

    def train(self, base: Denoiser, module: nn.Module, request: Request, context: Context) -> dict[str, float]:
        """Run the loop; see the class."""
        target = self._target(base, request)
        key = {"base": base.digest, "request": request.digest, "seed": context.seed, **self.settings()}
        driver = Driver(base, module, context, key, self.steps, self.batch_size, self.learning_rate)

        weights = pull(request)

        def step(index: int, rng: np.random.Generator) -> int:
            kept = draw_batch(base, request.retain, rng, self.batch_size, request.retain_copies)
            gone = draw_batch(base, request.forget, rng, self.batch_size, weights)
            labels = gone.condition if target is Target.MISMATCHED else None
            wanted = self._wanted(base, gone, labels, rng)
            g_r = gradients(noise_loss(driver.student, kept, kept.noise), driver.parameters)
            g_f = gradients(noise_loss(driver.student, gone, wanted), driver.parameters)
            strength = self.strength(dot(g_f, g_f), dot(g_f, g_r), dot(g_r, g_r))
            for parameter, retain, forget in zip(driver.parameters, g_r, g_f, strict=True):
                parameter.grad = retain.add_(forget, alpha=strength)
            return len(kept.x_t) + len(gone.x_t)

        return driver.run(step, f"EraseDiff, {len(request.forget)} images")

    def strength(self, forget_forget: float, forget_retain: float, retain_retain: float) -> float:
        """Lambda from the Gram matrix of the two gradients: <g_f,g_f>, <g_f,g_r>, <g_r,g_r>."""
        if self.balance is Balance.FIXED:
            return self.fixed_lambda
        if forget_forget == 0:
            return 0.0
        if self.balance is Balance.QUADRATIC:
            return max(0.0, self.eta - forget_retain / forget_forget)
        norms = (forget_forget * retain_retain) ** 0.5
        return max(0.0, self.eta - (forget_retain / norms if norms else 0.0))

    def _target(self, base: Denoiser, request: Request) -> Target:
        labelled = base.classes >= 2 and request.forget.labels is not None
        if self.target is Target.AUTO:
            return Target.MISMATCHED if labelled else Target.NOISE
        if self.target is Target.MISMATCHED and not labelled:
            raise Unsupported(
                "Mismatched labels need a class-conditional model and labelled rows to forget.",
                expected="at least two classes.",
                remedy="use --target noise.",
            )
        return self.target

    def _wanted(self, base: Denoiser, batch: Batch, labels: Tensor | None, rng: np.random.Generator) -> Tensor:
        if labels is None:
            return torch.from_numpy(rng.random(tuple(batch.x_t.shape), np.float32)).to(batch.x_t.device)
        shift = torch.from_numpy(rng.integers(1, base.classes, size=len(batch.x_t))).to(batch.x_t.device)
        with torch.no_grad():
            return base.noise(batch.x_t, batch.t, (labels + shift) % base.classes)


def dot(a: list[Tensor], b: list[Tensor]) -> float:
    """Inner product over all parameters."""
    return float(torch.stack([(x * y).sum() for x, y in zip(a, b, strict=True)]).double().sum())
