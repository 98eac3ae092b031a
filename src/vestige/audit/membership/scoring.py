"""From scores of members and non-members to numbers, a table, a curve and words: the same for every attack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vestige.audit.attack import Outcome
from vestige.audit.membership.blind import Blind
from vestige.audit.membership.rows import Floats, Index, Sides
from vestige.data.split import Split, duplicate_groups
from vestige.metrics.interval import Interval, estimate
from vestige.metrics.roc import auc, roc, shuffled_control, tpr_at_fpr
from vestige.record import Cell, Estimate, Figure, Section, Series, Table

RATES = (0.01, 0.001)
THREE_ERRORS = 0.9973
"""Two-sided probability of a normal variable within three standard errors."""

_POINTS = 400


@dataclass(frozen=True)
class Method:
    """How an attack is named in a record.

    Parameters
    ----------
    prefix : of its summary lines and its section.
    title : of its section.
    name : of its curve and row in the joint table.
    evaluations : network evaluations a row, all models together.
    """

    prefix: str
    title: str
    name: str
    evaluations: int


def judged(
    method: Method,
    sides: Sides,
    inside: Floats,
    outside: Floats,
    split: Split,
    *,
    text: Sequence[str],
    lines: Sequence[Estimate] = (),
    tables: Sequence[Table] = (),
) -> Outcome:
    """The outcome of an attack whose scores of ``sides`` are ``inside`` and ``outside``, higher = likelier member.

    Exact ROC, AUC and its control, TPR at 1 % and 0.1 % FPR, and all of it by duplicate
    count. Rows with NaN were not looked at. ``lines`` and ``tables`` are the attack's own.
    """
    known, others = inside[~np.isnan(inside)], outside[~np.isnan(outside)]
    area, control = auc(known, others), shuffled_control(known, others, sides.seed)
    summary = [
        estimate(f"{method.prefix}/auc", area, "probability"),
        estimate(f"{method.prefix}/auc_control", control, "probability", "members and non-members dealt at random"),
    ]
    summary += [_rate(method.prefix, known, others, fpr) for fpr in RATES]
    summary += [
        *lines,
        Estimate(name=f"{method.prefix}/evaluations", value=method.evaluations, unit="network evaluations a row"),
    ]
    copies = split.copies[sides.members][~np.isnan(inside)]
    section = Section(
        name=method.prefix,
        title=method.title,
        text=[*text, _control_words(known, others, control, sides.seed)],
        tables=[_by_count(method, copies, known, others), *tables],
        figures=[
            Figure(
                name="roc",
                title="Members found against non-members accused",
                kind="line",
                series=[curve(method.name, known, others)],
                x_label="false positive rate",
                y_label="true positive rate",
                diagonal=True,
                caption="The diagonal is chance.",
            )
        ],
    )
    return Outcome(tuple(summary), section, *sides.spread(split, inside, outside))


def _rate(prefix: str, inside: Floats, outside: Floats, fpr: float) -> Estimate:
    found = tpr_at_fpr(inside, outside, fpr)
    note = "" if found.enough_negatives else f"{len(outside):,} non-members are too few to trust this rate"
    return estimate(f"{prefix}/tpr@fpr={fpr:g}", found.interval, "share of members", note)


def _control_words(inside: Floats, outside: Floats, control: Interval, seed: int) -> str:
    words = f"Chance is an AUC of 0.5; the control gives {control.value:.3f}"
    if shuffled_control(inside, outside, seed, THREE_ERRORS).covers(0.5):
        return words + "."
    return words + ", more than three standard errors from chance: do not use this result."


def _by_count(method: Method, copies: Index, inside: Floats, outside: Floats) -> Table:
    rows: list[list[Cell]] = []
    for name, mask in duplicate_groups(copies):
        area, rate = auc(inside[mask], outside), tpr_at_fpr(inside[mask], outside, 0.01).interval
        rows.append([name, int(mask.sum()), *(round(v, 4) for v in (area.value, area.low, area.high, rate.value))])
    return Table(
        name=method.prefix,
        title=f"{method.name[0].upper()}{method.name[1:]}, by duplicate count",
        columns=["copies in training data", "images", "AUC", "low", "high", "TPR at 1 % FPR"],
        rows=rows,
    )


def curve(name: str, inside: Floats, outside: Floats, *, positive: bool = False) -> Series:
    """The ROC curve as a line of a few hundred points; ``positive`` leaves out false positive rate 0."""
    found = roc(inside, outside).corners()
    fpr, tpr = found.fpr, found.tpr
    if positive:
        fpr, tpr = fpr[found.fpr > 0], tpr[found.fpr > 0]
        spread = np.searchsorted(fpr, np.geomspace(fpr[0], 1, _POINTS))
        keep = np.unique(np.clip(spread, 0, len(fpr) - 1))
    else:
        keep = np.unique(np.linspace(0, len(fpr) - 1, _POINTS).astype(int))
    return Series(name=name, x=fpr[keep].tolist(), y=tpr[keep].tolist())


def joint_section(outcomes: Mapping[str, Outcome], split: Split, blind: Blind | None = None) -> Section:
    """One table and one figure of all membership attacks that ran, and what they say together.

    ``outcomes`` by the attack's name; those without an ``.../auc`` line are passed over.
    ``blind`` is what the images alone tell.
    """
    lines = {name: _lines(outcome) for name, outcome in outcomes.items()}
    lines = {name: found for name, found in lines.items() if "auc" in found}
    rows = [_joint_row(name, found) for name, found in lines.items()]
    if blind is not None:
        rows.append(["the images alone (no model)", 0, *_three(blind.line), None, *[blind.rates[fpr] for fpr in RATES]])
    table = Table(
        name="membership-attacks",
        title="Membership attacks side by side",
        columns=[
            *("attack", "evaluations a row", "AUC", "low", "high", "control"),
            *(f"TPR at {fpr:.1%} FPR".replace(".0", "") for fpr in RATES),
        ],
        rows=rows,
        caption="Evaluations are those of the attack alone; attacks that read the same entries share them.",
    )
    figure = Figure(
        name="membership-attacks",
        title="Members found against non-members accused, every attack",
        kind="line",
        series=[_series(name, outcomes[name]) for name in lines],
        x_label="false positive rate",
        y_label="true positive rate",
        x_log=True,
        diagonal=True,
        caption="The false positive rate is logarithmic: what counts is the left end. The diagonal is chance.",
    )
    return Section(
        name="membership-attacks",
        title="Membership attacks compared",
        text=[*_verdict(lines), *([] if blind is None else [blind.words])],
        tables=[table],
        figures=[figure] if lines else [],
    )


def _lines(outcome: Outcome) -> dict[str, Estimate]:
    prefix = outcome.section.name + "/"
    return {line.name.removeprefix(prefix): line for line in outcome.summary if line.name.startswith(prefix)}


def _three(line: Estimate) -> list[Cell]:
    return [None if v is None else round(v, 4) for v in (line.value, line.low, line.high)]


def _joint_row(name: str, found: dict[str, Estimate]) -> list[Cell]:
    def value(key: str) -> float | None:
        line = found.get(key)
        return None if line is None or line.value is None else round(line.value, 4)

    evaluations = value("evaluations")
    cost = None if evaluations is None else int(evaluations)
    rates = [value(f"tpr@fpr={fpr:g}") for fpr in RATES]
    return [name, cost, *_three(found["auc"]), value("auc_control"), *rates]


def _series(name: str, outcome: Outcome) -> Series:
    inside, outside = (scores[~np.isnan(scores)] for scores in (outcome.member_scores, outcome.other_scores))
    return curve(name, inside, outside, positive=True)


def _verdict(lines: Mapping[str, dict[str, Estimate]]) -> list[str]:
    """Which attack is strongest, and which cannot be told from chance."""
    if not lines:
        return ["No membership attack ran."]
    text: list[str] = []
    found = {name: parts["auc"] for name, parts in lines.items() if (parts["auc"].low or 0.0) > 0.5}
    chance = [name for name, parts in lines.items() if name not in found and (parts["auc"].high or 1.0) >= 0.5]
    below = [name for name in lines if name not in found and name not in chance]
    if found:
        best = max(found, key=lambda name: found[name].value or 0.0)
        area = found[best]
        words = f"{best} is the strongest: AUC {area.value:.3f} [{area.low:.3f}, {area.high:.3f}]"
        strict = {name: parts[f"tpr@fpr={RATES[0]:g}"] for name, parts in lines.items()}
        sharp = max(strict, key=lambda name: strict[name].value or 0.0)
        rate = strict[sharp]
        where = "it" if sharp == best else sharp
        words += f"; at 1 % false positives {where} finds most, {rate.value:.1%} of members"
        if rate.note:
            words += f" ({rate.note})"
        text.append(words + f". It is the best of {len(lines)}, named after they were seen.")
    else:
        text.append("No attack tells members from non-members: every AUC interval reaches down to 0.5.")
    if chance and found:
        text.append(f"Not told from chance on these rows: {', '.join(chance)}.")
    if below:
        text.append(
            f"Below chance: {', '.join(below)}. Non-members look more like members than members do, which points at a "
            "difference between the two sets, or at a model on which the attack's assumption is reversed."
        )
    return text
