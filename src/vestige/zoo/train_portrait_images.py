"""Fashion-MNIST in colour: what the portrait's generator learns from.

    python -m vestige.zoo.train_portrait_images --data fashion-mnist --part t10k --out clothes.npz

writes images of the kind that ``clothes-stylegan2`` draws, to compare what it draws with.

Images are those of Xiao, Rasul and Vollgraf 2017 (arXiv 1708.07747), MIT licence, read from the four original idx
files. Each time one is shown it is dyed anew, and so is the backdrop, so that colour is free of the kind of clothing.
"""

from __future__ import annotations

import argparse
import gzip
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from vestige.data.images import to_uint8
from vestige.errors import CorruptFile
from vestige.store.write import write_bytes

SIDE = 32
_HEADER = 16
_COVER = 4.0
"""How fast cloth covers the backdrop: a quarter of full brightness hides it, edges stay soft."""
_DARKEST = 0.35
"""Brightness of the darkest cloth, as a share of its dye's."""
_FLOOR = 0.8
"""Brightness of the backdrop at the bottom, as a share of that at the top."""

_DYED = 5000
"""Images of a file, unless told otherwise."""

Floats = npt.NDArray[np.float32]


def read_clothes(folder: Path, part: str) -> Float[Tensor, "n 1 32 32"]:
    """Grey images in [0, 1] of ``train`` (60,000) or ``t10k`` (10,000), two black pixels added on every side.

    Raises
    ------
    CorruptFile : the file is absent or not in the idx format with images of 28x28 pixels.
    """
    path = folder / f"{part}-images-idx3-ubyte.gz"
    try:
        with gzip.open(path) as file:
            content = file.read()
        pixels = np.frombuffer(content, np.uint8, offset=_HEADER).reshape(-1, 1, 28, 28)
        counted = np.frombuffer(content, ">u4", count=4)
    except (OSError, EOFError, ValueError) as error:
        raise _unreadable(path) from error
    if counted.tolist() != [2051, len(pixels), 28, 28]:
        raise _unreadable(path)
    return functional.pad(torch.from_numpy(pixels.copy()).float() / 255, (2, 2, 2, 2))


def _unreadable(path: Path) -> CorruptFile:
    return CorruptFile(
        f"{path} cannot be read.",
        expected="the original files of Fashion-MNIST, such as train-images-idx3-ubyte.gz.",
        remedy="download them again from github.com/zalandoresearch/fashion-mnist.",
    )


def rgb(hue: Floats, saturation: Floats, value: Floats) -> Floats:
    """Colours [n, 3] in [0, 1] of hue (in turns), saturation and value, each [n] in [0, 1]."""
    sector = (hue[:, None] * 6 + np.array([5, 3, 1], np.float32)) % 6
    return value[:, None] * (1 - saturation[:, None] * np.clip(np.minimum(sector, 4 - sector), 0, 1))


def dyes(count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Colours of cloth and of backdrop, [count, 3, 1, 1] each: strong ones on paler ones, hues independent."""
    draws = rng.random((6, count), dtype=np.float32)
    cloth = rgb(draws[0], 0.25 + 0.75 * draws[1], 0.45 + 0.55 * draws[2])
    backdrop = rgb(draws[3], 0.05 + 0.55 * draws[4], 0.55 + 0.45 * draws[5])
    first, second = (torch.from_numpy(colour).view(-1, 3, 1, 1) for colour in (cloth, backdrop))
    return first, second


def dye(grey: Float[Tensor, "n 1 s s"], cloth: Tensor, backdrop: Tensor) -> Float[Tensor, "n 3 s s"]:
    """Coloured images in [-1, 1]: dyed cloth before a backdrop that darkens towards the floor."""
    cover = (grey * _COVER).clamp(max=1)
    light = torch.linspace(1, _FLOOR, grey.shape[2]).view(-1, 1)
    painted = cover * cloth * (_DARKEST + (1 - _DARKEST) * grey) + (1 - cover) * backdrop * light
    return painted * 2 - 1


def dyed_clothes(folder: Path, part: str, count: int, seed: int) -> npt.NDArray[np.uint8]:
    """The first ``count`` images of ``train`` or ``t10k``, each dyed once by the seed: uint8 [count, 3, 32, 32].

    Raises
    ------
    CorruptFile : see :func:`read_clothes`.
    """
    grey = read_clothes(folder, part)[:count]
    return to_uint8(dye(grey, *dyes(len(grey), np.random.default_rng(seed))))


def main() -> None:
    """Read options and write an ``.npz`` of dyed clothes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the four idx files of Fashion-MNIST")
    parser.add_argument("--part", choices=("train", "t10k"), default="t10k")
    parser.add_argument("--count", type=int, default=_DYED)
    parser.add_argument("--seed", type=int, default=0, help="another one dyes them otherwise")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    made = BytesIO()
    np.savez_compressed(made, images=dyed_clothes(options.data, options.part, options.count, options.seed))
    write_bytes(options.out, made.getvalue())


if __name__ == "__main__":
    main()
