"""Print a record to a console: the verdict, the numbers, what was left out, and where the report lies."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rich import box
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from vestige.record import Estimate, NotDone, Record, Verdict
from vestige.report.wording import (
    NOT_MEASURED,
    VERDICT_MEANING,
    VERDICT_TITLE,
    clean,
    duration,
    group_of,
    leading,
    number,
    reading,
)

_STYLE = {
    Verdict.PASS: "green",
    Verdict.FINDING: "red",
    Verdict.INCONCLUSIVE: "yellow",
    Verdict.NONE: "cyan",
}


def show(record: Record, report: Path | None = None, console: Console | None = None) -> None:
    """Print ``record``; ``report`` is the page to name at the end.

    Without ``console`` it goes to standard output, plain when that is not a terminal. Names are printed as
    they are, never as markup, and control characters in them are replaced.
    """
    out = console if console is not None else Console()
    parts: list[RenderableType] = [_verdict(record, out)]
    if record.summary:
        first = leading(line.name for line in record.summary)
        shown = [line for line in record.summary if group_of(line.name) in first]
        parts += ["", _summary(shown, out), *_notes(shown, out)]
        if len(shown) < len(record.summary):
            more = list(dict.fromkeys(group_of(e.name) for e in record.summary if e not in shown))
            left = len(record.summary) - len(shown)
            parts.append(_text(f"{left} more numbers are in the report: {', '.join(more)}.", out, "dim"))
    if record.not_done:
        parts += ["", Text("What was not done", style="bold"), _items(_not_done(item, out) for item in record.not_done)]
    cost = record.cost
    parts += [
        "",
        _text(f"{duration(cost.seconds)}, {number(cost.network_evaluations)} network evaluations", out, "dim"),
    ]
    out.print(Group(*parts))
    if report is not None:
        # A path must stay in one piece, to be copied or clicked.
        out.print(_text(f"Report: {report}", out), soft_wrap=True)


def _text(content: str, out: Console, style: str = "") -> Text:
    """``content`` without control characters, and without what the console's encoding cannot hold."""
    encoding = out.encoding or "utf-8"
    return Text(clean(content).encode(encoding, "replace").decode(encoding), style=style)


def _verdict(record: Record, out: Console) -> Panel:
    style = _STYLE[record.verdict]
    about = ", ".join(part for part in (record.subject.get("name", ""), f"access: {record.access}") if part)
    reasons = [_text(reason, out) for reason in record.reasons]
    return Panel(
        Group(
            _text(record.title, out, "bold"),
            _text(about, out, "dim"),
            "",
            _text(VERDICT_MEANING[record.verdict], out),
            _items(reasons),
        ),
        title=Text(VERDICT_TITLE[record.verdict], style=f"bold {style}"),
        title_align="left",
        border_style=style,
        box=box.ROUNDED if (out.encoding or "utf-8").lower().startswith("utf") else box.ASCII,
        width=min(out.width, 100),
    )


def _items(lines: Iterable[Text]) -> RenderableType:
    """A list whose long lines are indented under themselves."""
    listing = Table.grid(padding=(0, 1, 0, 0))
    for line in lines:
        listing.add_row("-", line)
    return listing


def _summary(summary: list[Estimate], out: Console) -> Table:
    units = any(line.unit for line in summary)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("number", overflow="fold")
    table.add_column("value", justify="right", overflow="fold")
    table.add_column("95 % interval", overflow="fold")
    table.add_column("n", justify="right", overflow="fold")
    if units:
        table.add_column("unit", overflow="fold")
    for i, line in enumerate(summary):
        if i and group_of(line.name) != group_of(summary[i - 1].name):
            table.add_row()
        value, interval = reading(line)
        measured = value != NOT_MEASURED
        cells = [
            _text(line.name, out),
            _text(value if measured else "", out, "bold"),
            _text(interval, out) if measured else _text(NOT_MEASURED, out, "dim"),
            _text(number(line.n) if line.n is not None else "", out),
        ]
        table.add_row(*cells, *([_text(line.unit if measured else "", out, "dim")] if units else []))
    return table


def _notes(summary: list[Estimate], out: Console) -> list[RenderableType]:
    noted = [_text(f"{line.name}: {line.note}", out, "dim") for line in summary if line.note]
    return ["", _items(noted)] if noted else []


def _not_done(item: NotDone, out: Console) -> Text:
    return Text.assemble(_text(item.what, out), ": ", _text(f"{item.reason} {item.remedy}", out, "dim"))
