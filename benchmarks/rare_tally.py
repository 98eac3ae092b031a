"""What the comparison of benchmarks/rare.py measures of every method and seed, and the rows that it makes of it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
import torch
from rare_models import Bench, Scorer
from table import Row
from torch import Tensor

from vestige.data.images import to_float
from vestige.jobs.rare_methods import Tried
from vestige.metrics.frechet import Gaussian, frechet_interval
from vestige.metrics.interval import Interval, mean_interval
from vestige.metrics.neighbours import neighbour_metrics

NEIGHBOURS = 3


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
