"""Which weights a set of images pulls at most: exact masks of the largest gradients, streamed and bit-packed."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from vestige.data.images import ImageSet
from vestige.digest import digest_json
from vestige.erase.driver import Batch, derivatives, noise_loss
from vestige.errors import BadWeights, InvalidInput, NothingChanged
from vestige.execute import Context
from vestige.models.denoiser import Denoiser
from vestige.randomness import Stream, generator
from vestige.store import write_bytes

CHUNK = 128
"""Noisy images that are passed through the network together; fixed, so that rounding is."""

_PARTS = 4
"""How often a pass over images saves its sums."""

_NOISE, _ROWS = 1, 2
"""Draws that the steps of the driver do not use."""

_DIGIT = 16
"""Bits that one pass over all magnitudes settles."""


@dataclass(frozen=True, eq=False)
class Mask:
    """A subset of all weights, one bit a weight.

    Parameters
    ----------
    bits : for each parameter its packed bits, uint8 [ceil(numel / 8)], first weight in the highest bit.
    shapes : shape of each parameter.
    """

    bits: tuple[npt.NDArray[np.uint8], ...]
    shapes: tuple[tuple[int, ...], ...]

    @property
    def count(self) -> int:
        """Number of weights in the subset."""
        return sum(int(np.unpackbits(bits).sum()) for bits in self.bits)

    @property
    def total(self) -> int:
        """Number of all weights."""
        return sum(math.prod(shape) for shape in self.shapes)

    def unpacked(self, device: torch.device) -> list[Tensor]:
        """Boolean tensors in the parameters' shapes."""
        pairs = zip(self.bits, self.shapes, strict=True)
        plain = [np.unpackbits(bits, count=math.prod(shape)).reshape(shape) for bits, shape in pairs]
        return [torch.from_numpy(mask).to(device).bool() for mask in plain]


def largest(values: Sequence[Tensor], count: int) -> Mask:
    """The ``count`` entries of largest magnitude over all tensors; of equal ones those that stand first.

    Magnitudes of floating-point numbers are ordered as their bit patterns are. Counting the
    patterns sixteen bits at a time finds the threshold exactly in two passes (four for
    float64) without a copy of all entries and without sorting.

    Raises
    ------
    InvalidInput : ``count`` is not in 1..number of entries.
    BadWeights : an entry is NaN or infinite.
    """
    total = sum(v.numel() for v in values)
    if not 1 <= count <= total:
        raise InvalidInput(
            f"{count} of {total} weights were asked for.",
            expected="at least one and at most all.",
            remedy="change the share.",
        )
    if not all(bool(torch.isfinite(v).all()) for v in values):
        raise BadWeights(
            "The gradient of the forgotten images holds NaN or infinity.",
            expected="finite numbers.",
            remedy="check the weights of the model and the range of its inputs.",
        )
    wide = any(v.dtype == torch.float64 for v in values)
    threshold, above = _threshold(values, count, wide)
    ties, bits = count - above, []
    for value in values:
        pattern = _pattern(value, wide)
        kept = pattern > threshold
        first = (pattern == threshold).nonzero().flatten()[:ties]
        kept[first] = True
        ties -= len(first)
        bits.append(np.packbits(kept.cpu().numpy()))
    return Mask(tuple(bits), tuple(tuple(v.shape) for v in values))


def _pattern(value: Tensor, wide: bool) -> Tensor:
    """Magnitudes as integers that are ordered as they are."""
    plain = value.detach().to(torch.float64 if wide else torch.float32).abs().flatten().contiguous()
    return plain.view(torch.int64 if wide else torch.int32)


def _threshold(values: Sequence[Tensor], count: int, wide: bool) -> tuple[int, int]:
    """Pattern of the entry of rank ``count``, and how many entries lie above it."""
    bits = 64 if wide else 32
    prefix, above = 0, 0
    for shift in range(bits - _DIGIT, -1, -_DIGIT):
        counts = torch.zeros(1 << _DIGIT, dtype=torch.int64)
        for value in values:
            pattern = _pattern(value, wide)
            if shift + _DIGIT < bits:
                pattern = pattern[(pattern >> (shift + _DIGIT)) == prefix]
            digit = (pattern >> shift) & ((1 << _DIGIT) - 1)
            counts += torch.bincount(digit, minlength=1 << _DIGIT).cpu()
        down = counts.flip(0).cumsum(0)
        place = int(torch.searchsorted(down, count - above))
        above += int(down[place - 1]) if place else 0
        prefix = (prefix << _DIGIT) | ((1 << _DIGIT) - 1 - place)
    return prefix, above


