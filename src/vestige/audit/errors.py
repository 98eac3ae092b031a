"""Denoising errors of images: the part of the shared table that losses and dimension estimates read.

Entry (row, time, draw) is ``||eps - eps_hat(alpha x + sigma eps, t)||^2``, summed over
pixels. The noise belongs to the image (its row id) and the draw, so the same image is
probed alike in every model, subset and batch.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vestige.audit.probe import Augmentation, Condition, Noised, label_tensor, power_sums
from vestige.data.images import ImageSet
from vestige.execute import Context
from vestige.models.denoiser import Denoiser

__all__ = ["Table", "error_table", "label_tensor"]

Table = npt.NDArray[np.float32]


def error_table(
    denoiser: Denoiser,
    images: ImageSet,
    times: tuple[float, ...],
    draws: int,
    context: Context,
    *,
    label: str,
    condition: Condition = Condition.OWN,
    augmentation: Augmentation = Augmentation.NONE,
) -> Table:
    """Squared noise errors [rows, times, draws]; each entry is one network evaluation, computed once.

    A class-conditional model is conditioned on the images' labels, or on its null
    condition when they have none or ``condition`` asks for it. More times, draws,
    conditions or augmentations later cost only themselves.
    """
    recipes = [Noised(time, draw, condition, augmentation) for draw in range(draws) for time in times]
    squares = power_sums(denoiser, images, recipes, context, label=label)[..., 0]
    return np.ascontiguousarray(squares.reshape(len(images), draws, len(times)).swapaxes(1, 2))
