"""A comparison of weights in words, tables and a chart."""

from __future__ import annotations

import math
from dataclasses import dataclass

from vestige.fingerprint.compare import Comparison, Judge, Lineage, Weighed
from vestige.fingerprint.merge import Shares, foreign_share
from vestige.metrics.interval import t_quantile
from vestige.record import Cell, Estimate, Figure, NotDone, Section, Series, Table

_LEVEL = 0.95
_NO_LIMIT = "independent models of like data reach any value, so it decides nothing alone"


@dataclass(frozen=True, eq=False)
class Answer:
    """What was found about two models, and what was claimed.

    ``names`` are those of both models, ``parents`` those of ``shares``, of which the first model is the first.
    """

    names: tuple[str, str]
    comparison: Comparison
    judge: Judge
    expect: Lineage
    shares: Shares | None
    parents: tuple[str, ...]

    @property
    def title(self) -> str:
        """The verdict in one line."""
        first, second = self.names
        said = {
            Lineage.SAME: "are of the same lineage",
            Lineage.INDEPENDENT: "are independent",
            Lineage.UNDETERMINED: "cannot be told: undetermined",
        }
        return f"{first} and {second} {said[self.comparison.verdict]}"


def reasons(answer: Answer) -> list[str]:
    """Why, in sentences: the verdict, the evidence that decides, what was undone, and how it meets the claim."""
    found = answer.comparison
    text = [
        f"{answer.title}. Score {found.score:.1f}: independent models look as much alike with p = {found.p_value:.1e}.",
        *found.reasons,
    ]
    if found.undone:
        text.append(f"Undone before comparing: {', '.join(item.transformation.value for item in found.undone)}.")
    if answer.shares is not None:
        shares = zip(answer.parents, answer.shares.shares, strict=True)
        named = ", ".join(f"{name} {share.value:.0%} [{share.low:.0%}, {share.high:.0%}]" for name, share in shares)
        text.append(f"As a linear merge, {answer.names[1]} holds {named}; {answer.shares.unexplained:.1%} is neither.")
    text.append(f"The claim that was judged: {answer.expect.value}.")
    return text


def summary(answer: Answer) -> list[Estimate]:
    """Headline numbers."""
    found = answer.comparison
    lines = [
        Estimate(
            name="lineage/similarity",
            value=found.similarity,
            unit="cosine",
            note=_beside_strangers(answer),
        ),
        Estimate(name="lineage/score", value=found.score, unit="-log10 p", note="higher: likelier of one lineage"),
        Estimate(name="lineage/p_value", value=found.p_value, unit="probability"),
        Estimate(name="lineage/layers", value=float(len(found.layers)), unit="pairs of layers compared"),
    ]
    if found.shared is not None:
        lines.append(Estimate(name="lineage/shared_tokens", value=float(found.shared), unit="tokens"))
    return [*lines, *_shares(answer)]


def _beside_strangers(answer: Answer) -> str:
    """What independent models reach in the kind of evidence that the similarity is of."""
    for item in answer.comparison.evidence:
        if item.finding.evidence in ("HuRef", "SketchedTerms") and item.finding.value is not None:
            reach = _reach(item, answer)
            below = f"95 % of independent models stay below {reach:.2f}" if reach < 1 else _NO_LIMIT
            return f"{item.finding.evidence}; {below}"
    return "the models share too few tokens"


def _shares(answer: Answer) -> list[Estimate]:
    """Shares of all parents, or the most that another model can have where only one is known."""
    if answer.shares is not None:
        named = zip(answer.parents, answer.shares.shares, strict=True)
        lines = [
            Estimate(name=f"merge/{name}", value=s.value, low=s.low, high=s.high, n=s.n, unit="share")
            for name, s in named
        ]
        rest = Estimate(name="merge/unexplained", value=answer.shares.unexplained, unit="share of the length")
        return [*lines, rest]
    cosine = _aligned_cosine(answer.comparison)
    if answer.comparison.verdict is not Lineage.SAME or cosine is None or not 0 < cosine <= 1:
        return []
    note = "an upper bound: fine-tuning takes the place of a stranger; name parents to tell them apart"
    return [Estimate(name="merge/other_parents_at_most", value=foreign_share(cosine), unit="share", note=note)]


