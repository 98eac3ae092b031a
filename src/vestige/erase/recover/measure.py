"""What recovery attacks measure with: denoising errors of images, and the advantage of one side over its control."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vestige.data.images import ImageSet
from vestige.errors import InvalidInput
from vestige.metrics.interval import Interval, clopper_pearson
from vestige.metrics.paired import auc_difference, discordance
from vestige.metrics.roc import auc
from vestige.models.denoiser import Denoiser
from vestige.randomness import Stream, generator, normal

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
ByModel = dict[str, tuple[Floats, Floats]]
"""A number of each forgotten and each unseen image, by model: erased, base, and reference where there is one."""

DRAW = 1 << 20
"""First draw of recovery attacks in the stream of erasures, far above those that erasers use."""


def labels_of(denoiser: Denoiser, images: ImageSet) -> Tensor | None:
    """The images' labels for a class-conditional model; None for any other, or if they have none."""
    if not denoiser.classes or images.labels is None:
        return None
    return torch.from_numpy(images.labels).to(denoiser.device)


@torch.no_grad()
def denoising_errors(
    denoiser: Denoiser, images: ImageSet, times: Sequence[float], draws: int, seed: int, batch_size: int = 128
) -> Floats:
    """Squared error of the predicted noise, a pixel, mean over times and draws [n].

    The noise belongs to the image and the draw, so that every model is asked the same. Costs
    ``len(times) * draws`` network evaluations an image.
    """
    names = [int(identity, 16) for identity in images.ids]
    labels, device = labels_of(denoiser, images), denoiser.device
    total = np.zeros(len(images))
    for start in range(0, len(images), batch_size):
        part = slice(start, start + batch_size)
        clean = images.floats(part).to(device)
        told = None if labels is None else labels[part]
        for draw in range(draws):
            noise = torch.from_numpy(normal(seed, Stream.LOSS, names[part], images.shape, draw)).to(device)
            for time in times:
                t = torch.full((len(clean),), time, device=device)
                error = denoiser.noise(denoiser.noised(clean, noise, t), t, told) - noise
                total[part] += error.square().flatten(1).mean(1).double().cpu().numpy()
    return total / (draws * len(times))


def choose(images: ImageSet, most: int, seed: int) -> ImageSet:
    """At most ``most`` images, drawn by seed, in order."""
    if len(images) <= most:
        return images
    order = generator(seed, Stream.ERASE, len(images), DRAW).permutation(len(images))
    return images.take(np.sort(order[:most]))


def one_sided(forgotten: Floats, control: Floats, confidence: float) -> Interval:
    """``2 AUC - 1`` of scores that are higher the more came back: 0 if both sides are alike, 1 if all rank above."""
    area = auc(forgotten, control, confidence)
    return Interval(2 * area.value - 1, 2 * area.low - 1, 2 * area.high - 1, area.n)


def two_sided(area: Interval, chance: float = 0.5) -> Interval:
    """``2 |AUC - chance|`` with an interval above 0 exactly where that of the AUC excludes chance."""
    up = [2 * (v - chance) for v in (area.value, area.low, area.high)]
    down = [-v for v in (up[0], up[2], up[1])]
    value, low, high = (max(a, b) for a, b in zip(up, down, strict=True))
    return Interval(value, low, high, area.n)


def told_apart(scores: ByModel, model: str, confidence: float) -> Interval:
    """How far scores tell forgotten images from unseen ones, either way: ``2 |AUC - that of the control|``.

    The control is the reference on the same rows, which knows what images of the two sides differ in anyway; without
    one, or with a single row on a side, where the pairing cannot be used, it is chance.
    """
    ours, theirs = scores[model], scores.get("reference")
    if theirs is None or min(map(len, ours)) < 2:
        return two_sided(auc(*ours, confidence))
    return two_sided(auc_difference((ours[0], theirs[0]), (ours[1], theirs[1]), confidence), chance=0.0)


def share_difference(hits: Bools, control: Bools, confidence: float) -> Interval:
    """Share of hits [n] less that of the control on the same rows, in [-1, 1]; exact interval of McNemar's test."""
    n = len(hits)
    apart = discordance(int((hits & ~control).sum()), int((control & ~hits).sum()), confidence)
    if apart.n == 0:
        most = clopper_pearson(0, n, confidence).high
        return Interval(0.0, -most, most, n)
    return Interval(apart.value / n, apart.low / n, apart.high / n, n)


def check(*, times: Sequence[float] = (1.0,), share: float = 1.0, **counts: int) -> None:
    """Refuse settings that make no sense.

    Raises
    ------
    InvalidInput : a count below 1, no time, or a time or share outside (0, 1].
    """
    bad = [f"{name}={value}" for name, value in counts.items() if value < 1]
    if bad or not times or not all(0 < part <= 1 for part in (*times, share)):
        raise InvalidInput(
            f"{', '.join(bad) or f'times={tuple(times)} and a share of {share:g}'}.",
            expected="counts of at least 1, and times and shares in (0, 1].",
            remedy="change the setting.",
        )


def shown(interval: Interval, digits: int = 2) -> str:
    """``0.31 [0.12, 0.50]``."""
    value, low, high = (f"{v:.{digits}f}" for v in (interval.value, interval.low, interval.high))
    return f"{value} [{low}, {high}]"
