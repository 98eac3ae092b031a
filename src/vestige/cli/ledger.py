"""The commands on a ledger of erasure requests."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vestige.cli.options import NullCondition, Overwrite, SkipCorrupt
from vestige.dependencies import require_working_dependencies

ledger = typer.Typer(help="Show, withdraw, apply and repeat the requests in a ledger.", no_args_is_help=True)

File = Annotated[Path, typer.Argument(help="The ledger that `vestige erase --ledger` wrote.")]
Model = Annotated[str, typer.Argument(help="The base, without increments: diffusers folder or zoo name.")]


def register(app: typer.Typer) -> None:
    """Put these commands on the command line."""
    app.add_typer(ledger, name="ledger")


@ledger.command("show", epilog="Example: vestige ledger show requests.jsonl")
def show(file: File) -> None:
    """List the requests: who made them, when, and whether their increments are active."""
    require_working_dependencies()
    from vestige.cli.display import say, show_table
    from vestige.jobs.ledger import describe_ledger

    table = describe_ledger(file)
    show_table(table)
    say(f"{table.caption}. A copy of it, kept elsewhere, shows later whether entries were cut off.")


@ledger.command("withdraw", epilog="Example: vestige ledger withdraw requests.jsonl forget-cats --who 'A. Clerk'")
def withdraw(
    file: File,
    name: Annotated[str, typer.Argument(help="Name or digest of an active increment.")],
    who: Annotated[str | None, typer.Option(help="Who asks for it; the system's user name if not given.")] = None,
) -> None:
    """Mark an increment as withdrawn; later erasures start without it, and its rows may be asked for again."""
    require_working_dependencies()
    from vestige.cli.display import say
    from vestige.jobs.ledger import withdraw_increment

    entry = withdraw_increment(file, name, who=who)
    say(
        f"Entry {entry.number} withdraws '{entry.name}' of entry {entry.entry}; the other increments stay as they are.",
        f"vestige ledger apply {file} MODEL --out FOLDER",
    )


@ledger.command("apply", epilog="Example: vestige ledger apply requests.jsonl my-ddpm/ --out erased-model")
def apply(
    file: File,
    model: Model,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the new model.")],
    null_condition: NullCondition = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a diffusers folder of the base with all active increments added in order."""
    require_working_dependencies()
    from vestige.cli.display import say
    from vestige.jobs.ledger import apply_ledger

    digest = apply_ledger(file, model, out=out, null_condition=null_condition, overwrite=overwrite)
    say(f"{out} is {digest[:12]}.", f"vestige increments list {out}")


@ledger.command(
    "replay", epilog="Example: vestige ledger replay requests.jsonl my-ddpm/ --retain train/ --out repeated"
)
def replay(
    file: File,
    model: Model,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the repeated increments.")],
    retain: Annotated[str | None, typer.Option(help="The training data, as it was passed to `vestige erase`.")] = None,
    non_members: Annotated[str | None, typer.Option(help="The non-members, if the erasures had some.")] = None,
    null_condition: NullCondition = None,
    skip_corrupt: SkipCorrupt = False,
    overwrite: Overwrite = False,
) -> None:
    """Repeat every erasure from the base and compare bit for bit. Exit code: 0 all are the same, 1 not."""
    require_working_dependencies()
    from vestige.cli.display import bars, say, show_table
    from vestige.jobs.ledger import replay_ledger

    with bars() as progress:
        done = replay_ledger(
            file,
            model,
            out=out,
            retain=retain,
            non_members=non_members,
            null_condition=null_condition,
            skip_corrupt=skip_corrupt,
            overwrite=overwrite,
            progress=progress,
        )
    if done.written:
        show_table(done.table)
        if done.same:
            say("Every increment is as recorded, bit for bit.")
        else:
            say("Not every increment is as recorded. Where circumstances differ, rounding may be the reason.")
    raise typer.Exit(0 if done.same else 1)
