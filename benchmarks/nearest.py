"""The distance engine next to faiss, torch and scikit-learn: time, peak memory and wrong answers, in one run.

python benchmarks/nearest.py                       # the full size: 10,000 x 50,000 and tiled 5,000 x 20,000
python benchmarks/nearest.py --scale 0.05          # a trial
python benchmarks/nearest.py --data cifar10.npz    # CIFAR-10 as well: jpeg, offsets, is_train
python benchmarks/nearest.py --large               # 2**16 generations against 50,000 rows as well
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from rich.console import Console
from table import RESULTS, Row, write

K = 50
BUDGET = 1 << 30
_ASKED = 50  # queries, and as many planted ones, whose answers are checked against int64 brute force
_ALTERNATIVES = ("faiss_knn", "cdist_knn", "sklearn_knn")
console = Console(stderr=True)


@dataclass(frozen=True)
class Ran:
    """What a contender took and found."""

    seconds: float
    peak: int
    before: int
    found: dict[str, np.ndarray]


def synthetic(rng: np.random.Generator, n: int, side: int) -> np.ndarray:
    """Images uint8 [n, 3, side, side] whose amplitudes fall as 1/f; the channels share most of their content."""
    f = np.fft.fftfreq(side)
    radius = np.hypot(f[:, None], f)
    radius[0, 0] = 1 / side
    images = np.empty((n, 3, side, side), np.uint8)
    for top in range(0, n, 1000):
        part = images[top : top + 1000]
        grey, colour = (
            np.fft.ifft2(np.fft.fft2(rng.standard_normal((len(part), c, side, side))) / radius).real for c in (1, 3)
        )
        both = grey / grey.std() + 0.4 * colour / colour.std()
        part[:] = np.clip(np.rint(128 + 60 * both / both.std()), 0, 255)
    return images


def plant(rng: np.random.Generator, queries: np.ndarray, rows: np.ndarray, sigma: tuple[float, float]) -> int:
    """Make the first twentieth of the queries copies of rows, with noise of a standard deviation between the two."""
    number = max(1, len(queries) // 20)
    source = rows[rng.integers(0, len(rows), number)].astype(np.float64)
    width = rng.uniform(*sigma, (number, *[1] * (rows.ndim - 1)))
    queries[:number] = np.clip(np.rint(source + width * rng.standard_normal(source.shape)), 0, 255)
    return number


def cifar10(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Test and training images [n, 3, 32, 32] of the archive."""
    from PIL import Image

    archive = np.load(path)
    jpeg, offsets, train = archive["jpeg"], archive["offsets"], archive["is_train"]
    images = np.stack(
        [
            np.asarray(Image.open(io.BytesIO(jpeg[a:b].tobytes())).convert("RGB")).transpose(2, 0, 1)
            for a, b in pairwise(offsets)
        ]
    )
    return images[~train], images[train]


def run(name: str, queries: np.ndarray, rows: np.ndarray, k: int = K) -> Ran:
    """A contender in a fresh process, so that its peak memory is its own."""
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "queries.npy", queries)
        np.save(Path(folder) / "rows.npy", rows)
        script = Path(__file__).with_name("nearest_contenders.py")
        done = subprocess.run(
            [sys.executable, str(script), name, folder, str(k)], check=True, stdout=subprocess.PIPE, text=True
        )
        with np.load(Path(folder) / f"{name}.npz") as found:
            ran = Ran(**json.loads(done.stdout), found=dict(found))
    console.print(f"{name}: {ran.seconds:.2f} s, peak {ran.peak / 2**30:.2f} GiB, {ran.before / 2**30:.2f} before")
    return ran


@dataclass(frozen=True)
class Faults:
    """Queries, of those asked, with a fault of each kind."""

    neighbours: int
    distances: int
    near: int
    not_positive: int
    asked: int


