"""Which prompts a model knows by heart: every detector's scores, how well each tells, and at what cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
import torch

import vestige.audit.prompts
from vestige.audit.geometry.estimator import Work
from vestige.audit.membership.scoring import curve
from vestige.audit.prompts.detector import PromptDetector
from vestige.data.prompts import PromptSet
from vestige.discover import methods
from vestige.errors import Unsupported
from vestige.execute import Context
from vestige.jobs.run import plain
from vestige.metrics.interval import Interval, estimate
from vestige.metrics.roc import auc, shuffled_control, tpr_at_fpr
from vestige.models.denoiser import Denoiser
from vestige.record import Cell, Estimate, Figure, NotDone, Section, Table

Doubles = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

FEWEST = 5
"""Fewer prompts on a side are not compared."""

RATE = 0.01
"""False positive rate at which the true positive rate is quoted."""

_SHARD = 64
_SHOWN = 20


@dataclass(frozen=True, eq=False)
class Scored:
    """A detector and its value and standard error [n] for every prompt."""

    detector: PromptDetector
    value: Doubles
    error: Doubles

    @property
    def name(self) -> str:
        """The detector's."""
        return type(self.detector).__name__


@dataclass(frozen=True)
class Told:
    """How well a detector tells memorized prompts from others; ``control`` is its AUC on a truth dealt at random."""

    area: Interval
    rate: Interval
    quotable: bool
    control: Interval


def default_detectors() -> list[PromptDetector]:
    """Every detector of prompts with its defaults."""
    kinds = methods(vestige.audit.prompts, PromptDetector).values()
    return [cast("Callable[[], PromptDetector]", kind)() for kind in kinds]


def score_prompts(
    detectors: Sequence[PromptDetector], denoiser: Denoiser, model: str, prompts: PromptSet, context: Context
) -> tuple[list[Scored], list[NotDone]]:
    """Ask every detector that the model allows; ``model`` is its digest. Scores are kept in the store."""
    found: list[Scored] = []
    missing: list[NotDone] = []
    for detector in detectors:
        try:
            table = _table(detector, denoiser, model, prompts, context)
        except Unsupported as refusal:
            what = f"{type(detector).__name__}: {detector.claim}"
            missing.append(NotDone(what=what, reason=refusal.found, remedy=refusal.remedy))
            continue
        found.append(Scored(detector, table[:, 0], table[:, 1]))
    return found, missing


def _table(detector: PromptDetector, denoiser: Denoiser, model: str, prompts: PromptSet, context: Context) -> Doubles:
    key = {"model": model, "prompts": prompts.digest, "seed": context.seed, **plain(detector.settings())}
    rows, work = prompts.rows, Work(context.seed, context.batch_size)

    def compute(part: npt.NDArray[np.int64]) -> Doubles:
        found = detector.measure(denoiser, torch.from_numpy(part), [rows[place] for place in part], work=work)
        return np.stack([found.value, found.error], 1)

    label = f"{type(detector).__name__}, {len(prompts):,} prompts"
    column = context.store.column("prompt-detector", key)
    return column.fill(len(prompts), compute, shard_rows=_SHARD, progress=context.progress, label=label)


def told_apart(scored: Scored, memorized: Flags, seed: int) -> Told | None:
    """AUC, true positive rate at a false positive rate of 1 %, and the control; None with too few on a side."""
    if min(int(memorized.sum()), int((~memorized).sum())) < FEWEST:
        return None
    inside, outside = scored.value[memorized], scored.value[~memorized]
    rate = tpr_at_fpr(inside, outside, RATE)
    area, control = auc(inside, outside), shuffled_control(inside, outside, seed)
    return Told(area, rate.interval, rate.enough_negatives, control)


def told_by_kind(scored: Sequence[Scored], kinds: Sequence[str], memorized: Flags) -> dict[str, dict[str, Interval]]:
    """AUC of every detector for the memorized prompts of each kind, beside all that are not memorized."""
    own = {kind: memorized & np.array([each == kind for each in kinds]) for kind in dict.fromkeys(kinds)}
    return {
        kind: {one.name: auc(one.value[inside], one.value[~memorized]) for one in scored}
        for kind, inside in own.items()
        if min(int(inside.sum()), int((~memorized).sum())) >= FEWEST
    }


