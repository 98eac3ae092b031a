"""Ways to rare samples side by side, at equal generator calls, on GANs and a diffusion model.

    make bench-rare BENCH_FLAGS="--fashion fashion-mnist"
    python benchmarks/rare.py --work DIR [--fashion DIR] [--generators NAME ...] [--seeds 5] [--metrics]

Every method gets the same references and as many generator calls as the search (a backward pass counts two). Samples
are chosen in one feature space and scored in a second, independently trained one. Each seed is one observation; the
intervals are Student's over seeds. What was computed before is taken from ``--work``; rows of generators that are not
run are kept as they stand. ``--metrics`` also runs benchmarks/rare_metrics.py, whose last results are taken otherwise.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from time import process_time

import numpy as np
import torch
from rare_models import Bench, clothes, digits, fashion
from rare_tally import NEIGHBOURS, Tally, measures, told
from rich.console import Console
from table import RESULTS, Row, write

from vestige.errors import InvalidInput
from vestige.execute import Context
from vestige.jobs.rare_generator import Opened, open_generator
from vestige.jobs.rare_methods import Tried, drawn, look, sampled
from vestige.jobs.rare_stage import Stage, set_stage
from vestige.jobs.rare_ways import own_ways
from vestige.metrics.frechet import Gaussian
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
MEMBERS = 8
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


PLANS = {
    "digits-gan": Plan(5, 4, 60),
    "fashion-gan": Plan(5, 4, 60),
    "clothes-stylegan2": Plan(3, 1, 30),
    "digits-ddpm": Plan(2, 1, 10),
}
"""What is done of every generator, unless told otherwise: of slow ones less."""
_FASHION = {"fashion-gan", "clothes-stylegan2"}


def methods(stage: Stage, plan: Plan, context: Context, opened: Opened) -> dict[str, Tried]:
    """Every method on the same references at the cost of the search, and the generator's own ways.

    Beside the search of a diffusion model stands only what needs few calls.
    """
    scene, references, seed = stage.scene, stage.references, context.seed
    made: dict[str, Tried] = {}
    objectives: dict[str, Objective] = {
        "raresearch": RareSearch(members=MEMBERS, steps=plan.steps),
        "divraregen": DivRareGen(members=MEMBERS, steps=plan.steps),
    }
    baselines = BASELINES
    if opened.denoiser is not None:
        del objectives["divraregen"]
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
    for way in own_ways(opened, context):
        tried = sampled(way, scene, references, MEMBERS, 0, context)
        made[re.sub(r"[^a-z0-9.]+", "-", tried.name.lower()).strip("-")] = tried
    return made


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
        elif name == "digits-ddpm":
            model = open_generator(name)
            found.append((dataclasses.replace(first, name=name, generator=model.generator), model))
        elif fashion_data is None:
            raise SystemExit(f"{name} needs --fashion")
        elif name == "fashion-gan":
            bench = fashion(fashion_data, work)
            found.append((bench, Opened(name, bench.generator)))
        else:
            model = open_generator(name)
            found.append((clothes(model.generator, fashion_data, work), model))
    return found


def main() -> None:
    """Read options, run, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("vestige-run-rare"), help="models and kept results")
    parser.add_argument("--fashion", type=Path, help="folder with the four idx files of Fashion-MNIST")
    parser.add_argument("--generators", nargs="+", choices=PLANS, help="all that there are data for, if absent")
    parser.add_argument("--seeds", type=int, help="instead of each generator's own number, as for the next two")
    parser.add_argument("--groups", type=int, help="references a seed, eight samples each")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--metrics", action="store_true", help="measure the neighbour metrics too; takes minutes")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for rare.json")
    options = parser.parse_args()
    names = options.generators or [name for name in PLANS if name not in _FASHION or options.fashion is not None]
    begun = process_time()
    benches = chosen(names, options.fashion, options.work)
    rows, before = neighbour_rows(options.metrics, options.out), _read(options.out / "rare.json")
    if "digits-gan" in names:
        rows.append(overhead(*benches[names.index("digits-gan")]))
    for bench, opened in benches:
        asked = {key: value for key in ("seeds", "groups", "steps") if (value := getattr(options, key)) is not None}
        rows += compare(bench, opened, dataclasses.replace(PLANS[bench.name], **asked), options.work)
        console.print(f"{bench.name} done, {process_time() - begun:,.0f} s of CPU since the start")
    done = {row.name for row in rows}
    rows += [row for row in before if row.name not in done and row.name.split("/")[0] not in names]
    write("rare", "Rare samples, the means of seeds (n)", rows, options.out)


if __name__ == "__main__":
    main()
