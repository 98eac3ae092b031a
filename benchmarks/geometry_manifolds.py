"""Model-free estimators next to scikit-dimension on manifolds of known dimension: error and seconds, in one run.

python benchmarks/geometry_manifolds.py                # 2,000 points of each manifold
python benchmarks/geometry_manifolds.py --scale 0.25   # a trial

The manifolds are those of scikit-dimension's own benchmark and the lollipop, a disc with a stick and an atom. Both
libraries estimate at every point from its k nearest, with the same k. The error of an estimate is ``|estimate - d| /
max(d, 1)``; a missing one counts as 1. A like-for-like comparison is at one k; ``manifolds/read`` is what the library
gives unasked, from a curve over several k, where it gives an answer.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import skdim
from joblib import Parallel, delayed
from rich.console import Console
from table import RESULTS, Row, write

from vestige.audit.geometry.empirical_diffusion import EmpiricalDiffusion
from vestige.audit.geometry.ess import ESS
from vestige.audit.geometry.estimator import DataEstimator, Work
from vestige.audit.geometry.local_pca import LocalPCA
from vestige.audit.geometry.manifolds import lollipop
from vestige.audit.geometry.mle import MLE
from vestige.audit.geometry.two_nn import Fit, TwoNN

POINTS = 2000
JOBS = 2
K = {"MLE": 20, "TwoNN": 100, "LocalPCA": 100, "ESS": 100}
REFERENCE = "scikit-dimension"
_SOME = 40  # points at which ESS of scikit-dimension is timed, some 50 ms each
console = Console(stderr=True)

Estimates = tuple[np.ndarray, float]
"""Dimensions of the points asked for, and the seconds that all points take."""


@dataclass(frozen=True)
class Ran:
    """What both libraries made of one manifold with one estimator; ``theirs`` is None where theirs gave up."""

    manifold: str
    estimator: str
    ours: float
    theirs: float | None
    seconds: float
    their_seconds: float | None
    n: int


def manifolds(n: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Points [n, d] and the dimension at each."""
    source = skdim.datasets.BenchmarkManifolds(random_state=0)
    truth = source.truth["Intrinsic Dimension"]
    found = {
        name: (np.ascontiguousarray(points, np.float64), np.full(len(points), int(truth[name])))
        for name, points in source.generate(n=n).items()
    }
    sample = lollipop(n, np.random.default_rng(0))
    return {**found, "Lollipop": (sample.points, sample.dimension)}


def _their_mle(points: np.ndarray, some: np.ndarray, k: int) -> Estimates:
    start = perf_counter()
    found = skdim.id.MLE().fit(points, n_neighbors=k, n_jobs=JOBS).dimension_pw_
    return found[some], perf_counter() - start


def _pointwise(kind: type) -> Callable[[np.ndarray, np.ndarray, int], Estimates]:
    def run(points: np.ndarray, some: np.ndarray, k: int) -> Estimates:
        start = perf_counter()
        found = kind().fit_transform_pw(points, n_neighbors=k, n_jobs=JOBS)
        return np.asarray(found, float)[some], perf_counter() - start

    return run


def _their_ess(points: np.ndarray, some: np.ndarray, k: int) -> Estimates:
    """At some points only, its time in proportion: the search for all, the estimate for each."""
    start = perf_counter()
    index = skdim._commonfuncs.get_nn(points, k, n_jobs=JOBS)[1][some]
    searched = perf_counter()
    found = Parallel(n_jobs=JOBS)(delayed(_one_ess)(points[near]) for near in index)
    done = perf_counter()
    return np.array(found), searched - start + (done - searched) * len(points) / len(some)


def _one_ess(near: np.ndarray) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(skdim.id.ESS(random_state=0).fit_once(near).dimension_)


THEIRS: dict[str, Callable[[np.ndarray, np.ndarray, int], Estimates]] = {
    "MLE": _their_mle,
    "TwoNN": _pointwise(skdim.id.TwoNN),
    "LocalPCA": _pointwise(skdim.id.lPCA),
    "ESS": _their_ess,
}


def ours_at(name: str) -> DataEstimator:
    """The library's estimator with one k, the same as theirs."""
    k = (K[name],)
    return {"MLE": MLE(k), "TwoNN": TwoNN(k, fit=Fit.LIKELIHOOD), "LocalPCA": LocalPCA(k), "ESS": ESS(k)}[name]


def _ours(estimator: DataEstimator, points: np.ndarray, some: np.ndarray) -> Estimates:
    start = perf_counter()
    found = estimator.estimate(points, points, same_index=True, work=Work())
    return found.value[some], perf_counter() - start


def error(found: np.ndarray, truth: np.ndarray) -> float:
    """Mean relative error, 1 for what is missing."""
    relative = np.abs(found - truth) / np.maximum(truth, 1)
    return float(np.where(np.isfinite(found), relative, 1.0).mean())


def _asked(name: str, n: int) -> np.ndarray:
    return np.random.default_rng(1).choice(n, min(n, _SOME), replace=False) if name == "ESS" else np.arange(n)


