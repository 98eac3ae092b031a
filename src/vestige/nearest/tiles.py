"""Aligned tiles of images, and short coordinates of each tile that bound its distances from below.

A tile is cut into l x l blocks a channel. Its coordinates are the block sums over the root of the block size, which is
a projection on orthonormal directions, and the length of what these leave out. By the reverse triangle inequality
their distance never exceeds that of the tiles; with one block they are the tile's mean and standard deviation a
channel, scaled. Sums and squares of pixels are exact integers; ``slack`` bounds the rounding of the rest.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product

import numpy as np
import numpy.typing as npt

from vestige.errors import InvalidInput
from vestige.nearest.projection import Doubles, Floats, Points

Images = npt.NDArray[np.uint8]

_UNIT = 2.0**-24
_BATCH = 1 << 18  # pixels summed at a time; more leave the cache
_FINEST = 4


@dataclass(frozen=True)
class Grid:
    """``side`` x ``side`` tiles of images [channels, height, width]; where a size does not divide, tiles differ by one.

    Raises
    ------
    InvalidInput : fewer pixels than tiles along an axis, or no tile at all.
    """

    side: int
    channels: int
    height: int
    width: int

    def __post_init__(self) -> None:
        """Refuse a grid that leaves a tile empty."""
        if not 1 <= self.side <= min(self.height, self.width):
            raise InvalidInput(
                f"a grid of {self.side} for images of {self.height} x {self.width} pixels.",
                expected=f"from 1 to {min(self.height, self.width)} tiles along an axis.",
                remedy="take a coarser grid, such as the published 4.",
            )

    @property
    def levels(self) -> tuple[int, ...]:
        """Blocks along the side of a tile, coarse to fine; the finest that every tile has pixels for is the last."""
        least = min(self.height, self.width) // self.side
        return tuple(level for level in (1, 2, _FINEST) if level <= least)

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """Pixels of each tile, all channels together, row by row [side**2]."""
        tall, wide = (np.diff(_edges(length, self.side, 1)) for length in (self.height, self.width))
        return (self.channels * np.outer(tall, wide)).ravel()

    def tile(self, images: Images, number: int) -> Images:
        """One tile of images [n, channels, height, width] as a view."""
        down, right = divmod(number, self.side)
        y, x = _edges(self.height, self.side, 1), _edges(self.width, self.side, 1)
        return images[:, :, y[down] : y[down + 1], x[right] : x[right + 1]]


@dataclass(frozen=True, eq=False)
class Sums:
    """Sums of the finest blocks [n, channels, rows of blocks, columns of blocks] and of squares [n, tiles].

    Pixels are less 128 throughout.
    """

    grid: Grid
    sums: npt.NDArray[np.floating]
    squares: Doubles
    _coarse: dict[int, Floats] = field(default_factory=dict[int, Floats], init=False, repr=False)

    def coordinates(self, level: int, index: npt.NDArray[np.int64] | slice) -> Floats:
        """Coordinates [n, tiles, channels * level**2 + 1] of the images of that index.

        Those of all images are kept at every level but the finest, where few are asked for and they are long.
        """
        if level == _FINEST:
            return self._computed(level, index)
        if level not in self._coarse:
            self._coarse[level] = self._computed(level, slice(None))
        return self._coarse[level][index]

    def _computed(self, level: int, index: npt.NDArray[np.int64] | slice) -> Floats:
        grid, finest = self.grid, self.grid.levels[-1]
        side, inside = grid.side, finest // level
        sums, squares = self.sums[index], self.squares[index]
        n = len(sums)
        while inside > 1:
            sums = sums[:, :, ::2] + sums[:, :, 1::2]
            sums = sums[..., ::2] + sums[..., 1::2]
            inside //= 2
        blocks = sums.astype(np.float64).reshape(n, grid.channels, side, level, side, level)
        tall, wide = (np.diff(_edges(length, side, level)) for length in (grid.height, grid.width))
        blocks /= np.sqrt(np.outer(tall, wide)).reshape(side, level, side, level)
        blocks = blocks.transpose(0, 2, 4, 1, 3, 5).reshape(n, side * side, -1)
        result = np.empty((n, side * side, blocks.shape[2] + 1), np.float32)
        result[:, :, :-1] = blocks
        result[:, :, -1] = np.sqrt(np.maximum(squares - np.einsum("ntc,ntc->nt", blocks, blocks), 0))
        return result

    def slack(self, index: npt.NDArray[np.int64] | slice) -> Doubles:
        """How far off the coordinates of each tile may be [n, tiles].

        Float64 puts the square under the root off by less than ``1e-13 |x|^2``, hence the root by ``3.2e-7 |x|``;
        storing the coordinates adds ``2**-24 |x|``. Together that is below ``8 * 2**-24 |x|``.
        """
        return 8 * _UNIT * np.sqrt(self.squares[index])

    def points(self, level: int) -> Points:
        """The coordinates of all tiles of an image together, one point an image."""
        coordinates = self.coordinates(level, slice(None)).reshape(len(self.sums), -1)
        norm2 = np.einsum("nc,nc->n", coordinates, coordinates, dtype=np.float64)
        return Points(coordinates, norm2, np.sqrt(np.square(self.slack(slice(None))).sum(1)))


def block_sums(images: Images, grid: Grid) -> Sums:
    """Sums of uint8 images [n, channels, height, width] over the finest blocks of the grid."""
    n, finest = len(images), grid.levels[-1]
    rows, columns = (_edges(length, grid.side, finest) for length in (grid.height, grid.width))
    tall, wide = (_edges(length, grid.side, 1) for length in (grid.height, grid.width))
    # 2**16 pixels, or 2**8 squares of them, sum to 2**24 at most: exact in float32.
    small = grid.sizes.max() // grid.channels <= 1 << 16 and np.diff(wide).max() <= 1 << 8
    dtype = np.float32 if small else np.float64
    across, down, over = _indicator(columns, dtype), _indicator(rows, dtype).T, _indicator(wide, dtype)
    sums = np.empty((n, grid.channels, len(rows) - 1, len(columns) - 1), dtype)
    squares = np.empty((n, grid.side**2))
    step = max(1, _BATCH // max(1, images[:1].size))
    for top in range(0, n, step):
        part = slice(top, top + step)
        shape = images[part].shape[:3]
        pixels = images[part].astype(dtype).reshape(-1, grid.width)
        np.matmul(down, (pixels @ across).reshape(*shape, -1), out=sums[part])
        np.square(pixels, out=pixels)
        lines = (pixels @ over).reshape(*shape, -1).sum(1, dtype=np.float64)
        squares[part] = np.add.reduceat(lines, tall[:-1], axis=1).reshape(len(lines), -1)
    return _centred(sums, squares, grid)


def _centred(sums: npt.NDArray[np.floating], squares: Doubles, grid: Grid) -> Sums:
    """The same sums of pixels less 128: shorter coordinates round less."""
    finest, side = grid.levels[-1], grid.side
    tall, wide = (np.diff(_edges(length, side, finest)) for length in (grid.height, grid.width))
    tiles = sums.sum(1, dtype=np.float64).reshape(len(sums), side, finest, side, finest).sum((2, 4))
    squares += 128**2 * grid.sizes - 256 * tiles.reshape(squares.shape)
    sums -= 128 * np.outer(tall, wide).astype(sums.dtype)
    return Sums(grid, sums, squares)


def _edges(length: int, side: int, level: int) -> npt.NDArray[np.int64]:
    """Where the blocks of the tiles along an axis begin, and the end; those of a coarser level are among them."""
    tiles = [length * i // side for i in range(side + 1)]
    starts = [tiles[i] + (tiles[i + 1] - tiles[i]) * j // level for i, j in product(range(side), range(level))]
    return np.array([*starts, length])


def _indicator(edges: npt.NDArray[np.int64], dtype: type) -> npt.NDArray[np.floating]:
    """Which block [blocks] each pixel [pixels] is in, as zeros and ones."""
    return np.repeat(np.eye(len(edges) - 1, dtype=dtype), np.diff(edges), axis=0)
