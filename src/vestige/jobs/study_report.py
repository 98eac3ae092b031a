"""What a study shows: privacy against quality, defences against the baseline, and its conclusion in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict
from scipy.stats import spearmanr

from vestige.data.split import Split
from vestige.jobs.study_plan import StudyPlan, Variant
from vestige.metrics.interval import bootstrap, clopper_pearson, estimate
from vestige.record import Cell, Estimate, Figure, Section, Series, Table

Bounds = tuple[float, float, float]
Floats = npt.NDArray[np.float64]

REPEATS = 2000
_FEW_TRAININGS = 10
_QUALITY = "Fréchet distance to held-out images (lower is better)"


class Result(BaseModel):
    """One audited model. Triples are (value, low, high); ``by_copies`` holds (extracted, images) a duplicate group."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    variant: str
    seed: int
    steps: int
    parameters: int
    epsilon: float | None
    frechet: Bounds
    auc: Bounds
    tpr: Bounds
    extracted: tuple[str, ...]
    false: int
    by_copies: dict[str, tuple[int, int]]
    exposure: dict[str, float]
    evaluations: int


def report(plan: StudyPlan, results: Sequence[Result], who: Split) -> tuple[list[Section], list[Estimate]]:
    """Sections in reading order, the conclusion first, and the headline numbers."""
    conclusion, numbers = _conclusion(plan, results)
    defences, changes = _defences(plan, results)
    first = Section(
        name="study",
        title="Privacy against quality",
        text=[conclusion, _setting(plan, results, who)],
        figures=[_against_quality(plan, results, len(who.members)), _membership(plan, results), _growth(plan, results)],
        tables=[_models(results)],
    )
    return [first, defences, *_canaries(results)], [*numbers, *changes]


def _conclusion(plan: StudyPlan, results: Sequence[Result]) -> tuple[str, list[Estimate]]:
    """Rank correlation of Fréchet distance with each measure of leakage, over models trained without a defence."""
    plain = {v.name for v in plan.variant if not _is_defence(plan, v)}
    kept = [r for r in results if r.variant in plain]
    measures = {
        "extracted": np.array([len(r.extracted) for r in kept], np.float64),
        "membership_auc": np.array([r.auc[0] for r in kept], np.float64),
    }
    distance = np.array([r.frechet[0] for r in kept], np.float64)
    numbers: list[Estimate] = []
    for name, leak in measures.items():
        numbers.append(_correlation(f"study/rank_correlation/{name}", distance, leak, kept))
    return _words(numbers[0], kept), numbers


def _correlation(name: str, distance: Floats, leak: Floats, kept: Sequence[Result]) -> Estimate:
    """Spearman's rho; its interval resamples trainings, since lengths of one training are not independent."""
    trainings = [(r.variant, r.seed) for r in kept]
    groups = [np.array([i for i, t in enumerate(trainings) if t == training]) for training in sorted({*trainings})]

    def rho(chosen: npt.NDArray[np.int64]) -> float:
        rows = np.concatenate([groups[int(g)] for g in chosen])
        if np.ptp(distance[rows]) == 0 or np.ptp(leak[rows]) == 0:
            return float("nan")
        return float(cast(Any, spearmanr(distance[rows], leak[rows])).statistic)

    note = f"{len(kept)} models of {len(groups)} trainings; trainings resampled"
    if len(groups) < _FEW_TRAININGS:
        note += ", so few that the interval is rough"
    if len(groups) < 2 or np.isnan(value := rho(np.arange(len(groups)))):
        return Estimate(name=name, value=None, n=len(kept), unit="Spearman's rho", note="too few models that differ")
    interval = bootstrap(rho, np.arange(len(groups)), seed=0, repeats=REPEATS)
    low, high = max(interval.low, -1.0), min(interval.high, 1.0)
    return Estimate(name=name, value=value, low=low, high=high, n=len(kept), unit="Spearman's rho", note=note)


