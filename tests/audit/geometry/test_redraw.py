"""Drawing again: a generator that copies one image in a known share of its rows."""

from __future__ import annotations

import numpy as np
import pytest

from vestige.audit.geometry.redraw import Redraw, redraw
from vestige.errors import InvalidInput

CLASSES = 5


def copies(rows, every=3):
    return rows % every == 0


def draw(rows):
    """Images whose first pixel says whether they are copies, the second the class, the third the row."""
    images = np.zeros((len(rows), 1, 1, 3), np.uint8)
    images[:, 0, 0, 0] = copies(rows)
    images[:, 0, 0, 1] = rows % CLASSES
    images[:, 0, 0, 2] = rows % 251
    return images


def dimension(pixels, rows):
    return np.where(pixels[:, 0, 0, 0] == 1, 0.0, 10.0 + (rows % 7))


def test_copies_go_and_classes_stay():
    found = redraw(draw, dimension, 5.0, 40, classes=CLASSES, settings=Redraw(rounds=5))
    assert found.before[:, 0, 0, 0].sum() == copies(np.arange(40)).sum()
    assert found.pixels[:, 0, 0, 0].sum() == 0
    assert (found.pixels[:, 0, 0, 1] == np.arange(40) % CLASSES).all()
    assert found.refused.size == 0
    assert (found.pixels == draw(found.row)).all()
    assert found.dimension == pytest.approx(dimension(found.pixels, found.row))
    untouched = ~copies(np.arange(40))
    assert (found.row[untouched] == np.arange(40)[untouched]).all()
    assert found.extra == found.drawn.sum() - 40


def test_a_generator_that_only_copies_is_refused_after_its_rounds():
    seen = []

    def only(rows):
        seen.append(rows.copy())
        return draw(rows * 3)

    found = redraw(only, dimension, 5.0, 4, settings=Redraw(rounds=2))
    assert found.refused.tolist() == [0, 1, 2, 3]
    assert found.extra == 8
    assert [rows.tolist() for rows in seen] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


def test_of_draws_that_are_all_too_low_the_highest_is_kept():
    levels = {0: 1.0, 1: 9.0, 2: 3.0, 3: 9.0, 4: 2.0, 5: 9.0}

    def low(pixels, rows):
        return np.array([levels[int(row)] for row in rows])

    found = redraw(draw, low, 5.0, 2, settings=Redraw(rounds=2))
    assert found.dimension.tolist() == [3.0, 9.0]
    assert found.row.tolist() == [2, 1]
    assert found.refused.tolist() == [0]


def test_what_is_undetermined_is_never_refused():
    found = redraw(draw, lambda pixels, rows: np.full(len(rows), np.nan), 5.0, 6)
    assert found.extra == 0
    assert found.refused.size == 0


def test_a_place_does_not_depend_on_what_is_refused_elsewhere():
    whole = redraw(draw, dimension, 5.0, 20, classes=CLASSES)

    def only_first(pixels, rows):
        return np.where(rows % 20 == 0, dimension(pixels, rows), 99.0)

    alone = redraw(draw, only_first, 5.0, 20, classes=CLASSES)
    assert alone.drawn[0] == whole.drawn[0] > 1
    assert (alone.pixels[0] == whole.pixels[0]).all()
    assert alone.extra == alone.drawn[0] - 1


def test_no_round_at_all_is_refused():
    with pytest.raises(InvalidInput):
        Redraw(rounds=0)
