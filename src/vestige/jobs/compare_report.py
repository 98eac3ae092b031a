"""What a comparison measured at the equal budget, in summary lines and in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vestige.jobs.kept import Rows
from vestige.jobs.run import Run
from vestige.metrics.interval import Interval, clopper_pearson, estimate
from vestige.record import Estimate, NotDone

CHANCE = 0.05
"""A difference with an adjusted p-value below this is called beyond chance."""


@dataclass(frozen=True, eq=False)
class Entry:
    """One model at the equal budget.

    ``made`` generations were made by its audit, ``budget`` are compared. ``extracted`` are the distinct members that
    these copy, ``first_copied`` [members] the generation that first does, or ``budget``; ``false`` counts the
    non-members matched alike. ``quality`` and ``floor`` are Fréchet distances, None where they cannot be had;
    ``attack`` is the membership attack whose lines begin with ``membership/``.
    """

    name: str
    run: Run
    rows: Rows
    made: int
    budget: int
    extracted: npt.NDArray[np.int64]
    first_copied: npt.NDArray[np.int64]
    false: int | None
    precision: Interval | None
    quality: Interval | None
    floor: Interval | None
    same_judge: bool
    judge: str
    against: str
    attack: str | None

    @property
    def share(self) -> Interval:
        """Extracted share of the distinct training images."""
        return clopper_pearson(len(self.extracted), len(self.rows.members))

    def clusters_hit(self) -> npt.NDArray[np.bool_]:
        """Which clusters of near-duplicates lost at least one image."""
        cluster = self.rows.cluster
        return np.bincount(cluster[self.extracted], minlength=int(cluster.max()) + 1) > 0

    def line(self, name: str) -> Estimate | None:
        """A summary line of the audit, if it has that one."""
        return next((line for line in self.run.record.summary if line.name == name), None)


@dataclass(frozen=True, eq=False)
class Pair:
    """Two models on the same training images.

    ``alone`` counts the clusters that only the first and only the second lost, ``difference`` is the first's number of
    lost clusters less the second's given these, ``p`` the adjusted p-value of no difference, ``membership`` the
    difference of AUCs, first less second.
    """

    first: Entry
    second: Entry
    alone: tuple[int, int]
    difference: Interval
    p: float
    membership: Interval | None


@dataclass(frozen=True, eq=False)
class Comparison:
    """All that was measured."""

    entries: Sequence[Entry]
    pairs: Sequence[Pair]


def summary(found: Comparison) -> list[Estimate]:
    """Headline numbers, by model and by pair."""
    lines: list[Estimate] = []
    for entry in found.entries:
        share = entry.share
        note = f"recovered from the first {entry.budget:,} of {entry.made:,} generations"
        lines.append(
            Estimate(
                name=f"compare/{entry.name}/extracted",
                value=float(len(entry.extracted)),
                low=share.low * share.n,
                high=share.high * share.n,
                n=share.n,
                unit="distinct training images",
                note=note,
            )
        )
        if entry.quality is not None:
            unit = f"squared units of {entry.judge}"
            lines.append(estimate(f"compare/{entry.name}/frechet", entry.quality, unit, f"against {entry.against}"))
        for name in ("auc", "tpr@fpr=0.01"):
            line = entry.line(f"membership/{name}")
            if line is not None:
                lines.append(
                    line.model_copy(update={"name": f"compare/{entry.name}/{name}", "note": _noted(entry, line)})
                )
    for pair in found.pairs:
        name, unit = f"compare/{pair.first.name} less {pair.second.name}", "clusters of near-duplicates"
        note = (
            f"p = {pair.p:.2g} for no difference{_adjusted(len(found.pairs))}; n are the clusters that one alone lost"
        )
        lines.append(estimate(f"{name}/extracted", pair.difference, unit, note))
        if pair.membership is not None:
            lines.append(estimate(f"{name}/auc", pair.membership, "probability"))
    return lines


def _noted(entry: Entry, line: Estimate) -> str:
    return "; ".join(part for part in (entry.attack or "", line.note) if part)


def words(found: Comparison) -> list[str]:
    """In sentences: which model kept more, and whether that is more than chance."""
    first = found.entries[0]
    text = [
        f"{len(found.entries)} models were trained on the same {len(first.rows.members):,} distinct images; the first "
        f"{first.budget:,} generations of each are compared."
    ]
    for pair in found.pairs:
        text.append(_extraction(pair, len(found.pairs)))
        better = _quality(pair)
        if better is not None:
            text.append(better)
        if pair.membership is not None:
            text.append(_membership(pair, pair.membership))
    text.append(
        "One training of each model was looked at: how much two trainings of one recipe differ is in none of these "
        "intervals."
    )
    return text


def _extraction(pair: Pair, comparisons: int) -> str:
    a, b = pair.first, pair.second
    counts = f"{len(a.extracted)} distinct training images come out of {a.name} and {len(b.extracted)} of {b.name}"
    test = (
        f"{pair.alone[0]} clusters of near-duplicates only of {a.name} and {pair.alone[1]} only of {b.name}; exact "
        f"McNemar test, p = {pair.p:.2g}{_adjusted(comparisons)}"
    )
    if pair.p >= CHANCE:
        return f"{counts}; the difference is not beyond chance ({test})."
    more, less = (a, b) if pair.alone[0] > pair.alone[1] else (b, a)
    return f"{more.name} kept more than {less.name}: {counts} ({test})."


def _adjusted(comparisons: int) -> str:
    return f", adjusted for {comparisons} comparisons" if comparisons > 1 else ""


def _quality(pair: Pair) -> str | None:
    a, b = pair.first, pair.second
    if a.quality is None or b.quality is None:
        return None
    better, worse = (a, b) if a.quality.value <= b.quality.value else (b, a)
    good, bad = better.quality, worse.quality
    if good is None or bad is None:
        return None
    numbers = f"Fréchet distance {shown(good)} against {shown(bad)}"
    if good.high >= bad.low:
        return f"In quality {better.name} and {worse.name} are not told apart: {numbers}."
    words = f"{better.name} makes the better images: {numbers}."
    if pair.p >= CHANCE:
        return words
    more = a if pair.alone[0] > pair.alone[1] else b
    if more is better:
        return words + " It is also the one that kept more, so quality and memorization are not separated here."
    return words + f" It is the one that kept less, so quality does not explain what {more.name} kept."


def _membership(pair: Pair, difference: Interval) -> str:
    a, b = pair.first, pair.second
    asked = f"{a.attack} asks {a.name}" + (f", {b.attack} {b.name}" if a.attack != b.attack else f" and {b.name}")
    numbers = f"{difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}] on the same rows; {asked}"
    if difference.covers(0.0):
        return f"The membership AUCs of {a.name} and {b.name} do not differ beyond chance ({numbers})."
    more = a.name if difference.value > 0 else b.name
    return f"Members stand out more in {more}: the AUC of {a.name} less that of {b.name} is {numbers}."


def shown(interval: Interval) -> str:
    """A value with its interval."""
    return f"{interval.value:.4g} [{interval.low:.4g}, {interval.high:.4g}]"


def not_compared(found: Comparison) -> list[NotDone]:
    """What could not be compared, and why."""
    missing: list[NotDone] = []
    if not found.entries[0].same_judge:
        judges = ", ".join(sorted({f"{e.judge} against {e.against}" for e in found.entries}))
        missing.append(
            NotDone(
                what="quality of the generations",
                reason=f"the audits measured it in different features or against different images: {judges}.",
                remedy="audit both models with the same non-members, and both by name or both by folder.",
            )
        )
    for entry in found.entries:
        if entry.same_judge and entry.quality is None:
            missing.append(
                NotDone(
                    what=f"quality of {entry.name}",
                    reason=f"{entry.budget:,} generations are too few for its features.",
                    remedy="audit every model with more generations.",
                )
            )
        if entry.attack is None:
            missing.append(
                NotDone(
                    what=f"membership in {entry.name}",
                    reason="its audit ran neither the denoising loss nor the discriminator loss.",
                    remedy="audit the model itself, with non-members.",
                )
            )
    return missing