def _words(line: Estimate, kept: Sequence[Result]) -> str:
    if line.value is None or line.low is None or line.high is None:
        return "Whether a lower Fréchet distance means more extraction cannot be told: too few models differ."
    numbers = f"Spearman's rho {line.value:.2f} [{line.low:.2f}, {line.high:.2f}] over {len(kept)} models"
    if line.high < 0:
        return f"Here a lower Fréchet distance goes with more extracted training images ({numbers})."
    if line.low > 0:
        return f"Here a lower Fréchet distance goes with fewer extracted training images ({numbers})."
    return f"Whether a lower Fréchet distance goes with more extraction is inconclusive here ({numbers})."


def _setting(plan: StudyPlan, results: Sequence[Result], who: Split) -> str:
    trainings = len({(r.variant, r.seed) for r in results})
    return (
        f"{len(results)} models from {trainings} trainings on {int(who.exact.sum()):,} rows of {len(who.members):,} "
        f"distinct images, each audited with {plan.audit.generations:,} generations. Models of different lengths share "
        "a training, and length drives both quality and memory: the correlation describes, it does not explain."
    )


def _is_defence(plan: StudyPlan, variant: Variant) -> bool:
    """Whether a variant is trained to leak less, or with other rows, than the baseline."""
    private = plan.recipe_of(variant, 0).privacy_noise > 0
    return variant.deduplicate or private or bool(variant.canaries)


def _defences(plan: StudyPlan, results: Sequence[Result]) -> tuple[Section, list[Estimate]]:
    """Every variant beside the first one, at the seeds and lengths that both have."""
    base = plan.variant[0].name
    rows: list[list[Cell]] = []
    numbers: list[Estimate] = []
    for variant in plan.variant[1:]:
        pairs = _pairs(results, base, variant.name)
        if not pairs:
            continue
        length = max(b.steps for b, _ in pairs)
        final = [(b, v) for b, v in pairs if b.steps == length]
        for side, name in ((0, base), (1, variant.name)):
            models = [pair[side] for pair in final]
            hits, total = _pooled(models)
            share = clopper_pearson(hits, total)
            privacy = models[0].epsilon
            epsilon = None if privacy is None else round(privacy, 2)
            distance = round(float(np.mean([m.frechet[0] for m in models])), 2)
            counts = ", ".join(str(len(m.extracted)) for m in models)
            cells: list[Cell] = [variant.name, name, length, len(models), counts]
            rows.append([*cells, *(round(x, 3) for x in (share.value, share.low, share.high)), distance, epsilon])
            which = "before" if side == 0 else "after"
            note = f"images with duplicates, {length} steps, models pooled: {len(models)}"
            numbers.append(estimate(f"defence/{variant.name}/{which}", share, "share of duplicated images", note))
    columns = ["defence", "trained", "steps", "models", "extracted", "share of duplicated", "low", "high"]
    table = Table(
        name="defences",
        title="Each variant beside the baseline",
        columns=[*columns, "Fréchet", "epsilon"],
        rows=rows,
        caption="Images that stand in the data at least twice, longest training that both have, models of all seeds "
        "pooled; Clopper-Pearson 95 %. Seeds share the images, so the interval is of these images, not of new ones. "
        "Epsilon protects one row: an image in k rows has about k times that.",
    )
    words = "A defence is worth what it changes: extraction before and after, at equal steps, and its price in quality."
    return Section(name="defences", title="Defences", text=[words], tables=[table]), numbers


def _canaries(results: Sequence[Result]) -> list[Section]:
    """Exposure by number of copies, for the models that were trained with canaries."""
    mine = [r for r in results if r.exposure]
    if not mine:
        return []
    names = sorted({name for r in mine for name in r.exposure}, key=lambda name: (len(name), name))
    short = [name.rpartition("/")[2].replace("exposure", "").strip("@_") for name in names]
    rows: list[list[Cell]] = [
        [r.variant, r.seed, r.steps, *(round(r.exposure[name], 2) if name in r.exposure else None for name in names)]
        for r in mine
    ]
    table = Table(
        name="canaries",
        title="Exposure of canaries, in bits",
        columns=["variant", "seed", "steps", *short],
        rows=rows,
        caption="Mean log2 |R| - log2 rank of noise images among fresh ones by denoising loss. The control are fresh "
        "ones that were never trained on; chance is 1.44.",
    )
    words = "Noise images inserted into the data at several numbers of copies: how soon does training remember them?"
    return [Section(name="canaries", title="Canaries", text=[words], tables=[table])]


