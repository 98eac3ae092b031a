"""Commands that compare methods under one protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from vestige.cli.options import NullCondition, Out, Overwrite, Seed, SkipCorrupt, named_sampler
from vestige.dependencies import require_working_dependencies
from vestige.errors import InvalidInput

if TYPE_CHECKING:
    from vestige.erase.eraser import Eraser
    from vestige.jobs.bench_erase_plan import Regime
    from vestige.record import Table

_SHOWN = ("method", "regime", "distance", "in forgetting", "in retention", "forward-equivalents", "seconds")

bench = typer.Typer(help="Compare methods under one protocol.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Put these commands on the command line."""
    app.add_typer(bench, name="bench")


@bench.callback()
def _commands() -> None:
    """Keeps `erase` a command of its own while it is the only one."""


@bench.command(
    "erase",
    epilog="Example: vestige bench erase digits-ddpm --forget class:0 --methods erasediff,salun --out comparison",
)
def erase(
    model: Annotated[str, typer.Argument(help="diffusers folder or zoo name.")],
    forget: Annotated[str, typer.Option(help="Audit run, rows:ID,ID, class:LABEL, images, or a text file of ids.")],
    out: Out,
    methods: Annotated[
        str | None, typer.Option(help="Erasers as `vestige ls` names them, separated by commas. All, if not given.")
    ] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of a method, e.g. --set salun.share=0.3.")
    ] = None,
    regime: Annotated[
        str, typer.Option(help="equal (one budget for all), default (each method's own steps), or both.")
    ] = "both",
    budget: Annotated[
        float | None,
        typer.Option(
            help="Forward-equivalents an erasure may cost at equal budget; EraseDiff's defaults if not given."
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Erasures of each method and regime; the intervals are over them.")] = 3,
    retain: Annotated[
        str | None, typer.Option("--retain", "--data", help="Training data; the forgotten rows are taken out of it.")
    ] = None,
    non_members: Annotated[str | None, typer.Option(help="Images from the same source, never trained on.")] = None,
    reference: Annotated[
        str | None, typer.Option(help="A model retrained without the forgotten rows: what all are compared with.")
    ] = None,
    generations: Annotated[int, typer.Option(min=1, help="Images to sample of each model.")] = 1000,
    rows: Annotated[int, typer.Option(min=2, help="Retained and unseen images whose errors are measured.")] = 200,
    draws: Annotated[int, typer.Option(min=1, help="Noise draws a time for errors.")] = 4,
    sampler: Annotated[str, typer.Option(help="ddim, ddpm or heun.")] = "ddim",
    steps: Annotated[int, typer.Option(min=1, help="Sampling steps an image.")] = 20,
    guidance: Annotated[float | None, typer.Option(help="Scale of classifier-free guidance when sampling.")] = None,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Images a network evaluation. Results do not depend on it.")
    ] = 128,
    null_condition: NullCondition = None,
    seed: Seed = 0,
    skip_corrupt: SkipCorrupt = False,
    overwrite: Overwrite = False,
) -> None:
    """Erase with every method and measure what each forgets, keeps and costs, against retraining.

    Methods run twice: each with as many steps as one budget pays for, and each with its own. Increments and
    measurements are kept in --out, and the same command resumes there. The page is --out/report.html; every number of
    every erasure is in --out/measurements.json.
    """
    require_working_dependencies()
    from vestige.cli.display import bars, show_table
    from vestige.jobs.bench_erase import Plan, bench_erase
    from vestige.jobs.traces import Probe
    from vestige.report.terminal import show

    plan = Plan(
        _erasers(methods, setting or []), _regimes(regime), seeds, budget, generations, Probe(draws=draws, rows=rows)
    )
    with bars() as progress:
        done = bench_erase(
            model,
            forget=forget,
            out=out,
            plan=plan,
            retain=retain,
            non_members=non_members,
            reference=reference,
            sampler=named_sampler(sampler, steps),
            guidance=guidance,
            seed=seed,
            batch_size=batch_size,
            null_condition=null_condition,
            skip_corrupt=skip_corrupt,
            overwrite=overwrite,
            progress=progress,
        )
    # The page holds all numbers; a terminal is for the ranking.
    show_table(_narrow(done.record.sections[0].tables[0]))
    show(done.record.model_copy(update={"summary": []}), done.folder / "report.html")


def _narrow(table: Table) -> Table:
    """The columns of the comparison that fit on a terminal."""
    kept = [i for i, name in enumerate(table.columns) if name in _SHOWN]
    rows = [[row[i] for i in kept] for row in table.rows]
    return table.model_copy(update={"columns": [table.columns[i] for i in kept], "rows": rows})


def _regimes(text: str) -> tuple[Regime, ...]:
    from vestige.jobs.bench_erase_plan import Regime

    known = {"both": (Regime.EQUAL, Regime.DEFAULT), "equal": (Regime.EQUAL,), "default": (Regime.DEFAULT,)}
    if text.lower() not in known:
        raise InvalidInput(
            f"No regime is called '{text}'.", expected=f"one of {', '.join(known)}.", remedy="correct --regime."
        )
    return known[text.lower()]


def _erasers(names: str | None, settings: list[str]) -> tuple[Eraser, ...]:
    """The named erasers, or all, each with its settings (``METHOD.NAME=VALUE``)."""
    from vestige.cli.settings import by_method, with_settings
    from vestige.jobs.bench_erase import every_eraser, named_erasers

    told = None if names is None else [name.strip() for name in names.split(",") if name.strip()]
    kinds = [type(e) for e in every_eraser()] if told is None else named_erasers(told)
    given = by_method(settings, [kind.__name__ for kind in kinds], what="method of this comparison")
    return tuple(with_settings(kind, given[kind.__name__.lower()]) for kind in kinds)
