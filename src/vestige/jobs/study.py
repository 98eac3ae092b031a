"""``vestige study``: train a grid of small models, audit each, and draw privacy against quality."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vestige.audit.attack import Attack
from vestige.audit.extraction.generate_and_filter import GenerateAndFilter, Generations
from vestige.audit.membership.canary_exposure import CanaryExposure
from vestige.audit.membership.denoising_loss import DenoisingLoss
from vestige.data.canaries import with_canaries
from vestige.data.images import ImageSet
from vestige.data.split import Split, duplicate_groups, split
from vestige.execute import Context
from vestige.features.extractor import FeatureExtractor
from vestige.jobs.audit import examine
from vestige.jobs.resolve import resolve_data, resolve_judges
from vestige.jobs.run import Desk, Run, environment, now
from vestige.jobs.study_plan import Measure, StudyPlan, Variant
from vestige.jobs.study_report import Result, report
from vestige.metrics.frechet import Gaussian, frechet_interval
from vestige.models.adapters.diffusers import load_folder
from vestige.models.sampler import DDIM
from vestige.models.subject import Subject
from vestige.progress import Progress, Silent
from vestige.randomness import Stream, generator
from vestige.record import Estimate, Record, Verdict
from vestige.store import Store, write_text
from vestige.train.trainer import Trained, train


@dataclass(frozen=True, eq=False)
class Pool:
    """What every model of a study is trained on and judged by."""

    train: ImageSet
    who: Split
    judge: FeatureExtractor
    target: Gaussian


def study(plan: StudyPlan, *, out: str | Path, overwrite: bool = False, progress: Progress | None = None) -> Run:
    """Train, audit and compare the models of a plan; a second call goes on where the first one stopped.

    Every model is audited against the same images with the same seeds. Quality is the Fréchet distance of its
    generations to the non-members. Lengths share a training, so models of one training are not independent and the
    intervals of rank correlations resample whole trainings.
    """
    folder, progress = Path(out), progress or Silent()
    pool = _pool(plan)
    config = {"plan": plan.model_dump(mode="json"), "digests": {"data": pool.who.digest}}
    desk = Desk(folder, config, plan.audit.seed, progress=progress, overwrite=overwrite)
    results: list[Result] = []
    with progress.task(f"study of {plan.models} models", plan.models) as task:
        for variant in plan.variant:
            for seed in plan.seeds_of(variant):
                found = _results(plan, variant, seed, pool, folder, progress)
                results += found
                task.advance(len(found))
    sections, summary = report(plan, results, pool.who)
    cost = desk.cost(sum(r.evaluations for r in results))
    record = Record(
        command="study",
        title=plan.title,
        created=now(),
        subject={"name": plan.title, "digest": pool.who.digest, "kind": f"{len(results)} models"},
        access="weights",
        config=desk.config,
        digests=config["digests"],
        seeds={"seed": plan.audit.seed},
        environment=environment(),
        cost=cost,
        verdict=Verdict.NONE,
        reasons=[sections[0].text[0]],
        summary=[*summary, Estimate(name="study/models", value=float(len(results)), unit="models")],
        sections=sections,
    )
    return desk.finish(record, None, False)


def _pool(plan: StudyPlan) -> Pool:
    images, _ = resolve_data(plan.data)
    others, _ = resolve_data(plan.non_members)
    distinct, counts = images.required("to train on").unique()
    once = np.flatnonzero(counts == 1)
    if plan.once_seen is not None and plan.once_seen < len(once):
        order = generator(plan.audit.seed, Stream.SUBSET, len(once)).permutation(len(once))
        once = once[order[: plan.once_seen]]
    kept = np.sort(np.concatenate([once, np.flatnonzero(counts > 1)]))
    copies = counts[kept] if plan.copies_at_most is None else np.minimum(counts[kept], plan.copies_at_most)
    rows = distinct.take(np.repeat(kept, copies))
    who = split(rows, others)
    judge, _ = resolve_judges(plan.data.partition(":")[0])
    reference = others if who.others is None else who.others
    return Pool(rows, who, judge, Gaussian.fit(judge.features(reference.pixels)))


def _rows(variant: Variant, pool: Pool, seed: int) -> ImageSet:
    """The rows that a variant trains on."""
    rows = pool.train
    if variant.deduplicate:
        rows = pool.who.members.take(np.unique(pool.who.cluster))
    return with_canaries(rows, per_count=variant.canaries, seed=seed) if variant.canaries else rows


def _results(plan: StudyPlan, variant: Variant, seed: int, pool: Pool, out: Path, progress: Progress) -> list[Result]:
    lengths = plan.lengths_of(variant)
    names = {length: f"{variant.name}-{seed}-{length:06d}" for length in lengths}
    paths = {length: out / "models" / f"{name}.json" for length, name in names.items()}
    if not all(path.exists() for path in paths.values()):
        rows = _rows(variant, pool, plan.audit.seed)
        recipe = plan.recipe_of(variant, seed)
        folder = out / "trainings" / f"{variant.name}-{seed}"
        trained = train(recipe, rows, folder, lengths=lengths, progress=progress, label=f"{variant.name}, seed {seed}")
        for model in trained:
            if not paths[model.steps].exists():
                result = _examine(plan.audit, variant, seed, model, rows, pool, out / "store", progress)
                write_text(paths[model.steps], result.model_dump_json(indent=2) + "\n")
    return [Result.model_validate_json(path.read_bytes()) for path in paths.values()]


def _examine(
    measure: Measure,
    variant: Variant,
    seed: int,
    model: Trained,
    rows: ImageSet,
    pool: Pool,
    store: Path,
    progress: Progress,
) -> Result:
    denoiser = load_folder(model.folder, null_condition=model.null_condition)
    subject = Subject.of_denoiser(model.folder.parent.name, denoiser, DDIM(steps=measure.sampling_steps))
    context = Context(Store(store), measure.seed, progress=progress)
    attacks: list[Attack[Any]] = [
        GenerateAndFilter(generations=measure.generations),
        DenoisingLoss(rows=measure.rows, draws=measure.draws),
    ]
    found = examine(subject, pool.who, attacks, context)
    generated = found.collected[GenerateAndFilter.__name__]
    assert isinstance(generated, Generations)  # noqa: S101 - what the attack is declared to collect
    quality = frechet_interval(pool.judge.features(generated.pixels), pool.target, seed=measure.seed)
    lines = {line.name: line for line in found.summary}
    exposure: dict[str, float] = {}
    if variant.canaries:
        canary = CanaryExposure(seed=measure.seed, per_count=variant.canaries)
        outcome = canary.run(subject, split(rows, pool.who.others), context)
        lines_of = (line for line in outcome.summary if "exposure" in line.name)
        exposure = {line.name: float(line.value) for line in lines_of if line.value is not None}
    parameters = sum(p.numel() for p in denoiser.module.parameters())
    return Result(
        variant=variant.name,
        seed=seed,
        steps=model.steps,
        parameters=parameters,
        epsilon=model.epsilon,
        frechet=(quality.value, quality.low, quality.high),
        auc=_bounds(lines["membership/auc"]),
        tpr=_bounds(lines["membership/tpr@fpr=0.01"]),
        extracted=tuple(pool.who.members.ids[i] for i in found.extracted),
        false=_false(generated),
        by_copies=_by_copies(pool.who, found.extracted),
        exposure=exposure,
        evaluations=denoiser.evaluations,
    )


def _bounds(line: Estimate) -> tuple[float, float, float]:
    value = float("nan") if line.value is None else line.value
    return value, line.low if line.low is not None else value, line.high if line.high is not None else value


def _false(generated: Generations) -> int:
    """Distinct non-members that were matched by the same rule."""
    if generated.others is None:
        return 0
    return len(np.unique(generated.others.index[generated.others.copies(GenerateAndFilter.delta)]))


def _by_copies(who: Split, extracted: npt.NDArray[np.int64]) -> dict[str, tuple[int, int]]:
    hit = np.isin(np.arange(len(who.members)), extracted)
    return {name: (int(hit[mask].sum()), int(mask.sum())) for name, mask in duplicate_groups(who.copies)}
