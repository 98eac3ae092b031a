"""``vestige shadow``: train the models that likelihood-ratio attacks compare with."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vestige.data.images import ImageSet
from vestige.errors import InvalidInput, ShapeMismatch
from vestige.jobs.resolve import DataLike, resolve_data
from vestige.models.shadows import Shadows
from vestige.progress import Progress
from vestige.record import Cell, Table
from vestige.train.recipe import Recipe
from vestige.train.shadow import train_shadows


def shadow(
    data: DataLike,
    *,
    non_members: DataLike | None = None,
    out: str | Path,
    models: int = 16,
    recipe: Recipe | None = None,
    seed: int = 0,
    skip_corrupt: bool = False,
    progress: Progress | None = None,
) -> Shadows:
    """Train shadow models on random halves of members and non-members together; resumes model by model.

    Every distinct image of the pool is in exactly half of the models.

    Raises
    ------
    VestigeError : bad input, named, before anything is trained.
    """
    parts = [resolve_data(part, skip_corrupt=skip_corrupt)[0] for part in (data, non_members) if part is not None]
    return train_shadows(_joined(parts), Path(out), models=models, recipe=recipe, seed=seed, progress=progress)


def _joined(parts: list[ImageSet]) -> ImageSet:
    """One pool of several sets of one shape, all or none of them labelled."""
    if len({part.shape for part in parts}) > 1:
        raise ShapeMismatch(
            f"The pool mixes images of shapes {', '.join(str(part.shape) for part in parts)}.",
            expected="one size and colour.",
            remedy="resize the images to what the model saw in training.",
        )
    labels = [part.labels for part in parts if part.labels is not None]
    if labels and len(labels) < len(parts):
        raise InvalidInput(
            "Some images of the pool have labels and others have none.",
            expected="labels for all of them, or for none.",
            remedy="put each class in its own sub-folder on both sides.",
        )
    pixels = np.concatenate([part.pixels for part in parts])
    return ImageSet(pixels, np.concatenate(labels) if labels else None, parts[0].source)


def describe_shadows(shadows: Shadows) -> Table:
    """How many images each model was trained on."""
    rows: list[list[Cell]] = [
        [name, int(inside.sum()), len(shadows.ids)] for name, inside in zip(shadows.names, shadows.inside, strict=True)
    ]
    return Table(
        name="shadows",
        title=f"Shadow models in {shadows.folder}",
        columns=["model", "images trained on", "images in the pool"],
        rows=rows,
    )
