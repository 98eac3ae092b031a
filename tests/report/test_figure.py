from __future__ import annotations

import re
import subprocess
import sys
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest

from vestige.errors import InvalidInput
from vestige.record import Figure, Series
from vestige.report.figure import draw
from vestige.report.svg import _style


def figure(kind: str = "line", **fields: Any) -> Figure:
    chosen: dict[str, Any] = {
        "name": "f",
        "title": "Title",
        "series": [Series(name="s", x=[1, 2, 4], y=[1, 3, 2], low=[0.5, 2, 1], high=[2, 4, 3])],
    }
    return Figure(kind=kind, **{**chosen, **fields})


def samples(sample: ModuleType) -> list[Figure]:
    return [sample.recall_by_copies(), sample.membership_roc(), sample.distance_histogram(), sample.dimension_points()]


def test_drawings_take_every_colour_and_font_from_the_page(sample: ModuleType) -> None:
    for chart in samples(sample):
        svg = draw(chart, prefix="p").svg
        assert not re.search(r"#[0-9a-fA-F]{3,8}\b(?!-)", re.sub(r'href="#[^"]*"|url\(#[^)]*\)', "", svg))
        assert "var(--series-1)" in svg
        assert "font-family" not in svg
        assert "http" not in svg
        assert "<style" not in svg
        assert "<metadata" not in svg


def test_identifiers_are_unique_and_resolve(sample: ModuleType) -> None:
    root = ElementTree.fromstring(draw(sample.recall_by_copies(), prefix="p7").svg)
    ids = [e.attrib["id"] for e in root.iter() if "id" in e.attrib]
    used = {e.attrib["href"][1:] for e in root.iter() if "href" in e.attrib}
    used |= {e.attrib["clip-path"][5:-1] for e in root.iter() if "clip-path" in e.attrib}
    assert len(ids) == len(set(ids))
    assert used
    assert used <= set(ids)
    assert all(i.startswith("p7-") for i in ids)


def test_drawing_is_read_aloud_and_scales(sample: ModuleType) -> None:
    drawing = draw(sample.distance_histogram(), prefix="p")
    root = ElementTree.fromstring(drawing.svg)
    assert root.attrib["role"] == "img"
    assert "nearest held-out row" in root.attrib["aria-label"]
    assert "match below 0.08 at 0.08" in root.attrib["aria-label"]
    assert "viewBox" in root.attrib
    assert "width" not in root.attrib


def test_drawing_is_the_same_in_another_process(sample: ModuleType) -> None:
    chart = sample.dimension_points()
    program = (
        "import sys; from vestige.record import Figure; from vestige.report.figure import draw;"
        "sys.stdout.buffer.write(draw(Figure.model_validate_json(sys.argv[1]), prefix='p').svg.encode())"
    )
    run = subprocess.run([sys.executable, "-c", program, chart.model_dump_json()], capture_output=True, check=True)
    assert run.stdout.decode() == draw(chart, prefix="p").svg


def _bars(svg: str) -> list[tuple[float, float]]:
    """Top and bottom of every filled bar, in SVG units, from left to right."""
    found: list[tuple[float, float, float]] = []
    for path in ElementTree.fromstring(svg).iter("path"):
        if "fill: var(--series" in path.attrib.get("style", ""):
            xy = np.array(re.findall(r"[-\d.]+", path.attrib["d"]), dtype=float).reshape(-1, 2)
            found.append((xy[:, 0].min(), xy[:, 1].min(), xy[:, 1].max()))
    return [(top, bottom) for _, top, bottom in sorted(found)]


def test_bars_are_as_high_as_their_values() -> None:
    series = [Series(name="a", x=["u", "v"], y=[1.0, 3.0]), Series(name="b", x=["u", "v"], y=[2.0, 4.0])]
    bars = _bars(draw(figure("bars", series=series), prefix="p").svg)
    heights = np.array([bottom - top for top, bottom in bars])
    np.testing.assert_allclose(heights / heights[0], [1, 2, 3, 4], rtol=1e-4)


def test_bars_of_numbers_stand_in_numeric_order() -> None:
    series = [Series(name="a", x=[16, 2], y=[4.0, 1.0]), Series(name="b", x=[4], y=[2.0])]
    svg = draw(figure("bars", series=series), prefix="p").svg
    assert re.findall(r">(\d+)</text>", svg)[:3] == ["2", "4", "16"]


