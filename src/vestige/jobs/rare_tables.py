"""What a search found, in summary lines, sentences and tables."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vestige.digest import short
from vestige.jobs.rare_generator import Opened
from vestige.jobs.rare_methods import Comparison, Tried
from vestige.jobs.rare_score import Judge, Scored, difference, group_means
from vestige.jobs.rare_stage import Stage
from vestige.jobs.rare_sweep import Swept
from vestige.metrics.interval import Interval, estimate
from vestige.rare.found import Measured
from vestige.record import Cell, Estimate, Figure, Section, Series, Table


@dataclass(frozen=True, eq=False)
class Results:
    """All that was measured."""

    opened: Opened
    stage: Stage
    comparison: Comparison
    judge: Judge
    swept: list[Swept]

    @cached_property
    def scores(self) -> dict[str, Scored | None]:
        """Each method in the scoring space."""
        return {tried.name: self.judge.score(tried) for tried in self.comparison.every}

    @property
    def selects(self) -> str:
        """What every number of the selecting space rests on."""
        manifold = self.stage.scene.manifold
        return (
            f"{len(manifold.rows):,} real images, k = {manifold.neighbours}, {self.stage.scene.space.name} "
            f"({short(self.stage.scene.space.digest)})"
        )

    @property
    def scoring(self) -> str:
        """The same of the scoring space."""
        extractor = self.judge.extractor
        return (
            f"{len(self.judge.real):,} real images, k = {self.judge.neighbours}, {extractor.name} "
            f"({short(extractor.digest)})"
        )

    def ratio_of_spread(self) -> Interval | None:
        """Mean over groups of the final over the starting pairwise distance."""
        start, chosen = self.comparison.start, self.comparison.chosen.measured
        if start is None or start.measured is None or chosen is None:
            return None
        return chosen.mean(chosen.spread / np.maximum(start.measured.spread, 1e-12))


def summary(found: Results) -> list[Estimate]:
    """Headline numbers of the samples that are handed over."""
    chosen, places = found.comparison.chosen, found.comparison.chosen.measured
    n = 0 if places is None else int(places.present.sum())
    lines = [Estimate(name="rare/found", value=float(n), unit="images", note=chosen.name)]
    if places is None:
        return lines
    accepted = share_of_present(places, places.accepted)
    lines.append(estimate("rare/in_manifold", share_of_present(places, places.inside), "share", found.selects))
    lines.append(estimate("rare/accepted", accepted, "share", "inside the real manifold and within d*"))
    rows = [
        (
            "rare/percentile",
            places.mean(places.rarity_percentile, (0.0, 1.0)),
            "share",
            "mean place among real radii, selecting",
        ),
        ("rare/rarer_than", _rarer(places), "share", "of real images have a higher density, selecting space"),
        ("rare/spread", places.mean(places.spread), "units of the features", "mean pairwise distance in a group"),
        ("rare/spread_ratio", found.ratio_of_spread(), "", "spread over that of the starts"),
    ]
    score = found.scores[chosen.name]
    if score is not None:
        rows += [
            ("rare/percentile_second_space", score.percentile, "share", found.scoring),
            ("rare/in_manifold_second_space", score.inside, "share", found.scoring),
            ("rare/authentic", score.authentic, "share", "farther from the nearest training image than that one's own"),
        ]
    lines += [estimate(name, value, unit, note) for name, value, unit, note in rows if value is not None]
    lines.append(
        Estimate(
            name="rare/calls",
            value=chosen.calls.forward_equivalents / max(1, n),
            n=n,
            unit="generator calls a sample",
            note="forward passes; a backward pass counts two",
        )
    )
    return lines


def share_of_present(measured: Measured, holds: np.ndarray) -> Interval:
    """Share of the samples that are present, over groups."""
    present = measured.present
    if present.all():
        return measured.share(holds)
    share = measured.share(holds)
    value = float((holds & present).sum() / max(1, present.sum()))
    return Interval(value, min(share.low, value), max(share.high, value), int(present.sum()))


def _rarer(measured: Measured) -> Interval | None:
    return measured.mean(1 - measured.percentile, (0.0, 1.0))


def reasons(found: Results) -> list[str]:
    """In words: how many are where they may be, and whether rejection did better."""
    chosen = found.comparison.chosen
    if chosen.measured is None:
        return [f"{chosen.name} found no sample that lies in the real manifold and near the reference."]
    measured = chosen.measured
    share, n = share_of_present(measured, measured.accepted), int(measured.present.sum())
    text = [
        f"{share.value:.1%} of {n} samples of {chosen.name} lie in the real manifold and as near to their reference as "
        "asked for."
    ]
    ratio = found.ratio_of_spread()
    if ratio is not None:
        text.append(
            f"Samples of a group lie {ratio.value:.2g} times as far apart as those that the search started from."
        )
    text += [_against(found, other) for other in found.comparison.others if other.name.startswith("Rejection")]
    return text


def _against(found: Results, other: Tried) -> str:
    """One sentence on a rejection at equal calls, in both spaces, over groups."""
    chosen = found.comparison.chosen
    if other.measured is None:
        return f"{other.name} at equal calls found nothing where it may look."
    ours, theirs = (_of(t.measured) for t in (chosen, other))
    parts = [_word("selecting", difference(ours, theirs))]
    one, two = found.scores[chosen.name], found.scores[other.name]
    parts.append(_word("scoring", None if one is None or two is None else difference(one.groups, two.groups)))
    spread = difference(_spread(chosen.measured), _spread(other.measured))
    wider = "the spread cannot be compared"
    if spread is not None:
        side = "wider" if spread.low > 0 else "narrower" if spread.high < 0 else "as wide, within the interval"
        wider = f"it is {side} ({_signed(spread)} feature units)"
    return f"Beside {other.name} at equal calls the result is {parts[0]}, and {parts[1]}; {wider}."


def _of(measured: Measured | None) -> np.ndarray:
    return np.full(1, np.nan) if measured is None else group_means(measured.rarity_percentile)


def _spread(measured: Measured | None) -> np.ndarray:
    return np.full(1, np.nan) if measured is None else measured.spread


def _word(space: str, gap: Interval | None) -> str:
    if gap is None:
        return f"not compared in the {space} space"
    word = "rarer" if gap.low > 0 else "less rare (rejection wins)" if gap.high < 0 else "as rare, within the interval,"
    return f"{word} in the {space} space ({_signed(gap)} of the percentile)"


def _signed(gap: Interval) -> str:
    return f"{gap.value:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]"


def _cells(value: Interval | None, digits: int = 3) -> str | None:
    """``0.91 [0.88, 0.94]``; None where it was not measured."""
    if value is None or not math.isfinite(value.value):
        return None
    if not (math.isfinite(value.low) and math.isfinite(value.high)):
        return f"{value.value:.{digits}g}"
    return f"{value.value:.{digits}g} [{value.low:.{digits}g}, {value.high:.{digits}g}]"


def beside(found: Results) -> Section:
    """The comparison at equal calls, in the selecting and in the scoring space."""
    selecting, scoring = list[list[Cell]](), list[list[Cell]]()
    for tried in found.comparison.every:
        measured, score = tried.measured, found.scores[tried.name]
        n = 0 if measured is None else int(measured.present.sum())
        calls = tried.calls.forward_equivalents
        if measured is None:
            selecting.append([tried.name, calls, 0, *[None] * 6])
        else:
            selecting.append(
                [
                    tried.name,
                    calls,
                    n,
                    _cells(share_of_present(measured, measured.inside)),
                    _cells(share_of_present(measured, measured.accepted)),
                    _cells(measured.mean(measured.rarity)),
                    _cells(measured.mean(measured.rarity_percentile, (0.0, 1.0))),
                    _cells(_rarer(measured)),
                    _cells(measured.mean(measured.spread)),
                ]
            )
        if score is None:
            scoring.append([tried.name, n, *[None] * 9])
        else:
            near = score.near
            scoring.append(
                [
                    tried.name,
                    n,
                    _cells(score.rarity),
                    _cells(score.percentile),
                    _cells(score.inside),
                    _cells(near.fidelity.recall),
                    _cells(near.density.density),
                    _cells(near.density.coverage),
                    _cells(score.kernel),
                    _cells(score.vendi),
                    _cells(score.authentic),
                ]
            )
    first = Table(
        name="selecting",
        title="In the space that selected the samples",
        columns=[
            "method",
            "calls",
            "n",
            "in manifold",
            "and within d*",
            "rarity score",
            "its percentile",
            "rarer than",
            "spread",
        ],
        rows=selecting,
        caption=f"{found.selects}. Calls of all samples together, a backward pass as two. Intervals over groups.",
    )
    second = Table(
        name="scoring",
        title="In a space that had no part in the selection",
        columns=[
            "method",
            "n",
            "rarity score",
            "its percentile",
            "precision",
            "recall",
            "density",
            "coverage",
            "kernel distance",
            "Vendi",
            "authentic",
        ],
        rows=scoring,
        caption=f"{found.scoring}. Recall, density and coverage are those of few samples among many real images: "
        "compare them only between methods of equal n.",
    )
    return Section(
        name="beside",
        title="Beside other methods at equal calls",
        text=[
            "A method that chooses samples by a measure looks good by that measure. The first table is the one to "
            "believe; where rejection stands level there, it is the cheaper and simpler way."
        ],
        tables=[second, first],
        figures=[_both_spaces(found)],
    )


def _both_spaces(found: Results) -> Figure:
    every = [t for t in found.comparison.every if t.measured is not None]
    selecting = [
        None if t.measured is None else t.measured.mean(t.measured.rarity_percentile, (0.0, 1.0)) for t in every
    ]
    scoring = [None if (s := found.scores[t.name]) is None else s.percentile for t in every]

    def series(name: str, values: list[Interval | None]) -> Series:
        known = [(t.name, v) for t, v in zip(every, values, strict=True) if v is not None]
        return Series(
            name=name,
            x=[title for title, _ in known],
            y=[v.value for _, v in known],
            low=[v.low if math.isfinite(v.low) else v.value for _, v in known],
            high=[v.high if math.isfinite(v.high) else v.value for _, v in known],
        )

    return Figure(
        name="percentiles",
        title="Percentile of the rarity score in both spaces",
        kind="bars",
        series=[series("scoring space", scoring), series("selecting space", selecting)],
        y_label="mean percentile among real radii",
        caption=f"Scoring: {found.scoring}. Selecting: {found.selects}. Samples outside the manifold have none.",
    )


def sweeps(found: Results) -> list[Section]:
    """One section a control, with what was measured at every value."""
    about = {
        "rarity": ("percentile", "share of real images with a lower density", "asks for a lower density"),
        "diversity": ("spread", "mean pairwise distance, in units of d*", "weighs being apart against being rare"),
        "similarity": ("distance", "distance to the reference, in units of the usual d*", "draws the limit nearer"),
    }
    sections: list[Section] = []
    for control, (field, label, does) in about.items():
        steps = [s for s in found.swept if s.control == control]
        if not steps:
            continue
        rows: list[list[Cell]] = [
            [s.value, *(_rounded(v) for v in (1 - s.percentile, s.spread, s.distance, s.accepted))] for s in steps
        ]
        table = Table(
            name=f"sweep_{control}",
            title=f"{control} from little to much",
            columns=[control, "rarer than", "spread / d*", "distance / d*", "accepted"],
            rows=rows,
            caption=f"One reference, {len(steps[0].pixels)} samples a value. {found.selects}.",
        )
        figure = Figure(
            name=f"sweep_{control}",
            title=f"What {control} does",
            kind="line",
            series=[Series(name=control, x=[s.value for s in steps], y=[_rounded(getattr(s, field)) for s in steps])],
            x_label=control,
            y_label=label,
        )
        text = [f"More {control} {does}. The other controls stay as they were asked for."]
        sections.append(
            Section(name=f"sweep_{control}", title=f"Control: {control}", text=text, tables=[table], figures=[figure])
        )
    return sections


def _rounded(value: float) -> float | None:
    return round(float(value), 4) if math.isfinite(value) else None


def ground(found: Results, skipped: tuple[str, ...]) -> Section:
    """What the search rests on: the generator's checks, densities compared, references."""
    stage = found.stage
    lines: list[list[Cell]] = [
        [
            c.name,
            _cells(c.held_out, 4),
            round(c.train_mean, 2),
            _cells(c.behind) if c.behind is not None else ("chosen" if c.comparable else "not comparable"),
            c.parameters,
            round(c.seconds, 2),
        ]
        for c in stage.choice.table
    ]
    best = stage.choice.best
    text = [
        f"{found.opened.name} was tried before anything was searched: {'; '.join(found.opened.checks)}.",
        f"Rarity in the search is a low density under {best.name}, which held-out real images like best"
        + ("." if stage.choice.decided else ", though not beyond the interval."),
        *best.warnings,
    ]
    if stage.passed:
        text.append(
            f"{stage.passed} of the generator's draws served as no reference: they lie outside the real manifold, or "
            "where it makes nearly one image only."
        )
    if stage.inverted is not None:
        left, reach = float(stage.inverted.residual[0]), float(stage.references.reach[0])
        beyond = " The generator has nothing as near as was asked for." if left > reach else ""
        text.append(
            f"The latent found for the reference leaves {left:.3g} of feature distance; d* is {reach:.3g}.{beyond}"
        )
    if skipped:
        text.append(f"{len(skipped)} unreadable files were left out: {', '.join(skipped[:5])}.")
    table = Table(
        name="densities",
        title="Densities of real images",
        columns=["density", "held-out log p", "training log p", "behind the best", "numbers", "seconds"],
        rows=lines,
        caption="Mean log p in nats on the same held-out rows; the difference to the best is paired by row.",
    )
    return Section(name="ground", title="What the search rests on", text=text, tables=[table])
