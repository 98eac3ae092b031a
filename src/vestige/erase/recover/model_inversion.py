"""Model inversion: from noise, by gradient, images that the erased model denoises best - are they forgotten ones?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch

from vestige.data.images import ImageSet, to_uint8
from vestige.erase.recover.measure import DRAW, Bools, check, choose, share_difference
from vestige.erase.recover.recovery import Outcome, Recovery, Target
from vestige.execute import Context
from vestige.metrics.interval import clopper_pearson, estimate
from vestige.models.denoiser import Denoiser
from vestige.nearest import nearest, rms
from vestige.randomness import Stream, normal

Bytes = npt.NDArray[np.uint8]

_DRAW = DRAW + (1 << 19)


@dataclass(frozen=True)
class ModelInversion(Recovery):
    """Optimise images, without seeing any, until the erased model denoises them well, and look for forgotten ones.

    From Gaussian noise, Adam lowers ``||eps - eps_hat(alpha x + sigma eps, t)||^2`` in x, with t falling evenly from
    the first to the last of ``times`` and fresh noise at each step, under the labels of the forgotten images in turn.
    An image counts when it lies within ``delta`` of a forgotten one. The control counts the same images against as
    many unseen ones; the advantage is the difference of the two shares (exact interval of McNemar's test).

    Parameters
    ----------
    attempts : images to optimise.
    steps, rate : of Adam, on pixels in [-1, 1].
    times : first and last noise level.
    delta : rms distance, pixels in [0, 1].
    """

    claim: ClassVar[str] = "optimises images from noise under the erased model and looks for forgotten ones among them"
    source: ClassVar[str] = "Fredrikson et al. 2015, doi 10.1145/2810103.2813677; Carlini et al. 2023, arXiv 2301.13188"

    attempts: int = 32
    steps: int = 100
    rate: float = 0.05
    times: tuple[float, float] = (0.8, 0.1)
    delta: float = 0.05

    def __post_init__(self) -> None:
        check(times=self.times, attempts=self.attempts, steps=self.steps)

    def attack(self, target: Target, context: Context) -> Outcome:
        """Optimise under the erased model and under the base, then count."""
        unseen = target.outside()
        count = min(len(target.forgotten), len(unseen))
        sides = [choose(images, count, context.seed) for images in (target.forgotten, unseen)]
        made = {
            name: self._images(model, target.forgotten, context)
            for name, model in (("erased", target.erased), ("base", target.base))
        }
        hits = {name: [self._close(pixels, side) for side in sides] for name, pixels in made.items()}
        advantage, ceiling = (share_difference(hits[k][0], hits[k][1], target.confidence) for k in ("erased", "base"))
        found = [clopper_pearson(int(side.sum()), self.attempts) for side in hits["erased"]]
        numbers = [int(side.sum()) for side in hits["erased"]]
        whole = int(self._close(made["erased"], target.forgotten).sum())
        return Outcome(
            attack="model inversion",
            effort=f"{self.attempts} images of {self.steps} steps",
            budget=2 * self.attempts * self.steps * 3,
            advantage=advantage,
            ceiling=ceiling,
            got=f"{numbers[0]} of {self.attempts} images within {self.delta:g} of a forgotten one",
            control=f"{numbers[1]} within {self.delta:g} of as many unseen ones",
            words=f"{numbers[0]} of {self.attempts} images made from noise lie within {self.delta:g} of one of {count} "
            f"forgotten images, {numbers[1]} of one of {count} unseen ones.",
            summary=(
                estimate("recover/model_inversion_share", found[0], "share of images", "close to a forgotten image"),
                estimate("recover/model_inversion_share_unseen", found[1], "share of images", "as many unseen images"),
                estimate("recover/model_inversion_advantage", advantage, "difference of shares", target.note),
                estimate(
                    "recover/model_inversion_share_all",
                    clopper_pearson(whole, self.attempts),
                    "share of images",
                    f"close to any of {len(target.forgotten)} forgotten images",
                ),
            ),
        )

    def _images(self, model: Denoiser, like: ImageSet, context: Context) -> Bytes:
        labels = None if like.labels is None or not model.classes else like.labels
        key: dict[str, Any] = {"model": model.digest, "seed": context.seed, "shape": list(like.shape)}
        key |= {"labels": None if labels is None else labels.tolist(), "steps": self.steps, "rate": self.rate}
        key |= {"times": list(self.times)}

        def compute(rows: npt.NDArray[np.int64]) -> Bytes:
            size = context.batch_size
            told = None if labels is None else labels[rows % len(labels)]
            parts = [
                self._optimised(model, rows[i : i + size], None if told is None else told[i : i + size], context.seed)
                for i in range(0, len(rows), size)
            ]
            return np.concatenate(parts) if parts else np.empty((0, *model.shape), np.uint8)

        column = context.store.column("recover-model-inversion", key)
        label = "recovery: model inversion"
        return column.fill(self.attempts, compute, shard_rows=64, progress=context.progress, label=label)

    def _optimised(
        self, model: Denoiser, rows: npt.NDArray[np.int64], labels: npt.NDArray[np.int64] | None, seed: int
    ) -> Bytes:
        device = model.device
        told = None if labels is None else torch.from_numpy(labels).to(device)
        x = torch.from_numpy(normal(seed, Stream.ERASE, rows, model.shape, _DRAW)).to(device).requires_grad_()
        optimizer = torch.optim.Adam([x], lr=self.rate)
        for step, time in enumerate(np.linspace(*self.times, self.steps).tolist(), start=1):
            noise = torch.from_numpy(normal(seed, Stream.ERASE, rows, model.shape, _DRAW + step)).to(device)
            t = torch.full((len(rows),), time, device=device)
            error = model.noise(model.noised(x, noise, t), t, told) - noise
            # Only the pixels' gradient is asked for: weights that train elsewhere must not collect any.
            (x.grad,) = torch.autograd.grad(error.square().sum(), [x])
            optimizer.step()
        return to_uint8(x.detach())

    def _close(self, pixels: Bytes, images: ImageSet) -> Bools:
        flat = np.ascontiguousarray(pixels.reshape(len(pixels), -1))
        return rms(nearest(flat, images.flat).distance2[:, 0], flat.shape[1]) <= self.delta
