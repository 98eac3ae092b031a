"""All that a comparison of erasers measured, and its numbers as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vestige.jobs.bench_erase_measure import Ground, Measured
from vestige.jobs.bench_erase_score import QUANTITIES, Failure, Trial, Yardstick
from vestige.metrics.interval import Interval
from vestige.models.subject import Subject


@dataclass(frozen=True, eq=False)
class Outcome:
    """All that was measured."""

    subject: Subject
    ground: Ground
    seeds: int
    budget: float | None
    trials: Sequence[Trial]
    failures: Sequence[Failure]
    yardstick: Yardstick
    retrained: Measured | None
    evaluations: int

    @property
    def ordered(self) -> list[Trial]:
        """Nearest to the retrained model first; those without a distance last."""

        def place(trial: Trial) -> float:
            overall = trial.distances(self.yardstick)[0]
            return math.inf if overall is None else overall.value

        return sorted(self.trials, key=place)

    @property
    def forgetting(self) -> str:
        """The quantity of forgetting that the chart shows."""
        name = "forgetting/class_probability"
        return name if name in self.yardstick.original else "forgetting/residue"

    @property
    def retention(self) -> str:
        """The quantity of retention that the chart shows."""
        name = "retention/frechet_data"
        return name if name in self.yardstick.original else "retention/loss_ratio"

    def names(self, side: str) -> list[str]:
        """Measured quantities of ``forgetting`` or ``retention``, in the order of the catalogue, groups after them."""
        order = list(QUANTITIES)
        found = [name for name in self.yardstick.original if name.startswith(f"{side}/")]
        return sorted(found, key=lambda name: order.index(name.partition("@")[0]))


def measurements(outcome: Outcome) -> str:
    """All numbers of every erasure as JSON: value, low, high (null where unbounded) and n."""
    trials = [
        {
            "method": trial.method,
            "regimes": [regime.value for regime in trial.regimes],
            "steps": trial.steps,
            "price": {"fixed": trial.price.fixed, "step": trial.price.step, "parts": dict(trial.price.parts)},
            "distance": dict(
                zip(
                    ("overall", "forgetting", "retention"),
                    (_plain(v) for v in trial.distances(outcome.yardstick)),
                    strict=True,
                )
            ),
            "erasures": [
                {
                    "increment": made.increment.digest,
                    "seed": made.increment.manifest.settings["seed"],
                    "cost": made.increment.manifest.cost,
                    "seconds": made.seconds,
                    "peak_memory_bytes": made.memory,
                    "measured": _plain_all(found),
                }
                for made, found in zip(trial.made, trial.found, strict=True)
            ],
        }
        for trial in outcome.ordered
    ]
    whole: dict[str, Any] = {
        "budget": outcome.budget,
        "seeds": outcome.seeds,
        "original": _plain_all(outcome.yardstick.original),
        "retrained": None if outcome.retrained is None else _plain_all(outcome.retrained),
        "target": _plain_all(outcome.yardstick.target),
        "trials": trials,
        "failed": [{"method": f.method, "regime": f.regime.value, "reason": f.reason} for f in outcome.failures],
    }
    return json.dumps(whole, indent=1, sort_keys=True) + "\n"


def _plain(value: Interval | None) -> list[float | None] | None:
    if value is None:
        return None
    return [v if math.isfinite(v) else None for v in (value.value, value.low, value.high, value.n)]


def _plain_all(found: Measured) -> dict[str, list[float | None] | None]:
    return {name: _plain(value) for name, value in found.items()}
