"""Commands and their options; every one ends in a table, a page or one clear line."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from vestige import __version__
from vestige.cli import (
    bench,
    concept_attacks,
    convert,
    erasing,
    fingerprint,
    geometry,
    ledger,
    lineage,
    metrics,
    prove,
    rare,
    training,
)
from vestige.cli.options import NullCondition, Out, Overwrite, Seed, ShowImages, SkipCorrupt, named_sampler
from vestige.dependencies import require_working_dependencies
from vestige.errors import InvalidInput, VestigeError

app = typer.Typer(
    name="vestige",
    help="What did this model keep of its training data? Find out, take it out, prove it, put it back.",
    epilog="Start with: vestige demo",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
training.register(app)
geometry.register(app)
bench.register(app)
ledger.register(app)
metrics.register(app)
rare.register(app)
fingerprint.register(app)
lineage.register(app)
prove.register(app)
convert.register(app)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"vestige {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Print the version and stop.")
    ] = False,
) -> None:
    """Nothing but the version is common to all commands."""


@app.command(epilog="Example: vestige demo --out vestige-demo")
def demo(
    out: Out = Path("vestige-demo"),
    quick: Annotated[bool, typer.Option("--quick", help="A tenth of the work, to see that everything runs.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Watch a real diffusion model give up training images, forget them, and get them back."""
    require_working_dependencies()
    from vestige.cli.display import bars, finish
    from vestige.jobs.demo import FULL, QUICK
    from vestige.jobs.demo import demo as run

    with bars() as progress:
        done = run(out, plan=QUICK if quick else FULL, overwrite=overwrite, progress=progress)
    finish(done)


@app.command(
    epilog="Examples: vestige audit my-ddpm/ --data train/ --non-members held-out/ --out run"
    "  |  vestige audit generated.npz --data train/ --out run"
    "  |  vestige audit my-sd/ --prompts captions.txt --data train/ --out run"
)
def audit(
    model: Annotated[str, typer.Argument(help="diffusers folder, zoo name, or folder/.npz of generated images.")],
    out: Out,
    data: Annotated[str | None, typer.Option(help="Training images: folder, .npz, datasets folder.")] = None,
    non_members: Annotated[str | None, typer.Option(help="Images from the same source, never trained on.")] = None,
    generations: Annotated[int, typer.Option(min=1, help="Images to sample; all, of a folder.")] = 1000,
    sampler: Annotated[str, typer.Option(help="ddim, ddpm or heun.")] = "ddim",
    steps: Annotated[int, typer.Option(min=1, help="Sampling steps an image.")] = 20,
    guidance: Annotated[float | None, typer.Option(help="Scale of classifier-free guidance when sampling.")] = None,
    delta: Annotated[float, typer.Option(help="Radius of (l, delta)-memorization, rms, pixels in [0, 1].")] = 0.05,
    rows: Annotated[
        int, typer.Option(min=2, help="Members (and non-members) whose denoising loss is compared.")
    ] = 2000,
    draws: Annotated[int, typer.Option(min=1, help="Noise draws a time for the denoising loss.")] = 4,
    attack: Annotated[
        list[str] | None, typer.Option(help="Run this attack, as `vestige ls` names it; again for more. All, if none.")
    ] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of an attack, e.g. --set pia.times=0.2.")
    ] = None,
    shadows: Annotated[
        Path | None, typer.Option(help="Folder that `vestige shadow` wrote, for the likelihood-ratio attack.")
    ] = None,
    policy: Annotated[Path | None, typer.Option(help="TOML file with limits; see the README.")] = None,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Images a network evaluation. Results do not depend on it.")
    ] = 128,
    null_condition: NullCondition = None,
    seed: Seed = 0,
    prompts: Annotated[
        str | None,
        typer.Option(help="Prompts for a text-to-image model: a file, one a line, or .jsonl with the truth."),
    ] = None,
    mitigate: Annotated[
        int, typer.Option(min=0, help="With --prompts: likeliest memorized prompts to take apart and mitigate.")
    ] = 0,
    skip_corrupt: SkipCorrupt = False,
    show_images: ShowImages = False,
    overwrite: Overwrite = False,
) -> None:
    """Find out what a model kept of its training data. Exit code: 0 pass, 1 finding, 3 inconclusive."""
    from vestige.jobs.policy import load_policy

    rules = load_policy(policy)
    require_working_dependencies()
    if prompts is not None:
        from vestige.cli.prompting import Asked, audit_prompts

        asked = Asked(generations, delta, sampler, steps, guidance, tuple(setting or []), batch_size, seed)
        audit_prompts(
            model,
            prompts,
            asked,
            data=data,
            non_members=non_members,
            out=out,
            detectors=attack or [],
            mitigate=mitigate,
            policy=rules,
            skip_corrupt=skip_corrupt,
            show_images=show_images,
            overwrite=overwrite,
        )
    from vestige.cli.attacks import chosen
    from vestige.cli.display import bars, finish
    from vestige.jobs.audit import audit as run

    told = [f"generateandfilter.generations={generations}", f"generateandfilter.delta={delta}"]
    told += [f"denoisingloss.draws={draws}", f"denoisingloss.rows={rows}"]
    attacks = chosen(attack or [], [*told, *(setting or [])], shadows)
    with bars() as progress:
        done = run(
            model,
            data,
            non_members=non_members,
            out=out,
            attacks=attacks,
            asked=bool(attack),
            policy=rules,
            sampler=named_sampler(sampler, steps),
            guidance=guidance,
            seed=seed,
            batch_size=batch_size,
            null_condition=null_condition,
            skip_corrupt=skip_corrupt,
            show_images=show_images,
            overwrite=overwrite,
            progress=progress,
        )
    erasable = done.record.access == "weights"
    finish(done, f"vestige erase {model} --forget {out} --out increment" if erasable else f"vestige report {out}")


