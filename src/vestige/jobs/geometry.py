"""``vestige geometry``: why a sample is memorized, from the local dimension of the model and of a reference."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vestige.audit.geometry.estimator import ModelEstimator
from vestige.audit.geometry.redraw import Redraw
from vestige.audit.geometry.verdict import Reason, Rule, calibrate, control, judge
from vestige.audit.probe import Condition
from vestige.data.split import Split
from vestige.errors import DigestMismatch
from vestige.jobs.audit import prepare
from vestige.jobs.geometry_detectors import Beside, detect
from vestige.jobs.geometry_judge import judge_geometry
from vestige.jobs.geometry_look import asked_denoiser, check_asked, look_at_model, look_at_reference, resolve_baseline
from vestige.jobs.geometry_measure import (
    Baseline,
    GeneratorEstimator,
    Look,
    Neighbourhood,
    NoReference,
    Reference,
    Unconditional,
)
from vestige.jobs.geometry_points import Choice, Generated, Points, Rows, choose_points
from vestige.jobs.geometry_question import SCALE, Question, default_estimator, default_reference
from vestige.jobs.geometry_redraw import Redrawn, redraw_generations
from vestige.jobs.geometry_report import Findings, evidence, not_done, sections, summary
from vestige.jobs.geometry_truth import separations, sides
from vestige.jobs.kept import Rows as AuditRows
from vestige.jobs.resolve import (
    DataLike,
    Loading,
    ModelLike,
    both_sides,
    check_suits,
    describe,
    resolve_judges,
    resolve_model,
    zoo_entry,
)
from vestige.jobs.run import Desk, Run, environment, now, plain
from vestige.models.sampler import DDIM, Sampler
from vestige.models.subject import Subject
from vestige.progress import Progress, Silent
from vestige.record import Record
from vestige.store import write_text

POINTS = "points.jsonl"


def geometry(
    model: ModelLike,
    data: DataLike | None = None,
    *,
    non_members: DataLike | None = None,
    out: str | Path,
    points: Choice | None = None,
    estimator: ModelEstimator | GeneratorEstimator | None = None,
    reference: Reference | None = None,
    rule: Rule | None = None,
    scale: float | None = SCALE,
    condition: Condition = Condition.OWN,
    guidance: float | None = None,
    redraw: Redraw | None = None,
    detectors: bool = False,
    extracted: Run | str | Path | None = None,
    sampler: Sampler | None = None,
    seed: int = 0,
    batch_size: int = 128,
    null_condition: int | None = None,
    skip_corrupt: bool = False,
    show_images: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Run:
    """Say of training images or generations whether they are memorized, and whether by overfitting or by duplication.

    Parameters
    ----------
    model : zoo name, diffusers or GAN folder, pipeline, denoiser or GAN; the latter needs generated points.
    data : training images, every copy included; a zoo model brings its own.
    non_members : images from the same source that the model never saw; without them nothing is known to be normal,
        and every verdict is undetermined.
    out : folder for report, record and cached curves; the same call resumes there.
    points, estimator, reference, rule, scale, condition, guidance, redraw : see :class:`Question`; 200 training
        images and 100 non-members, and the defaults of :func:`default_estimator` and :func:`default_reference`.
    detectors : ask every other detector too, and compare it with the dimension.
    extracted : an audit of the same model and data, whose extracted images are the truth for overfitting.

    Returns the run, whose record holds verdict, summary and sections; ``points.jsonl`` has a line a point.

    Raises
    ------
    VestigeError : bad input, named, before any work is done.
    """
    question = Question(
        points or Rows(),
        estimator or default_estimator(),
        reference or default_reference(),
        rule or Rule(),
        scale,
        condition,
        guidance,
        redraw,
    )
    loading = Loading(sampler or DDIM(), batch_size, null_condition, guidance)
    entry = zoo_entry(model)
    data, non_members = both_sides(entry, data, non_members)
    subject = resolve_model(model, loading)
    check_asked(subject, question)
    asked = asked_denoiser(subject, question) if detectors else None
    who, _ = prepare(subject, data, non_members, skip_corrupt)
    config = {
        "model": subject.name if subject.folder is None or entry is not None else str(subject.folder),
        "data": describe(data),
        "non_members": describe(non_members),
        **plain(question.settings()),
        "baseline": None,
        "detectors": detectors,
        "extracted": _folder(extracted),
        "sampler": plain(loading.sampler.key()),
        "seed": seed,
        "null_condition": null_condition,
        "digests": {"model": subject.digest, "data": who.digest},
    }
    baseline = resolve_baseline(question.reference, loading)
    if baseline is not None:
        check_suits(who.members, baseline)
        config["baseline"] = {"name": baseline.name, "digest": baseline.digest}
    came_out = None if extracted is None else _extracted(extracted, subject, who)
    desk = Desk(Path(out), config, seed, batch_size, progress or Silent(), overwrite)
    keep = None if came_out is None else np.flatnonzero(came_out)
    chosen = choose_points(question.points, subject, who, desk.context, keep)
    look = look_at_model(question, subject, chosen, desk.context)
    against = look_at_reference(question, subject, baseline, chosen, who, desk.context)
    found = _judged(question, chosen, look, against, came_out, seed)
    beside = None
    if asked is not None:
        own = (look, found.separations)
        beside = detect(asked, chosen, question.condition, found.extracted, own, desk.context)
    redrawn = None
    if redraw is not None and found.calibration.possible:
        features, _ = resolve_judges(model)
        redrawn = redraw_generations(redraw, subject, question, found.calibration.low, who, features, desk.context)
    return _finish(desk, subject, who, question, found, beside, redrawn, show_images)


def _judged(
    question: Question,
    points: Points,
    look: Look,
    against: Look | None,
    extracted: npt.NDArray[np.bool_] | None,
    seed: int,
) -> Findings:
    normal, reference = look.normal, None if against is None else against.normal
    came_out = None if extracted is None or points.copying is not None else extracted[points.row]
    known = sides(look, points, came_out)
    left, usual = known.residual(known.points), known.residual(known.controls)
    calibration = calibrate(normal, reference, question.rule, usual)
    verdicts = judge(look.judged, None if against is None else against.judged, calibration, left)
    checked = control(normal, reference, question.rule, seed, usual) if calibration.possible else None
    if checked is not None and Reason.UNCALIBRATED in checked.reason:
        checked = None
    return Findings(points, look, against, calibration, verdicts, checked, known, separations(known, seed), came_out)


def _extracted(run: Run | str | Path, subject: Subject, who: Split) -> npt.NDArray[np.bool_]:
    """Which members an audit extracted, bool [members].

    Raises
    ------
    DigestMismatch : the audit looked at another model or at other training images.
    """
    opened = run if isinstance(run, Run) else Run.open(Path(run))
    rows = AuditRows.load(opened.folder).members
    same = opened.record.digests.get("model") == subject.digest
    if not same or [line["id"] for line in rows] != list(who.members.ids):
        raise DigestMismatch(
            f"{opened.folder} is the audit of another {'set of training images' if same else 'model'}.",
            expected=f"an audit of {subject.name} with the same training images.",
            remedy="name that one, or leave --extracted away.",
        )
    return np.array([bool(line["extracted"]) for line in rows], dtype=np.bool_)


def _folder(run: Run | str | Path | None) -> str | None:
    return None if run is None else str(run.folder if isinstance(run, Run) else run)


def _finish(
    desk: Desk,
    subject: Subject,
    who: Split,
    question: Question,
    found: Findings,
    beside: Beside | None,
    redrawn: Redrawn | None,
    show_images: bool,
) -> Run:
    verdict, reasons = judge_geometry(found)
    cost = desk.cost(subject.evaluations)
    record = Record(
        command="geometry",
        title=f"Why {subject.name} memorized what it did",
        created=now(),
        subject={"name": subject.name, "digest": subject.digest, "kind": type(subject.generator).__name__},
        access=question.estimator.access.label,
        config=desk.config,
        digests={"model": subject.digest, "data": who.digest},
        seeds={"seed": desk.seed},
        environment=environment(),
        cost=cost,
        verdict=verdict,
        reasons=reasons,
        summary=[*summary(found), *([] if redrawn is None else redrawn.summary)],
        sections=[
            *sections(found),
            *([] if beside is None else [beside.section]),
            *([] if redrawn is None else [redrawn.section]),
        ],
        not_done=[
            *not_done(found, question.redraw is not None and redrawn is None),
            *([] if beside is None else beside.not_done),
        ],
    )
    write_points(found, desk.out)
    return desk.finish(record, evidence(found), show_images)


def write_points(found: Findings, out: Path) -> None:
    """``points.jsonl``: one line a point with its dimensions, verdict and reason."""
    points, verdicts, model, reference = found.points, found.verdicts, found.model.points, found.reference
    bits, left = found.sides.points.bits, found.sides.residual(found.sides.points)
    causes = verdicts.cause
    lines: list[str] = []
    for i, identity in enumerate(points.images.ids):
        level = int(model.level[i])
        line: dict[str, Any] = {
            "id": identity,
            "side": "member" if points.copying is None else "generation",
            "copies": int(points.copies[i]),
            "dimension": _number(model.value, i),
            "error": _number(model.error, i),
            "scale": float(model.curve.scale[level]) if level >= 0 else None,
            "reading": model.reading[i].value,
            "reference": None if reference is None else _number(reference.points.value, i),
            "reference_error": None if reference is None else _number(reference.points.error, i),
            "verdict": causes[i].value,
            "reason": verdicts.reason[i].value,
            "p": _number(verdicts.p, i),
            "gap": _number(verdicts.gap, i),
            "gap_error": _number(verdicts.gap_error, i),
            "png_bits": int(bits[i]),
            "residual": None if left is None else _number(left, i),
        }
        if points.copying is not None:
            line["nearest"] = {"row": int(points.copying.row[i]), "distance": float(points.copying.distance[i])}
            line["copied"] = bool(points.copying.copied[i])
        elif found.extracted is not None:
            line["extracted"] = bool(found.extracted[i])
        lines.append(json.dumps(line))
    write_text(out / POINTS, "\n".join(lines) + "\n")


def _number(values: Sequence[float] | npt.NDArray[np.float64], place: int) -> float | None:
    value = float(values[place])
    return value if np.isfinite(value) else None


__all__ = [
    "Baseline",
    "Choice",
    "Generated",
    "GeneratorEstimator",
    "Neighbourhood",
    "NoReference",
    "Question",
    "Redraw",
    "Reference",
    "Rows",
    "Rule",
    "Unconditional",
    "default_estimator",
    "default_reference",
    "geometry",
]
