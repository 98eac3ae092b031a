from __future__ import annotations

import io
from pathlib import Path
from types import ModuleType

import pytest
from rich.console import Console

from vestige.record import Estimate, NotDone, Record, Verdict
from vestige.report.terminal import show


def printed(record: Record, report: Path | None = None, width: int = 80, terminal: bool = False) -> str:
    stream = io.StringIO()
    show(
        record,
        report,
        Console(file=stream, width=width, force_terminal=terminal, color_system=None if not terminal else "standard"),
    )
    return stream.getvalue()


@pytest.mark.parametrize("width", [60, 80, 120])
def test_lines_fit_and_nothing_is_lost(sample: ModuleType, width: int) -> None:
    text = printed(sample.record(), width=width)
    assert max(map(len, text.splitlines())) <= width
    squeezed = "".join(text.split())
    for line in sample.summary():
        assert sum(line.name[:6] in row for row in text.splitlines()) >= 1
    for part in ("0.834", "[0.809,0.858]", "notmeasured", "412,600networkevaluations"):
        assert part in squeezed


def test_names_stay_whole_at_eighty_columns(sample: ModuleType) -> None:
    rows = printed(sample.record()).splitlines()
    for line in sample.summary():
        assert any(row.startswith(line.name + " ") for row in rows), line.name


def test_plain_when_not_a_terminal(sample: ModuleType) -> None:
    assert "\x1b" not in printed(sample.record())
    assert "\x1b[" in printed(sample.record(), terminal=True)


def test_standard_output_is_the_default(sample: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    show(sample.record())
    captured = capsys.readouterr()
    assert "Finding" in captured.out
    assert captured.err == ""


@pytest.mark.parametrize("verdict", list(Verdict))
def test_verdict_reasons_and_omissions_are_said(sample: ModuleType, verdict: Verdict) -> None:
    text = " ".join(printed(sample.record(verdict), width=200).split())
    title = {"pass": "Pass", "finding": "Finding", "inconclusive": "Inconclusive", "none": "No verdict"}[verdict.value]
    assert title in text
    assert "needs shadow models, which were not given" in text
    assert "Grant --access weights." in text
    assert "58 of 60 training images" in text


def test_the_path_stays_in_one_piece(sample: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / ("long" * 30) / "report.html"
    assert f"Report: {path}\n" in printed(sample.record(), path)


def test_names_are_neither_markup_nor_escape_codes(sample: ModuleType) -> None:
    record = sample.record().model_copy(
        update={
            "title": "[bold]x[/bold] \x1b[31mred",
            "summary": [Estimate(name="[red]a[/red]", value=1.0, unit="[/]", note="\x07\x1b]0;t\x07")],
            "not_done": [NotDone(what="[link=x]", reason="\r", remedy="[/nothing]")],
        }
    )
    text = printed(record, terminal=False)
    assert "[bold]x[/bold]" in text
    assert "[red]a[/red]" in text
    assert "[/nothing]" in text
    assert not {"\x1b", "\x07", "\r"} & set(text)


def test_an_encoding_without_unicode_is_enough(sample: ModuleType) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    record = sample.record().model_copy(update={"title": "Prüfung 漢字"})
    show(record, Path("r.html"), Console(file=stream, width=80))
    stream.flush()
    assert b"Pr?fung" in raw.getvalue()


def test_a_bare_record_is_printed(sample: ModuleType) -> None:
    bare = sample.record().model_copy(update={"summary": [], "not_done": [], "reasons": [], "subject": {}})
    assert "Finding" in printed(bare)
