"""Recovery attacks on an erased model: run those that are possible, add shadow models, tell what they got."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vestige.audit.attack import Outcome as Score
from vestige.audit.membership.lira import LiRA
from vestige.data.split import Split
from vestige.erase.recover.measure import Floats, shown, told_apart
from vestige.erase.recover.recovery import Outcome, Recovery, Target
from vestige.errors import EmptySet
from vestige.execute import Context
from vestige.jobs.resolve import Loading
from vestige.metrics.interval import estimate
from vestige.metrics.roc import auc
from vestige.record import Cell, Estimate, NotDone, Section, Table


@dataclass(frozen=True, eq=False)
class ShadowMembership:
    """LiRA (arXiv 2112.03570) with the attacker's own shadow models, on forgotten images against non-members.

    Not an attack of the erasing room, because likelihood ratios belong to the audit.

    Parameters
    ----------
    folder : shadow models, as ``vestige shadow`` writes them.
    who, rows : the split of the audit and which of its members were forgotten.
    loading : how models are sampled; only their losses are asked for.
    """

    folder: str | Path
    who: Split
    rows: npt.NDArray[np.int64]
    loading: Loading

    @property
    def attack(self) -> LiRA:
        """The audit's attack with these shadows."""
        return LiRA(shadows=str(self.folder))

    @property
    def split(self) -> Split:
        """The forgotten images as the only members."""
        own = np.arange(len(self.rows), dtype=np.int64)
        members, exact, copies = self.who.members.take(self.rows), self.who.exact[self.rows], self.who.copies[self.rows]
        return Split(members, exact, copies, own, self.who.others, self.who.dropped)

    def refusal(self, target: Target) -> NotDone | None:
        """Why the attack cannot be tried here, or None if it can."""
        return self.attack.refusal(self.loading.subject("the erased model", target.erased), self.split)

    def run(self, target: Target, context: Context) -> Outcome:
        """Score both sides under the erased model, the base, and a reference where there is one."""
        scores: dict[str, tuple[Floats, Floats]] = {}
        each = 0
        for name, model in target.models.items():
            found = self.attack.run(self.loading.subject(name, model), self.split, context)
            scores[name], each = _known(found), int(_line(found, "lira/evaluations").value or 0)
        own = self.attack.draws * len(self.attack.times)
        count = sum(map(len, scores["erased"]))
        gain, ceiling = (told_apart(scores, name, target.confidence) for name in ("erased", "base"))
        area = auc(*scores["erased"])
        beside = "chance is 0.5"
        lines = [estimate("recover/lira_auc", area, "probability", "forgotten images against unseen ones")]
        if "reference" in scores:
            other = auc(*scores["reference"])
            beside = f"{shown(other, 3)} in the model that never saw them"
            lines.append(estimate("recover/lira_auc_reference", other, "probability"))
        lines.append(estimate("recover/lira_advantage", gain, "2 |AUC - that of the control|", target.note))
        return Outcome(
            attack="membership with shadow models",
            effort=f"{each // own - 1} shadow models, {len(scores['erased'][0])} forgotten images",
            budget=count * (each + (len(scores) - 1) * own),
            advantage=gain,
            ceiling=ceiling,
            got=f"AUC {shown(area, 3)}",
            control=beside,
            words=f"likelihood ratios over shadow models tell forgotten images from unseen ones with AUC "
            f"{shown(area, 3)}, {beside}.",
            summary=tuple(lines),
        )


def _known(found: Score) -> tuple[Floats, Floats]:
    inside, outside = (side[~np.isnan(side)] for side in (found.member_scores, found.other_scores))
    if not len(inside) or not len(outside):
        raise EmptySet(
            "No forgotten image, or no non-member, could be scored with these shadow models.",
            expected="shadow models with and without some of the images of either side.",
            remedy="train more shadow models, on a pool that holds them.",
        )
    return inside, outside


def _line(found: Score, name: str) -> Estimate:
    return next(line for line in found.summary if line.name == name)


def try_recovery(
    target: Target, attacks: Sequence[Recovery], context: Context, shadows: ShadowMembership | None = None
) -> tuple[list[Outcome], list[NotDone]]:
    """Run the attacks that the models and images allow; the intervals of all of them hold together at 95 %."""
    every: list[Recovery | ShadowMembership] = [*attacks, *([] if shadows is None else [shadows])]
    refused = [attack.refusal(target) for attack in every]
    possible = [attack for attack, refusal in zip(every, refused, strict=True) if refusal is None]
    shared = replace(target, comparisons=max(1, len(possible)))
    outcomes = [
        attack.attack(shared, context) if isinstance(attack, Recovery) else attack.run(shared, context)
        for attack in possible
    ]
    return outcomes, [refusal for refusal in refused if refusal is not None]


def strongest(outcomes: Sequence[Outcome]) -> Outcome | None:
    """The attack that certainly gets most; if none gets anything, the one that gets most from the base."""
    telling = [outcome for outcome in outcomes if outcome.tells]
    if telling:
        return max(telling, key=lambda outcome: (outcome.advantage.low, outcome.budget))
    return max(outcomes, key=lambda outcome: (outcome.ceiling.low, outcome.budget), default=None)


def recovery_section(outcomes: Sequence[Outcome], target: Target) -> tuple[list[Estimate], list[Section]]:
    """Summary lines and the section of the report; neither without attacks."""
    best = strongest(outcomes)
    if best is None:
        return [], []
    shared = replace(target, comparisons=len(outcomes))
    note = f"{best.attack} ({best.effort}; {best.budget:,} network evaluations)"
    note += f"; {shared.note}" if shared.note else ""
    lines = [line for outcome in outcomes for line in outcome.summary]
    lines.append(estimate("recover/strongest", best.advantage, "advantage over the control, 0 to 1", note))
    budget = sum(outcome.budget for outcome in outcomes)
    lines.append(Estimate(name="recover/budget", value=float(budget), unit="network evaluations, backward counts two"))
    text = [
        "Each attack tries to get the forgotten images back and is compared with a control that cannot have them: the "
        "model that never saw them where there is one, or images never trained on. The advantage is 0 where the "
        "attack gets no more than from its control and 1 where it gets all there is; it tells when its interval lies "
        "above 0. An attack that gets nothing from the model before the erasure either is blind, and says nothing. "
        f"The intervals of the advantages are at {shared.confidence:.2%}, so that all of them together hold at 95 %.",
        *(f"{outcome.attack[0].upper()}{outcome.attack[1:]}: {outcome.words}" for outcome in outcomes),
    ]
    section = Section(
        name="recovery",
        title="Recovery: what an attacker can get back",
        text=text,
        tables=[_table(outcomes), *(table for outcome in outcomes for table in outcome.tables)],
        figures=[figure for outcome in outcomes for figure in outcome.figures],
    )
    return lines, [section]


def _table(outcomes: Sequence[Outcome]) -> Table:
    rows: list[list[Cell]] = [
        [
            outcome.attack,
            outcome.effort,
            outcome.budget,
            outcome.got,
            outcome.control,
            *(round(v, 3) for v in (outcome.advantage.value, outcome.advantage.low, outcome.advantage.high)),
            round(outcome.ceiling.value, 3),
            "yes" if outcome.tells else "blind" if outcome.blind else "no",
        ]
        for outcome in outcomes
    ]
    return Table(
        name="recovery",
        title="Attacks tried",
        columns=[
            *("attack", "effort", "network evaluations", "what it got", "control"),
            *("advantage", "low", "high", "advantage before erasing", "tells"),
        ],
        rows=rows,
        caption="Network evaluations of the attack with all its controls, one an image; a backward pass counts two.",
    )
