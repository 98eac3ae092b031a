"""The table of denoising errors that loss-based attacks and dimension estimates share.

Entry (row, time, draw) is ``||eps - eps_hat(alpha x + sigma eps, t)||^2``, summed over
pixels. The noise belongs to the image (its row id) and the draw, so the same image is
probed alike in every model, subset and batch.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from vestige.data.images import ImageSet
from vestige.execute import Context
from vestige.models.denoiser import Denoiser, Labels
from vestige.randomness import Stream, normal

Table = npt.NDArray[np.float32]


def error_table(
    denoiser: Denoiser, images: ImageSet, times: tuple[float, ...], draws: int, context: Context, *, label: str
) -> Table:
    """Squared noise errors [rows, times, draws]; each entry is one network evaluation, computed once.

    A class-conditional model is conditioned on the images' labels, or on its null
    condition when they have none.
    """
    key = {
        "model": denoiser.digest,
        "images": images.digest,
        "times": list(times),
        "draws": draws,
        "seed": context.seed,
    }
    column = context.store.column("errors", key)

    def compute(rows: npt.NDArray[np.int64]) -> Table:
        return _errors(denoiser, images, rows, times, draws, context)

    shape = (len(images), len(times), draws)
    values = column.fill(len(images), compute, shard_rows=128, progress=context.progress, label=label)
    return values.reshape(shape)


def label_tensor(denoiser: Denoiser, images: ImageSet, rows: npt.NDArray[np.int64]) -> Labels | None:
    """The condition of each row for this model, or None."""
    if not denoiser.classes or images.labels is None:
        return None
    return torch.from_numpy(images.labels[rows]).to(denoiser.device)


@torch.no_grad()
def _errors(
    denoiser: Denoiser,
    images: ImageSet,
    rows: npt.NDArray[np.int64],
    times: tuple[float, ...],
    draws: int,
    context: Context,
) -> Table:
    table = np.empty((len(rows), len(times), draws), np.float32)
    names = [int(images.ids[r], 16) for r in rows]
    for start in range(0, len(rows), context.batch_size):
        part = slice(start, start + context.batch_size)
        clean = images.floats(rows[part]).to(denoiser.device)
        condition = label_tensor(denoiser, images, rows[part])
        for draw in range(draws):
            noise = torch.from_numpy(normal(context.seed, Stream.LOSS, names[part], images.shape, draw))
            noise = noise.to(denoiser.device)
            for i, time in enumerate(times):
                t = torch.full((len(clean),), time, device=denoiser.device)
                guess = denoiser.noise(denoiser.noised(clean, noise, t), t, condition)
                table[part, i, draw] = (guess - noise).square().flatten(1).sum(1).cpu().numpy()
    return table
