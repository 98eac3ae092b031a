"""The figures of a look at the geometry, as data."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from vestige.audit.geometry.verdict import Calibration, Cause, Verdicts
from vestige.jobs.geometry_measure import Look
from vestige.jobs.geometry_points import Points
from vestige.jobs.geometry_truth import MANY, Sides, by_level
from vestige.record import Figure, Series

Doubles = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

_BINS = 24
_LINE = 200

SCALE = "noise level sigma/alpha"


def _numbers(values: npt.ArrayLike) -> list[float | None]:
    return [float(v) if math.isfinite(v) else None for v in np.asarray(values, np.float64)]


def _coarse(points: Points) -> list[tuple[str, Flags]]:
    """At most three groups, so that a figure stays readable: many copies, some, one; or copies and others."""
    if points.copying is not None:
        return points.groups
    copies = points.copies
    sides = (
        (f"at least {MANY} copies", copies >= MANY),
        (f"2 to {MANY - 1} copies", (copies > 1) & (copies < MANY)),
        ("seen once", copies == 1),
    )
    return [(name, mask) for name, mask in sides if mask.any()]


def curves(points: Points, model: Look) -> Figure:
    """Dimension against noise level: the median of each group with its quartiles."""
    groups = [(name, model.points.curve.dimension[mask]) for name, mask in _coarse(points)]
    if len(model.controls.curve.dimension):
        groups.append(("non-members", model.controls.curve.dimension))
    scale = model.points.curve.scale
    series: list[Series] = []
    for name, table in groups:
        known = np.isfinite(table).any(axis=0)
        quartiles = np.full((3, len(scale)), np.nan)
        if known.any():
            quartiles[:, known] = np.nanpercentile(table[:, known], [25, 50, 75], axis=0)
        low, middle, high = (_numbers(row) for row in quartiles)
        series.append(Series(name=name, x=[float(s) for s in scale], y=middle, low=low, high=high))
    return Figure(
        name="curves",
        title="Dimension against noise level",
        kind="line",
        series=series,
        x_label=SCALE,
        y_label="dimension",
        x_log=True,
        caption="Medians; the bands hold the middle half of the images.",
    )


def scatter(verdicts: Verdicts, model: Look, reference: Look, calibration: Calibration) -> Figure:
    """Dimension of the model against that of the reference, by verdict, with what non-members let one expect."""
    x, y = reference.points.value, model.points.value
    known = np.isfinite(x) & np.isfinite(y)
    series = [
        Series(name=cause.value, x=x[mask].tolist(), y=_numbers(y[mask]))
        for cause in Cause
        if (mask := verdicts.are(cause) & known).any()
    ]
    every = np.concatenate([x[known], reference.controls.value[np.isfinite(reference.controls.value)]])
    if every.size and calibration.possible:
        across = np.linspace(every.min(), every.max(), _LINE)
        if calibration.expected is not None:
            series.append(
                Series(name="expected of a non-member", x=across.tolist(), y=_numbers(calibration.expected.at(across)))
            )
        series.append(Series(name="low below this", x=across.tolist(), y=[calibration.low] * _LINE))
    limit = calibration.reference_low
    return Figure(
        name="scatter",
        title="The model against the reference",
        kind="points",
        series=series,
        x_label=f"dimension of the reference ({reference.name})",
        y_label=f"dimension of the model ({model.name})",
        thresholds=[("reference low", limit)] if math.isfinite(limit) else [],
        caption="Low left: both are low, the data's doing. Low right: only the model is, its own doing.",
    )


def histograms(points: Points, model: Look, low: float) -> Figure:
    """How the dimension is spread in each group, as shares of the group."""
    groups = [(name, model.points.value[mask]) for name, mask in _coarse(points)]
    groups.append(("non-members", model.controls.value))
    known = [(name, values[np.isfinite(values)]) for name, values in groups]
    known = [(name, values) for name, values in known if values.size]
    every = np.concatenate([values for _, values in known]) if known else np.zeros(0)
    edges = np.histogram_bin_edges(every, _BINS) if every.size else np.array([0.0, 1.0])
    return Figure(
        name="histogram",
        title="Dimensions by what is known of the points",
        kind="histogram",
        series=[
            Series(name=name, x=edges.tolist(), y=_numbers(np.histogram(values, edges)[0] / values.size))
            for name, values in known
        ],
        x_label="dimension",
        y_label="share of the group",
        thresholds=[("low", low)] if math.isfinite(low) else [],
    )


def levels(found: Sides, model: Look) -> Figure | None:
    """AUROC of every comparison at each noise level, after the correction; None where nothing is known."""
    scale: list[float | str] = [float(s) for s in model.points.curve.scale]
    series: list[Series] = []
    for _, positive, negative in found.pairs:
        areas = by_level(found, positive, negative, found.line is not None)
        if all(area is None for area in areas):
            continue
        series.append(
            Series(
                name=f"{positive.name} against {negative.name}",
                x=scale,
                y=[None if a is None else a.value for a in areas],
                low=[None if a is None else a.low for a in areas],
                high=[None if a is None else a.high for a in areas],
            )
        )
    if not series:
        return None
    corrected = "after the complexity of the images is accounted for" if found.line is not None else "uncorrected"
    return Figure(
        name="levels",
        title="Where in the noise the dimension tells them apart",
        kind="line",
        series=series,
        x_label=SCALE,
        y_label="AUROC",
        x_log=True,
        caption=f"AUROC {corrected}. Picking the best level from this figure would flatter it.",
    )
