"""Commands that prepare data or train small models: data, shadow, study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vestige.cli.options import Out, Overwrite, Seed, SkipCorrupt
from vestige.dependencies import require_working_dependencies
from vestige.errors import InvalidInput
from vestige.train.recipe import Recipe

_CHANNELS = ",".join(map(str, Recipe.channels))

data = typer.Typer(help="Make training data safer, or ready for an exposure test.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Put these commands on the command line."""
    app.add_typer(data, name="data")
    app.command(epilog="Example: vestige shadow --data train/ --non-members held-out/ --out shadows")(shadow)
    app.command(epilog="Example: vestige study studies/digits.toml --out runs/study")(study)


@data.command("dedup", epilog="Example: vestige data dedup train/ --out kept")
def dedup(
    images: Annotated[str, typer.Argument(help="Training images: folder, .npz, datasets folder.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for kept.npz and clusters.jsonl.")],
    radius: Annotated[
        float | None, typer.Option(help="Near-duplicates lie within it: rms, pixels in [0, 1]; 0.02 if not given.")
    ] = None,
    skip_corrupt: SkipCorrupt = False,
    overwrite: Overwrite = False,
) -> None:
    """Keep one row of every cluster of near-duplicates, and say which rows those were."""
    require_working_dependencies()
    from vestige.cli.display import show_table
    from vestige.jobs.prepare import deduplicate

    kept = deduplicate(images, out=out, radius=radius, skip_corrupt=skip_corrupt, overwrite=overwrite)
    show_table(kept.table(), f"train on {out / 'kept.npz'}, then vestige audit MODEL --data {images} --out run")


@data.command("canaries", epilog="Example: vestige data canaries train/ --out with-canaries.npz")
def canaries(
    images: Annotated[str, typer.Argument(help="Training images: folder, .npz, datasets folder.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The .npz to train on.")],
    per_count: Annotated[
        int | None, typer.Option(min=1, help="Noise images at each of 1, 2, 4 .. 64 copies; 10 if not given.")
    ] = None,
    seed: Seed = 0,
    skip_corrupt: SkipCorrupt = False,
    overwrite: Overwrite = False,
) -> None:
    """Insert noise images whose exposure after training tells how well a model remembers."""
    require_working_dependencies()
    from vestige.cli.display import say
    from vestige.jobs.prepare import insert_canaries

    planted = insert_canaries(
        images, out=out, per_count=per_count, seed=seed, skip_corrupt=skip_corrupt, overwrite=overwrite
    )
    follow = f"vestige audit MODEL --data {out} --non-members HELD-OUT --attack canaryexposure --out run"
    say(f"{out} holds {len(planted):,} rows.", f"train on it, then {follow}")


def shadow(
    data: Annotated[str, typer.Option(help="Training images of the model that will be attacked.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the shadow models.")],
    non_members: Annotated[str | None, typer.Option(help="Images it never saw, to mix into the pool.")] = None,
    models: Annotated[int, typer.Option(min=2, help="How many; every image is in half of them.")] = 16,
    steps: Annotated[int, typer.Option(min=1, help="Training steps a model.")] = Recipe.steps,
    batch: Annotated[int, typer.Option(min=1, help="Images a step.")] = Recipe.batch,
    channels: Annotated[str, typer.Option(help="Width of each level of the network.")] = ",".join(
        map(str, Recipe.channels)
    ),
    seed: Seed = 0,
    skip_corrupt: SkipCorrupt = False,
) -> None:
    """Train the models that the likelihood-ratio attack compares with; an interrupted call resumes."""
    require_working_dependencies()
    from vestige.cli.display import bars, show_table
    from vestige.jobs.shadow import describe_shadows
    from vestige.jobs.shadow import shadow as run

    recipe = Recipe(channels=_integers(channels, "--channels"), steps=steps, batch=batch)
    with bars() as progress:
        made = run(
            data,
            non_members=non_members,
            out=out,
            models=models,
            recipe=recipe,
            seed=seed,
            skip_corrupt=skip_corrupt,
            progress=progress,
        )
    show_table(describe_shadows(made), f"vestige audit MODEL --data {data} --shadows {out} --out run")


def study(
    plan: Annotated[Path, typer.Argument(help="TOML file that names the models to train.")],
    out: Out,
    overwrite: Overwrite = False,
) -> None:
    """Train a grid of small models, audit each, and draw privacy against quality; resumes model by model."""
    from vestige.jobs.study_plan import load_plan

    asked = load_plan(plan)
    require_working_dependencies()
    from vestige.cli.display import bars, finish
    from vestige.jobs.study import study as run

    with bars() as progress:
        done = run(asked, out=out, overwrite=overwrite, progress=progress)
    finish(done)


def _integers(text: str, option: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise InvalidInput(
            f"{option} {text} is no list of whole numbers.", expected="e.g. 8,16,32.", remedy="correct it."
        ) from error
