"""All neighbour metrics in one pass, next to prdc: time, difference and peak memory, in one run.

python benchmarks/rare_metrics.py                # 10,000 x 10,000 against prdc, then 50,000 x 50,000 alone
python benchmarks/rare_metrics.py --scale 0.1    # a trial

prdc holds whole matrices of distances, so it is compared at a size that it can hold, by the seconds of CPU that each
takes, which depend little on what else runs: the faster of float32 and float64 features. It is compared on the same
numbers as float64: from float32 features it takes distances rounded to float32, of which some then equal a radius and
are lost by its strict comparison.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
from nearest_contenders import peak_memory
from rich.console import Console
from table import RESULTS, Row, write

K = 5
FEATURES = 512
COMPARED, ALONE = 10_000, 50_000
_SCRIPT = Path(__file__)
console = Console(stderr=True)


@dataclass(frozen=True)
class Ran:
    """What a contender took and found; ``cpu`` counts the seconds of all its threads."""

    seconds: float
    cpu: float
    peak: int
    before: int
    found: dict[str, float]


def synthetic(seed: int, n: int, shift: float) -> np.ndarray:
    """Features float32 [n, 512] in a hundred clusters, whose spread falls with the direction as in trained networks."""
    random = np.random.default_rng(seed)
    spectrum = (1.0 + np.arange(FEATURES)) ** -0.6
    centres = np.random.default_rng(0).normal(size=(100, FEATURES)) * spectrum
    rows = random.normal(size=(n, FEATURES)) * spectrum * (1 + shift) + centres[random.integers(0, 100, n)]
    return rows.astype(np.float32)


def vestige(generated: np.ndarray, real: np.ndarray) -> dict[str, float]:
    """Everything: also rarity, the probabilistic and clipped variants, nearest rows, and all intervals."""
    from vestige.metrics.neighbours import neighbour_metrics

    found = neighbour_metrics(generated, real, neighbours=K)
    return {
        "precision": found.fidelity.precision.value,
        "recall": found.fidelity.recall.value,
        "density": found.density.density.value,
        "coverage": found.density.coverage.value,
    }


def prdc(generated: np.ndarray, real: np.ndarray) -> dict[str, float]:
    """Precision, recall, density and coverage."""
    from prdc import compute_prdc

    with contextlib.redirect_stdout(sys.stderr):
        return {name: float(value) for name, value in compute_prdc(real, generated, K).items()}


def prdc_float64(generated: np.ndarray, real: np.ndarray) -> dict[str, float]:
    """The same from float64 distances."""
    return prdc(generated.astype(np.float64), real.astype(np.float64))


_CONTENDERS = {f.__name__: f for f in (vestige, prdc, prdc_float64)}


def contend(name: str, folder: Path) -> None:
    """One contender, in the process that was started for it."""
    generated, real = np.load(folder / "generated.npy"), np.load(folder / "real.npy")
    _CONTENDERS[name](generated[: 4 * K], real[: 4 * K])  # imports and first calls are not timed
    before = peak_memory()
    start, spent = perf_counter(), process_time()
    found = _CONTENDERS[name](generated, real)
    seconds, cpu = perf_counter() - start, process_time() - spent
    print(json.dumps({"seconds": seconds, "cpu": cpu, "peak": peak_memory(), "before": before, "found": found}))


def run(name: str, folder: Path) -> Ran:
    """A contender in a fresh process, so that its peak memory is its own."""
    command = [sys.executable, str(_SCRIPT), "--contender", name, "--folder", str(folder)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    ran = Ran(**json.loads(done.stdout.splitlines()[-1]))
    console.print(
        f"{name}: {ran.seconds:.2f} s, {ran.cpu:.2f} s of CPU, peak {ran.peak / 2**20:.0f} MiB "
        f"({ran.before / 2**20:.0f} before)"
    )
    return ran


def laid(folder: Path, n: int) -> Path:
    """Features on disk."""
    folder.mkdir()
    np.save(folder / "generated.npy", synthetic(1, n, 0.05))
    np.save(folder / "real.npy", synthetic(2, n, 0.0))
    return folder


def compared(folder: Path, n: int) -> list[Row]:
    """Rows about the size that prdc can hold."""
    ours, theirs, exact = (run(name, folder) for name in ("vestige", "prdc", "prdc_float64"))
    difference = max(abs(ours.found[name] - value) for name, value in exact.found.items())
    rounded = max(abs(ours.found[name] - value) for name, value in theirs.found.items())
    faster = min(theirs, exact, key=lambda ran: ran.cpu)
    return [
        Row("metrics/speed", ours.cpu, faster.cpu, "prdc", faster.cpu / ours.cpu, "CPU seconds", n),
        Row("metrics/max_difference", difference, None, "prdc on float64", None, "largest of four metrics", n),
        Row("metrics/max_difference_float32", rounded, None, "prdc on float32", None, "largest of four metrics", n),
        Row("metrics/peak_memory_compared", ours.peak, theirs.peak, "prdc", theirs.peak / ours.peak, "bytes", n),
    ]


def alone(folder: Path, n: int) -> list[Row]:
    """Rows about the size that prdc cannot hold."""
    ours = run("vestige", folder)
    return [
        Row("metrics/peak_memory", ours.peak, 1e9, "limit", 1e9 / ours.peak, "bytes", n),
        Row("metrics/seconds", ours.cpu, None, "", None, "CPU seconds", n),
        Row("metrics/peak_memory_before", ours.before, None, "features and libraries", None, "bytes", n),
    ]


def kept(path: Path, names: set[str]) -> list[Row]:
    """Rows of an earlier run that were not measured again."""
    if not path.is_file():
        return []
    return [Row(**row) for row in json.loads(path.read_text()) if row["name"] not in names]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full numbers of rows")
    parser.add_argument("--compared-only", action="store_true", help="keep what was measured before of the full size")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for rare_metrics.json")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        contend(options.contender, options.folder)
        return
    sizes = [max(4 * K, round(options.scale * size)) for size in (COMPARED, ALONE)]
    with tempfile.TemporaryDirectory() as root:
        rows = compared(laid(Path(root) / "compared", sizes[0]), sizes[0])
        if options.compared_only:
            rows += kept(options.out / "rare_metrics.json", {row.name for row in rows})
        else:
            rows += alone(laid(Path(root) / "alone", sizes[1]), sizes[1])
    write("rare_metrics", f"Neighbour metrics, {FEATURES} features, k = {K}", rows, options.out)


if __name__ == "__main__":
    main()
