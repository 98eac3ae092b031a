"""The command that finds rare samples of a generator: rare."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vestige.cli.options import Out, Overwrite, Seed, ShowImages, SkipCorrupt
from vestige.dependencies import require_working_dependencies

if TYPE_CHECKING:
    from vestige.jobs.rare_methods import Method


def register(app: typer.Typer) -> None:
    """Put the command on the command line."""
    app.command(
        epilog="Examples: vestige rare digits-gan --data digits-gan:held-out --n 64 --out rare"
        "  |  vestige rare my-gan/ --data real/ --train train/ --reference face.png --similarity 0.99 --out rare"
    )(rare)


def rare(
    generator: Annotated[str, typer.Argument(help="zoo name, GAN or diffusers folder, StyleGAN2 .safetensors.")],
    out: Out,
    data: Annotated[str, typer.Option(help="Real images that show what is rare: folder, .npz, datasets folder.")],
    n: Annotated[int, typer.Option("--n", min=1, help="Samples to find.")] = 64,
    reference: Annotated[Path | None, typer.Option(help="Image that samples stay near.")] = None,
    rarity: Annotated[
        float, typer.Option(min=0, max=1, help="Share of real images that a sample is to be rarer than.")
    ] = 0.98,
    diversity: Annotated[
        float, typer.Option(min=0, max=1, help="Weight of being apart against being rare; 0.5 weighs both alike.")
    ] = 0.5,
    similarity: Annotated[
        float,
        typer.Option(min=0, max=1, help="Share of generations that a sample is nearer to its reference than."),
    ] = 0.99,
    method: Annotated[
        str, typer.Option(help="raresearch, divraregen, or a baseline, as `vestige ls` names it.")
    ] = "raresearch",
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of the method, e.g. --set steps=100.")
    ] = None,
    group: Annotated[int, typer.Option(min=1, help="Samples of one reference that are to differ.")] = 8,
    calls: Annotated[int, typer.Option(min=1, help="Generator calls a sample, for a baseline as --method.")] = 600,
    train: Annotated[str | None, typer.Option(help="What the generator was trained on (--data if absent).")] = None,
    features: Annotated[
        str | None, typer.Option(help="Space that selects: pixels, digits, or the folder of a vision model.")
    ] = None,
    judge: Annotated[
        str, typer.Option(help="Space that scores, another one: edges, pixels, digits, or a folder.")
    ] = "edges",
    k: Annotated[int, typer.Option("--k", min=1, help="Neighbours that the radius of a real ball reaches.")] = 3,
    sweep: Annotated[bool, typer.Option("--sweep/--no-sweep", help="Show what every control does.")] = True,
    batch_size: Annotated[int, typer.Option(min=1, help="Images a network evaluation.")] = 128,
    seed: Seed = 0,
    skip_corrupt: SkipCorrupt = False,
    show_images: ShowImages = False,
    overwrite: Overwrite = False,
) -> None:
    """Find rare samples that differ from one another, beside rejection at equal calls; say which are new."""
    require_working_dependencies()
    from vestige.cli.display import bars, finish
    from vestige.jobs.rare import rare as run
    from vestige.rare.objective import Controls

    chosen = _method(method, setting or [], Controls(rarity, diversity, similarity))
    with bars() as progress:
        done = run(
            generator,
            data,
            out=out,
            count=n,
            reference=reference,
            method=chosen,
            group=group,
            calls=calls,
            train=train,
            features=features,
            judge=judge,
            neighbours=k,
            sweeping=sweep,
            seed=seed,
            batch_size=batch_size,
            skip_corrupt=skip_corrupt,
            show_images=show_images,
            overwrite=overwrite,
            progress=progress,
        )
    finish(done, f"vestige metrics {out}/images --data {data} --out {out}-metrics")


def _method(name: str, settings: Sequence[str], controls: object) -> Method:
    """A search or a baseline by name, with its settings; RareSearch takes the controls."""
    import dataclasses

    import vestige.rare
    import vestige.rare.baselines
    from vestige.cli.settings import with_settings
    from vestige.discover import methods
    from vestige.errors import InvalidInput
    from vestige.rare.baselines.baseline import Baseline
    from vestige.rare.objective import DivRareGen, RareSearch

    kinds: dict[str, type[Method]] = {kind.__name__.lower(): kind for kind in (RareSearch, DivRareGen)}
    kinds |= {key.lower(): kind for key, kind in methods(vestige.rare.baselines, Baseline).items()}
    if name.lower() not in kinds:
        raise InvalidInput(
            f"--method {name} is not known.", expected=f"one of {', '.join(kinds)}.", remedy="correct --method."
        )
    made = with_settings(kinds[name.lower()], settings)
    return dataclasses.replace(made, controls=controls) if isinstance(made, RareSearch) else made