def compare(manifold: str, points: np.ndarray, truth: np.ndarray) -> list[Ran]:
    """Every estimator of both libraries on one manifold."""
    ran = []
    for name, theirs in THEIRS.items():
        some = _asked(name, len(points))
        found, seconds = _ours(ours_at(name), points, some)
        other: float | None = None
        their_seconds: float | None = None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                answer, their_seconds = theirs(points, some, K[name])
            other = error(answer, truth[some])
        except ValueError as refusal:  # copies that it cannot divide by
            console.print(f"{manifold}: {name} of {REFERENCE} gave up: {str(refusal).splitlines()[0]}")
        ran.append(Ran(manifold, name, error(found, truth[some]), other, seconds, their_seconds, len(some)))
    return ran


def unasked(points: np.ndarray, truth: np.ndarray) -> dict[str, tuple[float, float]]:
    """Error of every estimator with its own settings; noise ratios of the diffusion in units of the spacing."""
    spacing = float(np.median(_spacing(points)))
    ratios = tuple((spacing * np.geomspace(0.05, 20, 18)).tolist())
    every = [MLE(), TwoNN(), LocalPCA(), ESS(), EmpiricalDiffusion(ratios)]
    everything = np.arange(len(points))
    return {type(e).__name__: _answered(_ours(e, points, everything)[0], truth) for e in every}


def _answered(found: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Mean relative error of the points that have an answer, and their share."""
    known = np.isfinite(found)
    return error(found[known], truth[known]) if known.any() else float("nan"), float(known.mean())


def _spacing(points: np.ndarray) -> np.ndarray:
    from vestige.audit.geometry.neighbourhood import prepared, search

    queries, rows = prepared(points, points, same_index=True)
    return search(queries, rows, 1, same_index=True, budget=Work().budget).distance[:, 0]


def rows(scale: float = 1.0) -> list[Row]:
    """One row for each manifold, estimator and measure, then the aggregates."""
    every = manifolds(max(200, round(POINTS * scale)))
    first = next(iter(every.values()))[0][:150]  # imports, worker processes and first calls are not timed
    for name, theirs in THEIRS.items():
        theirs(first, np.arange(4), K[name])
        _ours(ours_at(name), first, np.arange(4))
    ran: list[Ran] = []
    read: list[dict[str, tuple[float, float]]] = []
    for manifold, (points, truth) in every.items():
        ran += compare(manifold, points, truth)
        read.append(unasked(points, truth))
        console.print(f"{manifold}: done")
    lines = [line for one in ran for line in _lines(one)]
    return lines + _aggregates(ran, read, len(every))


def _lines(one: Ran) -> list[Row]:
    name = f"manifolds/{one.manifold}/{one.estimator}"
    better = None if one.theirs is None or not one.ours else one.theirs / one.ours
    faster = None if one.their_seconds is None else one.their_seconds / one.seconds
    return [
        Row(f"{name}/error", one.ours, one.theirs, REFERENCE, better, "mean relative error", one.n),
        Row(f"{name}/seconds", one.seconds, one.their_seconds, REFERENCE, faster, "s for all points", one.n),
    ]


def _aggregates(ran: list[Ran], read: list[dict[str, tuple[float, float]]], n: int) -> list[Row]:
    lines = []
    both = [one for one in ran if one.theirs is not None and one.their_seconds is not None]
    for suffix, some in [("", both), *((f"/{name}", [o for o in both if o.estimator == name]) for name in K)]:
        ours, theirs = (float(np.mean([getattr(o, side) for o in some])) for side in ("ours", "theirs"))
        lines.append(Row(f"manifolds/error{suffix}", ours, theirs, REFERENCE, theirs / ours, "mean rel. error", n))
        spent, they = (np.array([getattr(o, side) for o in some]) for side in ("seconds", "their_seconds"))
        faster = float(np.exp(np.log(they / spent).mean()))
        unit = "s in all; the ratio is the geometric mean"
        lines.append(Row(f"manifolds/speed{suffix}", spent.sum(), they.sum(), REFERENCE, faster, unit, n))
    for name in read[0]:
        theirs = float(np.mean([o.theirs for o in both if o.estimator == name])) if name in K else None
        ours, answered = (float(np.nanmean([one[name][which] for one in read])) for which in (0, 1))
        ratio = None if theirs is None else theirs / ours
        against, unit = REFERENCE if ratio else "", "mean rel. error of what is answered"
        lines.append(Row(f"manifolds/read/{name}", ours, theirs, against, ratio, unit, n))
        lines.append(Row(f"manifolds/answered/{name}", answered, None, "", None, "share of points", n))
    lines.append(Row("manifolds/evaluations", 0, 0, REFERENCE, None, "network evaluations", n))
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the points of each manifold")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for geometry_manifolds.json")
    options = parser.parse_args()
    found = rows(options.scale)
    path = write("geometry_manifolds", "Model-free dimensions next to scikit-dimension", found, options.out)
    console.print(f"written to {path}")


if __name__ == "__main__":
    main()
