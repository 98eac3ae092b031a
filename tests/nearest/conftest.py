"""Brute force in int64, the judge of everything here."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiles of a few rows lose more than they gain by threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def brute() -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Squared distances [n, m] of uint8 rows, by subtraction."""

    def distance2(queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return np.square(queries[:, None].astype(np.int64) - rows[None].astype(np.int64)).sum(-1)

    return distance2


@pytest.fixture(scope="session")
def images() -> Callable[..., np.ndarray]:
    """Random rows [n, d] over a palette; a short palette makes ties and duplicates, its ends the largest sums."""
    palettes = [range(256), (0, 255), (254, 255), (0,), (255,), (127, 128, 129)]

    def draw(seed: int, n: int, d: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        return rng.choice(np.array(palettes[seed % len(palettes)], np.uint8), (n, d))

    return draw
