"""What a search found, in tables and figures."""

from __future__ import annotations

import math

from vestige.jobs.rare_results import Results, rarer, share_of_present, twins
from vestige.metrics.interval import Interval
from vestige.record import Cell, Figure, Section, Series, Table


def _cells(value: Interval | None, digits: int = 3) -> str | None:
    """``0.91 [0.88, 0.94]``; None where it was not measured."""
    if value is None or not math.isfinite(value.value):
        return None
    if not (math.isfinite(value.low) and math.isfinite(value.high)):
        return f"{value.value:.{digits}g}"
    return f"{value.value:.{digits}g} [{value.low:.{digits}g}, {value.high:.{digits}g}]"


def beside(found: Results) -> Section:
    """The comparison at equal calls, in the selecting and in the scoring space."""
    return Section(
        name="beside",
        title="Beside other methods at equal calls",
        text=[
            "A method that chooses samples by a measure looks good by that measure. The first table is the one to "
            "believe; where rejection stands level there, it is the cheaper and simpler way.",
            *twins(found.comparison),
        ],
        tables=[_scoring(found), _selecting(found)],
        figures=[_both_spaces(found)],
    )


def _selecting(found: Results) -> Table:
    rows: list[list[Cell]] = []
    for tried in found.comparison.every:
        measured, calls = tried.measured, tried.calls.forward_equivalents
        if measured is None:
            rows.append([tried.name, calls, 0, *[None] * 6])
            continue
        shown = [
            share_of_present(measured, measured.inside),
            share_of_present(measured, measured.accepted),
            measured.mean(measured.rarity),
            measured.mean(measured.rarity_percentile, (0.0, 1.0)),
            rarer(measured),
            measured.mean(measured.spread),
        ]
        rows.append([tried.name, calls, int(measured.present.sum()), *map(_cells, shown)])
    named = "in manifold, and within d*, rarity score, its percentile, rarer than, spread"
    return Table(
        name="selecting",
        title="In the space that selected the samples",
        columns=["method", "calls", "n", *named.split(", ")],
        rows=rows,
        caption=f"{found.selects}. Calls of all samples together, a backward pass as two. Intervals over groups.",
    )


def _scoring(found: Results) -> Table:
    rows: list[list[Cell]] = []
    for tried in found.comparison.every:
        score = found.scores[tried.name]
        if score is None:
            rows.append([tried.name, len(tried.pixels), *[None] * 9])
            continue
        near = score.near
        shown = [
            score.rarity,
            score.percentile,
            score.inside,
            near.fidelity.recall,
            near.density.density,
            near.density.coverage,
            score.kernel,
            score.vendi,
            score.authentic,
        ]
        rows.append([tried.name, len(tried.pixels), *map(_cells, shown)])
    named = "rarity score, its percentile, precision, recall, density, coverage, kernel distance, Vendi, authentic"
    return Table(
        name="scoring",
        title="In a space that had no part in the selection",
        columns=["method", "n", *named.split(", ")],
        rows=rows,
        caption=f"{found.scoring}. Recall, density and coverage are those of few samples among many real images: "
        "compare them only between methods of equal n.",
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
        series=[series("selecting space", selecting), series("scoring space", scoring)],
        y_label="mean percentile among real radii",
        caption=f"Selecting: {found.selects}. Scoring: {found.scoring}. Samples outside the manifold have none.",
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