def trainable(module: nn.Module) -> list[nn.Parameter]:
    """The weights that require gradients.

    Raises
    ------
    NothingChanged : there is none.
    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    if not parameters:
        raise NothingChanged(
            "Every weight of the network is frozen, so none can be moved.",
            expected="weights that require gradients.",
            remedy="call requires_grad_(True) on the parts that may change.",
        )
    return parameters


def spread(images: ImageSet, most: int, seed: int) -> npt.NDArray[np.int64]:
    """All rows, or ``most`` of them drawn without replacement, in order."""
    order = generator(seed, Stream.ERASE, 0, _ROWS).permutation(len(images))
    return np.sort(order[:most]).astype(np.int64)


def stratified(denoiser: Denoiser, images: ImageSet, rows: npt.NDArray[np.int64], times: int, seed: int) -> Batch:
    """Each row at ``times`` times, one in each of as many equal parts of (0, 1]: [len(rows) * times, ...].

    Times and noise belong to the row, whatever stands beside it.
    """
    t = np.empty((len(rows), times))
    noise = np.empty((len(rows), times, *images.shape), np.float32)
    for place, row in enumerate(rows):
        rng = generator(seed, Stream.ERASE, int(row), _NOISE)
        t[place] = 1 - (np.arange(times) + rng.random(times)) / times
        noise[place] = rng.standard_normal(noise.shape[1:], np.float32)
    device, every = denoiser.device, np.repeat(rows, times)
    at = denoiser.schedule.nearest_grid(torch.from_numpy(t.ravel()).float().to(device))
    eps = torch.from_numpy(noise.reshape(-1, *images.shape)).to(device)
    labels = None if images.labels is None or not denoiser.classes else torch.from_numpy(images.labels[every])
    x_t = denoiser.noised(images.floats(every).to(device), eps, at)
    return Batch(x_t, eps, at, None if labels is None else labels.to(device))


def chunks(rows: npt.NDArray[np.int64], size: int) -> Iterator[npt.NDArray[np.int64]]:
    """Consecutive parts of at most ``size`` rows."""
    return (rows[start : start + size] for start in range(0, len(rows), size))


def accumulated(
    folder: Path,
    zeros: list[Tensor],
    parts: Sequence[npt.NDArray[np.int64]],
    add: Callable[[list[Tensor], npt.NDArray[np.int64]], None],
    context: Context,
    label: str,
) -> list[Tensor]:
    """Sums over parts of the rows, saved several times on the way and at the end: what is there is not redone."""
    path, sums, done = folder / "sums.pt", zeros, 0
    if path.exists():
        state = torch.load(io.BytesIO(path.read_bytes()), weights_only=True, map_location=zeros[0].device)
        sums, done = state["sums"], state["done"]
    every = math.ceil(len(parts) / _PARTS)
    with context.progress.task(label, sum(len(part) for part in parts)) as task:
        task.advance(sum(len(part) for part in parts[:done]))
        for index, part in enumerate(parts[done:], done + 1):
            add(sums, part)
            if index % every == 0 or index == len(parts):
                buffer = io.BytesIO()
                torch.save({"sums": sums, "done": index}, buffer)
                write_bytes(path, buffer.getvalue())
            task.advance(len(part))
    return sums


def saliency_mask(
    base: Denoiser, module: nn.Module, images: ImageSet, share: float, samples: int, context: Context
) -> tuple[Mask, int]:
    """The weights at which the denoising loss of the images has its largest gradients, and what that cost.

    Parameters
    ----------
    base, module : a model and its network, or a copy of it; only weights that require gradients count.
    share : of all these weights, in (0, 1]; rounded to a whole number of them.
    samples : noisy images in the mean; each image stands at equally many stratified times, at least one.

    Returns
    -------
    mask, forward_equivalents : three for each noisy image.

    Raises
    ------
    InvalidInput : the share leaves no weight or exceeds 1.
    NothingChanged : every weight is frozen.

    Source: Fan et al. 2024, arXiv 2310.12508, equation 4, with the threshold as a quantile.
    """
    parameters = trainable(module)
    rows, times = spread(images, samples, context.seed), max(1, math.ceil(samples / len(images)))
    spent = 3 * len(rows) * times
    key: dict[str, Any] = {"base": base.digest, "images": images.digest, "seed": context.seed}
    key |= {"share": share, "samples": samples, "frozen": [p.requires_grad for p in module.parameters()]}
    folder = context.store.root / f"saliency-{digest_json(key)[:24]}"
    shapes, path = tuple(tuple(p.shape) for p in parameters), folder / "mask.npz"
    if path.exists():
        with np.load(path, allow_pickle=False) as file:
            return Mask(tuple(file[f"arr_{i}"] for i in range(len(shapes))), shapes), spent
    student, size = base.with_module(module), len(rows) * times

    def add(sums: list[Tensor], part: npt.NDArray[np.int64]) -> None:
        batch = stratified(base, images, part, times, context.seed)
        loss = noise_loss(student, batch) * (len(batch.x_t) / size)
        for total, gradient in zip(sums, derivatives(loss, parameters), strict=True):
            total += gradient

    wide = [torch.zeros_like(p, dtype=torch.promote_types(p.dtype, torch.float32)) for p in parameters]
    parts = list(chunks(rows, max(1, CHUNK // times)))
    sums = accumulated(folder, wide, parts, add, context, f"Saliency of {len(rows)} images")
    mask = largest(sums, round(share * sum(p.numel() for p in parameters)))
    buffer = io.BytesIO()
    np.savez(buffer, *mask.bits)
    write_bytes(path, buffer.getvalue())
    # The mask takes a thirty-second of the room; its gradient is not needed again.
    (folder / "sums.pt").unlink(missing_ok=True)
    return mask, spent
