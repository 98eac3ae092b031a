"""Coloured pictures of real digits: ten digits, seven styles, five colours, three grounds.

A digit becomes its signed distance field: the distance of every point to the edge of the ink, positive inside. Strokes
of any width, and outlines, are level sets of that field, so that writing of every thickness is drawn equally bold.
Italics are taken out of the handwriting first, and only the slanted style puts them back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from vestige.errors import InvalidInput, ShapeMismatch
from vestige.randomness import Stream, generator

SIDE = 32
"""Pixels on each side of a picture."""

_FINE = 2  # samples a pixel and axis, averaged for smooth edges
_FIELD = 4  # samples of the distance field a pixel of the source
_SIZE = 1.12  # pixels of a picture a pixel of the source
_POSE = 0  # the draw of a row that poses its digit; others choose what it shows


class Digit(Enum):
    """What is written; the value is the class of the source."""

    ZERO = 0
    ONE = 1
    TWO = 2
    THREE = 3
    FOUR = 4
    FIVE = 5
    SIX = 6
    SEVEN = 7
    EIGHT = 8
    NINE = 9


class Style(Enum):
    """How it is drawn."""

    PLAIN = "plain"
    THICK = "thick"
    OUTLINED = "outlined"
    INVERTED = "inverted"
    STRIPED = "striped"
    BLURRED = "blurred"
    SLANTED = "slanted"


class Colour(Enum):
    """The colour of the ink, or of everything but the digit where the style is inverted; values are RGB."""

    RED = (215, 45, 40)
    GREEN = (40, 165, 70)
    BLUE = (45, 85, 220)
    YELLOW = (230, 190, 20)
    PURPLE = (155, 60, 195)


class Ground(Enum):
    """What lies behind; values are RGB."""

    BLACK = (15, 15, 15)
    GREY = (125, 125, 125)
    WHITE = (240, 240, 240)


@dataclass(frozen=True)
class Scene:
    """All that a caption can say about a picture."""

    digit: Digit
    style: Style
    colour: Colour
    ground: Ground


@dataclass(frozen=True)
class Stroke:
    """The distance field of one digit, float [112, 112] in pixels of the source, and what its writing is like.

    ``weight`` is half the width of the strokes in pixels, ``slant`` the columns that they lean to the right a row up,
    ``centre`` the row and column of the middle of the ink.
    """

    field: npt.NDArray[np.float64]
    weight: float
    slant: float
    centre: tuple[float, float]


def stroke(pixels: npt.NDArray[np.uint8]) -> Stroke:
    """The distance field of a digit uint8 [28, 28], light ink on black.

    Raises
    ------
    ShapeMismatch : another shape.
    InvalidInput : no ink.
    """
    if pixels.shape != (28, 28):
        raise ShapeMismatch(
            f"A digit of shape {pixels.shape}.", expected="[28, 28].", remedy="pass one grey digit at a time."
        )
    # Samples lie in the middle of the 4x4 cells that each pixel is cut into.
    places = (np.arange(28 * _FIELD) + 0.5) / _FIELD - 0.5
    grid = np.meshgrid(places, places, indexing="ij")
    ink = ndimage.map_coordinates(pixels / 255.0, grid, order=3, mode="constant") > 0.5
    if not ink.any():
        raise InvalidInput("A picture without ink.", expected="a light digit on black.", remedy="leave it out.")
    inside, outside = (np.asarray(ndimage.distance_transform_edt(part)) for part in (ink, ~ink))
    field = np.where(ink, inside - 0.5, 0.5 - outside) / _FIELD
    rows, columns = (axis[ink] for axis in grid)
    # Across a ribbon the distance to its edge rises evenly from 0 to half its width, half of that on average.
    weight = 2 * float(field[ink].mean())
    spread = float(rows.var())
    slant = -float(np.mean((rows - rows.mean()) * (columns - columns.mean()))) / spread if spread else 0.0
    middle = ((rows.min() + rows.max()) / 2, float(columns.mean()))
    return Stroke(field, weight, slant, (float(middle[0]), middle[1]))


@dataclass(frozen=True)
class _Pose:
    """How a picture differs from the next of the same scene."""

    turn: float
    lean: float
    size: float
    down: float
    right: float
    tint: npt.NDArray[np.float64]
    shade: float

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> _Pose:
        turn, lean, size = rng.uniform(-1, 1, 3) * (0.09, 0.07, 0.08)
        down, right = rng.uniform(-1.5, 1.5, 2)
        tint = rng.uniform(-14, 14, 3)
        return cls(turn, lean, _SIZE * (1 + size), down, right, tint, rng.uniform(-10, 10))


def render(source: Stroke, scene: Scene, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """One picture uint8 [3, 32, 32]; place, size, turn and exact colours are drawn from ``rng``."""
    pose = _Pose.drawn(rng)
    ink = _ink(_placed(source, scene.style, pose), scene.style)
    colour = np.clip(np.array(scene.colour.value) + pose.tint, 0, 255)[:, None, None]
    ground = np.clip(np.array(scene.ground.value) + pose.shade, 0, 255)[:, None, None]
    amount = 1 - ink if scene.style is Style.INVERTED else ink
    return np.rint(ground + amount * (colour - ground)).astype(np.uint8)


def render_rows(
    sources: Sequence[Stroke], scenes: Sequence[Scene], seed: int, rows: Sequence[int]
) -> npt.NDArray[np.uint8]:
    """Pictures uint8 [n, 3, 32, 32]; what is drawn by chance in each belongs to its row alone."""
    pictures = np.empty((len(rows), 3, SIDE, SIDE), np.uint8)
    for place, (source, scene, row) in enumerate(zip(sources, scenes, rows, strict=True)):
        pictures[place] = render(source, scene, generator(seed, Stream.SCENE, row, _POSE))
    return pictures


_ITALICS = 0.55
_HEAVIER = {Style.THICK: 2.5, Style.OUTLINED: 2.5, Style.STRIPED: 2.2, Style.BLURRED: 1.9, Style.INVERTED: 1.8}
_WEIGHT = 1.35  # half the width of the strokes, in pixels of the picture
_LINE = 0.65  # half the width of an outline
_STRIPE = 4  # pixels from one stripe to the next


def _placed(source: Stroke, style: Style, pose: _Pose) -> npt.NDArray[np.float64]:
    """Distance field [64, 64] in pixels of the picture, as if the writing were bold as the style wants it."""
    places = (np.arange(SIDE * _FINE) + 0.5) / _FINE - SIDE / 2
    down, right = np.meshgrid(places - pose.down, places - pose.right, indexing="ij")
    lean = pose.lean + (_ITALICS if style is Style.SLANTED else 0.0)
    # From the picture back to the source: turn, straighten what leans, shrink, and give the handwriting its own slant.
    turned = down * math.cos(pose.turn) - right * math.sin(pose.turn)
    across = down * math.sin(pose.turn) + right * math.cos(pose.turn)
    up = turned / pose.size
    column = (across + lean * turned) / pose.size - source.slant * up
    at = [(up + source.centre[0] + 0.5) * _FIELD - 0.5, (column + source.centre[1] + 0.5) * _FIELD - 0.5]
    field = ndimage.map_coordinates(source.field, at, order=1, mode="nearest") * pose.size
    wanted = _HEAVIER.get(style, _WEIGHT)
    return field + np.clip(wanted - source.weight * pose.size, -0.7, 2.0)


def _ink(field: npt.NDArray[np.float64], style: Style) -> npt.NDArray[np.float64]:
    """Ink [32, 32] in [0, 1] of a distance field [64, 64]."""
    inner = _LINE - np.abs(field - _LINE) if style is Style.OUTLINED else field
    fine = np.clip(inner * _FINE + 0.5, 0, 1)
    ink = fine.reshape(SIDE, _FINE, SIDE, _FINE).mean((1, 3))
    if style is Style.STRIPED:
        ink = ink * (np.arange(SIDE) % _STRIPE < _STRIPE // 2)[:, None]
    if style is Style.BLURRED:
        ink = np.asarray(ndimage.gaussian_filter(ink, 1.9, mode="constant"))
        ink = np.clip(ink * 1.25, 0, 1)
    return ink
