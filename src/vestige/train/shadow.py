"""Train shadow models on random halves of one pool (Carlini et al. 2022, arXiv 2112.03570)."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vestige.data.images import ImageSet
from vestige.digest import digest_json
from vestige.errors import AlreadyExists, InvalidInput
from vestige.models.shadows import PLAN, POOL, Shadows
from vestige.progress import Progress
from vestige.randomness import Stream, generator
from vestige.store import write_text
from vestige.train.recipe import Recipe
from vestige.train.trainer import train


def halves(models: int, images: int, seed: int) -> npt.NDArray[np.bool_]:
    """Who is in which model, bool [models, images]: every image in exactly half of the models, drawn for it alone."""
    inside = np.zeros((models, images), bool)
    for image in range(images):
        inside[generator(seed, Stream.SHADOW, image).permutation(models)[: models // 2], image] = True
    return inside


def train_shadows(
    pool: ImageSet,
    out: Path,
    *,
    models: int = 16,
    recipe: Recipe | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Shadows:
    """``models`` networks, each on its half of the distinct images of ``pool``; resumes model by model.

    Raises
    ------
    InvalidInput : an odd number of models, or fewer than two; a pool of fewer than two images.
    AlreadyExists : ``out`` holds shadow models of another pool, recipe or seed.
    """
    pool, _ = pool.required("to train on").unique()
    if models < 2 or models % 2 or len(pool) < 2:
        raise InvalidInput(
            f"{models} models of {len(pool)} images.",
            expected="an even number of models and at least two images, so that each image is in half of the models.",
            remedy="change --models.",
        )
    recipe = recipe or Recipe()
    inside = halves(models, len(pool), seed)
    names = [f"{i:03d}" for i in range(models)]
    plan: dict[str, object] = {
        "models": names,
        "null_condition": None if pool.labels is None else int(pool.labels.max()) + 1,
        "recipe": {**recipe.plain(), "seed": seed},
        "pool": pool.digest,
    }
    _claim(out, plan, pool, inside)
    for i, name in enumerate(names):
        if (out / name / "model_index.json").is_file():
            continue
        rows = pool.take(np.flatnonzero(inside[i]))
        own = dataclasses.replace(recipe, seed=seed + 1 + i)
        work = out / f"{name}.training"
        trained = train(own, rows, work, progress=progress, label=f"shadow model {i + 1} of {models}")
        trained[-1].folder.rename(out / name)
        shutil.rmtree(work)
    return Shadows.open(out)


def _claim(out: Path, plan: dict[str, object], pool: ImageSet, inside: npt.NDArray[np.bool_]) -> None:
    if (out / PLAN).exists():
        if digest_json(json.loads((out / PLAN).read_text())) != digest_json(plan):
            raise AlreadyExists(
                f"{out} holds shadow models of another pool, recipe or seed.",
                expected="an empty folder, or the same request to resume.",
                remedy="choose another --out.",
            )
        return
    out.mkdir(parents=True, exist_ok=True)
    part = out / "pool.part.npz"
    np.savez_compressed(part, ids=np.array(pool.ids), inside=inside)
    part.replace(out / POOL)
    write_text(out / PLAN, json.dumps(plan, indent=2) + "\n")
