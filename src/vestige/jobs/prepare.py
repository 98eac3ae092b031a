"""``vestige data``: training data made safer before training, or ready for an exposure test."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vestige.data.canaries import with_canaries
from vestige.data.images import ImageSet
from vestige.data.split import DUPLICATE_RADIUS
from vestige.errors import AlreadyExists
from vestige.jobs.resolve import DataLike, resolve_data
from vestige.nearest import cluster_sizes, clusters
from vestige.record import Cell, Table
from vestige.store import write_bytes, write_text


@dataclass(frozen=True, eq=False)
class Kept:
    """What de-duplication left: ``kept`` rows of the data, the ``cluster`` of every row, the files written."""

    images: ImageSet
    kept: npt.NDArray[np.int64]
    cluster: npt.NDArray[np.int64]
    folder: Path

    def table(self) -> Table:
        """Clusters by size."""
        sizes = np.bincount(np.unique(self.cluster, return_inverse=True)[1])
        edges = [1, 2, 4, 8, 16, 32, 64, 128, 1 << 62]
        rows: list[list[Cell]] = []
        for low, high in pairwise(edges):
            mask = (sizes >= low) & (sizes < high)
            if mask.any():
                name = str(low) if high == low + 1 else f"{low} or more" if high > 1 << 60 else f"{low}-{high - 1}"
                rows.append([name, int(mask.sum()), int(sizes[mask].sum()), int(mask.sum())])
        return Table(
            name="clusters",
            title=f"{len(self.cluster):,} rows, {len(self.kept):,} kept in {self.folder}",
            columns=["rows in a cluster", "clusters", "rows", "kept"],
            rows=rows,
        )


def deduplicate(
    data: DataLike,
    *,
    out: str | Path,
    radius: float | None = None,
    skip_corrupt: bool = False,
    overwrite: bool = False,
) -> Kept:
    """Keep the first row of every cluster of near-duplicates.

    Rows within ``radius`` (rms, pixels in [0, 1]) of one another, directly or through others, are one cluster. Writes
    ``kept.npz`` (``images``, ``labels`` where there are some, ``rows``) and ``clusters.jsonl``, one line for each
    cluster of at least two rows with the names and content hashes of its rows, the kept one first.

    Raises
    ------
    AlreadyExists : ``out`` holds such files and ``overwrite`` is not set.
    """
    folder = Path(out)
    _free(folder / "kept.npz", overwrite)
    images, _ = resolve_data(data, skip_corrupt=skip_corrupt)
    cluster = clusters(images.required("to de-duplicate").flat, DUPLICATE_RADIUS if radius is None else radius).astype(
        np.int64
    )
    kept = np.unique(cluster, return_index=True)[1].astype(np.int64)
    kept.sort()
    write_images(folder / "kept.npz", images.take(kept), rows=kept)
    lines: list[str] = []
    for first in kept[cluster_sizes(cluster)[kept] > 1]:
        rows = np.flatnonzero(cluster == cluster[first]).tolist()
        lines.append(
            json.dumps({"rows": rows, "ids": [images.ids[r] for r in rows], "names": [images.names[r] for r in rows]})
        )
    write_text(folder / "clusters.jsonl", "".join(f"{line}\n" for line in lines))
    return Kept(images, kept, cluster, folder)


def insert_canaries(
    data: DataLike,
    *,
    out: str | Path,
    per_count: int | None = None,
    seed: int = 0,
    skip_corrupt: bool = False,
    overwrite: bool = False,
) -> ImageSet:
    """Write ``out`` (.npz): the data with noise images inserted at 1, 2, 4 .. 64 copies, for an exposure test.

    Raises
    ------
    AlreadyExists : ``out`` exists and ``overwrite`` is not set.
    """
    path = Path(out)
    _free(path, overwrite)
    images, _ = resolve_data(data, skip_corrupt=skip_corrupt)
    planted = with_canaries(images.required("to put canaries among"), per_count=per_count, seed=seed)
    write_images(path, planted)
    return planted


def write_images(path: Path, images: ImageSet, **more: npt.NDArray[np.int64]) -> None:
    """An ``.npz`` that every command reads: ``images`` uint8 [n, h, w] or [n, h, w, 3], ``labels`` where known."""
    channels_last = np.moveaxis(images.pixels, 1, -1)
    arrays: dict[str, npt.NDArray[np.generic]] = {
        "images": channels_last[..., 0] if channels_last.shape[-1] == 1 else channels_last,
        **({} if images.labels is None else {"labels": images.labels}),
        **more,
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    write_bytes(path, buffer.getvalue())


def _free(path: Path, overwrite: bool) -> None:
    if path.exists() and not overwrite:
        raise AlreadyExists(
            f"{path} exists.", expected="a new place.", remedy="choose another --out, or pass --overwrite."
        )
