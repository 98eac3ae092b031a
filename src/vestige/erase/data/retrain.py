"""Training again from nothing, without the forgotten images: the exact reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from vestige.erase.driver import Batch, Driver
from vestige.erase.eraser import Eraser
from vestige.erase.request import Request
from vestige.errors import InvalidInput, Unsupported
from vestige.models.denoiser import Denoiser, Prediction
from vestige.randomness import Stream, generator


@dataclass(frozen=True)
class Retrain(Eraser):
    """Initialise the base's architecture anew and train it on the retained images alone.

    Nothing of the base's trained weights enters, so nothing of the forgotten images can be left: every other
    eraser is measured by its distance from this model. What is trained is what the network predicts, by the squared
    error of that prediction; retained rows are drawn as often as they stand in the training data; a network with a
    label for "no condition" sees it instead of the class in a share of rows, so that guidance is possible.

    The increment holds the difference of two unrelated networks and is as large as the model. The number of steps is
    the user's to state: the reference is as good as its training, so give it what the base was given.
    Weights that require no gradient were not trained and stay the base's. A step costs three forward-equivalents.

    Parameters
    ----------
    steps, batch_size, learning_rate : of Adam, the rate falling to 0 along a cosine.
    condition_drop : share of rows shown without their class, if the model has a null condition.

    Source: exact unlearning as in Bourtoule et al. 2021, arXiv 1912.03817; the loss of Ho et al. 2020, arXiv
    2006.11239, equation 14.
    """

    claim: ClassVar[str] = "trains the architecture anew without the forgotten images; the exact reference"
    source: ClassVar[str] = "Bourtoule et al. 2021, arXiv 1912.03817"

    steps: int = 4000
    batch_size: int = 64
    learning_rate: float = 1e-3
    condition_drop: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.condition_drop < 1:
            raise InvalidInput(
                f"condition_drop={self.condition_drop}.", expected="a share in [0, 1).", remedy="change the option."
            )

    def train(self, driver: Driver, request: Request) -> dict[str, float]:
        """Run the loop; see the class.

        Raises
        ------
        Unsupported : a part of the network with weights of its own does not say how they are initialised, or the
            changes are to be of low rank.
        """
        base = driver.base
        if driver.loop.rank:
            raise Unsupported(
                "A network trained anew differs from its base by no low-rank change.",
                expected="all weights free.",
                remedy="leave out --loop rank.",
            )
        # The first draw of step 0 is the driver's; the second seeds the weights.
        reinitialise(driver.module, int(generator(driver.context.seed, Stream.ERASE, 0, 1).integers(1 << 63)))

        def losses(part: Batch) -> Tensor:
            error = (driver.student.predict(part.x_t, part.t, part.condition) - part.wanted) * _weight(base, part.t)
            return error.square().flatten(1).mean(1)

        def step(index: int, rng: np.random.Generator) -> None:
            driver.follow(driver.gradient(driver.share(self._batch(base, request, rng)), losses))

        return driver.run(step, f"Retrain, {len(request.retain)} images")

    def _batch(self, base: Denoiser, request: Request, rng: np.random.Generator) -> Batch:
        """Noisy retained images, what the network should predict there, and conditions."""
        copies = request.retain_copies
        rows = rng.choice(len(request.retain), size=self.batch_size, p=copies / copies.sum())
        t = base.schedule.nearest_grid(torch.from_numpy(1 - rng.random(len(rows))).float().to(base.device))
        clean = request.retain.floats(rows).to(base.device)
        noise = torch.from_numpy(rng.standard_normal(tuple(clean.shape), np.float32)).to(base.device)
        labels = None
        if base.classes and request.retain.labels is not None:
            labels = torch.from_numpy(request.retain.labels[rows]).to(base.device)
            if base.null_condition is not None:
                dropped = torch.from_numpy(rng.random(len(rows)) < self.condition_drop).to(base.device)
                labels = torch.where(dropped, base.null_condition, labels)
        alpha, sigma = base.levels(t)
        target = base.prediction.target(clean, noise, alpha, sigma)
        return Batch(alpha * clean + sigma * noise, noise, t, labels, target=target)


def _weight(denoiser: Denoiser, t: Tensor) -> Tensor:
    """Sigma for a network that predicts scores, whose error grows without bound towards time 0; 1 for others."""
    sigma = denoiser.levels(t)[1]
    return sigma if denoiser.prediction is Prediction.SCORE else torch.ones_like(sigma)


def reinitialise(module: nn.Module, seed: int) -> None:
    """Draw all trainable weights anew by each layer's own rule, from ``seed`` alone.

    Raises
    ------
    Unsupported : a part holds trainable weights and has no ``reset_parameters``.
    """
    parts = [part for part in module.modules() if any(p.requires_grad for p in part.parameters(recurse=False))]
    for part in parts:
        if not callable(getattr(part, "reset_parameters", None)):
            raise Unsupported(
                f"{type(part).__name__} has weights of its own and no reset_parameters().",
                expected="layers that say how their weights are initialised.",
                remedy="give the layer a reset_parameters() method, or train the reference yourself.",
            )
    frozen = [(p, p.detach().clone()) for p in module.parameters() if not p.requires_grad]
    devices = sorted({p.device.index or 0 for p in module.parameters() if p.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices), torch.no_grad():
        torch.manual_seed(seed)
        for part in parts:
            part.reset_parameters()  # pyright: ignore[reportCallIssue]
        for parameter, value in frozen:
            parameter.copy_(value)
