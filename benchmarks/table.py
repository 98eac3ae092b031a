"""What a benchmark leaves behind: a table on the terminal and the same rows as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

_LEAST_WIDTH = 140
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Row:
    """One comparison. ``ratio`` is how many times better ours is than the reference; None where that means nothing.

    ``low`` and ``high`` bound ours at 95 % where it was repeated.
    """

    name: str
    ours: float
    reference: float | None
    reference_name: str
    ratio: float | None
    unit: str
    n: int
    low: float | None = None
    high: float | None = None


def write(name: str, title: str, rows: list[Row], folder: Path = RESULTS) -> Path:
    """Print the rows and write them to ``NAME.json`` in the folder."""
    table = Table(title=title, title_justify="left")
    for column in ("name", "ours", "reference", "ratio", "unit", "n"):
        table.add_column(column, justify="left" if column in {"name", "unit"} else "right", overflow="fold")
    for row in rows:
        reference = "" if row.reference is None else f"{row.reference:,.6g}"
        named = f"{reference} ({row.reference_name})" if row.reference_name else reference
        ratio = "" if row.ratio is None else f"{row.ratio:.3g}"
        table.add_row(row.name, f"{row.ours:,.6g}", named, ratio, row.unit, f"{row.n:,}")
    console = Console()
    console.width = max(console.width, _LEAST_WIDTH)
    console.print(table)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")
    return path
