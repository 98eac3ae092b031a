"""Shadow models: networks trained on random halves of one pool of images, with the truth of who was in which half."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vestige.digest import digest_json
from vestige.errors import CorruptFile, NotFound
from vestige.models.denoiser import Denoiser

PLAN, POOL = "shadows.json", "pool.npz"

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Shadows:
    """A folder of shadow models, read.

    Parameters
    ----------
    folder : where the models lie, each a diffusers folder.
    names : sub-folders of the models that finished training.
    ids : content hashes of the pool's distinct images.
    inside : bool [models, pool], which image each model was trained on.
    null_condition : the class label that means "no condition", if they were trained with one.
    """

    folder: Path
    names: tuple[str, ...]
    ids: tuple[str, ...]
    inside: Bools
    null_condition: int | None
    recipe: dict[str, Any]

    @staticmethod
    def open(folder: str | Path) -> Shadows:
        """Read a folder that `vestige shadow` wrote; models still in training are left out.

        Raises
        ------
        NotFound : no such folder, or no finished model in it.
        CorruptFile : the plan or the pool cannot be read, or they disagree.
        """
        folder = Path(folder)
        remedy = "train them with `vestige shadow MODEL --data POOL --out FOLDER`."
        if not (folder / PLAN).is_file() or not (folder / POOL).is_file():
            raise NotFound(f"There are no shadow models in {folder}.", expected=f"{PLAN} and {POOL}.", remedy=remedy)
        try:
            plan = json.loads((folder / PLAN).read_text())
            with np.load(folder / POOL, allow_pickle=False) as file:
                ids, inside = tuple(str(i) for i in file["ids"]), file["inside"].astype(bool)
            names, null, recipe = [str(n) for n in plan["models"]], plan["null_condition"], dict(plan["recipe"])
            if inside.shape != (len(names), len(ids)):
                raise ValueError(f"{inside.shape} memberships of {len(names)} models and {len(ids)} images")
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise CorruptFile(
                f"The shadow models in {folder} cannot be read: {error}.",
                expected=f"the {PLAN} and {POOL} that training wrote.",
                remedy=remedy,
            ) from error
        done = [i for i, name in enumerate(names) if (folder / name / "model_index.json").is_file()]
        if not done:
            raise NotFound(f"No shadow model in {folder} is finished.", expected="at least one.", remedy=remedy)
        return Shadows(folder, tuple(names[i] for i in done), ids, inside[done], null, recipe)

    def __len__(self) -> int:
        return len(self.names)

    def denoiser(self, model: int) -> Denoiser:
        """Load one model (see :func:`vestige.models.adapters.diffusers.load_folder` for what can go wrong)."""
        from vestige.models.adapters.diffusers import load_folder

        return load_folder(self.folder / self.names[model], null_condition=self.null_condition)

    def inside_of(self, ids: Sequence[str]) -> Bools:
        """Which model was trained on which image, bool [models, len(ids)]; False for images outside the pool."""
        place = {identity: column for column, identity in enumerate(self.ids)}
        columns = np.array([place.get(identity, -1) for identity in ids], dtype=np.int64)
        return self.inside[:, columns] & (columns >= 0)

    @property
    def digest(self) -> str:
        """Digest of who was where and of the recipe, not of the weights: those are in each denoiser's digest."""
        inside = np.packbits(self.inside).tobytes().hex()
        return digest_json({"names": self.names, "ids": self.ids, "inside": inside, "recipe": self.recipe})
