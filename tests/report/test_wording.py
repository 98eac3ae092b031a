from __future__ import annotations

import doctest
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vestige.record import Estimate, Verdict
from vestige.report import wording
from vestige.report.wording import (
    VERDICT_MEANING,
    VERDICT_TITLE,
    clean,
    duration,
    group_of,
    heading,
    memory,
    moment,
    number,
    reading,
    sentence,
    together,
)

finite = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e12, max_value=1e12)


def test_examples_in_the_docstrings() -> None:
    assert doctest.testmod(wording).failed == 0


@given(finite)
def test_a_number_keeps_three_digits(value: float) -> None:
    read_back = float(number(value).replace(",", ""))
    assert math.isclose(read_back, value, rel_tol=0.5e-2, abs_tol=0)


@given(st.integers())
def test_integers_are_exact(value: int) -> None:
    assert int(number(value).replace(",", "")) == value


@given(st.lists(finite, min_size=1, max_size=6))
def test_together_stays_near_and_orders_alike(values: list[float]) -> None:
    read_back = [float(text.replace(",", "")) for text in together(values)]
    largest = max(map(abs, values))
    for value, text in zip(values, read_back, strict=True):
        assert abs(value - text) <= 0.5e-2 * largest
    ordered = [text for _, text in sorted(zip(values, read_back, strict=True))]
    assert ordered == sorted(ordered)


@given(st.lists(st.floats(0.1, 1), min_size=2, max_size=6))
def test_together_aligns(values: list[float]) -> None:
    assert len({len(text.partition(".")[2]) for text in together(values)}) == 1


@pytest.mark.parametrize("bad", [None, math.nan, math.inf, -math.inf])
def test_what_is_not_a_number_was_not_measured(bad: float | None) -> None:
    assert number(bad) == "not measured"
    assert together([bad, 0.5]) == ["not measured", "0.5"]


def test_reading_covers_every_kind_of_interval() -> None:
    assert reading(Estimate(name="a", value=0.928, low=0.896, high=0.953)) == ("0.928", "[0.896, 0.953]")
    assert reading(Estimate(name="a", value=1.0, low=0.985, high=1.0)) == ("1", "[0.985, 1]")
    assert reading(Estimate(name="a", value=0.0, low=0.0, high=0.0147)) == ("0", "[0, 0.0147]")
    assert reading(Estimate(name="a", value=0.5, low=0.4)) == ("0.5", "at least 0.4")
    assert reading(Estimate(name="a", value=0.5, high=0.6)) == ("0.5", "at most 0.6")
    assert reading(Estimate(name="a", value=0.5)) == ("0.5", "")
    assert reading(Estimate(name="a", value=None, note="why")) == ("not measured", "")


def test_sentence_names_the_reason_of_a_missing_value() -> None:
    assert sentence(Estimate(name="a", value=None, note="no shadow models")) == "not measured (no shadow models)"
    assert sentence(Estimate(name="a", value=12.0, low=11.0, high=13.0, unit="dB")) == "12 [11, 13] dB"


def test_headings() -> None:
    assert heading("recall@copies>=64") == "Recall at copies\u00a0≥\u00a064"
    assert heading("loss/tpr@fpr=0.01") == "Loss · TPR at FPR\u00a0=\u00a00.01"
    assert heading("") == ""
    assert group_of("extraction/recall@copies>=64") == "extraction"
    assert group_of("seconds") == ""


def test_clean_leaves_nothing_that_steers_a_terminal() -> None:
    assert clean("a\x1b[31mb\x00\nc\ud800") == "a\ufffd[31mb\ufffd c\ufffd"
    assert clean("Zoë 漢字 🙂") == "Zoë 漢字 🙂"


@given(st.text())
def test_clean_text_can_be_encoded(text: str) -> None:
    clean(text).encode()


def test_time_and_memory() -> None:
    assert duration(59.99) == "60 s"
    assert duration(60) == "1 min 0 s"
    assert duration(3599.9) == "1 h 0 min"
    assert duration(90000) == "1 d 1 h"
    assert memory(512) == "512 bytes"
    assert memory(3 * 2**29) == "1.5 GiB"
    assert moment("2025-11-21T22:24:07+01:00") == "21 November 2025, 21:24 UTC"
    assert moment("yesterday") == "yesterday"


def test_every_verdict_has_words() -> None:
    assert set(VERDICT_TITLE) == set(VERDICT_MEANING) == set(Verdict)