def detection_section(
    scored: Sequence[Scored], prompts: PromptSet, memorized: Flags | None, truth: str, seed: int
) -> tuple[list[Estimate], Section]:
    """What the detectors say, against the truth where there is one; ``truth`` says where that is from."""
    told = {s.name: None if memorized is None else told_apart(s, memorized, seed) for s in scored}
    lines: list[Estimate] = []
    for one in scored:
        result = told[one.name]
        if result is not None:
            prefix = f"prompts/{one.name}"
            note = "" if result.quotable else f"fewer than 10 false positives are expected at {RATE:.0%}"
            lines += [
                estimate(f"{prefix}/auc", result.area, "probability"),
                estimate(f"{prefix}/auc_control", result.control, "probability", "truth dealt at random"),
                estimate(f"{prefix}/tpr@fpr={RATE:g}", result.rate, "share of memorized prompts", note),
            ]
        cost = float(one.detector.forwards_per_prompt)
        lines.append(Estimate(name=f"prompts/{one.name}/forwards", value=cost, unit="network evaluations a prompt"))
    compared = memorized is not None and any(told.values())
    words = [_words(prompts, memorized, truth, compared=compared)]
    tables = [_comparison(scored, told)] if compared else []
    if memorized is not None and prompts.kinds is not None:
        by_kind = told_by_kind(scored, prompts.kinds, memorized)
        tables += [_kinds(by_kind)] if by_kind else []
    figures = [] if memorized is None or not compared else [_curves(scored, memorized)]
    tables += [_ranking(scored, prompts, memorized)] if scored else []
    title = "Prompts: which the model knows by heart"
    return lines, Section(name="prompts", title=title, text=words, tables=tables, figures=figures)


def _words(prompts: PromptSet, memorized: Flags | None, truth: str, *, compared: bool) -> str:
    if memorized is None:
        return (
            f"{len(prompts):,} prompts were scored. Nothing is known of which are memorized, so scores rank prompts "
            "and say of none that it is; give the truth in the file of prompts, or training images to search."
        )
    known = f"{int(memorized.sum()):,} of {len(prompts):,} prompts are memorized {truth}."
    return known if compared else f"{known} With fewer than {FEWEST} on a side detectors are not compared."


def _comparison(scored: Sequence[Scored], told: dict[str, Told | None]) -> Table:
    rows: list[list[Cell]] = []
    for one in scored:
        result = told[one.name]
        if result is not None:
            rates = result.area, result.rate, result.control
            cells = [round(v, 4) for rate in rates for v in (rate.value, rate.low, rate.high)]
            rows.append([one.name, one.detector.forwards_per_prompt, *cells])
    return Table(
        name="detectors",
        title="Detectors of memorized prompts",
        columns=[
            *("detector", "forwards a prompt", "AUC", "low", "high"),
            *(f"TPR at {RATE:.0%}", "low ", "high ", "control AUC", "low  ", "high  "),
        ],
        rows=sorted(rows, key=lambda row: -float(row[2] or 0)),
        caption="95 % intervals that take prompts as independent, which those of one template are not. The control "
        "deals the truth at random. No detector was tuned on these prompts.",
    )


def _kinds(told: dict[str, dict[str, Interval]]) -> Table:
    first = next(iter(told.values()))
    rows: list[list[Cell]] = [
        [name, *(f"{area.value:.3f} [{area.low:.3f}, {area.high:.3f}]" for area in (told[kind][name] for kind in told))]
        for name in first
    ]
    return Table(
        name="kinds",
        title="Detectors for each kind of memorized prompt",
        columns=["detector", *told],
        rows=rows,
        caption="AUC with 95 % intervals, memorized prompts of a kind beside all that are not memorized.",
    )


def _curves(scored: Sequence[Scored], memorized: Flags) -> Figure:
    return Figure(
        name="prompts",
        title="Memorized prompts found against others accused",
        kind="line",
        series=[curve(s.name, s.value[memorized], s.value[~memorized]) for s in scored],
        x_label="false positive rate",
        y_label="true positive rate",
        diagonal=True,
        caption="The diagonal is chance.",
    )


def _ranking(scored: Sequence[Scored], prompts: PromptSet, memorized: Flags | None) -> Table:
    """The prompts that rank highest on average over detectors."""
    ranks = np.mean([np.argsort(np.argsort(-s.value)) for s in scored], axis=0)
    order = np.argsort(ranks, kind="stable")[:_SHOWN]
    rows: list[list[Cell]] = [
        [
            prompts.texts[i],
            None if memorized is None else bool(memorized[i]),
            *(round(float(s.value[i]), 4) for s in scored),
        ]
        for i in order
    ]
    return Table(
        name="prompts",
        title="Likeliest memorized",
        columns=["prompt", "memorized", *(s.name for s in scored)],
        rows=rows,
        caption="By the mean rank over all detectors; a higher score is likelier memorized.",
    )
