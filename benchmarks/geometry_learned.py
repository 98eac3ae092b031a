"""Dimension of networks that were trained on distributions of known dimension, next to FLIPD as it was published.

python benchmarks/geometry_learned.py --models DIR    # trains what is missing first: benchmarks/known_dimension.py

The published recipe takes Gaussian probes at the fixed time 0.05. Each of our estimators is compared with it at equal
network evaluations a point: the recipe gets as many probes as the whole curve of ours costs. Both are judged on the
points of which ours names a dimension; the share of the others is a row of its own.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from known_dimension import SCHEDULE, SETS, Circle, Known, denoiser, train
from rich.console import Console
from rich.table import Table
from table import RESULTS, Row, write

from vestige.audit.geometry.dsm import DSM
from vestige.audit.geometry.estimate import Dimension
from vestige.audit.geometry.estimator import ModelEstimator, Work
from vestige.audit.geometry.flipd import FLIPD
from vestige.audit.geometry.lhsd import LHSD
from vestige.audit.geometry.lidl import LIDL
from vestige.audit.geometry.normal_bundle import NormalBundle
from vestige.models.denoiser import Denoiser

TIME = 0.05
"""Where the published recipe looks (Kamkari et al. 2024, arXiv 2406.03537)."""

OURS = "FLIPD noised"
"""The estimator of the aggregate row: the same trace as the published one, where the network was trained."""

_ROOM = Work(batch_size=256)


@dataclass(frozen=True)
class Points:
    """Points of a distribution and what is known of them."""

    known: Known
    model: Denoiser
    clean: torch.Tensor
    dimension: np.ndarray
    component: np.ndarray


def estimators(known: Known) -> dict[str, ModelEstimator]:
    """Ours, with defaults but for the trace, which is estimated and not summed, as it must be on images."""
    exact = 0 if known.ambient > 2 else known.ambient
    found: dict[str, ModelEstimator] = {
        "FLIPD": FLIPD(exact=exact),
        OURS: FLIPD(exact=exact, noised=True),
        "LIDL": LIDL(exact=exact),
        "DSM": DSM(),
        "LHSD": LHSD(),
    }
    return {**found, "NormalBundle": NormalBundle()} if known.ambient <= 10 else found


def points(known: Known, folder: Path, each: int) -> Points:
    """Fresh points of every component; of the circle its training points, the isolated one and the atom."""
    if isinstance(known, Circle):
        clean, dimension = known.training_set()
        name = np.repeat(["arc", "isolated", "atom"], [100, 1, 25])
        # Training points at the very end of the arc have neighbours on one side only.
        kept = np.abs(np.arctan2(clean[:, 1], clean[:, 0])) < 1.5
        kept[100:102] = True
        kept[102:] = False
        clean, dimension, name = clean[kept], dimension[kept], name[kept]
    else:
        clean, dimension = known.draw(np.random.default_rng(99), each * len(known.dimensions))
        name = dimension.astype(str)
    model = denoiser(known, train(known, folder))
    return Points(known, model, torch.from_numpy(clean).view(len(clean), -1, 1, 1), dimension, name)


@torch.no_grad()
def published(model: Denoiser, clean: torch.Tensor, probes: int, seed: int = 0) -> np.ndarray:
    """``D - sigma tr d eps/dx + |eps|^2`` at the fixed time, the trace from Gaussian probes."""
    t = torch.full((len(clean),), TIME)
    alpha, sigma = (level.view(-1, 1, 1, 1) for level in SCHEDULE.alpha_sigma(t))
    total, rng = torch.zeros(len(clean)), torch.Generator().manual_seed(seed)
    for _ in range(probes):
        v = torch.randn(clean.shape, generator=rng)
        noise, along = torch.func.jvp(lambda x: model.noise(x, t), (alpha * clean,), (v,))
        total += (v * along).flatten(1).sum(1)
    trace = sigma.flatten() * total / probes
    return (clean[0].numel() - trace + noise.flatten(1).square().sum(1)).numpy()


def compare(asked: Points) -> list[Row]:
    """Errors of ours and of the published recipe, component by component."""
    table = Table(title=f"{asked.known.name}: mean absolute error of the dimension", title_justify="left")
    for column in ("estimator", "component", "ours", "published", "undetermined", "evaluations a point"):
        table.add_column(column)
    lines: list[Row] = []
    for name, estimator in estimators(asked.known).items():
        before = asked.model.evaluations
        found = estimator.estimate(asked.model, asked.clean, range(len(asked.clean)), work=_ROOM)
        cost = round((asked.model.evaluations - before) / len(asked.clean))
        recipe = published(asked.model, asked.clean, cost - 1)
        for component in dict.fromkeys(asked.component.tolist()):
            mine = asked.component == component
            lost, shown = float(np.isnan(found.value[mine]).mean()), ("", "")
            if lost < 1:
                line = _line(f"{asked.known.name}/{name}/{component}", found, recipe, asked.dimension, mine)
                lines.append(line)
                shown = f"{line.ours:.3f}", f"{line.reference:.3f}"
            table.add_row(name, component, *shown, f"{lost:.0%}", f"{cost:,}")
            where = f"learned/undetermined/{asked.known.name}/{name}/{component}"
            lines.append(Row(where, lost, None, "", None, "share of points", int(mine.sum())))
    Console().print(table)
    return lines


def _line(name: str, found: Dimension, recipe: np.ndarray, truth: np.ndarray, mine: np.ndarray) -> Row:
    judged = mine & np.isfinite(found.value)
    ours, other = (float(np.abs(value - truth)[judged].mean()) for value in (found.value, recipe))
    unit = "mean absolute error of the dimension"
    ratio = other / ours if ours else None
    return Row(f"learned/{name}", ours, other, "the recipe as published", ratio, unit, int(judged.sum()))


def rows(folder: Path, each: int = 200) -> list[Row]:
    """All comparisons, and the mean over the components of the mixtures in units of their dimension."""
    lines = [line for known in SETS.values() for line in compare(points(known, folder, each))]
    for name in estimators(SETS["affine10"]):
        named = [line for line in lines if f"/{name}/" in line.name and "undetermined" not in line.name]
        parts = [line for line in named if "/circle/" not in line.name]
        known = [float(line.name.rsplit("/", 1)[1]) for line in parts]
        ours, other = (
            float(np.mean([value / d for value, d in zip(values, known, strict=True)]))
            for values in ([line.ours for line in parts], [line.reference or 0.0 for line in parts])
        )
        where = "learned/error" if name == OURS else f"learned/error/{name}"
        count = sum(line.n for line in parts)
        unit = "mean absolute error, share of the dimension"
        lines.append(Row(where, ours, other, "the recipe as published", other / ours, unit, count))
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=Path("known-dimension"), help="folder of the trained networks")
    parser.add_argument("--each", type=int, default=200, help="points of each component of a mixture")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for geometry_learned.json")
    options = parser.parse_args()
    write("geometry_learned", "Networks of known dimension", rows(options.models, options.each), options.out)


if __name__ == "__main__":
    main()
