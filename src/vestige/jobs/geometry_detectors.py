"""Other signs of memorization beside the local dimension, on the same points: how well each tells, at what cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

import vestige.audit.geometry.detectors
from vestige.audit.geometry.detectors.detector import Detector
from vestige.audit.geometry.estimate import Curve, Dimension, Reading
from vestige.audit.geometry.estimator import Work
from vestige.audit.probe import Condition, label_tensor, told
from vestige.data.images import ImageSet
from vestige.discover import methods
from vestige.errors import InvalidInput, Unsupported
from vestige.execute import Context
from vestige.jobs.geometry_measure import Look
from vestige.jobs.geometry_points import Points
from vestige.jobs.geometry_truth import Separation, separations, sides
from vestige.jobs.run import plain
from vestige.metrics.interval import Interval
from vestige.models.denoiser import Denoiser
from vestige.record import Cell, Figure, NotDone, Section, Series, Table

Doubles = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

_SHARD = 64


@dataclass(frozen=True, eq=False)
class Beside:
    """What other detectors say: a section of the report, and the detectors that this model cannot be asked."""

    section: Section
    not_done: list[NotDone]


def detect(
    denoiser: Denoiser,
    points: Points,
    condition: Condition,
    extracted: Flags | None,
    own: tuple[Look, list[Separation]],
    context: Context,
) -> Beside:
    """Every detector with its defaults at the points and the non-members, compared as the dimension is."""
    looked, found = own
    compared = [(f"{looked.name} (dimension)", looked.cost, found)]
    missing: list[NotDone] = []
    for name, kind in methods(vestige.audit.geometry.detectors, Detector).items():
        detector = cast("Callable[[], Detector]", kind)()
        try:
            look = _look(detector, denoiser, points, condition, context)
        except (InvalidInput, Unsupported) as refusal:
            missing.append(NotDone(what=f"{name}: {kind.claim}", reason=refusal.found, remedy=refusal.remedy))
            continue
        compared.append((name, look.cost, separations(sides(look, points, extracted), context.seed)))
    return Beside(_section(compared), missing)


def _look(detector: Detector, denoiser: Denoiser, points: Points, condition: Condition, context: Context) -> Look:
    """The negative score in the place of a dimension: lower = likelier memorized."""
    name, controls = type(detector).__name__, points.controls
    inside = _scored(detector, denoiser, points.images, condition, context, f"{name}, points")
    outside = np.empty((0, 2))
    if controls is not None and len(controls):
        outside = _scored(detector, denoiser, controls, condition, context, f"{name}, non-members")
    return Look(name, _dimension(inside), _dimension(outside), float(detector.evaluations_per_point))


def _scored(
    detector: Detector, denoiser: Denoiser, images: ImageSet, condition: Condition, context: Context, label: str
) -> Doubles:
    """Score and standard error [n, 2], from the store where it holds them."""
    said = told(denoiser, images, condition)
    key = {
        "model": denoiser.digest,
        "images": images.digest,
        "condition": said,
        "seed": context.seed,
        **plain(detector.settings()),
    }

    def compute(part: npt.NDArray[np.int64]) -> Doubles:
        labels = label_tensor(denoiser, images, part) if said == "own" else None
        names = [int(images.ids[row], 16) for row in part]
        clean = images.floats(part).to(denoiser.device)
        found = detector.measure(denoiser, clean, names, labels, work=Work(context.seed, context.batch_size))
        return np.stack([found.value, found.error], 1)

    return context.store.column("detector", key).fill(
        len(images), compute, shard_rows=_SHARD, progress=context.progress, label=label
    )


def _dimension(scored: Doubles) -> Dimension:
    value, error = -scored[:, 0], scored[:, 1]
    curve = Curve(np.ones(1), value[:, None], error[:, None], 1)
    return Dimension(value, error, np.zeros(len(value), np.int64), (Reading.GIVEN,) * len(value), curve)


def _section(compared: list[tuple[str, float, list[Separation]]]) -> Section:
    rows: list[list[Cell]] = []
    lines: dict[str, dict[str, Interval]] = {}
    for name, cost, found in compared:
        for s in found:
            against, rates = f"{s.positive.name} against {s.negative.name}", s.corrected or s.raw
            rows.append([name, round(cost), against, *_shown(rates[0]), *_shown(rates[1])])
            lines.setdefault(against, {})[name] = rates[0]
    table = Table(
        name="detectors",
        title="Detectors side by side",
        columns=[
            "detector",
            "evaluations a point",
            "comparison",
            "AUROC",
            "low",
            "high",
            "TPR at 1 %",
            "low ",
            "high ",
        ],
        rows=rows,
        caption="Evaluations a point. After the complexity of the images is accounted for, where non-members allow it; "
        "bootstrap intervals.",
    )
    figure = Figure(
        name="detectors",
        title="How well each tells them apart",
        kind="bars",
        series=[
            Series(
                name=against,
                x=list(areas),
                y=[a.value for a in areas.values()],
                low=[a.low for a in areas.values()],
                high=[a.high for a in areas.values()],
            )
            for against, areas in lines.items()
        ],
        y_label="AUROC",
        caption="0.5 is chance. All detectors have their default settings; none was tuned on these points.",
    )
    words = [
        "Signs that cost less than a dimension, or look at the condition instead of the image. Those of guidance need "
        "the label that the image was trained with; at time 1 they speak of the label alone, and images of one label "
        "share a score up to noise."
    ]
    return Section(
        name="detectors",
        title="Other detectors",
        text=words if rows else ["Nothing is known of enough points on two sides to compare detectors."],
        tables=[table] if rows else [],
        figures=[figure] if rows else [],
    )


def _shown(interval: Interval) -> list[Cell]:
    return [round(v, 4) if np.isfinite(v) else None for v in (interval.value, interval.low, interval.high)]
