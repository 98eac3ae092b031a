"""Differentially private steps through Opacus: clipped gradients of single rows, and noise."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from vestige.dependencies import need
from vestige.errors import Unsupported
from vestige.train.recipe import Recipe


class Private:
    """DP-SGD (Abadi et al. 2016, arXiv 1607.00133) on a network and its optimizer.

    Rows are drawn by Poisson sampling, each with probability ``batch / rows``, as the accountant assumes. The
    guarantee is for one *row*: an image that stands in k rows has about k times the epsilon.

    Raises
    ------
    MissingExtra : Opacus is not installed.
    Unsupported : the batch exceeds the rows.
    """

    def __init__(self, network: nn.Module, optimizer: torch.optim.Optimizer, recipe: Recipe, rows: int) -> None:
        need("private", "opacus")
        from opacus import GradSampleModule
        from opacus.optimizers import DPOptimizer

        if recipe.batch > rows:
            raise Unsupported(
                f"A batch of {recipe.batch} of {rows} rows cannot be sampled privately.",
                expected="a batch of at most all rows.",
                remedy="lower the batch.",
            )
        self.recipe, self.count, self.rate = recipe, rows, recipe.batch / rows
        self.noise = torch.Generator()
        self.network: Any = GradSampleModule(network, loss_reduction="mean")
        self.optimizer: Any = DPOptimizer(
            optimizer,
            noise_multiplier=recipe.privacy_noise,
            max_grad_norm=recipe.clip,
            expected_batch_size=recipe.batch,
            generator=self.noise,
        )

    def rows(self, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        """The rows of one step; never none, which a sensible batch does not meet."""
        chosen = np.flatnonzero(rng.random(self.count) < self.rate)
        return chosen if len(chosen) else rng.integers(0, self.count, 1)

    def step(self, loss: Callable[[nn.Module], Tensor], step: int) -> Tensor:
        """One private step, and the mean of its losses; the noise belongs to (seed, step)."""
        self.optimizer.zero_grad(set_to_none=True)
        with warnings.catch_warnings():
            # Images need no gradient, which the hooks of the first layer remark upon.
            warnings.filterwarnings("ignore", "Full backward hook is firing")
            mean = loss(self.network).mean()
            mean.backward()
        self.noise.manual_seed((self.recipe.seed * 1_000_003 + step) % 2**63)
        self.optimizer.step()
        return mean.detach()

    def epsilon(self, steps: int) -> float:
        """Privacy of one row after ``steps``, at delta = 1 / rows (Renyi accountant)."""
        from opacus.accountants import RDPAccountant

        accountant = RDPAccountant()
        accountant.history = [(self.recipe.privacy_noise, self.rate, steps)]
        return float(accountant.get_epsilon(delta=1 / self.count))
