"""How far matches can be trusted: precision against an equal pool of non-members, at one threshold or at all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vestige.audit.extraction.search import Floats, Index
from vestige.metrics.interval import Interval, clopper_pearson, estimate
from vestige.record import Estimate, Figure, Series

LEVELS = (0.9, 0.99)
"""Precisions at which recall is summarized; 0.5 is chance."""

_POINTS = 200
_SHARE = "share of training images"


def pooled_precision(true: int, members: int, false: int, others: int) -> Interval:
    """Share of true matches were the pools of members and non-members of one size.

    With ``q`` the share of members among all ``true + false`` matches, precision is
    ``q / (q + (1 - q) members / others)``, which rises with q: the Clopper-Pearson bounds of
    q are carried over, so the interval rests on the matches that were made. ``n`` is their number.
    Raises EmptySet if nothing was matched.
    """
    share = clopper_pearson(true, true + false)

    def scaled(q: float) -> float:
        return q / (q + (1 - q) * members / others)

    return Interval(scaled(share.value), scaled(share.low), scaled(share.high), share.n)


@dataclass(frozen=True, eq=False)
class Curve:
    """Matches of members and of non-members as the threshold on the rank falls from strict to lax.

    ``true`` and ``false`` [t] are the distinct members and non-members whose best generation
    has at most rank ``threshold`` [t]; one point for every distinct rank of a member.
    """

    threshold: Floats
    true: Index
    false: Index
    members: int
    others: int

    @staticmethod
    def of(members: Floats, others: Floats) -> Curve:
        """From the lowest rank that each member [m] and each non-member [k] was given (infinity: never nearest)."""
        threshold = np.unique(members[np.isfinite(members)])
        true, false = (np.searchsorted(np.sort(side), threshold, side="right") for side in (members, others))
        return Curve(threshold, true.astype(np.int64), false.astype(np.int64), len(members), len(others))

    def precision(self) -> Floats:
        """Share of true matches for pools of one size, [t]."""
        return self.true / (self.true + self.false * self.members / self.others)

    def reached(self, precision: float) -> int:
        """Most members matched at any threshold with at least that precision."""
        return int(self.true[self.precision() >= precision].max(initial=0))

    def summary(self) -> list[Estimate]:
        """Members matched before the first non-member, and recall at given precisions."""
        clean = int(self.true[self.false == 0].max(initial=0))
        note = f"matched more closely than any of {self.others:,} non-members"
        lines = [
            Estimate(
                name="extraction/images@false_matches=0",
                value=float(clean),
                n=self.members,
                unit="distinct training images",
                note=note,
            )
        ]
        for level in LEVELS:
            name, share = f"extraction/recall@precision>={level:g}", clopper_pearson(self.reached(level), self.members)
            lines.append(estimate(name, share, _SHARE, "the threshold is chosen on the same matches"))
        return lines

    def series(self) -> Series:
        """Precision over the number of members matched, at most 200 points, with Clopper-Pearson bounds."""
        keep = (
            np.unique(np.linspace(0, len(self.true) - 1, _POINTS).astype(int)) if len(self.true) else np.empty(0, int)
        )
        points = [
            pooled_precision(int(self.true[i]), self.members, int(self.false[i]), self.others) for i in keep.tolist()
        ]
        return Series(
            name="ranked by calibrated distance",
            x=[float(self.true[i]) for i in keep],
            y=[point.value for point in points],
            low=[point.low for point in points],
            high=[point.high for point in points],
        )


@dataclass(frozen=True)
class Claim:
    """A clique that an outsider would call memorized: the members that it copies (none if it is wrong)."""

    generations: tuple[int, ...]
    mean_distance: float
    condition: int | None
    copied: tuple[int, ...]


def claims_series(claims: list[Claim]) -> Series:
    """Precision of the first r claims over the distinct members that they recover, for r = 1 .. all."""
    seen: set[int] = set()
    right, x, points = 0, [], []
    for rank, claim in enumerate(claims, start=1):
        right += bool(claim.copied)
        seen.update(claim.copied)
        x.append(float(len(seen)))
        points.append(clopper_pearson(right, rank))
    return Series(
        name="black box, ranked by clique distance",
        x=x,
        y=[point.value for point in points],
        low=[point.low for point in points],
        high=[point.high for point in points],
    )


def curve_figure(curve: Curve | None, claims: list[Claim]) -> Figure | None:
    """Both curves over the number of training images recovered; None when there is neither."""
    series = [] if curve is None or not len(curve.true) else [curve.series()]
    series += [claims_series(claims)] if claims else []
    if not series:
        return None
    return Figure(
        name="precision",
        title="Precision against the number of training images recovered",
        kind="line",
        series=series,
        x_label="distinct training images",
        y_label="precision",
        caption="From the surest match to the least sure. By calibrated distance: share of matches that are members "
        "when members and an equal pool of non-members are searched, so 0.5 is chance. Black box: share of the "
        "tightest cliques that hold a copy. Bands are 95 % Clopper-Pearson intervals, point by point.",
    )
