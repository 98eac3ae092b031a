"""The command that measures generated images: metrics."""

from __future__ import annotations

from typing import Annotated

import typer

from vestige.cli.options import Out, Overwrite, Seed, ShowImages, SkipCorrupt
from vestige.dependencies import require_working_dependencies


def register(app: typer.Typer) -> None:
    """Put the command on the command line."""
    app.command(
        epilog="Examples: vestige metrics generated/ --data held-out/ --train train/ --out quality"
        "  |  vestige metrics generated.npz --data real.npz --features dinov2-base/ --out quality"
    )(metrics)


def metrics(
    generated: Annotated[str, typer.Argument(help="Generated images: folder or .npz.")],
    out: Out,
    data: Annotated[str, typer.Option(help="Real images to compare with: folder, .npz, datasets folder.")],
    train: Annotated[
        str | None, typer.Option(help="What the generator was trained on, to tell new images from copies.")
    ] = None,
    features: Annotated[
        str, typer.Option(help="pixels, edges, digits, or the folder of a vision model (DINOv2, CLIP, ViT).")
    ] = "pixels",
    k: Annotated[int, typer.Option("--k", min=1, help="Neighbours that the radius of a ball reaches.")] = 3,
    seed: Seed = 0,
    skip_corrupt: SkipCorrupt = False,
    show_images: ShowImages = False,
    overwrite: Overwrite = False,
) -> None:
    """Measure generated images against real ones: fidelity, diversity, rarity, distance, and whether they are new."""
    require_working_dependencies()
    from vestige.cli.display import bars, finish
    from vestige.jobs.metrics import metrics as run

    with bars() as progress:
        done = run(
            generated,
            data,
            out=out,
            train=train,
            features=features,
            neighbours=k,
            seed=seed,
            skip_corrupt=skip_corrupt,
            show_images=show_images,
            overwrite=overwrite,
            progress=progress,
        )
    finish(done)