# Commands are listed in the order in which they are put here.
erasing.register(app)
concept_attacks.register(erasing.increments)


@app.command(epilog="Example: vestige compare run-ddpm run-gan --out comparison")
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders of two or more audits of the same data.")],
    out: Out,
    overwrite: Overwrite = False,
) -> None:
    """Set audits beside one another: quality, images extracted at equal budget, membership."""
    require_working_dependencies()
    from vestige.cli.display import finish
    from vestige.jobs.compare import compare as run

    finish(run(runs, out=out, overwrite=overwrite))


@app.command(epilog="Example: vestige report run --show-images")
def report(
    run: Annotated[Path | None, typer.Argument(help="Folder of a finished run.")] = None,
    show_images: ShowImages = False,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of report.json and stop.")] = False,
) -> None:
    """Draw the page of a finished run again and print its numbers."""
    if schema:
        from vestige.record import json_schema

        typer.echo(json.dumps(json_schema(), indent=2))
        return
    if run is None:
        raise InvalidInput(
            "No run was named.", expected="the folder of a finished run.", remedy="vestige report RUN, or --schema."
        )
    from vestige.report.evidence import Evidence
    from vestige.report.folder import load, write
    from vestige.report.terminal import show

    record = load(run)
    write(record, run, Evidence.load(run / "evidence.npz") if show_images else None)
    show(record, run / "report.html")


@app.command(epilog="Example: vestige doctor")
def doctor() -> None:
    """Say what is installed, what is missing and how to get it."""
    from vestige.cli.doctor import examine

    raise typer.Exit(examine())


@app.command("ls", epilog="Example: vestige ls")
def list_methods() -> None:
    """List methods, what each claims, what access it needs, and where it comes from."""
    require_working_dependencies()
    from vestige.cli.catalogue import show_methods

    show_methods()


def main() -> None:
    """Run the command line; a VestigeError ends in one clear message and its exit code."""
    # Models are local by default: nothing is looked up on a hub unless asked for.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    # Remarks and bars of transformers, read once when it is imported, would stand above the answer.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        app()
    except VestigeError as error:
        from vestige.cli.display import complain

        complain(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
