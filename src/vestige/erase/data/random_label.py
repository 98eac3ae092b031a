"""Random labels: relearn the forgotten images under answers that belong to something else."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from vestige.erase.data.balance import gradients, pull
from vestige.erase.data.erasediff import Target
from vestige.erase.data.saliency import Mask
from vestige.erase.driver import Batch, Driver, draw_batch, noise_loss
from vestige.erase.eraser import Eraser, Request
from vestige.errors import InvalidInput, Unsupported
from vestige.execute import Context
from vestige.models.denoiser import Denoiser

Classes = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Teacher:
    """What the network is to predict on noisy forgotten images.

    Parameters
    ----------
    base : the frozen model.
    classes : whose answers may be borrowed, ascending; None for uniform noise in [0, 1].
    """

    base: Denoiser
    classes: Classes | None

    @staticmethod
    def of(target: Target, base: Denoiser, request: Request) -> Teacher:
        """The teacher that a setting asks for.

        Answers are borrowed from the classes of retained images, so that a class that is to
        be forgotten altogether lends none.

        Raises
        ------
        Unsupported : mismatched labels for a model without classes, rows without labels, or no other class.
        """
        classes = _lenders(base, request)
        if target is Target.NOISE or (target is Target.AUTO and classes is None):
            return Teacher(base, None)
        if classes is None:
            raise Unsupported(
                "Mismatched labels need a class-conditional model, labelled rows to forget and another class.",
                expected="at least two classes.",
                remedy="use --target noise.",
            )
        return Teacher(base, classes)

    def wanted(self, batch: Batch, rng: np.random.Generator) -> Tensor:
        """The noise to be predicted [n, c, h, w], without gradients; costs an evaluation an image if borrowed."""
        device = batch.x_t.device
        if self.classes is None or batch.condition is None:
            return torch.from_numpy(rng.random(tuple(batch.x_t.shape), np.float32)).to(device)
        labels = other_labels(batch.condition.cpu().numpy(), self.classes, rng)
        with torch.no_grad():
            return self.base.noise(batch.x_t, batch.t, torch.from_numpy(labels).to(device))


def _lenders(base: Denoiser, request: Request) -> Classes | None:
    """Classes that may lend answers; None if some forgotten image finds no class but its own."""
    own = request.forget.labels
    if own is None or base.classes < 2:
        return None
    kept = request.retain.labels
    classes = np.arange(base.classes) if kept is None else np.unique(kept)
    return None if len(classes) == 1 and bool((own == classes[0]).any()) else classes.astype(np.int64)


def other_labels(labels: Classes, classes: Classes, rng: np.random.Generator) -> Classes:
    """For each label one of the ascending ``classes``, uniform over those that differ from it."""
    place = np.searchsorted(classes, labels)
    among = classes[np.minimum(place, len(classes) - 1)] == labels
    pick = rng.integers(0, len(classes) - among)
    return classes[pick + (among & (pick >= place))]


@dataclass(frozen=True)
class Relearning:
    """The descent on ``L_f + alpha L_r``, whose gradient a mask may restrict to some weights."""

    steps: int
    batch_size: int
    learning_rate: float
    retain_weight: float
    teacher: Teacher

    def run(
        self,
        base: Denoiser,
        module: nn.Module,
        request: Request,
        context: Context,
        key: dict[str, Any],
        label: str,
        mask: Mask | None = None,
    ) -> dict[str, float]:
        """Change the network in place; returns what the steps cost."""
        driver = Driver(base, module, context, key, self.steps, self.batch_size, self.learning_rate)
        fixed = None if mask is None else [~free for free in mask.unpacked(base.device)]
        weights = pull(request)

        def step(index: int, rng: np.random.Generator) -> int:
            kept = draw_batch(base, request.retain, rng, self.batch_size, request.retain_copies)
            gone = draw_batch(base, request.forget, rng, self.batch_size, weights)
            wanted = self.teacher.wanted(gone, rng)
            forget = noise_loss(driver.student, gone, wanted)
            retain = noise_loss(driver.student, kept, kept.noise)
            found = gradients(forget + self.retain_weight * retain, driver.parameters)
            if fixed is not None:
                # Adam leaves a weight alone, to the bit, if every gradient it saw was 0; infinity times 0 would not be.
                found = [g.masked_fill(still, 0.0) for g, still in zip(found, fixed, strict=True)]
            for parameter, gradient in zip(driver.parameters, found, strict=True):
                parameter.grad = gradient
            return len(kept.x_t) + len(gone.x_t)

        return driver.run(step, label)


def check_weight(name: str, value: float) -> None:
    """Raise InvalidInput unless a loss's weight is finite and not negative."""
    if not (math.isfinite(value) and value >= 0):
        raise InvalidInput(
            f"{name}={value}.", expected="a finite number that is not negative.", remedy="change the option."
        )


@dataclass(frozen=True)
class RandomLabel(Eraser):
    """Teach the network other answers on forgotten images, its own answers on retained ones.

    ``L = E_forget ||eps_f - eps_hat(x_t, c)||^2 + alpha E_retain ||eps - eps_hat(x_t, c)||^2``.

    ``eps_f`` is the frozen base's answer under another class, drawn for each sample among
    the classes of retained images, or uniform noise in [0, 1] where there are no labels.
    A step costs seven forward-equivalents, six with noise. It is `SalUn` without its mask.

    Parameters
    ----------
    steps, batch_size, learning_rate : of Adam; the batch is that of either side.
    retain_weight : alpha, for losses that are means over pixels.
    target : what forgotten images are to be predicted as; see `EraseDiff`.

    Source: Golatkar et al. 2020, arXiv 1911.04933 (baseline, for classifiers); Fan et al.
    2024, arXiv 2310.12508, for diffusion models.
    """

    claim: ClassVar[str] = "erases images by relearning them under the answers for another class, or noise"
    source: ClassVar[str] = "Golatkar et al. 2020, arXiv 1911.04933; Fan et al. 2024, arXiv 2310.12508"

    steps: int = 200
    batch_size: int = 24
    learning_rate: float = 2.2e-4
    retain_weight: float = 3.0
    target: Target = Target.AUTO

    def __post_init__(self) -> None:
        check_weight("retain_weight", self.retain_weight)

    def train(self, base: Denoiser, module: nn.Module, request: Request, context: Context) -> dict[str, float]:
        """Run the loop; see the class."""
        key = {"method": type(self).__name__, "base": base.digest, "request": request.digest, "seed": context.seed}
        teacher = Teacher.of(self.target, base, request)
        relearning = Relearning(self.steps, self.batch_size, self.learning_rate, self.retain_weight, teacher)
        label = f"Random labels, {len(request.forget)} images"
        return relearning.run(base, module, request, context, {**key, **self.settings()}, label)
