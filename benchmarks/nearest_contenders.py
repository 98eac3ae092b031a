"""One search by one library in a process of its own: ``nearest_contenders.py NAME FOLDER K``.

Reads queries.npy and rows.npy from the folder, writes what was found to NAME.npz, and prints seconds and peak memory.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import numpy as np

DELTA = 0.15
GRID = 4
_BLOCK = 1000


def vestige_knn(queries: np.ndarray, rows: np.ndarray, k: int) -> dict[str, np.ndarray]:
    from vestige.nearest import topk

    found = topk(queries, rows, k)
    return {"index": found.index, "distance2": found.distance2.astype(np.float64)}


def faiss_knn(queries: np.ndarray, rows: np.ndarray, k: int) -> dict[str, np.ndarray]:
    import faiss

    index = faiss.IndexFlatL2(rows.shape[1])
    index.add(rows.astype(np.float32))
    distance2, found = index.search(queries.astype(np.float32), k)
    return {"index": found, "distance2": distance2.astype(np.float64)}


def cdist_knn(queries: np.ndarray, rows: np.ndarray, k: int) -> dict[str, np.ndarray]:
    import torch

    wide = torch.from_numpy(rows).float()
    parts = [
        torch.cdist(torch.from_numpy(queries[top : top + _BLOCK]).float(), wide).topk(k, largest=False)
        for top in range(0, len(queries), _BLOCK)
    ]
    distance = torch.cat([part.values for part in parts]).double().numpy()
    return {"index": torch.cat([part.indices for part in parts]).numpy(), "distance2": distance**2}


def sklearn_knn(queries: np.ndarray, rows: np.ndarray, k: int) -> dict[str, np.ndarray]:
    from sklearn.neighbors import NearestNeighbors

    model = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(rows.astype(np.float32))
    distance, index = model.kneighbors(queries.astype(np.float32))
    return {"index": index, "distance2": distance.astype(np.float64) ** 2}


def vestige_calibrated(queries: np.ndarray, rows: np.ndarray, k: int) -> dict[str, np.ndarray]:
    from vestige.nearest import calibrated

    found = calibrated(queries, rows, neighbours=k)
    return {"index": found.index, "ratio": found.ratio}


def faiss_calibrated(queries: np.ndarray, rows: np.ndarray, k: int) -> dict[str, np.ndarray]:
    found = faiss_knn(queries, rows, k)
    with np.errstate(invalid="ignore"):
        distance = np.sqrt(found["distance2"])
        return {"index": found["index"][:, 0], "ratio": distance[:, 0] / (0.5 * distance.mean(1))}


def vestige_tiled(queries: np.ndarray, rows: np.ndarray, k: int) -> dict[str, np.ndarray]:
    from vestige.nearest import tiled_within

    found = tiled_within(queries, rows, DELTA, grid=GRID)
    return {
        "pairs": found.pairs,
        "stages": np.array([stage.name for stage in found.stages]),
        "survivors": np.array([stage.survivors for stage in found.stages]),
    }


def blocked_tiled(queries: np.ndarray, rows: np.ndarray, k: int) -> dict[str, np.ndarray]:
    """All tiles of all pairs by exact float32 products of centred pixels, 1,000 queries by 2,000 rows at a time."""
    import torch

    def centred(images: np.ndarray, y: int, x: int) -> torch.Tensor:
        side = images.shape[2] // GRID
        tile = images[:, :, y * side : (y + 1) * side, x * side : (x + 1) * side]
        return torch.from_numpy(np.ascontiguousarray(tile.reshape(len(tile), -1))).float() - 128

    size = queries[0].size // GRID**2
    if size > 1024:
        raise SystemExit("a tile of more than 1024 pixels is not exact in float32")
    limit = int((DELTA * 255) ** 2 * size + 1e-6)
    parts = [np.empty((0, 2), np.int64)]
    for top in range(0, len(queries), _BLOCK):
        for left in range(0, len(rows), 2 * _BLOCK):
            worst: torch.Tensor | None = None
            for y, x in np.ndindex(GRID, GRID):
                one = centred(queries[top : top + _BLOCK], y, x)
                two = centred(rows[left : left + 2 * _BLOCK], y, x)
                distance2 = (one @ two.T).int().mul_(-2)
                distance2 += one.square().sum(1).int()[:, None]
                distance2 += two.square().sum(1).int()
                worst = distance2 if worst is None else torch.maximum(worst, distance2, out=worst)
            if worst is not None:
                parts.append((worst <= limit).nonzero().numpy() + np.array([top, left]))
    pairs = np.concatenate(parts)
    return {"pairs": pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]}


def peak_memory() -> int:
    """Most bytes resident so far; of this program alone where Linux tells, for a new one inherits ru_maxrss."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    contenders: dict[str, Callable[[np.ndarray, np.ndarray, int], dict[str, np.ndarray]]] = {
        f.__name__: f
        for f in (
            vestige_knn,
            faiss_knn,
            cdist_knn,
            sklearn_knn,
            vestige_calibrated,
            faiss_calibrated,
            vestige_tiled,
            blocked_tiled,
        )
    }
    name, folder, k = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    queries, rows = np.load(folder / "queries.npy"), np.load(folder / "rows.npy")
    contenders[name](queries[:2], rows[: max(2 * k, 8)], k)  # imports and first calls are not timed
    before = peak_memory()
    start = perf_counter()
    found = contenders[name](queries, rows, k)
    seconds = perf_counter() - start
    memory = {"peak": peak_memory(), "before": before}
    np.savez(folder / f"{name}.npz", **found)
    print(json.dumps({"seconds": seconds, **memory}))


if __name__ == "__main__":
    main()
