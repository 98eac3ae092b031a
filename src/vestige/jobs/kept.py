"""What an audit keeps of every generation, so that runs can be compared later at an equal budget.

``generations.npz`` is a plain NumPy archive, read with ``allow_pickle=False``: for every generation its nearest member
(and non-member), distance and calibrated ratio, and the features that quality is measured in. No pixels.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from vestige.audit.extraction.generate_and_filter import Generations
from vestige.audit.extraction.search import Search
from vestige.errors import CorruptFile, NotFound
from vestige.jobs.quality import Scene
from vestige.store import write_bytes

FILE, ROWS = "generations.npz", "rows.jsonl"


@dataclass(frozen=True, eq=False)
class Kept:
    """Searches in members and, where there were any, non-members, and the features of everything that was compared."""

    members: Search
    others: Search | None
    scene: Scene

    @staticmethod
    def of(generated: Generations, scene: Scene) -> Kept:
        """What is worth keeping of an extraction."""
        return Kept(generated.members, generated.others, scene)

    def save(self, folder: Path) -> None:
        """Write ``generations.npz`` (StorageFailed if it cannot be written)."""
        arrays: dict[str, npt.NDArray[Any]] = {}
        for side, search in (("members", self.members), ("others", self.others)):
            if search is not None:
                arrays |= {f"{side}/{k}": getattr(search, k) for k in ("index", "distance", "ratio")}
        arrays["features/generated"] = self.scene.generated.astype(np.float32)
        arrays["features/reference"] = self.scene.reference.astype(np.float32)
        if self.scene.floor is not None:
            arrays["features/floor"] = self.scene.floor.astype(np.float32)
        for key in ("against", "judge", "digest"):
            arrays[f"features/{key}"] = np.array(getattr(self.scene, key), dtype=np.str_)
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for key, array in arrays.items():
                content = io.BytesIO()
                np.lib.format.write_array(content, array, allow_pickle=False)
                # A ZipInfo without a date keeps the file the same from run to run.
                archive.writestr(zipfile.ZipInfo(f"{key}.npy"), content.getvalue(), zipfile.ZIP_DEFLATED)
        write_bytes(folder / FILE, buffer.getvalue())

    @staticmethod
    def load(folder: Path) -> Kept:
        """Read what :meth:`save` wrote.

        Raises
        ------
        NotFound : the run sampled nothing, or was made before such files were kept. CorruptFile : it cannot be read.
        """
        path = folder / FILE
        if not path.is_file():
            raise NotFound(
                f"There is no {path}.",
                expected="what an audit keeps of its generations.",
                remedy=f"repeat that audit with --out {folder} --overwrite; it takes what it sampled from its store.",
            )
        try:
            with np.load(path, allow_pickle=False) as archive:
                arrays = {key: archive[key] for key in archive.files}
            return Kept(_required(arrays), _search(arrays, "others"), _scene(arrays))
        except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            raise CorruptFile(
                f"{path} cannot be read ({error}).",
                expected="the NumPy archive that an audit writes.",
                remedy=f"repeat that audit with --out {folder} --overwrite; it takes what it sampled from its store.",
            ) from error


@dataclass(frozen=True, eq=False)
class Rows:
    """The table of an audit's rows: members in order, with counts, clusters and scores by attack."""

    members: list[dict[str, Any]]
    others: list[dict[str, Any]]

    @staticmethod
    def load(folder: Path) -> Rows:
        """Read ``rows.jsonl``.

        Raises
        ------
        NotFound, CorruptFile : see each message.
        """
        path = folder / ROWS
        try:
            lines = [cast("dict[str, Any]", json.loads(line)) for line in path.read_text().splitlines()]
            members = [line for line in lines if line["side"] == "member"]
            return Rows(members, [line for line in lines if line["side"] != "member"])
        except FileNotFoundError as error:
            raise NotFound(
                f"There is no {path}.", expected="the rows that an audit writes.", remedy="repeat the audit."
            ) from error
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise CorruptFile(
                f"{path} cannot be read ({error}).", expected="one JSON object a line.", remedy="repeat the audit."
            ) from error

    @property
    def copies(self) -> npt.NDArray[np.int64]:
        """Copies of each member in the training data."""
        return np.array([line["copies"] for line in self.members], dtype=np.int64)

    @property
    def cluster(self) -> npt.NDArray[np.int64]:
        """The number of each member's cluster of near-duplicates, counted from 0."""
        names = [line["cluster"] for line in self.members]
        return np.unique(names, return_inverse=True)[1].astype(np.int64)

    def scores(self, attack: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Scores of members and non-members by that attack, NaN where it did not look."""

        def column(lines: list[dict[str, Any]]) -> npt.NDArray[np.float64]:
            values = [line.get(attack) for line in lines]
            return np.array([np.nan if value is None else value for value in values], dtype=np.float64)

        return column(self.members), column(self.others)


def first(search: Search, count: int) -> Search:
    """The search of the first generations alone."""
    return Search(search.index[:count], search.distance[:count], search.ratio[:count])


def first_copied(search: Search, rows: int, delta: float) -> npt.NDArray[np.int64]:
    """The first generation that copies each of ``rows`` rows, [rows]; the number of generations where none does."""
    copies = np.flatnonzero(search.copies(delta))
    found = np.full(rows, len(search.index), dtype=np.int64)
    np.minimum.at(found, search.index[copies], copies)
    return found


def _search(arrays: dict[str, npt.NDArray[Any]], side: str) -> Search | None:
    if f"{side}/index" not in arrays:
        return None
    parts = [arrays[f"{side}/{key}"] for key in ("index", "distance", "ratio")]
    if len({part.shape for part in parts}) != 1 or parts[0].ndim != 1:
        raise ValueError(f"the arrays of {side} differ in length")
    return Search(parts[0].astype(np.int64), parts[1].astype(np.float64), parts[2].astype(np.float64))


def _required(arrays: dict[str, npt.NDArray[Any]]) -> Search:
    found = _search(arrays, "members")
    if found is None:
        raise KeyError("members/index")
    return found


def _scene(arrays: dict[str, npt.NDArray[Any]]) -> Scene:
    floor = arrays.get("features/floor")
    return Scene(
        arrays["features/generated"].astype(np.float64),
        arrays["features/reference"].astype(np.float64),
        None if floor is None else floor.astype(np.float64),
        *(str(arrays[f"features/{key}"]) for key in ("against", "judge", "digest")),
    )
