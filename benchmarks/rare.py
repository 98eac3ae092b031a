"""Ways to rare samples side by side, at equal generator calls, on GANs and a diffusion model.

    make bench-rare BENCH_FLAGS="--fashion fashion-mnist"
    python benchmarks/rare.py --work DIR [--fashion DIR] [--seeds 5] [--groups 4] [--steps 60] [--metrics]

Every method gets the same references and as many generator calls as the search (a backward pass counts two). Samples
are chosen in one feature space and scored in a second, independently trained one. Each seed is one observation; the
intervals are Student's over seeds. What was computed before is taken from ``--work``; rows of generators that are not
run are kept as they stand. ``--metrics`` also runs benchmarks/rare_metrics.py, whose last results are taken otherwise.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from time import process_time

import numpy as np
import torch
from rare_models import Bench, Scorer, digits, fashion
from rich.console import Console
from table import RESULTS, Row, write
from torch import Tensor

from vestige.data.images import to_float
from vestige.errors import InvalidInput
from vestige.execute import Context
from vestige.jobs.rare_generator import Opened, open_generator
from vestige.jobs.rare_methods import Tried, diffusion, drawn, look
from vestige.jobs.rare_stage import Stage, set_stage
from vestige.metrics.frechet import Gaussian, frechet_interval
from vestige.metrics.interval import Interval, mean_interval
from vestige.metrics.neighbours import neighbour_metrics
from vestige.models.latent import Calls
from vestige.rare.baselines.baseline import Baseline
from vestige.rare.baselines.cma_es import CmaEs
from vestige.rare.baselines.polarity import Polarity
from vestige.rare.baselines.prior import Random
from vestige.rare.baselines.rejection import Rejection, Selection
from vestige.rare.baselines.scaling import LatentScaling
from vestige.rare.baselines.truncation import Truncation
from vestige.rare.density.choose import CANDIDATES
from vestige.rare.density.real_nvp import RealNVP
from vestige.rare.found import Found
from vestige.rare.objective import Controls, DivRareGen, Objective, RareSearch
from vestige.rare.search import search, starts, steps
from vestige.store import Store

console = Console(stderr=True)
MEMBERS, NEIGHBOURS = 8, 3
GENERATORS = ("digits-gan", "fashion-gan", "digits-ddpm")
_SCRIPT = Path(__file__)

BASELINES: dict[str, Baseline] = {
    "random": Random(),
    "rejection": Rejection(),
    "rejection-rarest": Rejection(selection=Selection.RAREST),
    "rejection-prior": Rejection(selection=Selection.RAREST, prior=True),
    "truncation": Truncation(),
    "truncation-inverse": Truncation(inverse=True, threshold=0.5),
    "latent-scaling": LatentScaling(),
    "polarity": Polarity(),
    "cma-es": CmaEs(),
}
DENSITIES = (*CANDIDATES, RealNVP())


@dataclass(frozen=True)
class Plan:
    """How much is done."""

    seeds: int
    groups: int
    steps: int


@dataclass(eq=False)
class Tally:
    """Values by method and measure, one a seed; features of all samples for the Fréchet distance."""

    values: dict[str, dict[str, list[float]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    features: dict[str, list[np.ndarray]] = field(default_factory=lambda: defaultdict(list))

    def add(self, method: str, measures: dict[str, float], features: np.ndarray) -> None:
        """One seed of one method."""
        for name, value in measures.items():
            self.values[method][name].append(value)
        self.features[method].append(features)


def methods(stage: Stage, plan: Plan, context: Context, opened: Opened) -> dict[str, Tried]:
    """Every method on the same references at the cost of the search.

    A diffusion model is searched for a fifth of the steps, beside its own ways and what needs few calls.
    """
    scene, references, seed = stage.scene, stage.references, context.seed
    made: dict[str, Tried] = {}
    objectives: dict[str, Objective] = {
        "raresearch": RareSearch(members=MEMBERS, steps=plan.steps),
        "divraregen": DivRareGen(members=MEMBERS, steps=plan.steps),
    }
    baselines = BASELINES
    if opened.denoiser is not None:
        plan = dataclasses.replace(plan, steps=max(1, plan.steps // 5))
        objectives = {"raresearch": RareSearch(members=MEMBERS, steps=plan.steps)}
        baselines = {name: BASELINES[name] for name in ("random", "rejection", "rejection-rarest")}
    budget = MEMBERS * (3 * plan.steps + 1)
    for name, objective in objectives.items():
        result = search(scene, references, objective, seed=seed, store=context.store)
        made[name] = look(scene, references, result.last)
        made[f"{name}-best"] = look(scene, references, result.best)
        begun = starts(scene, references, objective, seed).detach().view(result.last.latents.shape)
        found = Found("starts", begun, np.ones(begun.shape[:2], np.bool_), Calls())
        made[f"{name}-starts"] = look(scene, references, found)
    for name, baseline in baselines.items():
        try:
            found = drawn(baseline, scene, references, MEMBERS, budget, context)
        except InvalidInput as error:  # Polarity cannot afford enough candidates
            console.print(f"{name} left out: {error.found}")
            continue
        made[name] = look(scene, references, found)
    if opened.denoiser is not None:
        for tried in diffusion(opened.denoiser, scene, references, MEMBERS, 0, context):
            made[tried.name.lower()] = tried
    return made


def perceptual(scorer: Scorer, images: Tensor) -> float:
    """Mean distance between two of the images over three layers of the scorer, channels of unit length, as in LPIPS."""
    layers, x = list[Tensor](), images
    with torch.no_grad():
        for part in scorer.body:
            x = part(x)
            if isinstance(part, torch.nn.ReLU):
                layers.append((x / x.norm(dim=1, keepdim=True).clamp_min(1e-8)).flatten(2))
    n = len(images)
    pairs = [
        sum(float((layer[i] - layer[j]).square().sum(0).mean()) for layer in layers) for i in range(n) for j in range(i)
    ]
    return float(np.mean(pairs)) if pairs else float("nan")


def measures(bench: Bench, scorer: Scorer, tried: Tried, real: np.ndarray) -> tuple[dict[str, float], np.ndarray]:
    """All that is told of one method and seed."""
    found = tried.measured
    if found is None:
        return {"found": 0.0}, np.empty((0, real.shape[1]))
    present, rows = found.present, bench.scores.of(tried.pixels)
    values = {
        "found": float(present.mean()),
        "rarity": float(np.nanmean(found.rarity)) if found.inside.any() else float("nan"),
        "rarity_percentile": float(np.nanmean(found.rarity_percentile)) if found.inside.any() else float("nan"),
        "rarer_than": float(np.nanmean(1 - found.percentile)),
        "in_manifold": float(found.inside[present].mean()),
        "accepted": float(found.accepted[present].mean()),
        "spread": float(np.nanmean(found.spread)) if np.isfinite(found.spread).any() else float("nan"),
    }
    group = np.nonzero(present)[0]
    images = to_float(tried.pixels)
    values["perceptual"] = float(
        np.nanmean([perceptual(scorer, images[torch.from_numpy(group == r)]) for r in range(len(present))])
    )
    if len(rows) > NEIGHBOURS:
        near = neighbour_metrics(rows, real, neighbours=NEIGHBOURS)
        values |= {
            "rarity_second_space": near.rarity.mean.value,
            "percentile_second_space": near.rarity.percentile.value,
            "precision": near.fidelity.precision.value,
            "recall": near.fidelity.recall.value,
            "density": near.density.density.value,
            "coverage": near.density.coverage.value,
        }
    return values, rows


def compare(bench: Bench, opened: Opened, plan: Plan, work: Path) -> list[Row]:
    """The table of one generator."""
    tally, real = Tally(), bench.scores.of(bench.real.pixels)
    scorer = bench.scores.embed.network  # type: ignore[union-attr]
    rows: list[Row] = []
    for seed in range(plan.seeds):
        context = Context(Store(work / "store" / bench.name), seed)
        stage = set_stage(
            opened,
            bench.real,
            bench.selects,
            controls=Controls(),
            groups=plan.groups,
            reference=None,
            densities=CANDIDATES[2:3] if seed else DENSITIES,
            neighbours=NEIGHBOURS,
            seed=seed,
        )
        if not seed:
            rows += [
                Row(
                    f"{bench.name}/held_out/{c.name}",
                    c.held_out.value,
                    None,
                    "",
                    None,
                    "nats",
                    c.held_out.n,
                    c.held_out.low,
                    c.held_out.high,
                )
                for c in stage.choice.table
                if c.comparable
            ]
        made = methods(stage, plan, context, opened)
        for name, tried in made.items():
            tally.add(name, *measures(bench, scorer, tried, real))
        console.print(f"{bench.name}: seed {seed} done")
    return rows + told(bench.name, tally, Gaussian.fit(real))


def told(name: str, tally: Tally, real: Gaussian) -> list[Row]:
    """Means over seeds beside those of rejection at equal calls."""
    rows: list[Row] = []
    beside = tally.values.get("rejection", {})
    for method, values in tally.values.items():
        for measure, numbers in values.items():
            known = [v for v in numbers if np.isfinite(v)]
            if not known:
                continue
            mean, other = mean_interval(known), [v for v in beside.get(measure, []) if np.isfinite(v)]
            reference = float(np.mean(other)) if other else None
            ratio = mean.value / reference if reference else None
            rows.append(_row(f"{name}/{method}/{measure}", mean, reference, "rejection", ratio, len(known)))
        features = np.concatenate(tally.features[method])
        if len(features) > real.rank:
            distance = frechet_interval(features, real, seed=0)
            rows.append(_row(f"{name}/{method}/frechet", distance, None, "", None, len(features)))
    return rows


def _row(name: str, value: Interval, reference: float | None, beside: str, ratio: float | None, n: int) -> Row:
    low, high = (b if np.isfinite(b) else None for b in (value.low, value.high))
    return Row(name, value.value, reference, beside if reference is not None else "", ratio, "", n, low, high)


def overhead(bench: Bench, opened: Opened) -> Row:
    """CPU time of a step of the search over that of the generator and the features alone, forward and back."""
    stage = set_stage(
        opened, bench.real, bench.selects, controls=Controls(), groups=8, reference=None, densities=CANDIDATES[2:3]
    )
    scene, references, objective = stage.scene, stage.references, RareSearch(members=MEMBERS, steps=20)
    labels = None if references.labels is None else references.labels.repeat_interleave(MEMBERS)

    def searching() -> float:
        begun = process_time()
        for _ in steps(scene, references, objective, 0):
            pass
        return process_time() - begun

    def alone() -> float:
        latents, begun = starts(scene, references, objective, 0), process_time()
        for step in range(objective.steps + 1):
            with torch.set_grad_enabled(step < objective.steps):
                features = scene.space(scene.generator.outputs(latents, labels))
            if step < objective.steps:
                torch.autograd.grad(features.square().sum(), [latents])
        return process_time() - begun

    times = np.array([[searching(), alone()] for _ in range(4)])[1:]
    ours, base = (float(v) / (objective.steps + 1) for v in times.min(0))
    return Row(
        "search/overhead", ours / base - 1, 0.25, "limit", None, f"share of {base * 1e3:.1f} ms a step", len(times)
    )


def neighbour_rows(run: bool, folder: Path) -> list[Row]:
    """Rows of benchmarks/rare_metrics.py: measured now, or as they were left in the folder."""
    kept = folder / "rare_metrics.json"
    if run:
        script = _SCRIPT.with_name("rare_metrics.py")
        subprocess.run([sys.executable, str(script), "--out", str(folder)], check=True)
    return _read(kept) if kept.is_file() else []


def _read(path: Path) -> list[Row]:
    return [Row(**row) for row in json.loads(path.read_text())] if path.is_file() else []


def chosen(names: list[str], fashion_data: Path | None, work: Path) -> list[tuple[Bench, Opened]]:
    """The named generators with their data."""
    found: list[tuple[Bench, Opened]] = []
    first = digits(work)
    for name in names:
        if name == "digits-gan":
            found.append((first, Opened(name, first.generator)))
        elif name == "fashion-gan" and fashion_data is not None:
            bench = fashion(fashion_data, work)
            found.append((bench, Opened(name, bench.generator)))
        elif name == "digits-ddpm":
            model = open_generator(name)
            found.append((dataclasses.replace(first, name=name, generator=model.generator), model))
        else:
            raise SystemExit(f"{name}: expected {', '.join(GENERATORS)}; fashion-gan needs --fashion")
    return found


def main() -> None:
    """Read options, run, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("vestige-run-rare"), help="models and kept results")
    parser.add_argument("--fashion", type=Path, help="folder with the four idx files of Fashion-MNIST")
    parser.add_argument("--generators", nargs="+", choices=GENERATORS, help="all that there are data for, if absent")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--groups", type=int, default=4, help="references a seed, eight samples each")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--metrics", action="store_true", help="measure the neighbour metrics too; takes minutes")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for rare.json")
    options = parser.parse_args()
    plan = Plan(options.seeds, options.groups, options.steps)
    names = options.generators or [name for name in GENERATORS if name != "fashion-gan" or options.fashion is not None]
    benches = chosen(names, options.fashion, options.work)
    rows, before = neighbour_rows(options.metrics, options.out), _read(options.out / "rare.json")
    if "digits-gan" in names:
        rows.append(overhead(*benches[names.index("digits-gan")]))
    for bench, opened in benches:
        rows += compare(bench, opened, plan, options.work)
    told = {row.name for row in rows}
    rows += [row for row in before if row.name not in told and row.name.split("/")[0] not in names]
    title = f"Rare samples: {plan.seeds} seeds of {plan.groups * MEMBERS} samples, {plan.steps} steps"
    write("rare", title, rows, options.out)


if __name__ == "__main__":
    main()