def _aligned_cosine(found: Comparison) -> float | None:
    for item in found.evidence:
        if item.finding.evidence == "AlignedCosine":
            return item.finding.value
    return None


def sections(answer: Answer) -> list[Section]:
    """Evidence with its chart, and what was undone."""
    return [
        Section(
            name="evidence",
            title="Evidence",
            text=[
                "1 is the same, about 0 unrelated. A kind of evidence counts by how far it lies above what independent "
                f"models reach: {answer.judge.calibration.source}.",
            ],
            tables=[evidence_table(answer)],
            figures=[_chart(answer)],
        ),
        _undone(answer.comparison),
    ]


def _undone(found: Comparison) -> Section:
    title = "What was undone"
    if not found.undone:
        said = "Nothing was found that had to be taken back, or the models are not of one lineage."
        return Section(name="undone", title=title, text=[said])
    rows: list[list[Cell]] = [
        [item.transformation.value, float(f"{item.amount:.3g}"), item.unit] for item in found.undone
    ]
    table = Table(name="undone", title=title, columns=["transformation", "amount", "unit"], rows=rows)
    said = "Changes between the two models that were found and taken back before their weights were compared."
    return Section(name="undone", title=title, text=[said], tables=[table])


def evidence_table(answer: Answer) -> Table:
    """A row for each kind of evidence."""
    claims = {kind.name: kind.claim for kind in answer.judge.evidence}
    rows = [_row(item, answer, claims) for item in answer.comparison.evidence]
    return Table(
        name="evidence",
        title="Evidence",
        columns=["evidence", "value", "independent models reach", "p", "what it rests on"],
        rows=rows,
    )


def _row(item: Weighed, answer: Answer, claims: dict[str, str]) -> list[Cell]:
    finding = item.finding
    reach = f"{_reach(item, answer):.2f}" if _reach(item, answer) < 1 else "any value"
    said = claims.get(finding.evidence, "") if finding.value is not None else f"not told: {finding.reason}"
    value = None if finding.value is None else round(finding.value, 4)
    return [finding.evidence, value, reach, None if item.p_value is None else f"{item.p_value:.1e}", said]


def _reach(item: Weighed, answer: Answer) -> float:
    """What 95 % of independent pairs stay below; 1 where they may reach any value."""
    floor = answer.judge.calibration.floor(item.finding.evidence)
    scale = math.sqrt((item.finding.deviation**2 + floor.spread**2) * (1 + 1 / floor.pairs))
    return min(1.0, floor.mean + t_quantile(floor.pairs - 1, 2 * _LEVEL - 1) * scale)


def _chart(answer: Answer) -> Figure:
    told = [item for item in answer.comparison.evidence if item.finding.value is not None]
    names: list[float | str] = [item.finding.evidence for item in told]
    reach: list[float | None] = [_reach(item, answer) for item in told]
    return Figure(
        name="evidence",
        title="Each kind of evidence beside what 95 % of independent models stay below",
        kind="points",
        series=[
            Series(name=" and ".join(answer.names), x=names, y=[item.finding.value for item in told]),
            Series(name="independent models, 95 %", x=names, y=reach),
        ],
        y_label="similarity",
    )


def not_looked_at(answer: Answer, weights: bool) -> list[NotDone]:
    """What cards cannot tell, and evidence without a value."""
    missing = [
        NotDone(
            what=item.finding.evidence,
            reason=f"{item.finding.reason[:1].upper()}{item.finding.reason[1:]}.",
            remedy="The other kinds decide.",
        )
        for item in answer.comparison.evidence
        if item.finding.value is None
    ]
    if not weights:
        kinds = ", ".join(kind.name for kind in answer.judge.evidence if kind.needs_weights)
        missing.append(
            NotDone(
                what=f"{kinds}, and naming what was done to a model",
                reason="a card was given in place of a model.",
                remedy="Compare the models themselves.",
            )
        )
    return missing
