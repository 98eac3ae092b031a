"""The commands on many models: lineage scan, add and show."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vestige.cli.options import Overwrite
from vestige.dependencies import require_working_dependencies
from vestige.errors import NotFound

if TYPE_CHECKING:
    from rich.tree import Tree

    from vestige.jobs.lineage_registry import Entry
    from vestige.jobs.lineage_tree import Branch

lineage = typer.Typer(help="Which models descend from which: scan a folder, or keep a registry.", no_args_is_help=True)

Registered = Annotated[Path, typer.Option("--registry", help="Folder of the registry.")]


_WIDEST = 16
"""Columns that a terminal has room for."""


def register(app: typer.Typer) -> None:
    """Put these commands on the command line."""
    app.add_typer(lineage, name="lineage")


@lineage.command("scan", epilog="Example: vestige lineage scan models/ --out lineage")
def scan(
    folder: Annotated[Path, typer.Argument(help="Folder with models and cards, at any depth.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the report and the cards.")] = Path("lineage"),
    overwrite: Overwrite = False,
) -> None:
    """Fingerprint every model of a folder and draw who is near whom. Called again, it reads only what is new."""
    require_working_dependencies()
    from rich.console import Console

    from vestige.cli.display import bars, show_table
    from vestige.jobs.lineage import scan_lineage
    from vestige.report.terminal import show

    with bars() as progress:
        done = scan_lineage(folder, out=out, overwrite=overwrite, progress=progress)
    show(done.run.record, done.run.folder / "report.html")
    for table in done.run.record.sections[0].tables:
        if len(table.columns) <= _WIDEST:
            show_table(table)
    Console(highlight=False).print(_drawn(done.tree))


@lineage.command("add", epilog="Example: vestige lineage add tuned/ --name my-tuned --parent my-base")
def add(
    model: Annotated[Path, typer.Argument(help="transformers folder, GGUF file, or a card.")],
    name: Annotated[str | None, typer.Option(help="What to call it; its folder or file if not given.")] = None,
    parent: Annotated[
        list[str] | None, typer.Option(help="A registered model that it descends from, as you claim; again for more.")
    ] = None,
    note: Annotated[str, typer.Option(help="A note for whoever reads the registry.")] = "",
    registry: Registered = Path("lineage-registry"),
    overwrite: Overwrite = False,
) -> None:
    """Register a model, and say what its card shows beside all that are registered."""
    require_working_dependencies()
    from vestige.cli.display import bars, say, show_table
    from vestige.jobs.lineage_registry import Registry

    with bars() as progress:
        done = Registry(registry).add(
            model, name=name, parents=tuple(parent or ()), note=note, overwrite=overwrite, progress=progress
        )
    if done.beside:
        show_table(done.table())
    for claimed in done.unsupported:
        say(f"The cards do not show that {done.entry.name} descends from {claimed}; the claim was kept as a claim.")
    say(f"{done.entry.name} is registered in {registry}.", f"vestige lineage show --registry {registry}")


@lineage.command("show", epilog="Example: vestige lineage show my-base --registry lineage-registry")
def show_registry(
    name: Annotated[str | None, typer.Argument(help="A registered model; all, if not given.")] = None,
    registry: Registered = Path("lineage-registry"),
) -> None:
    """List the registered models and draw the descent that their owners claim."""
    require_working_dependencies()
    from rich.console import Console

    from vestige.cli.display import show_table
    from vestige.jobs.lineage_registry import Registry

    entries = Registry(registry).entries()
    if name is not None and name not in entries:
        raise NotFound(
            f"{registry} has no model called {name!r}.",
            expected=f"one of {', '.join(entries) or 'none yet'}.",
            remedy=f"vestige lineage show --registry {registry}",
        )
    show_table(Registry(registry).table())
    Console(highlight=False).print(_descent(entries, name))


def _drawn(branch: Branch) -> Tree:
    """A dendrogram as indented text."""
    from rich.markup import escape
    from rich.tree import Tree

    tree = Tree(escape(branch.name) if branch.name else f"[dim]likeness {1 - branch.distance:.2f}[/dim]")
    for part in branch.parts:
        tree.add(_drawn(part))
    return tree


def _descent(entries: dict[str, Entry], name: str | None) -> Tree:
    """The claimed descent below a model, or below all that have no parent; a model of two parents stands twice."""
    from rich.markup import escape
    from rich.tree import Tree

    def grow(tree: Tree, parent: str, above: frozenset[str]) -> None:
        for entry in entries.values():
            if parent in entry.parents and entry.name not in above:
                grow(tree.add(escape(entry.name)), entry.name, above | {entry.name})

    tops = [name] if name is not None else [entry.name for entry in entries.values() if not entry.parents]
    root = Tree("[dim]claimed descent[/dim]")
    for top in tops:
        grow(root.add(escape(top)), top, frozenset({top}))
    return root
