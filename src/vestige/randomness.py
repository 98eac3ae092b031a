"""Noise that belongs to a row, so that no result depends on batches, workers or resumption.

Philox (Salmon et al. 2011) is keyed by ``(seed, stream)`` and its counter starts at
``(draw, row)``: every row and draw owns a stream of 2**64 blocks that no other touches.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from vestige.errors import InvalidInput


class Stream(IntEnum):
    """What the noise is for. Two uses of one seed never share numbers."""

    SAMPLE = 0
    ANCESTRAL = 1
    LOSS = 2
    ERASE = 3
    SUBSET = 4
    CONTROL = 5
    CANARY = 6
    SIDE = 7
    INPAINT = 8
    TRAIN = 9
    SHADOW = 10
    GEOMETRY = 11
    SCENE = 16
    SKETCH = 12
    LAUNDER = 13
    PORTRAIT = 20
    RARE = 30


def generator(seed: int, stream: Stream, row: int, draw: int = 0) -> np.random.Generator:
    """The random generator of one row and draw.

    Raises
    ------
    InvalidInput : the seed does not fit into 64 bits, so that it would share its numbers with another.
    """
    if not 0 <= seed < 1 << 64:
        raise InvalidInput(f"The seed is {seed}.", expected="0 to 2**64 - 1.", remedy="choose another --seed.")
    key = np.array([seed, int(stream)], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=[0, draw, row, 0]))


def normal(
    seed: int, stream: Stream, rows: Iterable[int] | npt.NDArray[np.int64], shape: Sequence[int], draw: int = 0
) -> npt.NDArray[np.float32]:
    """Standard normal noise [len(rows), *shape], one independent stream a row."""
    chosen = [int(r) for r in rows]
    noise = np.empty((len(chosen), *shape), np.float32)
    for place, row in enumerate(chosen):
        noise[place] = generator(seed, stream, row, draw).standard_normal(tuple(shape), np.float32)
    return noise
