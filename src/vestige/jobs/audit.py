"""``vestige audit``: run every attack that the access allows, judge, and leave a report."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

import vestige.audit
from vestige.audit.attack import Attack, Outcome
from vestige.audit.extraction.generate_and_filter import GenerateAndFilter, Generations
from vestige.audit.membership.blind import blind_baseline
from vestige.audit.membership.scoring import joint_section
from vestige.data.images import ImageSet
from vestige.data.split import Split, duplicate_groups, split
from vestige.discover import methods
from vestige.execute import Context
from vestige.jobs.judge import judge_audit
from vestige.jobs.kept import Kept
from vestige.jobs.policy import Policy
from vestige.jobs.quality import judge_quality, scene
from vestige.jobs.resolve import (
    DataLike,
    Loading,
    ModelLike,
    both_sides,
    check_suits,
    describe,
    resolve_data,
    resolve_judges,
    resolve_model,
    zoo_entry,
)
from vestige.jobs.run import Desk, Run, environment, now, plain
from vestige.models.sampler import DDIM, Sampler
from vestige.models.subject import Subject
from vestige.progress import Progress, Silent
from vestige.record import Cell, Estimate, NotDone, Record, Section, Table
from vestige.report.evidence import Evidence, Picture, Strip
from vestige.store import write_text

AnyAttack = Attack[Any]

FEWEST_BLIND = 50
"""Fewer images on a side are too few to ask what the images alone tell."""


def default_attacks() -> list[AnyAttack]:
    """Every attack of the audit room that runs unasked, with its defaults."""
    found = methods(vestige.audit, cast(type[AnyAttack], Attack))
    return [attack() for attack in found.values() if attack.by_default]


@dataclass(frozen=True)
class Findings:
    """What a set of attacks found: outcomes and raw collections by attack name, and what was not done."""

    outcomes: dict[str, Outcome]
    collected: dict[str, Any]
    not_done: list[NotDone]

    @property
    def summary(self) -> list[Estimate]:
        """All headline numbers."""
        return [line for outcome in self.outcomes.values() for line in outcome.summary]

    @property
    def extracted(self) -> npt.NDArray[np.int64]:
        """Members that any attack recovered."""
        parts = [outcome.extracted for outcome in self.outcomes.values()]
        return np.unique(np.concatenate(parts)) if parts else np.empty(0, np.int64)


def examine(subject: Subject, who: Split, attacks: Sequence[AnyAttack], context: Context) -> Findings:
    """Run the attacks that the subject and the data allow."""
    outcomes: dict[str, Outcome] = {}
    collected: dict[str, Any] = {}
    not_done: list[NotDone] = []
    for attack in attacks:
        name = type(attack).__name__
        refusal = attack.refusal(subject, who)
        if refusal is not None:
            not_done.append(refusal)
            continue
        collected[name] = attack.collect(subject, who, context)
        outcomes[name] = attack.score(collected[name], who)
    return Findings(outcomes, collected, not_done)


def prepare(
    subject: Subject, data: DataLike, non_members: DataLike | None, skip_corrupt: bool
) -> tuple[Split, tuple[str, ...]]:
    """Load both sides, check that they fit the model, and take them apart."""
    train, skipped = resolve_data(data, skip_corrupt=skip_corrupt)
    check_suits(train, subject)
    others: ImageSet | None = None
    if non_members is not None:
        others, more = resolve_data(non_members, skip_corrupt=skip_corrupt)
        check_suits(others, subject)
        skipped += more
    return split(train, others), skipped


def audit(
    model: ModelLike,
    data: DataLike | None = None,
    *,
    non_members: DataLike | None = None,
    out: str | Path,
    attacks: Sequence[AnyAttack] | None = None,
    policy: Policy | None = None,
    sampler: Sampler | None = None,
    seed: int = 0,
    batch_size: int = 128,
    null_condition: int | None = None,
    guidance: float | None = None,
    skip_corrupt: bool = False,
    asked: bool = True,
    show_images: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Run:
    """Examine a model for what it kept of its training data.

    Parameters
    ----------
    model : zoo name, diffusers or GAN folder, folder or ``.npz`` of generated images, pipeline,
        denoiser, generator, sample bank, or a subject (a GAN with its critic).
    data : training images; a zoo model brings its own.
    non_members : images from the same source that the model never saw; without them
        precision and membership are not measured.
    guidance : scale of classifier-free guidance when sampling; needs a null condition.
    out : folder for report, records and cached results; the same call resumes there.
    attacks : instances of :class:`Attack`; all that run unasked, with defaults, if absent.
    asked : whether the attacks were asked for one by one. If not, those that do not concern
        this kind of model are left out instead of being listed as refused.

    Returns the run, whose record holds verdict, summary and sections.

    Raises
    ------
    VestigeError : bad input, named, before any work is done.
    """
    asked, attacks = asked and attacks is not None, default_attacks() if attacks is None else list(attacks)
    loading = Loading(sampler or DDIM(), batch_size, null_condition, guidance)
    entry = zoo_entry(model)
    data, non_members = both_sides(entry, data, non_members)
    subject = resolve_model(model, loading)
    who, skipped = prepare(subject, data, non_members, skip_corrupt)
    attacks = [attack for attack in attacks if asked or attack.concerns(subject)]
    policy = policy or Policy()
    config = {
        "model": subject.name if subject.folder is None or entry is not None else str(subject.folder),
        "data": describe(data),
        "non_members": describe(non_members),
        "skip_corrupt": skip_corrupt,
        "attacks": [attack.settings() for attack in attacks],
        "sampler": loading.sampler.key(),
        "policy": policy.audit.model_dump(),
        "seed": seed,
        "null_condition": null_condition,
        "guidance": guidance,
        "digests": {"model": subject.digest, "data": who.digest},
    }
    desk = Desk(Path(out), plain(config), seed, batch_size, progress or Silent(), overwrite)
    findings = examine(subject, who, attacks, desk.context)
    first, rest = reading_order(findings.outcomes.values())
    together = joint(findings, who, seed)
    kept = keep(findings, who, model, seed)
    quality = None if kept is None else judge_quality(kept.scene, seed)
    verdict, reasons = judge_audit(findings.summary, policy.audit)
    cost = desk.cost(subject.evaluations)
    record = Record(
        command="audit",
        title=f"What {subject.name} kept of its training data",
        created=now(),
        subject={"name": subject.name, "digest": subject.digest, "kind": type(subject.generator).__name__},
        access=subject.access.label,
        config=desk.config,
        digests={"model": subject.digest, "data": who.digest},
        seeds={"seed": seed},
        environment=environment(),
        cost=cost,
        verdict=verdict,
        reasons=reasons,
        summary=[
            *(line for outcome in first for line in outcome.summary),
            *together.lines,
            *(() if quality is None else quality.summary),
            *cost_lines(cost.seconds, cost.network_evaluations),
            *(line for outcome in rest for line in outcome.summary),
        ],
        sections=[
            data_section(who, skipped),
            *(outcome.section for outcome in first),
            *together.sections,
            *([] if quality is None else [quality.section]),
            *(outcome.section for outcome in rest),
        ],
        not_done=findings.not_done,
    )
    write_rows(findings, who, desk.out)
    if kept is not None:
        kept.save(desk.out)
    return desk.finish(record, evidence(findings, who), show_images)


def reading_order(outcomes: Iterable[Outcome]) -> tuple[list[Outcome], list[Outcome]]:
    """What a reader looks for first, extraction and then the membership that the verdict uses; and the rest."""
    by_name = {outcome.section.name: outcome for outcome in outcomes}
    first = [by_name.pop(name) for name in ("extraction", "membership") if name in by_name]
    return first, list(by_name.values())


@dataclass(frozen=True)
class Together:
    """What membership attacks say side by side: further summary lines and sections."""

    lines: list[Estimate]
    sections: list[Section]


def joint(findings: Findings, who: Split, seed: int) -> Together:
    """Compare the membership attacks that ran with one another and with what the images alone tell."""
    ran = [o for o in findings.outcomes.values() if any(line.name.endswith("/auc") for line in o.summary)]
    if not ran or who.others is None:
        return Together([], [])
    clusters = len(np.unique(who.cluster))
    blind = blind_baseline(who, seed) if min(clusters, len(who.others)) >= FEWEST_BLIND else None
    lines = [] if blind is None else [blind.line]
    return Together(lines, [joint_section(findings.outcomes, who, blind)] if len(ran) > 1 or blind is not None else [])


def keep(findings: Findings, who: Split, model: ModelLike, seed: int) -> Kept | None:
    """What is kept of the generations, if any were sampled; no new ones are made."""
    generated = generations_of(findings)
    if generated is None:
        return None
    features, _ = resolve_judges(model)
    return Kept.of(generated, scene(generated.pixels, who, features, seed))


def write_rows(findings: Findings, who: Split, out: Path) -> None:
    """``rows.jsonl``: one line a distinct member or non-member with its counts and the score of every attack."""
    extracted = set(findings.extracted.tolist())
    lines: list[dict[str, Any]] = []
    for row, (identity, name) in enumerate(zip(who.members.ids, who.members.names, strict=True)):
        counts = {"rows": int(who.exact[row]), "copies": int(who.copies[row])}
        cluster = who.members.ids[who.cluster[row]]
        line = {"id": identity, "name": name, "side": "member", **counts, "cluster": cluster}
        scores = {k: o.member_scores[row] for k, o in findings.outcomes.items()}
        lines.append({**line, "extracted": row in extracted, **scores})
    others = who.others
    for row, identity in enumerate(() if others is None else others.ids):
        scores = {k: o.other_scores[row] for k, o in findings.outcomes.items()}
        lines.append(
            {"id": identity, "name": "" if others is None else others.names[row], "side": "non-member", **scores}
        )
    text = [json.dumps({k: None if v != v else v for k, v in line.items()}) for line in lines]
    write_text(out / "rows.jsonl", "\n".join(text) + "\n")


def cost_lines(seconds: float, evaluations: int) -> list[Estimate]:
    """Seconds and network evaluations as summary lines."""
    return [
        Estimate(name="cost/seconds", value=round(seconds, 2), unit="s"),
        Estimate(name="cost/network_evaluations", value=float(evaluations), unit="images through the network"),
    ]


def data_section(who: Split, skipped: Sequence[str]) -> Section:
    """What the training data itself looks like: distinct images, duplicates, files left out."""
    groups = duplicate_groups(who.copies)
    rows: list[list[Cell]] = [[name, int(mask.sum())] for name, mask in groups]
    total = int(np.bincount(who.cluster, minlength=len(who.members))[np.unique(who.cluster)].sum())
    clusters, _ = np.unique(who.cluster, return_index=True)
    words = [
        f"{int(who.copies[clusters].sum()):,} training rows hold {total:,} distinct images in "
        f"{len(clusters):,} clusters of near-duplicates."
    ]
    if who.others is not None:
        words.append(f"{len(who.others):,} distinct images serve as non-members.")
    if skipped:
        words.append(f"{len(skipped)} unreadable files were left out: {', '.join(skipped[:5])}.")
    table = Table(
        name="duplicates",
        title="Near-duplicates in the training data",
        columns=["copies", "distinct images"],
        rows=rows,
        caption="An image counts every row of its near-duplicate cluster.",
    )
    return Section(name="data", title="The data", text=words, tables=[table])


def evidence(findings: Findings, who: Split) -> Evidence:
    """Pairs of generation and training image for every match, and a strip of first generations."""
    pairs: dict[int, Picture] = {}
    strips: dict[str, list[Strip]] = {}
    for name, outcome in findings.outcomes.items():
        generated = findings.collected[name]
        if not isinstance(generated, Generations):
            continue
        rows = {identity: row for row, identity in enumerate(who.members.ids)}
        for match in outcome.section.matches:
            if match.picture is not None:
                pairs[match.picture] = Picture(
                    np.moveaxis(generated.pixels[match.generation], 0, -1),
                    np.moveaxis(who.members.pixels[rows[match.row]], 0, -1),
                    match.row,
                )
        strips[outcome.section.name] = [Strip("First generations", np.moveaxis(generated.pixels[:20], 1, -1))]
    return Evidence(pairs, strips)


def generations_of(findings: Findings) -> Generations | None:
    """The generations that extraction sampled, if it ran."""
    return cast("Generations | None", findings.collected.get(GenerateAndFilter.__name__))
