"""Every eraser under one protocol: a class and planted images of digits, a class of Fashion-MNIST.

    python benchmarks/erase_comparison.py --work DIR [--fashion DIR --data fashion-mnist] [--tasks digits-class,...]

Runs ``vestige bench erase`` through Python on each task, resumes what is there, and writes one table, one figure and
all measurements beside the results of the other benchmarks. The models of Fashion-MNIST come from
``benchmarks/fashion.py`` and lie in ``--fashion``; their judge is trained here on images that neither saw.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from fashion import A_CLASS, FORGOTTEN, read
from table import RESULTS, Row, write

from vestige.cli.display import bars
from vestige.features.digit_classifier import DigitClassifier
from vestige.jobs.bench_erase import MEASUREMENTS, Plan, bench_erase, every_eraser
from vestige.jobs.bench_erase_plan import Regime
from vestige.jobs.traces import Probe
from vestige.models.sampler import DDIM
from vestige.zoo import zoo_model
from vestige.zoo.train_digits_classifier import train

SAMPLER = DDIM(steps=10)
SHOWN = {
    "forgetting/class_probability": "mean probability of the class",
    "forgetting/residue": "dimensions",
    "forgetting/membership_auc": "area",
    "forgetting/extracted": "forgotten images",
    "retention/frechet_data": "squared feature units",
    "retention/loss_ratio": "loss after / before",
}


@dataclass(frozen=True)
class Task:
    """What is forgotten of which model, and the quantities of its chart."""

    title: str
    across: str
    arguments: dict[str, Any]


def digits() -> dict[str, Task]:
    """The tasks of the shipped model."""
    card = zoo_model("digits-ddpm").card
    planted = [f"rows:{','.join(key for keys in card.planted.values() for key in keys)}"]
    whole = Task("digits-ddpm, class 0", "forgetting/class_probability", {"model": "digits-ddpm", "forget": "class:0"})
    rows = {"model": "digits-ddpm", "forget": planted[0], "reference": "digits-ddpm-retrained"}
    return {
        "digits-class": whole,
        "digits-planted": Task("digits-ddpm, 50 planted images", "forgetting/residue", rows),
    }


def fashion(folder: Path, data: Path) -> dict[str, Task]:
    """The task of the models that ``benchmarks/fashion.py`` trained."""

    def last(name: str) -> Path:
        return max(path for path in (folder / name).iterdir() if path.is_dir())

    arguments = {
        "model": last("base"),
        "forget": f"class:{FORGOTTEN}",
        "retain": folder / "members.npz",
        "non_members": folder / "others.npz",
        "reference": last(f"without-class-{FORGOTTEN}"),
        "null_condition": 10,
        "judge": judge(folder, data),
    }
    return {"fashion-class": Task("Fashion-MNIST, class 0", "forgetting/class_probability", arguments)}


def judge(folder: Path, data: Path) -> DigitClassifier:
    """A classifier of Fashion-MNIST, trained once on training images that no generator saw."""
    weights = folder / "judge" / "classifier.safetensors"
    if not weights.exists():
        pixels, labels = read(data, "train")
        rows = np.concatenate([np.flatnonzero(labels == c)[A_CLASS : 5 * A_CLASS] for c in range(10)])
        train(pixels[rows, 0], labels[rows], folder / "judge")
    return DigitClassifier(weights, "a classifier of Fashion-MNIST")


def chart(found: dict[str, tuple[Task, dict[str, Any]]], path: Path) -> None:
    """Forgetting across, retention up, one panel a task and one colour a method; all spend the same."""
    figure, panels = plt.subplots(1, len(found), figsize=(5.4 * len(found), 5.6), squeeze=False)
    methods = sorted({trial["method"] for _, whole in found.values() for trial in whole["trials"]})
    styles = {m: {"color": f"C{i % 10}", "marker": "oD^vPX"[i % 6]} for i, m in enumerate(methods)}
    up, shown = "retention/frechet_data", {}
    for panel, (task, whole) in zip(panels[0], found.values(), strict=True):
        for trial in whole["trials"]:
            if Regime.EQUAL.value not in trial["regimes"]:
                continue
            points = np.array([[run["measured"][name][0] for name in (task.across, up)] for run in trial["erasures"]])
            spans, style = (np.ptp(points, axis=0) / 2)[::-1], styles[trial["method"]]
            shown[trial["method"]] = panel.errorbar(*points.mean(0), *spans, ls="", ms=8, alpha=0.85, **style)
        for name, mark in (("original", "s"), ("retrained", "*")):
            point = [whole[name][key][0] for key in (task.across, up)]
            shown[name] = panel.errorbar(*point, ls="", marker=mark, color="black", ms=13)
        panel.set(
            title=task.title,
            xscale="linear" if task.across == "forgetting/class_probability" else "log",
            yscale="log",
            xlabel=f"{task.across.split('/')[1].replace('_', ' ')} of the forgotten",
        )
        panel.grid(alpha=0.25)
    panels[0][0].set_ylabel("Fréchet distance of the retained to their data")
    figure.suptitle("Erasers at one budget; bars span the seeds")
    figure.legend(shown.values(), shown.keys(), loc="lower center", ncol=7, frameon=False, fontsize=9)
    figure.tight_layout(rect=(0, 0.09, 1, 1))
    figure.savefig(path, dpi=110)


def rows_of(name: str, whole: dict[str, Any]) -> list[Row]:
    """The quantities that are shown, of every trial against the retrained model."""
    rows = []
    for trial in whole["trials"]:
        method = f"{name}/{'+'.join(trial['regimes'])}/{trial['method']}"
        runs = trial["erasures"]
        spent = float(np.mean([run["cost"]["forward_equivalents"] for run in runs]))
        rows.append(Row(f"{method}/cost", spent, None, "", None, "forward-equivalents", len(runs)))
        for key, unit in SHOWN.items():
            values = [run["measured"][key][0] for run in runs if key in run["measured"]]
            target = whole["target"].get(key)
            if values:
                aim = None if target is None else target[0]
                rows.append(Row(f"{method}/{key}", float(np.mean(values)), aim, "retrained", None, unit, len(runs)))
    return rows


def main() -> None:
    """Run the tasks, then write what there is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="folder of erasures and measurements; resumes")
    parser.add_argument("--redraw", action="store_true", help="only the table and figure, from what --out holds")
    parser.add_argument("--fashion", type=Path, help="what benchmarks/fashion.py made")
    parser.add_argument("--data", type=Path, help="the original Fashion-MNIST files")
    parser.add_argument("--tasks", help="of them only these, separated by commas")
    parser.add_argument("--methods", help="of them only these, separated by commas")
    parser.add_argument("--regime", default="both", choices=["equal", "default", "both"])
    parser.add_argument("--budget", type=float, default=16_800)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--generations", type=int, default=600)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if not options.redraw and options.work is None:
        parser.error("--work is needed")
    tasks = digits() | (fashion(options.fashion, options.data) if options.fashion and options.data else {})
    chosen = options.tasks.split(",") if options.tasks else list(tasks)
    wanted = options.methods.lower().split(",") if options.methods else None
    regimes = tuple(Regime) if options.regime == "both" else (Regime(options.regime),)
    erasers = tuple(e for e in every_eraser() if wanted is None or type(e).__name__.lower() in wanted)
    plan = Plan(erasers, regimes, options.seeds, options.budget, options.generations, Probe(draws=2, rows=100))
    held = options.out / "erase_comparison"
    for name in () if options.redraw else chosen:
        arguments = dict(tasks[name].arguments)
        with bars() as progress:
            bench_erase(
                arguments.pop("model"),
                out=options.work / name,
                plan=plan,
                sampler=SAMPLER,
                overwrite=True,
                progress=progress,
                **arguments,
            )
        held.mkdir(parents=True, exist_ok=True)
        shutil.copy(options.work / name / MEASUREMENTS, held / f"{name}.json")
    found = {name: (tasks[name], json.loads((held / f"{name}.json").read_text())) for name in chosen}
    rows = [row for name, (_, whole) in found.items() for row in rows_of(name, whole)]
    write("erase_comparison", "Erasers on one request each", rows, options.out)
    chart(found, options.out / "erase_comparison.png")


if __name__ == "__main__":
    main()
