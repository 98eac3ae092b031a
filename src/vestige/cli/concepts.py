"""Erasing concepts from text-to-image models, and the matrix of what increments do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from vestige.cli.options import Out, Overwrite, Seed, ShowImages
from vestige.dependencies import require_working_dependencies


@dataclass(frozen=True)
class Asked:
    """What ``vestige erase --concept`` was told beside its method."""

    concepts: Sequence[str]
    templates: Sequence[str]
    captions: str | None
    keep: Sequence[str]
    guard: Sequence[str]
    anchors: Sequence[str]
    add: bool


def erase_named(
    model: str, out: Path, asked: Asked, method: str | None, settings: Sequence[str], seed: int, overwrite: bool
) -> None:
    """Erase concepts and show their increments."""
    require_working_dependencies()
    import vestige.erase.concept
    from vestige.cli.display import bars, show_table
    from vestige.cli.settings import with_settings
    from vestige.discover import method as find
    from vestige.erase.concept.eraser import ConceptEraser
    from vestige.jobs.concepts import default_eraser, erase_concepts
    from vestige.jobs.increments import describe_increments

    kind = find(vestige.erase.concept, ConceptEraser, method) if method else default_eraser(asked.captions)
    eraser = with_settings(kind, settings)
    with bars() as progress:
        done = erase_concepts(
            model,
            asked.concepts,
            out=out,
            method=eraser,
            templates=asked.templates,
            captions=asked.captions,
            keep=asked.keep,
            guard=asked.guard,
            anchors=asked.anchors or [""],
            add=asked.add,
            seed=seed,
            overwrite=overwrite,
            progress=progress,
        )
    show_table(describe_increments(done.folders), f"vestige increments matrix {model} {out} --out matrix")


def register(increments: typer.Typer) -> None:
    """Put the matrix among the commands for increments."""
    increments.command("matrix", epilog="Example: vestige increments matrix my-sd/ inc --out matrix --show-images")(
        matrix
    )


def matrix(
    model: Annotated[str, typer.Argument(help="Text-to-image folder or zoo name.")],
    increment: Annotated[list[Path], typer.Argument(help="Increments of concepts, or folders that gather some.")],
    out: Out,
    prompt: Annotated[
        list[str] | None, typer.Option(help="A prompt to look at beside those of the concepts; again for more.")
    ] = None,
    draws: Annotated[int, typer.Option(min=2, help="Pictures a prompt.")] = 16,
    steps: Annotated[int, typer.Option(min=1, help="Sampling steps.")] = 25,
    guidance: Annotated[float, typer.Option(help="Scale of guidance.")] = 4.0,
    seed: Seed = 0,
    show_images: ShowImages = False,
    overwrite: Overwrite = False,
) -> None:
    """Show what each increment, and all together, do to each concept's pictures."""
    require_working_dependencies()
    from vestige.cli.display import bars, finish
    from vestige.jobs.concept_matrix import concept_matrix
    from vestige.models.adapters.text_to_image import Drawing
    from vestige.models.sampler import DDIM

    with bars() as progress:
        done = concept_matrix(
            model,
            increment,
            out=out,
            prompts=prompt or [],
            draws=draws,
            drawing=Drawing(DDIM(steps, clip=False), guidance),
            seed=seed,
            show_images=show_images,
            overwrite=overwrite,
            progress=progress,
        )
    finish(done)
