"""Refuse copies while sampling: draw a generation again where the model's local dimension is too low."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vestige.errors import InvalidInput

Doubles = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]
Pixels = npt.NDArray[np.uint8]

Draw = Callable[[Index], Pixels]
"""Images uint8 [n, c, h, w] of rows [n]: row r is always the same image."""
Measure = Callable[[Pixels, Index], Doubles]
"""The model's dimension [n] at images of rows; NaN where it is undetermined, which is never refused."""


@dataclass(frozen=True)
class Redraw:
    """How often a generation is drawn again at most.

    Parameters
    ----------
    rounds : draws after the first.
    """

    rounds: int = 3

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise InvalidInput(f"rounds={self.rounds}.", expected="at least 1.", remedy="change the option.")


@dataclass(frozen=True, eq=False)
class Drawn:
    """What came of it, place by place.

    Parameters
    ----------
    before, pixels : the first draw and what is kept in the end, uint8 [n, c, h, w].
    row : row of the generator that each kept image is, [n].
    first, dimension : dimension of the first draw and of what is kept, [n].
    drawn : draws that each place took, [n].
    refused : places whose every draw was too low, of which the highest was kept, ascending.
    """

    before: Pixels
    pixels: Pixels
    row: Index
    first: Doubles
    dimension: Doubles
    drawn: Index
    refused: Index

    @property
    def extra(self) -> int:
        """Draws beyond the first of each place."""
        return int(self.drawn.sum()) - len(self.drawn)


def redraw(
    draw: Draw, measure: Measure, threshold: float, count: int, *, classes: int = 0, settings: Redraw | None = None
) -> Drawn:
    """``count`` generations, of which those with a dimension below ``threshold`` are drawn anew.

    Place i takes row i first, then rows ``i + k stride`` with a stride that keeps the class ``row mod classes``; so the
    result depends on neither batches nor on which other places are refused. A place whose every draw is too low keeps
    the draw of highest dimension and is named in ``refused``: a deployment would give nothing there.
    """
    settings = settings or Redraw()
    stride = -(-count // max(classes, 1)) * max(classes, 1)
    row = np.arange(count, dtype=np.int64)
    before = draw(row)
    pixels, first = before.copy(), measure(before, row)
    dimension, drawn = first.copy(), np.ones(count, np.int64)
    for turn in range(1, settings.rounds + 1):
        again = np.flatnonzero(dimension < threshold)
        if again.size == 0:
            break
        rows = again + turn * stride
        images = draw(rows)
        found = measure(images, rows)
        drawn[again] += 1
        better = np.isnan(found) | (found > dimension[again])
        place = again[better]
        pixels[place], dimension[place], row[place] = images[better], found[better], rows[better]
    return Drawn(before, pixels, row, first, dimension, drawn, np.flatnonzero(dimension < threshold))
