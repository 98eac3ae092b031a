"""The commands on weights: fingerprint and compare-weights."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from vestige.cli.options import Overwrite
from vestige.dependencies import require_working_dependencies
from vestige.errors import InvalidInput

_FINGERPRINT = (
    "Examples: vestige fingerprint SmolLM2-135M.gguf -o card.json --portrait portrait.png"
    "  |  vestige fingerprint card.json --portrait portrait.png"
)
_COMPARE = (
    "Examples: vestige compare-weights base/ suspect/ --out comparison"
    "  |  vestige compare-weights base.json suspect.gguf  |  vestige compare-weights a/ merged/ --parent b/"
)

Model = Annotated[Path, typer.Argument(help="transformers folder, GGUF file, or a card.")]


class Claim(str, Enum):
    """What ``--expect`` may be."""

    INDEPENDENT = "independent"
    SAME = "same"


def register(app: typer.Typer) -> None:
    """Put these commands on the command line."""
    app.command(epilog=_FINGERPRINT)(fingerprint)
    app.command("compare-weights", epilog=_COMPARE)(compare_weights)


def fingerprint(
    model: Model,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="JSON file for the card.")] = None,
    portrait: Annotated[Path | None, typer.Option(help="PNG file for the portrait, with the code under it.")] = None,
    generator: Annotated[
        Path | None, typer.Option(help="StyleGAN2 that `vestige convert` wrote; the shipped one if not given.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Fingerprint a language model from its weights alone: card, code and portrait. Neither GPU nor network needed."""
    require_working_dependencies()
    from vestige.cli.display import bars, say, show_table
    from vestige.jobs.fingerprint import fingerprint as run

    painter = None
    if generator is not None:
        if portrait is None:
            raise InvalidInput(
                "A generator draws, and no portrait was asked for.",
                expected="--generator with --portrait.",
                remedy=f"vestige fingerprint {model} --portrait portrait.png --generator {generator}",
            )
        from vestige.fingerprint.portrait.painter import Painter
        from vestige.models.adapters.stylegan2.files import load_stylegan2

        painter = Painter(load_stylegan2(generator))
    with bars() as progress:
        done = run(model, out=out, portrait=portrait, painter=painter, overwrite=overwrite, progress=progress)
    show_table(done.table())
    if portrait is not None:
        say(f"Portrait: {portrait}. It is compared by eye and proves nothing; publish the card beside it.")
    if out is not None:
        say(f"Card: {out}")
    say("", f"vestige compare-weights {model if out is None else out} OTHER")


def compare_weights(
    first: Annotated[Path, typer.Argument(help="The supposed base: transformers folder, GGUF file, or a card.")],
    second: Annotated[Path, typer.Argument(help="The supposed offspring: likewise.")],
    parent: Annotated[
        list[Path] | None,
        typer.Option(help="Another possible parent of the second; again for more. Shares of a merge are estimated."),
    ] = None,
    expect: Annotated[
        Claim, typer.Option(help="The claim to judge. Exit code 0 if it holds, 1 if its opposite does.")
    ] = Claim.INDEPENDENT,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for the report.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Tell whether two models have a common ancestor. Exit code: 0 as expected, 1 the opposite, 3 undetermined."""
    require_working_dependencies()
    from vestige.cli.display import bars, say, show_table
    from vestige.fingerprint.compare import Lineage
    from vestige.jobs.fingerprint_compare import compare_weights as run
    from vestige.report.terminal import show

    claim = {Claim.INDEPENDENT: Lineage.INDEPENDENT, Claim.SAME: Lineage.SAME}[expect]
    with bars() as progress:
        done = run(first, second, parents=parent or [], expect=claim, out=out, overwrite=overwrite, progress=progress)
    show(done.record, None if done.folder is None else done.folder / "report.html")
    for section in done.record.sections:
        for table in section.tables:
            show_table(table)
    if out is None:
        say("", f"vestige compare-weights {first} {second} --out comparison")
    raise typer.Exit(done.record.verdict.exit_code)
