from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest

from vestige.errors import InvalidInput
from vestige.record import Figure, Series
from vestige.report.figure import draw
from vestige.report.labels import Box, arrange
from vestige.report.view import figure_numbers


def chart(**fields: object) -> Figure:
    series = [
        Series(
            name="equal",
            x=[0.1, 0.2],
            y=[3.0, 4.0],
            low=[2.5, 3.9],
            high=[3.5, 4.1],
            x_low=[0.05, None],
            x_high=[0.15, None],
            labels=["EraseDiff", "SalUn"],
        ),
        Series(name="original", x=[0.9], y=[1.0], labels=["original"]),
    ]
    return Figure(**{"name": "f", "title": "T", "kind": "scatter", "series": series, **fields})


def test_every_point_is_named_and_listed() -> None:
    figure = chart()
    drawing = draw(figure, prefix="p")
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", drawing.svg)
    assert {"EraseDiff", "SalUn", "original"} <= set(texts)
    assert [key.marker for key in drawing.keys] == ["●", "■"]
    rows = figure_numbers(figure).rows
    assert [row[0] for row in rows] == ["equal: EraseDiff", "equal: SalUn", "original: original"]
    assert rows[0][1:] == ("0.10 [0.05, 0.15]", "3.0 [2.5, 3.5]")


def test_a_point_that_was_not_measured_or_has_no_logarithm_is_not_named() -> None:
    series = [Series(name="s", x=[0.0, 1.0, 2.0], y=[1.0, None, 2.0], labels=["zero", "none", "both"])]
    svg = draw(chart(series=series, x_log=True), prefix="p").svg
    assert "both" in svg
    assert "zero" not in svg
    assert "none" not in re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def test_labels_that_do_not_match_the_points_are_refused() -> None:
    series = [Series(name="s", x=[1.0, 2.0], y=[1.0, 2.0], labels=["one"])]
    with pytest.raises(InvalidInput, match="1 values of labels"):
        draw(chart(series=series), prefix="p")


def test_names_of_a_crowd_stay_apart_and_inside() -> None:
    rng = np.random.default_rng(0)
    points = [(float(x), float(y)) for x, y in rng.uniform(80, 200, (14, 2))]
    names = [f"method {i}" for i in range(14)]
    frame = Box(0, 0, 400, 300)
    boxes = []
    for (x, y), name, (right, up) in zip(points, names, arrange(points, names, frame), strict=True):
        half = 0.63 * 10.5 * len(name) / 2, 1.15 * 10.5 / 2
        boxes.append(Box(x + right - half[0], y + up - half[1], x + right + half[0], y + up + half[1]))
    assert all(box.outside(frame) == 0 for box in boxes)
    assert sum(a.shared(b) > 0 for i, a in enumerate(boxes) for b in boxes[:i]) == 0
    assert all(abs(a.left - b.left) + abs(a.low - b.low) > 1 for a, b in pairwise(boxes))
