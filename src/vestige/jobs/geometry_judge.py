"""From verdicts of points to one of the run."""

from __future__ import annotations

from vestige.audit.geometry.verdict import Cause, Verdicts
from vestige.jobs.geometry_report import Findings
from vestige.jobs.judge import Reason, overall
from vestige.metrics.roc import exceeds_chance
from vestige.record import Verdict

CHANCE = 0.05
"""Memorized points with a p-value below this are more than non-members would be by chance."""


def judge_geometry(found: Findings) -> tuple[Verdict, list[str]]:
    """A finding if more points are memorized than non-members by the same rule; inconclusive without these."""
    return overall(_reasons(found))


def _reasons(found: Findings) -> list[Reason]:
    checked, verdicts = found.control, found.verdicts
    if checked is None:
        known = len(found.calibration.non_members)
        return [
            (
                Verdict.INCONCLUSIVE,
                f"What is low could not be calibrated: the dimension is known at {known} non-members, and "
                f"{found.calibration.rule.needed} are needed for a share of {found.calibration.rule.quantile:g}.",
            )
        ]
    if not any(p == p for p in verdicts.p):
        return [(Verdict.INCONCLUSIVE, "The model's dimension is undetermined at every point.")]
    if found.reference is None:
        return [_compared(found, "low", int(verdicts.low.sum()), int(checked.low.sum()), checked)]
    hits = int(verdicts.memorized.sum())
    parts = ", ".join(f"{int(verdicts.are(cause).sum())} {cause.value}" for cause in (Cause.OVERFITTING, Cause.DATA))
    return [_compared(found, f"memorized ({parts})", hits, int(checked.memorized.sum()), checked)]


def _compared(found: Findings, what: str, hits: int, false: int, checked: Verdicts) -> Reason:
    p = exceeds_chance(hits, len(found.verdicts), false, len(checked))
    numbers = (
        f"{hits} of {len(found.verdicts)} points are {what}, and {false} of {len(checked)} non-members by the same "
        f"rule (Fisher's exact test, p = {p:.2g})."
    )
    if p < CHANCE:
        return Verdict.FINDING, numbers
    return Verdict.PASS, f"No more points than non-members: {numbers}"
