"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vestige.errors import InvalidInput

if TYPE_CHECKING:
    from vestige.models.sampler import Sampler

Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for the report and everything it rests on.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what an earlier run left in --out.")]
ShowImages = Annotated[
    bool, typer.Option("--show-images", help="Put recovered training images on the page (hashes and distances if not).")
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of every random draw.")]
SkipCorrupt = Annotated[bool, typer.Option("--skip-corrupt", help="Leave unreadable images out and name them.")]
NullCondition = Annotated[
    int | None, typer.Option(help="Class label that means 'no condition', if training dropped labels.")
]


def named_sampler(name: str, steps: int) -> Sampler:
    """The sampler of ``--sampler`` with its steps (InvalidInput if there is none of that name)."""
    from vestige.models.sampler import SAMPLERS

    if name.lower() not in SAMPLERS:
        raise InvalidInput(
            f"No sampler is called '{name}'.", expected=f"one of {', '.join(SAMPLERS)}.", remedy="correct --sampler."
        )
    return SAMPLERS[name.lower()](steps=steps)
