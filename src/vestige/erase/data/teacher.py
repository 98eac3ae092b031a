"""What the network should answer on forgotten images: another class's answers, noise, or an unlearned model's."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vestige.erase.driver import Batch
from vestige.erase.request import Request
from vestige.errors import Unsupported
from vestige.models.denoiser import Denoiser
from vestige.models.oracle import EmpiricalDenoiser

Classes = npt.NDArray[np.int64]


class Target(Enum):
    """What the network should predict on forgotten images.

    ``mismatched`` is the frozen model's answer under another class, one drawn per sample;
    ``noise`` is uniform noise in [0, 1]; ``auto`` is mismatched for class-conditional
    models and noise for others.
    """

    AUTO = "auto"
    MISMATCHED = "mismatched"
    NOISE = "noise"


@dataclass(frozen=True, eq=False)
class Teacher:
    """Answers for noisy forgotten images.

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
                remedy="use --set target=noise.",
            )
        return Teacher(base, classes)

    def prepared(self, batch: Batch, rng: np.random.Generator) -> Batch:
        """The batch with what its targets need: labels of other classes, or noise as its target."""
        device = batch.x_t.device
        if self.classes is None or batch.condition is None:
            noise = torch.from_numpy(rng.random(tuple(batch.x_t.shape), np.float32)).to(device)
            return replace(batch, target=noise)
        labels = other_labels(batch.condition.cpu().numpy(), self.classes, rng)
        return replace(batch, other=torch.from_numpy(labels).to(device))

    def wanted(self, batch: Batch) -> Tensor:
        """The noise to be predicted [n, c, h, w]; costs an evaluation an image if it is borrowed."""
        return self.base.noise(batch.x_t, batch.t, batch.other) if batch.target is None else batch.target


@dataclass(frozen=True, eq=False)
class Unlearned:
    """Answers of a model that never saw the forgotten images, taken on in the direction away from the base's.

    ``eps_u + push (eps_u - eps_base)``, where ``eps_u`` is the answer of the exactly unlearned model: the optimal
    denoiser of the retained images of the class, in their copies, which asks no network.

    At large noise, where a model's answer is a mean over many images, ``eps_u`` is what any model of the retained ones
    would answer. At small noise it is the nearest retained image, which no model that generalizes gives.

    Parameters
    ----------
    base : the frozen model; without a push it is not asked.
    oracle : the optimal denoiser.
    push : how far beyond; 0 for the answer itself.
    """

    base: Denoiser
    oracle: EmpiricalDenoiser
    push: float

    @staticmethod
    def of(base: Denoiser, request: Request, push: float) -> Unlearned:
        """The teacher for a request, the retained images in memory."""
        retain, device = request.retain, base.device
        labels = None if retain.labels is None or not base.classes else torch.from_numpy(retain.labels).to(device)
        weights = torch.from_numpy(request.retain_copies).float().to(device)
        oracle = EmpiricalDenoiser(retain.floats().to(device), base.schedule, labels=labels, weights=weights)
        return Unlearned(base, oracle, push)

    def prepared(self, batch: Batch, rng: np.random.Generator) -> Batch:
        """The batch as it is."""
        return batch

    def wanted(self, batch: Batch) -> Tensor:
        """The noise to be predicted [n, c, h, w]; costs an evaluation an image if there is a push."""
        answer = self.oracle.noise(batch.x_t, batch.t, batch.condition)
        if not self.push:
            return answer
        return answer + self.push * (answer - self.base.noise(batch.x_t, batch.t, batch.condition))


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