def _pairs(results: Sequence[Result], base: str, name: str) -> list[tuple[Result, Result]]:
    found = {(r.seed, r.steps): r for r in results if r.variant == base}
    mine = [r for r in results if r.variant == name]
    return [(found[r.seed, r.steps], r) for r in mine if (r.seed, r.steps) in found]


def _pooled(models: Sequence[Result]) -> tuple[int, int]:
    """Extracted and all images that stand in at least twice, summed over models."""
    groups = [counts for model in models for name, counts in model.by_copies.items() if name != "1"]
    return sum(hits for hits, _ in groups), sum(total for _, total in groups)


def _models(results: Sequence[Result]) -> Table:
    names = list(dict.fromkeys(name for r in results for name in r.by_copies))
    rows: list[list[Cell]] = []
    for r in results:
        groups = [
            f"{r.by_copies[name][0]} of {r.by_copies[name][1]}" if name in r.by_copies else None for name in names
        ]
        cells: list[Cell] = [r.variant, r.seed, r.steps, f"{r.frechet[0]:.2f} [{r.frechet[1]:.2f}, {r.frechet[2]:.2f}]"]
        auc = f"{r.auc[0]:.3f} [{r.auc[1]:.3f}, {r.auc[2]:.3f}]"
        rows.append([*cells, len(r.extracted), r.false, *groups, auc])
    columns = ["variant", "seed", "steps", "Fréchet [low, high]", "extracted", "false"]
    return Table(
        name="models",
        title="Every model",
        columns=[*columns, *(f"{name} copies" for name in names), "membership AUC [low, high]"],
        rows=rows,
        caption="`false` counts non-members matched by the same rule.",
    )


def _against_quality(plan: StudyPlan, results: Sequence[Result], members: int) -> Figure:
    def extracted(result: Result) -> Bounds:
        share = clopper_pearson(len(result.extracted), members)
        return float(len(result.extracted)), share.low * members, share.high * members

    return Figure(
        name="privacy-quality",
        title="Training images extracted, against quality",
        kind="points",
        series=_by_variant(plan, results, extracted),
        x_label=_QUALITY,
        y_label="distinct training images extracted",
        caption="One point a model; 95 % Clopper-Pearson.",
    )


def _membership(plan: StudyPlan, results: Sequence[Result]) -> Figure:
    return Figure(
        name="membership-quality",
        title="Membership by denoising loss, against quality",
        kind="points",
        series=_by_variant(plan, results, lambda result: result.auc),
        x_label=_QUALITY,
        y_label="AUC",
        caption="0.5 is chance.",
    )


def _by_variant(plan: StudyPlan, results: Sequence[Result], measure: Callable[[Result], Bounds]) -> list[Series]:
    """A measure of each model against its Fréchet distance, one series a variant."""
    series: list[Series] = []
    for variant in plan.variant:
        mine = [r for r in results if r.variant == variant.name]
        if mine:
            value, low, high = (list(part) for part in zip(*map(measure, mine), strict=True))
            series.append(Series(name=variant.name, x=[r.frechet[0] for r in mine], y=value, low=low, high=high))
    return series


def _growth(plan: StudyPlan, results: Sequence[Result]) -> Figure:
    series: list[Series] = []
    for variant in plan.variant:
        mine = [r for r in results if r.variant == variant.name]
        steps = sorted({r.steps for r in mine})
        counts = [[len(r.extracted) for r in mine if r.steps == s] for s in steps]
        if steps:
            series.append(
                Series(
                    name=variant.name,
                    x=[float(s) for s in steps],
                    y=[float(np.mean(c)) for c in counts],
                    low=[float(min(c)) for c in counts],
                    high=[float(max(c)) for c in counts],
                )
            )
    return Figure(
        name="growth",
        title="Training images extracted, as training goes on",
        kind="line",
        series=series,
        x_label="steps",
        y_label="distinct training images extracted",
        caption="Mean over seeds; the band is the range.",
    )
