"""The diagonal of the Fisher information of a diffusion model, from gradients of single images in batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from vestige.data.images import ImageSet
from vestige.digest import digest_json
from vestige.erase.data.saliency import CHUNK, accumulated, chunks, spread, stratified, trainable
from vestige.erase.driver import Batch, derivatives, noise_loss
from vestige.errors import Unsupported
from vestige.execute import Context
from vestige.models.denoiser import Denoiser

_ROOM = 1 << 26
"""Most numbers that the gradients of the images of one chunk may take."""


class ImageLoss(nn.Module):
    """The denoising loss of one image, the mean over its times, as a function of the weights."""

    def __init__(self, student: Denoiser, module: nn.Module) -> None:
        super().__init__()
        self.network = module
        self._student = student

    def forward(self, x_t: Tensor, noise: Tensor, t: Tensor, condition: Tensor | None) -> Tensor:
        """Loss of [times, c, h, w] noisy versions of one image."""
        return noise_loss(self._student, Batch(x_t, noise, t, condition))


def squares_by_loop(loss: ImageLoss, parameters: Sequence[nn.Parameter], batch: Batch, times: int) -> list[Tensor]:
    """Sum over images of the squared gradient of each one's loss, one image after the other."""
    sums = [torch.zeros_like(p) for p in parameters]
    for start in range(0, len(batch.x_t), times):
        one = slice(start, start + times)
        condition = None if batch.condition is None else batch.condition[one]
        alone = derivatives(loss(batch.x_t[one], batch.noise[one], batch.t[one], condition), list(parameters))
        for total, gradient in zip(sums, alone, strict=True):
            total += gradient.square()
    return sums


def squares_by_vmap(loss: ImageLoss, parameters: Sequence[nn.Parameter], batch: Batch, times: int) -> list[Tensor]:
    """The same, all images at once.

    Raises
    ------
    RuntimeError : the network does something that ``torch.func.vmap`` cannot batch.
    """
    names = {id(p): name for name, p in loss.named_parameters()}
    weights = {names[id(p)]: p.detach() for p in parameters}

    def of(weights: dict[str, Tensor], *image: Tensor | None) -> Tensor:
        return functional_call(loss, weights, image)

    parts = [batch.x_t, batch.noise, batch.t, *([] if batch.condition is None else [batch.condition])]
    inputs: list[Tensor | None] = [part.unflatten(0, (-1, times)) for part in parts]
    axes: list[int | None] = [0] * len(inputs)
    if batch.condition is None:
        inputs, axes = [*inputs, None], [*axes, None]
    single = vmap(grad(of), in_dims=(None, *axes))(weights, *inputs)
    return [single[name].square().sum(0) for name in weights]


def fisher_diagonal(
    base: Denoiser, module: nn.Module, images: ImageSet, most: int, times: int, context: Context
) -> tuple[list[Tensor], int]:
    """Mean over images of the squared gradient of an image's denoising loss, and what that cost.

    ``F_i = E_x (d/d theta_i  mean over times of L_t(x))^2`` with ``L_t`` the mean squared
    error over pixels. Times are stratified: one in each of ``times`` equal parts of (0, 1].

    Parameters
    ----------
    base, module : a model and its network, or a copy of it; weights that require gradients count.
    most : images that are used, drawn without replacement if there are more.

    Returns
    -------
    fisher, forward_equivalents : a tensor for each such parameter; three for each noisy image.

    Raises
    ------
    NothingChanged : every weight is frozen.
    Unsupported : no weight has any influence on the loss.

    Source: Heng and Soh 2023, arXiv 2305.10120, section 3 (there the sum over 1,000 times).
    """
    parameters = trainable(module)
    rows = spread(images, most, context.seed)
    key: dict[str, Any] = {"base": base.digest, "images": images.digest, "seed": context.seed}
    key |= {"most": most, "times": times, "frozen": [p.requires_grad for p in module.parameters()]}
    folder = context.store.root / f"fisher-{digest_json(key)[:24]}"
    loss = ImageLoss(base.with_module(module), module)

    def add(sums: list[Tensor], part: npt.NDArray[np.int64]) -> None:
        batch = stratified(base, images, part, times, context.seed)
        try:
            squares = squares_by_vmap(loss, parameters, batch, times)
        except RuntimeError as error:
            if "vmap" not in str(error):
                raise
            squares = squares_by_loop(loss, parameters, batch, times)
        for total, square in zip(sums, squares, strict=True):
            total += square / len(rows)

    together = min(max(1, CHUNK // times), max(1, _ROOM // sum(math.prod(p.shape) for p in parameters)))
    zeros = [torch.zeros_like(p) for p in parameters]
    sums = accumulated(
        folder, zeros, list(chunks(rows, together)), add, context, f"Fisher information of {len(rows)} images"
    )
    if not any(bool(f.any()) for f in sums):
        raise Unsupported(
            "No weight of the network has any influence on its loss.",
            expected="a network that answers with the weights it was handed.",
            remedy="see that with_module keeps the module itself, not a copy.",
        )
    return sums, 3 * len(rows) * times
