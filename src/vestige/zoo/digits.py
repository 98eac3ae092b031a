"""The digits that the zoo is trained on, with the truth about who is a member."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Digits:
    """5,000 MNIST digits: ``pixels`` uint8 [n, 28, 28], ``labels`` [n], ``member`` bool [n].

    ``copies`` is the number of times that a *planted* member stands in the training
    data (1, 4, 16, 64 or 256) and 0 for every image that was not planted.
    """

    pixels: np.ndarray
    labels: np.ndarray
    member: np.ndarray
    copies: np.ndarray


@lru_cache(maxsize=1)
def digits() -> Digits:
    """Read the shipped digits."""
    with np.load(Path(__file__).parent / "digits" / "digits.npz", allow_pickle=False) as file:
        return Digits(file["pixels"], file["labels"].astype(np.int64), file["member"], file["copies"].astype(np.int64))
