"""The loop that erasers share: seeded batches, counted passes, checkpoints, exact resumption."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from vestige.data.images import ImageSet
from vestige.digest import digest_json
from vestige.errors import InvalidInput, NothingChanged
from vestige.execute import Context
from vestige.models.denoiser import Denoiser, Labels, Prediction
from vestige.randomness import Stream, generator
from vestige.store import write_bytes

CHECKPOINT_EVERY = 25


@dataclass(frozen=True)
class Batch:
    """Noisy images with what was put in: x_t, eps [n, c, h, w], t [n], labels [n] or None."""

    x_t: Tensor
    noise: Tensor
    t: Tensor
    condition: Labels | None


def draw_batch(
    denoiser: Denoiser,
    images: ImageSet,
    rng: np.random.Generator,
    size: int,
    weights: npt.NDArray[np.int64] | npt.NDArray[np.float64] | None = None,
) -> Batch:
    """A batch of the training distribution of the denoiser: uniform times, Gaussian noise, rows by weight."""
    chance = None if weights is None else weights / weights.sum()
    rows = rng.choice(len(images), size=size, p=chance)
    device = denoiser.device
    t = torch.from_numpy(1 - rng.random(size)).float().to(device)
    t = denoiser.schedule.nearest_grid(t)
    noise = torch.from_numpy(rng.standard_normal((size, *images.shape), np.float32)).to(device)
    labels = None if images.labels is None or not denoiser.classes else torch.from_numpy(images.labels[rows])
    x_t = denoiser.noised(images.floats(rows).to(device), noise, t)
    return Batch(x_t, noise, t, None if labels is None else labels.to(device))


def noise_loss(student: Denoiser, batch: Batch, target: Tensor) -> Tensor:
    """Mean squared error of the predicted noise.

    A network that predicts the clean image is compared there (its noise error times
    sigma/alpha), as it was trained; the two agree up to that weight.
    """
    error = student.noise(batch.x_t, batch.t, batch.condition) - target
    if student.prediction is Prediction.CLEAN:
        alpha, sigma = student.levels(batch.t)
        error = error * sigma / alpha
    return error.square().mean()


@dataclass
class Driver:
    """Runs a fixed number of seeded Adam steps on a copy of a network, the rate falling by a cosine to 0.

    ``step(index, rng)`` must leave the descent direction in the parameters' ``.grad`` and
    return the number of images that went through a backward pass. State is saved every
    25 steps; a run that was cut off continues to the same weights.
    """

    base: Denoiser
    module: nn.Module
    context: Context
    key: dict[str, Any]
    steps: int
    batch_size: int
    learning_rate: float
    max_norm: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 1 or not self.learning_rate > 0:
            raise InvalidInput(
                f"steps={self.steps}, batch_size={self.batch_size}, learning_rate={self.learning_rate}.",
                expected="steps and batch size of at least 1 and a positive learning rate.",
                remedy="change the option.",
            )
        self.parameters = [p for p in self.module.parameters() if p.requires_grad]
        if not self.parameters:
            raise NothingChanged(
                "Every weight of the network is frozen, so none can be moved.",
                expected="weights that require gradients.",
                remedy="call requires_grad_(True) on the parts that may change.",
            )
        self.student = self.base.with_module(self.module)
        self.optimizer = torch.optim.Adam(self.parameters, lr=self.learning_rate)
        self._path = self.context.store.root / f"erase-{digest_json(self.key)[:24]}" / "checkpoint.pt"

    def run(self, step: Callable[[int, np.random.Generator], int], label: str) -> dict[str, float]:
        """Take the steps; returns steps, forward-equivalents a step and network evaluations."""
        first, spent = self._resume()
        with self.context.progress.task(label, self.steps) as task:
            task.advance(first)
            for index in range(first, self.steps):
                before = self.student.evaluations + self.base.evaluations
                passed_back = step(index, generator(self.context.seed, Stream.ERASE, index))
                spent += self.student.evaluations + self.base.evaluations - before + 2 * passed_back
                torch.nn.utils.clip_grad_norm_(self.parameters, self.max_norm)
                for group in self.optimizer.param_groups:
                    group["lr"] = self.learning_rate * (1 + math.cos(math.pi * index / self.steps)) / 2
                self.optimizer.step()
                self.optimizer.zero_grad(set_to_none=True)
                task.advance()
                if (index + 1) % CHECKPOINT_EVERY == 0:
                    self._save(index + 1, spent)
        return {
            "steps": float(self.steps),
            "forwards_per_step": spent / self.steps / self.batch_size,
            "forward_equivalents": float(spent),
        }

    def _save(self, step: int, spent: int) -> None:
        buffer = io.BytesIO()
        state = {"module": self.module.state_dict(), "optimizer": self.optimizer.state_dict()}
        torch.save({**state, "step": step, "spent": spent}, buffer)
        write_bytes(self._path, buffer.getvalue())

    def _resume(self) -> tuple[int, int]:
        if not self._path.exists():
            return 0, 0
        state = torch.load(io.BytesIO(self._path.read_bytes()), weights_only=True)
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        return state["step"], state["spent"]
