"""From what was measured of every model to distances from the retrained one, over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vestige.jobs.bench_erase_measure import Measured
from vestige.jobs.bench_erase_plan import Made, Price, Regime
from vestige.metrics.interval import Interval, clopper_pearson, mean_interval

INFINITE = (-math.inf, math.inf)
RELATIVE = tuple(
    f"retention/{name}" for name in ("frechet_data", "class_accuracy", "precision", "recall", "coverage", "loss_ratio")
)
"""Whose relative differences make the distance in retention."""


@dataclass(frozen=True)
class Quantity:
    """How a measured quantity is shown."""

    title: str
    unit: str
    within: tuple[float, float] = INFINITE


_SHARE, _POSITIVE = (0.0, 1.0), (0.0, math.inf)
QUANTITIES = {
    "forgetting/residue": Quantity("residue", "local dimension of forgotten images", _POSITIVE),
    "forgetting/residue_unseen": Quantity("residue, unseen", "local dimension of images never seen", _POSITIVE),
    "forgetting/loss": Quantity("denoising loss", "a pixel, forgotten images", _POSITIVE),
    "forgetting/membership_auc": Quantity("membership AUC", "forgotten against unseen images", _SHARE),
    "forgetting/membership": Quantity("two-sided AUC", "the same, whichever side scores higher", _SHARE),
    "forgetting/extracted": Quantity("extracted", "distinct forgotten images that come out", _POSITIVE),
    "forgetting/class_probability": Quantity("class probability", "of the forgotten class, when asked for it", _SHARE),
    "forgetting/class_accuracy": Quantity("class accuracy", "share recognised as the forgotten class", _SHARE),
    "forgetting/class_entropy": Quantity("class entropy", "nats, when asked for the forgotten class", _POSITIVE),
    "retention/frechet_data": Quantity("Fréchet to data", "squared feature units", _POSITIVE),
    "retention/frechet_original": Quantity("Fréchet to original", "squared feature units", _POSITIVE),
    "retention/kernel_data": Quantity("kernel to data", "squared maximum mean discrepancy"),
    "retention/kernel_original": Quantity("kernel to original", "squared maximum mean discrepancy"),
    "retention/class_accuracy": Quantity("class accuracy", "share recognised as the class asked for", _SHARE),
    "retention/precision": Quantity("precision", "share of generations among the data", _SHARE),
    "retention/recall": Quantity("recall", "share of the data among generations", _SHARE),
    "retention/coverage": Quantity("coverage", "share of the data near a generation", _SHARE),
    "retention/pixel_distance": Quantity("pixel distance", "rms to the original's image, pixels in [0, 1]", _SHARE),
    "retention/feature_distance": Quantity("feature distance", "to the original's image, unit features", (0.0, 4.0)),
    "retention/loss_ratio": Quantity("loss ratio", "denoising loss on retained images, model / original", _POSITIVE),
    "retention/weight_distance": Quantity("weight distance", "norm of the change / norm of the weights", _POSITIVE),
}


def quantity(name: str) -> Quantity:
    """How a quantity is shown; one of a group (``NAME@GROUP``) as the whole, with the group beside it."""
    whole, _, group = name.partition("@")
    found = QUANTITIES[whole]
    return Quantity(f"{found.title}, {group.replace('=', ' ')}", found.unit, found.within) if group else found


@dataclass(frozen=True, eq=False)
class Yardstick:
    """What erased models are compared with.

    ``target`` is the retrained model's value of each quantity, or what stands in for it; ``original`` the original's.
    ``exact`` is whether there is a retrained model.
    """

    target: Measured
    original: Measured
    exact: bool

    @staticmethod
    def of(original: Measured, retrained: Measured | None) -> Yardstick:
        """Compare with the retrained model, or without one with what needs no retraining.

        These are the level of images never seen for the residue, chance for membership, nothing extracted, and the
        original model's own retention.
        """
        if retrained is not None:
            return Yardstick(retrained, original, True)
        target = {name: value for name, value in original.items() if name.startswith("retention/")}
        if "forgetting/residue_unseen" in original:
            target["forgetting/residue"] = original["forgetting/residue_unseen"]
            target["forgetting/residue_unseen"] = original["forgetting/residue_unseen"]
        for name in ("forgetting/membership_auc", "forgetting/membership"):
            target[name] = Interval(0.5, 0.5, 0.5, 0)
        if "forgetting/extracted" in original:
            n = original["forgetting/extracted"].n
            target["forgetting/extracted"] = Interval(0.0, 0.0, n * clopper_pearson(0, n).high, n)
        return Yardstick(target, original, False)

    @cached_property
    def telling(self) -> tuple[str, ...]:
        """Quantities of forgetting on which the original and the target differ beyond both their intervals."""
        names: list[str] = []
        for name, before in self.original.items():
            goal = self.target.get(name)
            # One of the two sides of one attack, and the whole instead of its groups.
            if goal is None or not name.startswith("forgetting/") or "@" in name or name == "forgetting/membership_auc":
                continue
            if before.high < goal.low or before.low > goal.high:
                names.append(name)
        return tuple(names)

    @property
    def relative(self) -> tuple[str, ...]:
        """Quantities of retention that have a target other than zero."""
        return tuple(name for name in RELATIVE if name in self.target and self.target[name].value != 0)

    def forgetting(self, found: Measured) -> float:
        """Mean of ``|value - target| / |original - target|`` over :attr:`telling`: 0 as the target, 1 as the original.

        NaN where nothing tells the two apart.
        """
        parts = [
            abs(found[n].value - self.target[n].value) / abs(self.original[n].value - self.target[n].value)
            for n in self.telling
            if n in found
        ]
        return float(np.mean(parts)) if parts else math.nan

    def retention(self, found: Measured) -> float:
        """Mean of ``|value - target| / |target|`` over :attr:`relative`; NaN where none was measured."""
        parts = [
            abs(found[n].value - self.target[n].value) / abs(self.target[n].value) for n in self.relative if n in found
        ]
        return float(np.mean(parts)) if parts else math.nan

    def overall(self, found: Measured) -> float:
        """Mean of both; NaN where either is missing, since half of it would praise doing nothing or doing harm."""
        return (self.forgetting(found) + self.retention(found)) / 2


@dataclass(frozen=True, eq=False)
class Trial:
    """One method in one regime or, where both are the same steps, in both; one entry a seed."""

    method: str
    regimes: tuple[Regime, ...]
    steps: int
    price: Price
    made: Sequence[Made]
    found: Sequence[Measured]

    @property
    def regime(self) -> str:
        """In words."""
        return "both" if len(self.regimes) > 1 else next(iter(self.regimes)).value

    @property
    def name(self) -> str:
        """As summary lines and failures call it."""
        return f"{self.method}@{self.regime}"

    def value(self, name: str) -> Interval | None:
        """Mean over seeds with Student's interval; None where a seed lacks it."""
        if any(name not in found for found in self.found):
            return None
        return over_seeds([found[name].value for found in self.found], quantity(name).within)

    def difference(self, name: str, yardstick: Yardstick) -> Interval | None:
        """The same of the value less the target's."""
        if name not in yardstick.target or any(name not in found for found in self.found):
            return None
        return over_seeds([found[name].value - yardstick.target[name].value for found in self.found])

    def distances(self, yardstick: Yardstick) -> tuple[Interval | None, Interval | None, Interval | None]:
        """From the target: overall, in forgetting, in retention."""
        rules = (yardstick.overall, yardstick.forgetting, yardstick.retention)
        rows = [[rule(found) for found in self.found] for rule in rules]
        overall, forgetting, retention = (
            None if any(math.isnan(v) for v in row) else over_seeds(row, _POSITIVE) for row in rows
        )
        return overall, forgetting, retention

    @property
    def spent(self) -> float:
        """Mean forward-equivalents of an erasure."""
        return float(np.mean([made.spent for made in self.made]))

    @property
    def seconds(self) -> Interval | None:
        """Mean over the seeds that were not cut off; None if all were."""
        known = [made.seconds for made in self.made if made.seconds is not None]
        return over_seeds(known, _POSITIVE) if known else None

    @property
    def memory(self) -> int | None:
        """The most that any seed needed, in bytes; None where it could not be told."""
        known = [made.memory for made in self.made if made.memory is not None]
        return max(known) if known else None


@dataclass(frozen=True)
class Failure:
    """A method that could not be run in a regime, and why."""

    method: str
    regime: Regime
    reason: str
    remedy: str


def over_seeds(values: Sequence[float], within: tuple[float, float] = INFINITE) -> Interval:
    """Mean over erasure seeds with Student's interval, cut to a range; one seed bounds nothing."""
    return mean_interval(values, within=within if len(values) > 1 else INFINITE)
