from __future__ import annotations

from types import ModuleType

import pytest

from vestige.record import Estimate, Figure, Match, Series, Table
from vestige.report.view import (
    POINTS_SHOWN,
    ROWS_SHOWN,
    card,
    column,
    figure_numbers,
    grid,
    groups,
    how_it_was_run,
    match_grid,
    settings,
)


def test_cards_are_grouped_in_order_of_appearance(sample: ModuleType) -> None:
    found = groups(sample.summary())
    assert [g.title for g in found] == ["Extraction", "Membership", "Copying", "Geometry", "Quality"]
    assert sum(len(g.cards) for g in found) == len(sample.summary())
    assert [g.title for g in groups([Estimate(name="seconds", value=1.0)])] == ["Overall"]


def test_a_card_of_something_not_measured_says_why() -> None:
    made = card(Estimate(name="a/b", value=None, low=0.1, high=0.2, unit="x", note="no access"))
    assert (made.value, made.interval, made.unit, made.measured, made.scale) == ("not measured", "", "", False, None)
    assert made.note == "no access"


@pytest.mark.parametrize(
    ("line", "drawn"),
    [
        (Estimate(name="a/recall@copies=1", value=0.5, low=0.4, high=0.6), True),
        (Estimate(name="a/b", value=0.5, low=0.4, high=0.6, unit="rate"), True),
        (Estimate(name="a/kid", value=0.5, low=0.4, high=0.6), False),
        (Estimate(name="a/recall", value=0.5, low=0.4, high=0.6, unit="bits"), False),
        (Estimate(name="a/recall", value=0.5), False),
        (Estimate(name="a/recall", value=0.5, low=-0.1, high=0.6), False),
    ],
)
def test_only_rates_get_a_bar_from_zero_to_one(line: Estimate, drawn: bool) -> None:
    assert card(line).scale == ((50.0, 40.0, 60.0) if drawn else None)


def test_columns_align_and_fall_back() -> None:
    assert column([0.5, 0.25, None]) == ["0.50", "0.25", "\u2013"]
    assert column([0.0001234, 5.0, 2000.0]) == ["0.000123", "5", "2000"]
    assert column([True, False, None]) == ["yes", "no", "\u2013"]
    assert column([3, 12345]) == ["3", "12,345"]
    assert column(["x", 0.5]) == ["x", "0.5"]
    assert column([]) == []


def test_a_ragged_table_is_filled_up_and_a_long_one_is_cut() -> None:
    made = grid(Table(name="t", title="t", columns=["a"], rows=[[1, "x"], []]))
    assert made.rows == (("1", "x"), ("\u2013", "\u2013"))
    assert [(c.title, c.numeric) for c in made.columns] == [("a", True), ("", False)]
    long = grid(Table(name="t", title="t", columns=["a"], rows=[[i] for i in range(ROWS_SHOWN + 7)]))
    assert (len(long.rows), long.left_out) == (ROWS_SHOWN, 7)
    assert grid(Table(name="t", title="t", columns=[], rows=[])).rows == ()


def test_numbers_of_a_chart() -> None:
    shared = Figure(
        name="f",
        title="f",
        kind="bars",
        x_label="copies",
        series=[
            Series(name="one", x=["1", "2"], y=[0.5, None], low=[0.4, None], high=[0.6, None]),
            Series(name="two", x=["1", "2"], y=[3.0, 4.0]),
        ],
    )
    made = figure_numbers(shared)
    assert [c.title for c in made.columns] == ["copies", "one", "two"]
    assert made.rows == (("1", "0.5 [0.4, 0.6]", "3"), ("2", "\u2013", "4"))
    bins = Figure(name="h", title="h", kind="histogram", series=[Series(name="s", x=[0, 1, 2], y=[3, 4])])
    assert figure_numbers(bins).rows == (("s", "0 to 1", "3"), ("s", "1 to 2", "4"))
    assert figure_numbers(Figure(name="e", title="e", kind="line", series=[])).rows == ()


def test_a_long_series_is_thinned_from_end_to_end() -> None:
    series = Series(name="s", x=[float(i) for i in range(1001)], y=[float(i) for i in range(1001)])
    made = figure_numbers(Figure(name="l", title="l", kind="line", series=[series]))
    assert made.rows[0][0] == "0"
    assert made.rows[-1][0] == "1000"
    assert len(made.rows) <= POINTS_SHOWN + 1
    assert made.left_out == 1001 - len(made.rows)


def test_calibrated_distances_are_shown_only_if_there_are_any() -> None:
    plain = match_grid([Match(row="r", generation=3, distance=0.1)])
    assert [c.title for c in plain.columns] == ["training image", "generation", "distance", "copies"]
    assert plain.rows == (("r", "3", "0.1", "1"),)
    assert "calibrated" in [
        c.title for c in match_grid([Match(row="r", generation=3, distance=0.1, calibrated=1.0)]).columns
    ]


def test_settings_are_flat_and_costs_have_units(sample: ModuleType) -> None:
    assert settings({"a": {"b": [1, 2], "c": {}}, "d": "text", "e": None}) == [
        ("a.b", "[1, 2]"),
        ("a.c", "{}"),
        ("d", "text"),
        ("e", "null"),
    ]
    rows = dict(how_it_was_run(sample.record()))
    assert rows["Time"] == "31 min 14 s"
    assert rows["Peak memory"] == "2 GiB"
    assert rows["Device"] == "cpu, 2 threads"