def test_a_value_that_was_not_measured_leaves_a_gap() -> None:
    series = [Series(name="a", x=["u", "v", "w"], y=[1.0, None, 2.0])]
    assert len(_bars(draw(figure("bars", series=series), prefix="p").svg)) == 2


def test_histogram_takes_edges_or_centres() -> None:
    edges = draw(figure("histogram", series=[Series(name="s", x=[0, 1, 2, 3], y=[1, 5, 2])]), prefix="p")
    centres = draw(figure("histogram", series=[Series(name="s", x=[0.5, 1.5, 2.5], y=[1, 5, 2])]), prefix="p")
    assert edges.svg == centres.svg


def test_the_users_matplotlib_settings_neither_show_nor_change() -> None:
    plain = draw(figure(), prefix="p").svg
    with mpl.rc_context({"axes.facecolor": "black", "font.size": 30, "xtick.top": True, "axes.xmargin": 0.4}):
        before = dict(mpl.rcParams)
        assert draw(figure(), prefix="p").svg == plain
        assert dict(mpl.rcParams) == before


def test_names_are_text_and_never_mathematics_or_markup() -> None:
    name = r"a<b> & $x^2$ _s \frac"
    drawing = draw(figure("bars", x_label=name, series=[Series(name=name, x=[name, "漢字"], y=[1, 2])]), prefix="p")
    root = ElementTree.fromstring(drawing.svg)
    assert name in ["".join(t.itertext()) for t in root.iter("text")]
    assert drawing.keys[0].name == name
    assert "\x1b" not in draw(figure(x_label="a\x1b\x00b"), prefix="p").svg


@pytest.mark.parametrize("kind", ["line", "bars", "points", "histogram"])
@pytest.mark.parametrize(
    "fields",
    [
        {"series": []},
        {"series": [Series(name="s", x=[], y=[])]},
        {"series": [Series(name="s", x=[1.0], y=[None])]},
        {"series": [Series(name="s", x=[1.0], y=[2.0], low=[1.0], high=[3.0])]},
        {"x_log": True, "y_log": True, "diagonal": True},
        {"y_log": True, "series": [Series(name="s", x=[1, 2], y=[0.0, -1.0])]},
        {"thresholds": [("one", 1.0), ("a name that is far too long to fit", 1.01), ("three", 3.0)]},
        {"series": [Series(name=str(i), x=[0, 1], y=[i, i]) for i in range(9)]},
    ],
    ids=["none", "empty", "missing", "single", "log", "no-positive", "thresholds", "many"],
)
def test_odd_figures_are_drawn(kind: str, fields: dict[str, Any]) -> None:
    ElementTree.fromstring(draw(figure(kind, **fields), prefix="p").svg)


def test_many_thresholds_are_lettered_and_explained() -> None:
    lines = [("first", 1.5), ("second", 1.6), ("third", 3.0)]
    drawing = draw(figure(thresholds=lines), prefix="p")
    assert [k.name for k in drawing.keys[1:]] == ["a: first: 1.5", "b: second: 1.6", "c: third: 3"]
    assert {"a", "b", "c"} <= set(re.findall(r">([^<]*)</text>", drawing.svg))
    single = draw(figure(thresholds=lines[:1]), prefix="p")
    assert single.keys[1].name == "first: 1.5"
    assert ">first</text>" in single.svg


@pytest.mark.parametrize(
    "series",
    [
        Series(name="s", x=[1], y=[1, 2]),
        Series(name="s", x=[1, 2], y=[1, 2], low=[1]),
        Series(name="s", x=[1, 2], y=[1, 2], low=[1, 1], high=[1, 2, 3]),
    ],
)
def test_series_of_unequal_lengths_are_refused_by_name(series: Series) -> None:
    with pytest.raises(InvalidInput, match="Series 's' of figure 'f'"):
        draw(figure(series=[series]), prefix="p")


def test_a_histogram_over_words_is_refused() -> None:
    with pytest.raises(InvalidInput, match="bars"):
        draw(figure("histogram", series=[Series(name="s", x=["a"], y=[1])]), prefix="p")


def test_both_ways_in_which_matplotlib_writes_a_font_are_understood() -> None:
    assert _style("font: 12px 'DejaVu Sans', sans-serif; fill: #010102") == "font-size: 12px; fill: var(--soft)"
    assert (
        _style("font-size: 12px; font-family: 'DejaVu Sans'; fill: #010111") == "font-size: 12px; fill: var(--series-1)"
    )
