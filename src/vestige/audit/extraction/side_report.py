"""What surrogate conditions add: guided sampling beside its controls, arm by arm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vestige.audit.attack import Outcome
from vestige.audit.extraction.precision import pooled_precision
from vestige.audit.extraction.search import Floats, Index, Pixels, Search
from vestige.audit.extraction.surrogate import Conditions
from vestige.audit.extraction.tables import matches
from vestige.data.split import Split, duplicate_groups
from vestige.metrics.interval import Interval, clopper_pearson, estimate
from vestige.record import Cell, Estimate, Figure, Section, Series, Table

_UNIT = "distinct training images"


@dataclass(frozen=True, eq=False)
class Arm:
    """Images sampled in one way, uint8 [g, c, h, w], and the searches for copies among members and others."""

    name: str
    pixels: Pixels
    members: Search
    others: Search | None


@dataclass(frozen=True, eq=False)
class Steering:
    """All that the attack collects.

    ``guided`` and ``unguided`` start from the same noise; ``empty`` is the classifier's pull on a
    Gaussian; ``before`` are the generations that the conditions were learned from.
    ``member_distance`` and ``other_distance`` are rms distances from each row to its nearest guided image.
    """

    guided: Arm
    unguided: Arm
    empty: Arm
    before: Arm
    conditions: Conditions
    member_distance: Floats
    other_distance: Floats


def outcome_of(collected: Steering, split: Split, delta: float, scale: float) -> Outcome:
    """Summary, section and scores of a collection."""
    arms = (collected.guided, collected.unguided, collected.empty)
    found = [arm.members.found(delta) for arm in arms]
    guided, unguided, empty = found
    gain, only = _gain(guided, unguided, split)
    summary = [
        _count("side/images", guided, collected.guided, split, "sampled under surrogate conditions"),
        _count("side/unguided_images", unguided, collected.unguided, split, "sampled plainly from the same noise"),
        _count("side/classifier_only_images", empty, collected.empty, split, "pulled from a Gaussian"),
        _gain_line(gain),
        _precision(collected.guided, guided, split, delta),
    ]
    section = Section(
        name="side",
        title="Surrogate conditions: whether guidance brings out more",
        text=_words(collected, found, gain, only, split, delta, scale),
        tables=[_arms(arms, split, delta), _by_count(arms, found, split)],
        figures=[_figure(arms, found, split)],
        # Pictures belong to the images of generate-and-filter.
        matches=[m.model_copy(update={"picture": None}) for m in matches(collected.guided.members, split, delta)],
    )
    return Outcome(tuple(summary), section, -collected.member_distance, -collected.other_distance, guided)


def _count(name: str, found: Index, arm: Arm, split: Split, how: str) -> Estimate:
    note = f"recovered from {len(arm.pixels):,} images {how}"
    return Estimate(name=name, value=float(len(found)), n=len(split.members), unit=_UNIT, note=note)


def _gain(guided: Index, unguided: Index, split: Split) -> tuple[Interval | None, tuple[int, int]]:
    """Of the clusters of near-duplicates that one arm alone finds, the share that guidance finds, and both counts.

    If both arms find each alike the share is 1/2 (the exact form of McNemar's test). Images of a
    cluster are found together, so a cluster counts once.
    """
    one, two = (np.unique(split.cluster[found]) for found in (guided, unguided))
    more, less = len(np.setdiff1d(one, two)), len(np.setdiff1d(two, one))
    return (clopper_pearson(more, more + less) if more + less else None), (more, less)


def _gain_line(gain: Interval | None) -> Estimate:
    name, unit = "side/gain", "share of what one of both finds alone that guidance finds"
    if gain is None:
        return Estimate(name=name, value=None, n=0, unit=unit, note="both find the same images")
    return estimate(name, gain, unit, "0.5 means that guidance adds nothing")


def _precision(arm: Arm, found: Index, split: Split, delta: float) -> Estimate:
    name, unit = "side/precision", "share of matched images that are members"
    if arm.others is None or split.others is None:
        return Estimate(name=name, value=None, unit=unit, note="no non-members were given to measure it with")
    false = len(arm.others.found(delta))
    if not len(found) + false:
        return Estimate(name=name, value=None, n=0, unit=unit, note="nothing was matched on either side")
    note = f"{false} of {len(split.others):,} non-members matched alike"
    return estimate(name, pooled_precision(len(found), len(split.members), false, len(split.others)), unit, note)


def verdict(gain: Interval | None) -> str:
    """Whether guidance helps, in plain words."""
    if gain is None:
        return "Guidance does not help here: it finds what plain sampling finds."
    if gain.low > 0.5:
        return "Guidance helps: it finds images that plain sampling of the same size misses."
    if gain.high < 0.5:
        return "Guidance hurts: plain sampling of the same size finds more."
    return "Guidance is not shown to help: the difference to plain sampling is within chance."


def _words(
    collected: Steering,
    found: Sequence[Index],
    gain: Interval | None,
    only: tuple[int, int],
    split: Split,
    delta: float,
    scale: float,
) -> list[str]:
    learned, size = collected.conditions, len(collected.guided.pixels)
    before = collected.before.members.found(delta)
    total = [len(np.union1d(before, part)) for part in found[:2]]
    told = clopper_pearson(learned.told, learned.tested)
    words = [
        f"{len(learned.sizes)} clusters of {int(learned.sizes.min())} to {int(learned.sizes.max())} generations are "
        f"the conditions. The classifier recognizes {told.value:.0%} [{told.low:.0%}, {told.high:.0%}] of {told.n} "
        f"held-out generations at time 0.3. Its gradient steers with scale {scale:g}.",
        f"{size:,} guided images recover {len(found[0]):,} training images, {size:,} plain ones {len(found[1]):,}. "
        f"Of clusters of near-duplicates, {only[0]} came out under guidance alone and {only[1]} without it alone. "
        f"{verdict(gain)}",
        f"With the {len(collected.before.pixels):,} generations that the conditions cost, both make {2 * size:,} "
        f"images and recover {total[0]:,} and {total[1]:,} of {len(split.members):,}.",
    ]
    echo = (
        "The classifier alone, pulling on a Gaussian with the generations' mean and covariance, "
        f"recovers {len(found[2]):,}"
    )
    if not len(found[2]):
        return [*words, f"{echo}: what guidance finds comes out of the model."]
    return [*words, f"{echo}: that many matches need no model, and guided ones must be read against them."]


def _arms(arms: Sequence[Arm], split: Split, delta: float) -> Table:
    rows: list[list[Cell]] = []
    for arm in arms:
        found, copies = arm.members.found(delta), arm.members.copies(delta)
        share = clopper_pearson(len(found), len(split.members))
        false = None if arm.others is None else len(arm.others.found(delta))
        bounds = [round(part, 4) for part in (share.value, share.low, share.high)]
        rows.append([arm.name, len(copies), int(copies.sum()), len(found), *bounds, false])
    columns = ["sampling", "images", "copies", "training images", "share", "low", "high", "non-members matched"]
    return Table(
        name="arms",
        title="Recovered by each way of sampling",
        columns=columns,
        rows=rows,
        caption="Every way makes the same number of images. The classifier alone pulls on a Gaussian with the "
        "generations' mean and covariance: what it matches takes no model.",
    )


def _groups(found: Index, split: Split) -> list[tuple[str, int, Interval]]:
    hit = np.isin(np.arange(len(split.members)), found)
    return [
        (name, int(hit[mask].sum()), clopper_pearson(int(hit[mask].sum()), int(mask.sum())))
        for name, mask in duplicate_groups(split.copies)
    ]


def _by_count(arms: Sequence[Arm], found: Sequence[Index], split: Split) -> Table:
    columns = [_groups(part, split) for part in found]
    rows: list[list[Cell]] = [
        [group[0][0], group[0][2].n, *(hits for _, hits, _ in group)] for group in zip(*columns, strict=True)
    ]
    names = ["copies in training data", "images", *(arm.name for arm in arms)]
    return Table(name="side", title="Recovered, by duplicate count", columns=names, rows=rows)


def _figure(arms: Sequence[Arm], found: Sequence[Index], split: Split) -> Figure:
    series: list[Series] = []
    for arm, part in zip(arms, found, strict=True):
        groups = _groups(part, split)
        series.append(
            Series(
                name=arm.name,
                x=[name for name, _, _ in groups],
                y=[share.value for _, _, share in groups],
                low=[share.low for _, _, share in groups],
                high=[share.high for _, _, share in groups],
            )
        )
    return Figure(
        name="side",
        title="Share of training images recovered, by duplicate count",
        kind="bars",
        series=series,
        x_label="copies in the training data",
        y_label="share recovered",
        caption="Bars show 95 % Clopper-Pearson intervals.",
    )