def brute_force(queries: np.ndarray, rows: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Exact squared distances int64 [asked, m], by differences."""
    exact = np.empty((len(asked), len(rows)), np.int64)
    for place, i in enumerate(asked):
        for top in range(0, len(rows), 2000):
            difference = rows[top : top + 2000].astype(np.int32) - queries[i]
            exact[place, top : top + 2000] = np.square(difference).sum(1, dtype=np.int64)
    return exact


def faults(ran: Ran, rows: np.ndarray, asked: np.ndarray, exact: np.ndarray) -> Faults:
    """Judge answers by int64 brute force.

    Neighbours are wrong where their exact distances are not the k smallest; a distance is wrong where the nearest
    integer to its square is not the square; near ones are wrong distances below 0.02, off by over a hundredth; not
    positive are squares at or below zero of images that differ.
    """
    counts = np.zeros(4, np.int64)
    for place, i in enumerate(asked):
        index, said = ran.found["index"][i], ran.found["distance2"][i]
        true = exact[place, index]
        close = np.sqrt(true / rows.shape[1]) / 255 < 0.02
        off = ~(np.abs(np.sqrt(np.maximum(said, 0)) - np.sqrt(true)) <= 0.01 * np.sqrt(true))
        nearest = np.partition(exact[place], len(index) - 1)[: len(index)]
        counts += (
            not np.array_equal(np.sort(true), np.sort(nearest)),
            bool((np.rint(said) != true).any()),
            bool((off & close).any()),
            bool((~(said > 0) & (true > 0)).any()),
        )
    return Faults(*counts.tolist(), asked=len(asked))


def knn(queries: np.ndarray, rows: np.ndarray, planted: int, suffix: str) -> tuple[list[Row], float]:
    """Rows about the k nearest and the calibrated distance, and the seconds of the engine."""
    n, m, d = len(queries), len(rows), rows.shape[1]
    rng = np.random.default_rng(1)
    asked = np.unique(np.concatenate((rng.choice(n, min(n, _ASKED), replace=False), np.arange(min(planted, _ASKED)))))
    ours = run("vestige_knn", queries, rows)
    others = {name: run(name, queries, rows) for name in _ALTERNATIVES}
    fastest = min(others, key=lambda name: others[name].seconds)
    pairs = n * m / 1e6
    lines = [
        Row(
            f"knn/throughput{suffix}",
            pairs / ours.seconds,
            pairs / others[fastest].seconds,
            f"{fastest}, the fastest",
            others[fastest].seconds / ours.seconds,
            "million pairs/s",
            n,
        ),
    ]
    exact = brute_force(queries, rows, asked)
    judged = faults(ours, rows, asked, exact)
    for name, other in others.items():
        theirs = faults(other, rows, asked, exact)
        lines += [
            Row(f"knn/seconds{suffix}", ours.seconds, other.seconds, name, other.seconds / ours.seconds, "s", n),
            Row(
                f"knn/wrong_answers{suffix}",
                judged.neighbours,
                theirs.neighbours,
                name,
                None,
                "queries with wrong neighbours",
                judged.asked,
            ),
            Row(
                f"knn/wrong_distances{suffix}",
                judged.distances,
                theirs.distances,
                name,
                None,
                "queries with a wrong squared distance",
                judged.asked,
            ),
            Row(
                f"knn/wrong_near_distances{suffix}",
                judged.near,
                theirs.near,
                name,
                None,
                "queries off by over 1 % at a near duplicate",
                judged.asked,
            ),
            Row(
                f"knn/not_positive{suffix}",
                judged.not_positive,
                theirs.not_positive,
                name,
                None,
                "queries with a square <= 0 of different images",
                judged.asked,
            ),
            Row(
                f"peak_memory/knn{suffix}",
                ours.peak / 2**20,
                other.peak / 2**20,
                name,
                other.peak / ours.peak,
                "MiB, inputs and libraries included",
                n,
            ),
        ]
    lines.append(
        Row(
            f"peak_memory/knn_working{suffix}",
            (ours.peak - ours.before) / 2**20,
            BUDGET / 2**20,
            "the budget",
            BUDGET / max(1, ours.peak - ours.before),
            "MiB above the inputs",
            n,
        )
    )
    own, other = run("vestige_calibrated", queries, rows), run("faiss_calibrated", queries, rows)
    with np.errstate(invalid="ignore"):
        differ = ~(np.abs(own.found["ratio"] - other.found["ratio"]) <= 1e-6 * own.found["ratio"])
        undefined = np.isnan(own.found["ratio"]) & np.isnan(other.found["ratio"])
    lines += [
        Row(
            f"calibrated/throughput{suffix}",
            pairs / own.seconds,
            pairs / other.seconds,
            "faiss_calibrated",
            other.seconds / own.seconds,
            "million pairs/s",
            n,
        ),
        Row(
            f"calibrated/differing{suffix}",
            int((differ & ~undefined).sum()),
            None,
            "",
            None,
            "queries whose ratio from faiss is off by over 1e-6",
            n,
        ),
        Row(
            f"peak_memory/calibrated{suffix}",
            own.peak / 2**20,
            other.peak / 2**20,
            "faiss_calibrated",
            other.peak / own.peak,
            "MiB, inputs and libraries included",
            n,
        ),
    ]
    console.print(f"{n} x {m} rows of {d} pixels{suffix}: done")
    return lines, ours.seconds


def tiled(scale: float) -> list[Row]:
    """Rows about the tiled range search among images of 64 x 64 pixels."""
    rng = np.random.default_rng(2)
    rows, queries = synthetic(rng, _scaled(20_000, scale), 64), synthetic(rng, _scaled(5_000, scale), 64)
    plant(rng, queries, rows, (0.01 * 255, 0.3 * 255))
    ours, other = run("vestige_tiled", queries, rows), run("blocked_tiled", queries, rows)
    pairs = len(queries) * len(rows)
    missed = set(map(tuple, other.found["pairs"].tolist())) ^ set(map(tuple, ours.found["pairs"].tolist()))
    lines = [
        Row(
            "tiled_range/throughput",
            pairs / 1e6 / ours.seconds,
            pairs / 1e6 / other.seconds,
            "blocked brute force",
            other.seconds / ours.seconds,
            "million pairs/s",
            len(queries),
        ),
        Row(
            "tiled_range/seconds",
            ours.seconds,
            other.seconds,
            "blocked brute force",
            other.seconds / ours.seconds,
            "s",
            len(queries),
        ),
        Row("tiled_range/differing", len(missed), 0, "blocked brute force", None, "pairs", pairs),
        Row(
            "peak_memory/tiled_range",
            ours.peak / 2**20,
            other.peak / 2**20,
            "blocked brute force",
            other.peak / ours.peak,
            "MiB, inputs and libraries included",
            len(queries),
        ),
    ]
    for stage, number in zip(ours.found["stages"], ours.found["survivors"], strict=True):
        lines.append(
            Row(
                f"tiled_range/survivors/{stage}",
                int(number),
                pairs,
                "all pairs",
                pairs / number if number else None,
                "pairs",
                pairs,
            )
        )
    return lines


def extrapolated(seconds: float, n: int, m: int) -> list[Row]:
    """What the measured rate makes of more generations; printed with its arithmetic."""
    lines = []
    for power in (16, 20):
        expected = seconds * 2**power / n * 50_000 / m
        console.print(
            f"2**{power} x 50,000 by proportion: {seconds:.2f} s * {2**power:,} / {n:,} * 50,000 / {m:,}"
            f" = {expected:,.0f} s = {expected / 3600:.2f} h"
        )
        lines.append(Row(f"knn/extrapolated/2**{power} x 50,000", expected, None, "", None, "s", n))
    return lines


def large(rows: np.ndarray) -> list[Row]:
    """2**16 queries against the rows, really run."""
    rng = np.random.default_rng(3)
    queries = np.concatenate([synthetic(rng, 1 << 13, 32) for _ in range(8)]).reshape(1 << 16, -1)
    plant(rng, queries, rows, (0.0, 3.0))
    ran = run("vestige_knn", queries, rows)
    working = ran.peak - ran.before
    return [
        Row("knn/large/seconds", ran.seconds, None, "", None, "s", len(queries)),
        Row(
            "knn/large/throughput",
            len(queries) * len(rows) / 1e6 / ran.seconds,
            None,
            "",
            None,
            "million pairs/s",
            len(queries),
        ),
        Row(
            "peak_memory/large_working",
            working / 2**20,
            BUDGET / 2**20,
            "the budget",
            BUDGET / max(1, working),
            "MiB above the inputs",
            len(queries),
        ),
    ]


def _scaled(size: int, scale: float) -> int:
    return max(100, round(size * scale))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the queries and rows of each workload")
    parser.add_argument("--data", type=Path, help="CIFAR-10 as an archive of JPEG files")
    parser.add_argument("--large", action="store_true", help="run 2**16 generations as well")
    parser.add_argument("--only", choices=("knn", "tiled"), help="one of the two workloads")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for nearest.json")
    options = parser.parse_args()
    lines: list[Row] = []
    if options.only != "tiled":
        rng = np.random.default_rng(0)
        shape = _scaled(50_000, options.scale), _scaled(10_000, options.scale)
        rows, queries = (synthetic(rng, size, 32).reshape(size, -1) for size in shape)
        found, seconds = knn(queries, rows, plant(rng, queries, rows, (0.0, 3.0)), "")
        lines += found + extrapolated(seconds, len(queries), len(rows))
        if options.large:
            lines += large(rows)
        if options.data:
            queries, rows = (
                images[: _scaled(len(images), options.scale)].reshape(-1, 3072) for images in cifar10(options.data)
            )
            lines += knn(queries, rows, plant(rng, queries, rows, (0.0, 3.0)), "@cifar10")[0]
    if options.only != "knn":
        lines += tiled(options.scale)
    path = write("nearest", "The distance engine next to its alternatives", lines, options.out)
    console.print(f"written to {path}")


if __name__ == "__main__":
    main()
