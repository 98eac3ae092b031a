"""Which draw of the seed serves what in this room, so that no two uses share numbers."""

from __future__ import annotations

from enum import IntEnum


class Draw(IntEnum):
    """Draws of ``Stream.RARE``. Those that are told apart by a member or an attempt own a block of 2**32."""

    SPLIT = 0
    TRAINING_NOISE = 1
    CLUSTERS = 2
    BATCHES = 3
    WEIGHTS = 4
    ORACLE = 5
    BANK = 6
    CANDIDATES = 7
    STARTS = 1 << 32
    PRIOR = 2 << 32
    REJECTION = 3 << 32
    POLARITY = 4 << 32
    EVOLUTION = 5 << 32
    RENOISE = 6 << 32
