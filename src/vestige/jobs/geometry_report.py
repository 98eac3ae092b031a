"""What a look at the geometry found: summary lines, sections and pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vestige.audit.geometry.complexity import spearman
from vestige.audit.geometry.estimate import Reading
from vestige.audit.geometry.verdict import Calibration, Cause, Measured, Reason, Verdicts
from vestige.jobs.geometry_figures import curves, histograms, levels, scatter
from vestige.jobs.geometry_measure import Look
from vestige.jobs.geometry_points import Points
from vestige.jobs.geometry_truth import FEW, MANY, Separation, Sides
from vestige.metrics.interval import Interval, bootstrap, clopper_pearson, estimate
from vestige.record import Cell, Estimate, NotDone, Section, Table
from vestige.report.evidence import Evidence, Strip

Flags = npt.NDArray[np.bool_]

SHOWN = 12
"""Thumbnails a verdict."""

_NAMES = {
    Cause.OVERFITTING: "overfitting_driven",
    Cause.DATA: "data_driven",
    Cause.NONE: "not_memorized",
    Cause.UNDETERMINED: "undetermined",
}


@dataclass(frozen=True, eq=False)
class Findings:
    """All that was measured.

    ``control`` are the verdicts on non-members, None where nothing could be calibrated; ``extracted`` [n] says which
    points came out of the model, where an audit knows.
    """

    points: Points
    model: Look
    reference: Look | None
    calibration: Calibration
    verdicts: Verdicts
    control: Verdicts | None
    sides: Sides
    separations: list[Separation]
    extracted: Flags | None


def summary(found: Findings) -> list[Estimate]:
    """Headline numbers, each with n and an interval."""
    verdicts, total = found.verdicts, len(found.verdicts)
    lines = [
        estimate(f"geometry/{name}", clopper_pearson(int(verdicts.are(cause).sum()), total), "share of points")
        for cause, name in _NAMES.items()
    ]
    lines.append(estimate("geometry/low_share", clopper_pearson(int(verdicts.low.sum()), total), "share of points"))
    if found.control is not None:
        false = clopper_pearson(int(found.control.memorized.sum()), len(found.control))
        low = clopper_pearson(int(found.control.low.sum()), len(found.control))
        note = "non-members by the same rule, each calibrated on others"
        lines.append(estimate("geometry/false_positives", false, "share of non-members", note))
        lines.append(estimate("geometry/false_low", low, "share of non-members", note))
    lines += [_separation(s, kind) for s in found.separations for kind in ("auc", "tpr@fpr=0.01")]
    lines += _dimensions(found)
    lines += _correlations(found)
    cost = found.model.cost
    lines.append(Estimate(name="geometry/evaluations", value=cost, unit="network evaluations a point"))
    return lines


def _separation(s: Separation, kind: str) -> Estimate:
    """AUROC or rate after the complexity of the images is accounted for; before, where it cannot be."""
    place = 0 if kind == "auc" else 1
    corrected = s.raw if s.corrected is None else s.corrected
    before = s.raw[place]
    note = f"{len(s.positive.bits)} {s.positive.name} against {len(s.negative.bits)} {s.negative.name}"
    if s.corrected is not None:
        note += f"; {before.value:.3f} before the complexity of the images is accounted for"
    if kind != "auc" and not s.trusted:
        note += "; too few negatives to trust this rate"
    unit = "probability" if kind == "auc" else "share of positives"
    return estimate(f"geometry/{kind}@{s.name} against {s.negative.name}", corrected[place], unit, note)


def _dimensions(found: Findings) -> list[Estimate]:
    groups = [(name, found.model.points.value[mask]) for name, mask in found.points.groups]
    lines: list[Estimate] = []
    for name, values in [*groups, ("non-members", found.model.controls.value)]:
        known = values[np.isfinite(values)]
        if known.size:
            lines.append(estimate(f"geometry/dimension@{name}", _median(known), "dimensions", "median"))
    return lines


def _median(values: npt.NDArray[np.float64]) -> Interval:
    return bootstrap(lambda part: float(np.median(part)), values, seed=0)


def _correlations(found: Findings) -> list[Estimate]:
    lines: list[Estimate] = []
    controls = found.sides.controls
    known = np.isfinite(controls.dimension)
    if known.sum() >= FEW:
        both = spearman(controls.bits[known], controls.dimension[known])
        lines.append(estimate("geometry/complexity_correlation", both, "rank correlation", "PNG size, non-members"))
    dimension = found.model.points.value
    known = np.isfinite(dimension) & (found.points.copies > 0)
    if found.points.copying is None and known.sum() >= FEW:
        falls = spearman(np.log(found.points.copies[known]), dimension[known])
        lines.append(estimate("geometry/copies_correlation", falls, "rank correlation", "training images"))
    return lines


def sections(found: Findings) -> list[Section]:
    """In reading order: the verdicts, how well they separate what is known, the curves, the cost."""
    return [_verdict_section(found), _truth_section(found), _curve_section(found)]


def _verdict_section(found: Findings) -> Section:
    verdicts, calibration = found.verdicts, found.calibration
    words = [
        f"{len(verdicts):,} points are judged against {len(found.model.controls.value):,} images that the model never "
        f"saw. A dimension is the number of directions in which the model would let an image vary; "
        f"0 is an exact copy.",
    ]
    if calibration.possible:
        words.append(
            f"Low is a dimension below {calibration.low:.3g}, where at most {calibration.rule.quantile:.0%} of "
            "non-members lie, if it is also lower than that of images whose PNG file is as small."
        )
    if calibration.possible and calibration.expected is not None and found.reference is not None:
        line = calibration.expected
        words.append(
            f"On non-members {found.model.name} is {line.intercept:.3g} {line.slope:+.3g} times "
            f"{found.reference.name}, give or take {line.spread:.3g}; the gap of a point is what it lies below that."
        )
    if found.control is not None:
        false = int(found.control.memorized.sum())
        words.append(f"The same rule calls {false} of {len(found.control)} non-members memorized: false alarms.")
    figures = [histograms(found.points, found.model, calibration.low)]
    if found.reference is not None:
        figures.insert(0, scatter(found.verdicts, found.model, found.reference, calibration))
    return Section(
        name="verdicts",
        title="What is memorized, and why",
        text=words,
        tables=[_counts(found), _reasons(found)],
        figures=figures,
    )


def _counts(found: Findings) -> Table:
    """Verdicts by group, non-members last."""
    groups = [(name, mask, found.verdicts) for name, mask in found.points.groups]
    if found.extracted is not None:
        out = (found.points.copies == 1) & found.extracted
        groups.append(("seen once and extracted", out, found.verdicts))
    if found.control is not None:
        groups.append(("non-members", np.ones(len(found.control), np.bool_), found.control))
    rows: list[list[Cell]] = [
        [name, int(mask.sum()), *(int((verdicts.are(cause) & mask).sum()) for cause in Cause)]
        for name, mask, verdicts in groups
    ]
    return Table(
        name="verdicts",
        title="Verdicts by what is known of the points",
        columns=["points", "n", *(cause.value for cause in Cause)],
        rows=rows,
        caption="Non-members are judged by a calibration on other non-members.",
    )


def _reasons(found: Findings) -> Table:
    reasons = found.verdicts.reason
    rows: list[list[Cell]] = [
        [reason.cause.value, reason.value, reasons.count(reason)] for reason in Reason if reason in reasons
    ]
    return Table(name="reasons", title="Why", columns=["verdict", "reason", "points"], rows=rows)


def _truth_section(found: Findings) -> Section:
    rows: list[list[Cell]] = []
    for s in found.separations:
        sizes = [len(s.positive.bits), len(s.negative.bits)]
        for what, place in (("AUROC", 0), ("TPR at 1 % FPR", 1)):
            rows.append([f"{s.positive.name} against {s.negative.name}", what, *sizes, *_three(s.raw[place])])
            rows[-1] += _three(s.corrected[place]) if s.corrected is not None else [None, None, None]
    table = Table(
        name="separation",
        title="How well a low dimension tells them apart",
        columns=["comparison", "measure", "n low", "n high", "value", "low", "high", "corrected", "low ", "high "],
        rows=rows,
        caption="Bootstrap over both sides. Corrected: what PNG size explains of the dimension of non-members is taken "
        "off first.",
    )
    words = [
        "A simple image has a low dimension without being memorized. The corrected columns compare images as if all "
        "were equally complex."
    ]
    if not found.separations:
        words = [f"Nothing is known of {FEW} points on two sides, so that the dimension cannot be put to the test."]
    figure = levels(found.sides, found.model)
    figures = [] if figure is None else [figure]
    return Section(name="truth", title="Against what is known", text=words, tables=[table], figures=figures)


def _three(interval: Interval) -> list[Cell]:
    return [round(v, 4) if np.isfinite(v) else None for v in (interval.value, interval.low, interval.high)]


def _curve_section(found: Findings) -> Section:
    model, count = found.model, len(found.points)
    rows: list[list[Cell]] = [
        [model.name, model.cost, _share(found.model.judged), *_read_at(found)],
    ]
    if found.reference is not None:
        rows.append([found.reference.name, found.reference.cost, _share(found.reference.judged), None, None])
    table = Table(
        name="estimators",
        title="What was measured",
        columns=["estimator", "evaluations a point", "determined", "median noise level", "read at a plateau"],
        rows=rows,
        caption=f"Of {count:,} points. A product of a Jacobian and a vector counts as one evaluation.",
    )
    words = [
        "A dimension depends on the noise level, as a coastline's length on the ruler: below the scale of the data it "
        "is that of the model's errors, above it structure blurs. Compare points at equal levels."
    ]
    return Section(
        name="curves",
        title="Dimension against noise level",
        text=words,
        tables=[table],
        figures=[curves(found.points, found.model)],
    )


def _share(measured: Measured) -> Cell:
    return round(float(np.isfinite(measured.value).mean()), 4) if len(measured) else None


def _read_at(found: Findings) -> tuple[Cell, Cell]:
    """Median scale at which points were read, and the share of points read at a plateau."""
    dimension = found.model.points
    known = dimension.level[dimension.level >= 0]
    if not known.size:
        return None, None
    plateau = sum(reading is Reading.PLATEAU for reading in dimension.reading) / len(dimension.reading)
    return round(float(np.median(dimension.curve.scale[known])), 4), round(plateau, 4)


def not_done(found: Findings, redraw_left_out: bool) -> list[NotDone]:
    """What the data could not support."""
    missing: list[NotDone] = []
    if found.points.controls is None:
        missing.append(
            NotDone(
                what="verdicts",
                reason="without images that the model never saw it is unknown which dimension is low.",
                remedy="pass --non-members.",
            )
        )
    if found.reference is None:
        missing.append(
            NotDone(
                what="overfitting or data",
                reason="the model's dimension was compared with nothing.",
                remedy="choose a --reference.",
            )
        )
    names = {s.name for s in found.separations}
    if found.points.copying is None and f"copies>={MANY}" not in names:
        missing.append(
            NotDone(
                what=f"separation of images with at least {MANY} copies",
                reason=f"fewer than {FEW} such training images were determined.",
                remedy="plant some: vestige data canaries.",
            )
        )
    if redraw_left_out:
        missing.append(
            NotDone(what="drawing again", reason="no dimension could be called low.", remedy="pass more --non-members.")
        )
    return missing


def evidence(found: Findings) -> Evidence:
    """The points of lowest dimension of each verdict."""
    strips: list[Strip] = []
    value = np.nan_to_num(found.model.points.value, nan=np.inf)
    for cause in Cause:
        mask = np.flatnonzero(found.verdicts.are(cause))
        if mask.size == 0:
            continue
        lowest = mask[np.argsort(value[mask], kind="stable")][:SHOWN]
        images = np.moveaxis(found.points.images.pixels[lowest], 1, -1)
        shown = ", ".join(f"{value[i]:.1f}" if np.isfinite(value[i]) else "–" for i in lowest)
        strips.append(Strip(f"Lowest of {cause.value}", images, f"dimensions {shown}"))
    return Evidence({}, {"verdicts": strips})
