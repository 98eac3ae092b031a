"""What a person sees while and after a command runs: bars and errors on stderr, results on stdout."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table as Grid

from vestige.errors import VestigeError
from vestige.jobs.run import Run
from vestige.progress import Progress, Silent
from vestige.record import Table
from vestige.report.terminal import show


class RichProgress(Progress):
    """Progress bars of a terminal."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars

    def start(self, label: str, total: int) -> int:
        """A new bar."""
        return self._bars.add_task(escape(label), total=total)

    def advance(self, task: int, amount: int, note: str) -> None:
        """Move the bar."""
        self._bars.advance(TaskID(task), amount)
        if note:
            self._bars.update(TaskID(task), description=escape(note))

    def finish(self, task: int) -> None:
        """Leave the bar as it stands."""
        self._bars.stop_task(TaskID(task))


@contextmanager
def bars() -> Generator[Progress]:
    """Bars on a terminal, silence elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Silent()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=console) as live:
        yield RichProgress(live)


def finish(run: Run, next_command: str = "") -> None:
    """Print a run's record and leave with its verdict's exit code; a demonstration leaves with 0."""
    show(run.record, run.folder / "report.html")
    code = 0 if run.record.command == "demo" else run.record.verdict.exit_code
    if next_command and code:
        say("", next_command)
    raise typer.Exit(code)


def say(text: str, next_command: str = "") -> None:
    """One line, and the command that usually follows."""
    console = Console(highlight=False)
    if text:
        console.print(escape(text), soft_wrap=True)
    if next_command:
        console.print(f"[dim]Next:[/dim] {escape(next_command)}", soft_wrap=True)


def show_table(table: Table, next_command: str = "") -> None:
    """Print a table; columns in which no row says anything are left out."""
    grid = Grid(title=escape(table.title), title_justify="left")
    places = range(len(table.columns))
    told = [place for place in places if not table.rows or any(row[place] is not None for row in table.rows)]
    for place in told:
        grid.add_column(escape(table.columns[place]), overflow="fold")
    for row in table.rows:
        grid.add_row(*("" if row[place] is None else escape(str(row[place])) for place in told))
    Console(highlight=False).print(grid)
    say("", next_command)


def complain(error: VestigeError) -> None:
    """Print what was found, what was expected and what to do."""
    console = Console(stderr=True, highlight=False)
    console.print(f"[bold red]Error:[/bold red] {escape(error.found)}", soft_wrap=True)
    console.print(f"[bold]Expected:[/bold] {escape(error.expected)}", soft_wrap=True)
    console.print(f"[bold]Do next:[/bold] {escape(error.remedy)}", soft_wrap=True)
