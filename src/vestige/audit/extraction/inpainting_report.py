"""What completions show: members against non-members, and the model against one that never saw them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vestige.audit.attack import Outcome
from vestige.audit.extraction.search import Floats, Index
from vestige.data.split import Split, duplicate_groups
from vestige.metrics.interval import Interval, bootstrap, estimate
from vestige.metrics.roc import auc, roc, shuffled_control
from vestige.record import Cell, Estimate, Figure, Section, Series, Table

_UNIT = "rms over masked pixels, pixels in [0, 1]"


@dataclass(frozen=True, eq=False)
class Side:
    """Distances under one model: of the kept completions of members [m, keep] and of others [k, keep]."""

    members: Floats
    others: Floats


@dataclass(frozen=True, eq=False)
class Completed:
    """All that inpainting collects.

    ``members`` and ``others`` are the rows looked at; ``here`` the distances under the model,
    ``there`` those under the reference or None; ``unseen`` the places in ``members`` that the
    reference never saw; ``evaluations`` those that one model takes.
    """

    members: Index
    others: Index
    here: Side
    there: Side | None
    unseen: Index
    evaluations: int
    seed: int


def outcome_of(collected: Completed, split: Split, keep: int, completions: int) -> Outcome:
    """Summary, section and scores of a collection."""
    inside, outside = collected.here.members.mean(1), collected.here.others.mean(1)
    copies = split.copies[collected.members]
    area, control = auc(-inside, -outside), shuffled_control(-inside, -outside, collected.seed)
    summary = [
        estimate("inpainting/auc", area, "probability", "members against non-members by minus the distance"),
        estimate("inpainting/auc_control", control, "probability", "members and non-members dealt at random"),
        estimate("inpainting/distance_members", _mean(inside, collected.seed), _UNIT),
        estimate("inpainting/distance_others", _mean(outside, collected.seed), _UNIT),
        *_paired(collected),
    ]
    text = [
        f"A part of {len(inside):,} members and {len(outside):,} non-members was hidden and "
        f"completed {completions} times. Of the {keep} completions that the model finds likeliest the mean distance to "
        f"the truth is {inside.mean():.3f} for members and {outside.mean():.3f} for non-members.",
        *_reference_words(collected),
    ]
    section = Section(
        name="inpainting",
        title="Inpainting: what the model adds to a part of an image",
        text=text,
        tables=[_by_count(collected, copies)],
        figures=[_curve(-inside, -outside), _distances(collected, copies)],
    )
    member_scores = np.full(len(split.members), np.nan)
    member_scores[collected.members] = -inside
    other_scores = np.full(0 if split.others is None else len(split.others), np.nan)
    other_scores[collected.others] = -outside
    return Outcome(tuple(summary), section, member_scores, other_scores)


def _mean(values: Floats, seed: int) -> Interval:
    return bootstrap(lambda part: float(part.mean()), values, seed=seed)


def _gains(collected: Completed) -> tuple[Floats, Floats]:
    """Distance under the reference minus distance under the model: unseen members, and others."""
    if collected.there is None:
        return np.empty(0), np.empty(0)
    inside = collected.there.members.mean(1) - collected.here.members.mean(1)
    return inside[collected.unseen], collected.there.others.mean(1) - collected.here.others.mean(1)


def _paired(collected: Completed) -> list[Estimate]:
    name, unit = "inpainting/gain_over_reference", _UNIT
    inside, outside = _gains(collected)
    if collected.there is None:
        note = "no model that never saw the members was given"
        return [Estimate(name=name, value=None, unit=unit, note=note)]
    if not len(inside):
        return [Estimate(name=name, value=None, n=0, unit=unit, note="the reference saw every member looked at")]
    note = "how much nearer than the reference the model completes members that the reference never saw"
    lines = [estimate(name, _mean(inside, collected.seed), unit, note)]
    if len(outside):
        control = "the same for non-members, which neither model saw"
        lines.append(estimate("inpainting/gain_over_reference_control", _mean(outside, collected.seed), unit, control))
    return lines


def _reference_words(collected: Completed) -> list[str]:
    inside, outside = _gains(collected)
    spent = f"Each model took {collected.evaluations:,} network evaluations"
    if collected.there is None:
        return ["Without a model that never saw the members, an easy image cannot be told from a remembered one."]
    if not len(inside):
        return [f"The reference saw every member that was looked at, so there is nothing to compare. {spent}."]
    gain = _mean(inside, collected.seed)
    answer = "are completed better than by" if gain.low > 0 else "are not shown to be completed better than by"
    words = (
        f"The {len(inside):,} members that the reference never saw {answer} the reference: they come nearer by "
        f"{gain.value:.3f} [{gain.low:.3f}, {gain.high:.3f}], image by image"
    )
    if len(outside):
        control = _mean(outside, collected.seed)
        words += f"; non-members by {control.value:.3f} [{control.low:.3f}, {control.high:.3f}]"
    return [f"{words}. {spent}."]


def _by_count(collected: Completed, copies: Index) -> Table:
    distance, outside = collected.here.members.mean(1), collected.here.others.mean(1)
    seen = np.ones(len(distance), bool)
    seen[collected.unseen] = False
    gains = np.full(len(distance), np.nan)
    if collected.there is not None:
        gains = np.where(seen, np.nan, collected.there.members.mean(1) - distance)
    rows: list[list[Cell]] = []
    for name, mask in duplicate_groups(copies):
        area, gain = auc(-distance[mask], -outside), gains[mask & ~seen]
        paired: list[Cell] = [len(gain), None, None, None]
        if len(gain):
            found = _mean(gain, collected.seed)
            paired[1:] = [round(b, 4) if np.isfinite(b) else None for b in (found.value, found.low, found.high)]
        head = [round(float(v), 4) for v in (distance[mask].mean(), area.value, area.low, area.high)]
        rows.append([name, int(mask.sum()), *head, *paired])
    columns = ["copies in training data", "images", "distance", "AUC", "low", "high"]
    columns += ["unseen by the reference", "gain", "gain low", "gain high"]
    return Table(
        name="inpainting",
        title="Completion, by duplicate count",
        columns=columns,
        rows=rows,
        caption="Distance is the rms over masked pixels; gain is how much nearer than the reference the model comes.",
    )


def _curve(inside: Floats, outside: Floats) -> Figure:
    curve = roc(inside, outside).corners()
    return Figure(
        name="roc",
        title="Members found against non-members accused",
        kind="line",
        series=[Series(name="inpainting", x=curve.fpr.tolist(), y=curve.tpr.tolist())],
        x_label="false positive rate",
        y_label="true positive rate",
        diagonal=True,
        caption="The diagonal is chance.",
    )


def _distances(collected: Completed, copies: Index) -> Figure:
    groups = duplicate_groups(copies)
    series = [_means("this model", collected.here, groups, collected.seed)]
    if collected.there is not None:
        series.append(_means("reference", collected.there, groups, collected.seed))
    return Figure(
        name="completion",
        title="Distance of completions to the truth, by duplicate count",
        kind="bars",
        series=series,
        x_label="copies in the training data",
        y_label=_UNIT,
        caption="Bars show 95 % bootstrap intervals; 0 copies are the non-members.",
    )


def _means(name: str, side: Side, groups: list[tuple[str, np.ndarray]], seed: int) -> Series:
    parts = [("0", side.others.mean(1)), *((label, side.members.mean(1)[mask]) for label, mask in groups)]
    found = [(label, _mean(values, seed)) for label, values in parts if len(values)]

    def bounded(bound: float) -> float | None:
        return bound if np.isfinite(bound) else None

    return Series(
        name=name,
        x=[label for label, _ in found],
        y=[part.value for _, part in found],
        low=[bounded(part.low) for _, part in found],
        high=[bounded(part.high) for _, part in found],
    )
