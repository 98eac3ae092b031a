"""Forgetting a class through its label: it comes to stand for the classes that remain."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from vestige.erase.data.sides import Sides
from vestige.erase.driver import Driver, row_losses
from vestige.erase.eraser import Eraser
from vestige.erase.request import Request
from vestige.errors import Unsupported
from vestige.models.denoiser import Denoiser


@dataclass(frozen=True)
class MeanLabel(Eraser):
    """Give a class that is to be forgotten the mean label embedding of the others, then train on with these.

    ``e_c <- mean of e_k over retained classes k``, then steps along ``grad E_retain ||eps - eps_hat(x_t, k)||^2``.

    No other class reads that row, so the jump costs them nothing, and the rest of the network is only ever shown
    images that it may keep. What asks for the class gets images of the others. The rest of the network still knows
    how the class is drawn, until training on without it wears that off: whoever can search or train the embedding
    gets it back (:class:`vestige.erase.recover.embedding_inversion.EmbeddingInversion`). A step costs three
    forward-equivalents.

    Parameters
    ----------
    steps, batch_size, learning_rate : of Adam.

    Source: ours; the retain loss is that of Ho et al. 2020, arXiv 2006.11239, equation 14.
    """

    claim: ClassVar[str] = "makes a forgotten class's label stand for the others; cheap, exact for them, but shallow"
    source: ClassVar[str] = "ours"
    needs_whole_class: ClassVar[bool] = True

    steps: int = 10
    learning_rate: float = 1e-5

    def train(self, driver: Driver, request: Request) -> dict[str, float]:
        """Set the embedding, then run the loop; see the class.

        Raises
        ------
        Unsupported : no class is to be forgotten altogether, or the network has no table of label embeddings.
        """
        sides = Sides(driver, request)
        start_as_others(driver.module, driver.base, request)

        def step(index: int, rng: np.random.Generator) -> None:
            driver.follow(driver.gradient(sides.kept(rng), partial(row_losses, driver.student)))

        return driver.run(step, f"MeanLabel, {len(request.forget)} images")


def start_as_others(module: nn.Module, denoiser: Denoiser, request: Request) -> None:
    """Give classes that no retained image has the mean label embedding of those that they have, in place.

    Raises
    ------
    Unsupported : there is no such class, or no table of label embeddings.
    """
    tables = [m for m in module.modules() if isinstance(m, nn.Embedding) and m.num_embeddings >= denoiser.classes > 0]
    gone, kept = request.whole_classes, request.retain.labels
    if not gone or not tables or kept is None:
        raise Unsupported(
            "There is no label embedding to set.",
            expected="a network with a table of label embeddings, and a class that is to be forgotten altogether.",
            remedy="use --method erasediff (with start=base, its default).",
        )
    with torch.no_grad():
        for table in tables:
            table.weight[gone] = table.weight[sorted(set(kept.tolist()))].mean(0)
