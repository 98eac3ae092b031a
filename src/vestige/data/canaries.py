"""Canaries: images of uniform noise, put into training data on purpose to measure how it is memorized."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from vestige.data.images import ImageSet
from vestige.errors import InvalidInput
from vestige.randomness import Stream, generator

COPIES = (1, 2, 4, 8, 16, 32, 64)
"""How often canaries are inserted, one group a number."""


PER_COUNT = 10
"""How many canaries are inserted for each number of copies."""


def canaries(count: int, shape: tuple[int, int, int], seed: int, *, first: int = 0) -> ImageSet:
    """Canaries ``first`` .. ``first + count - 1`` of a seed: every pixel uniform in 0..255, independent.

    Parameters
    ----------
    shape : (channels, height, width).
    first : number of the first one; canary i of a seed is always the same image, so disjoint
        numbers give fresh images of the same distribution.

    Raises
    ------
    InvalidInput : a negative count, number or side.
    """
    if count < 0 or first < 0 or len(shape) != 3 or min(shape) < 1:
        raise InvalidInput(
            f"count={count}, shape={tuple(shape)}, first={first}.",
            expected="no negative number, and (channels, height, width) of at least 1.",
            remedy="correct it.",
        )
    pixels = np.empty((count, *shape), np.uint8)
    for place in range(count):
        pixels[place] = generator(seed, Stream.CANARY, first + place).integers(0, 256, shape, dtype=np.uint8)
    names = tuple(f"canary-{first + place}" for place in range(count))
    return ImageSet(pixels, None, f"canaries of seed {seed}", names)


def with_canaries(
    images: ImageSet, copies: Sequence[int] = COPIES, *, per_count: int | None = None, seed: int = 0
) -> ImageSet:
    """Training data with canaries behind it: ``per_count`` of them for each number of copies, each inserted that often.

    Canary i stands ``copies[i // per_count]`` times. Where images have labels, canaries are
    dealt the labels that occur, in turn.

    Raises
    ------
    InvalidInput : no number of copies, or one below 1, or fewer than one canary for each.
    """
    per_count = PER_COUNT if per_count is None else per_count
    if not copies or min(copies) < 1 or per_count < 1:
        raise InvalidInput(
            f"copies={tuple(copies)}, per_count={per_count}.",
            expected="numbers of copies of at least 1, and at least 1 canary for each.",
            remedy="correct them.",
        )
    planted = canaries(per_count * len(copies), images.required("to hide canaries among").shape, seed)
    labels = None if images.labels is None else dealt(np.unique(images.labels), len(planted))
    planted = ImageSet(planted.pixels, labels, planted.source, planted.names)
    repeated = planted.take(np.repeat(np.arange(len(planted)), np.repeat(np.asarray(copies), per_count)))
    both = None
    if images.labels is not None and repeated.labels is not None:
        both = np.concatenate([images.labels, repeated.labels])
    pixels, names = np.concatenate([images.pixels, repeated.pixels]), (*images.names, *repeated.names)
    return ImageSet(pixels, both, f"{images.source} with canaries of seed {seed}", names)


def dealt(labels: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """``count`` labels, int64, dealt from the given ones in turn."""
    return labels[np.arange(count) % len(labels)].astype(np.int64)
