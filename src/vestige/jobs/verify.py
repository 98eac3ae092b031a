"""``vestige verify``: the same audit on the erased model, what was kept, what trace remains, and the way back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter

import vestige.audit
from vestige.audit.attack import Attack
from vestige.audit.extraction.generate_and_filter import Generations
from vestige.data.split import Split
from vestige.discover import method
from vestige.erase.recover.recovery import Recovery, Target
from vestige.errors import DigestMismatch, InvalidInput
from vestige.features.extractor import Classifier, FeatureExtractor
from vestige.jobs.audit import AnyAttack, Findings, cost_lines, evidence, examine, generations_of, prepare
from vestige.jobs.judge import judge_verify
from vestige.jobs.policy import Policy
from vestige.jobs.recovery import ShadowMembership, recovery_section, try_recovery
from vestige.jobs.resolve import DataLike, Loading, ModelLike, resolve_judges, resolve_model, zoo_entry
from vestige.jobs.run import Desk, Run, environment, now
from vestige.jobs.stack import IncrementLike, Stack
from vestige.jobs.traces import Comparison, Probe, generation_section, residue_section, retention_section
from vestige.models.sampler import SAMPLERS, Spacing
from vestige.models.subject import Subject
from vestige.progress import Progress, Silent
from vestige.record import Estimate, Record, Section
from vestige.report.evidence import Evidence, Strip
from vestige.store import Store
from vestige.zoo import ZooModel

_FEW = 0.1
"""Largest share of the forgotten images that a model may have seen to stand for one retrained without them."""


@dataclass(frozen=True)
class Again:
    """The settings of a finished audit, as objects."""

    attacks: list[AnyAttack]
    data: DataLike
    non_members: DataLike | None
    seed: int
    skip_corrupt: bool
    loading: Loading


def same_again(run: Run, data: DataLike | None, non_members: DataLike | None) -> Again:
    """The audit that a run records, ready to be repeated.

    Raises
    ------
    InvalidInput : the run is no audit.
    """
    config = run.record.config
    if run.record.command != "audit":
        raise InvalidInput(
            f"{run.folder} holds the run of `vestige {run.record.command}`.",
            expected="the folder of an audit.",
            remedy="pass --against with what `vestige audit --out` wrote.",
        )
    settings = dict(config["sampler"])
    kind = SAMPLERS[settings.pop("sampler").lower()]
    settings["spacing"] = Spacing(settings["spacing"])
    return Again(
        [_attack(dict(a)) for a in config["attacks"]],
        data if data is not None else config["data"],
        non_members if non_members is not None else config["non_members"],
        int(config["seed"]),
        bool(config["skip_corrupt"]),
        Loading(kind(**settings), null_condition=config["null_condition"], guidance=config["guidance"]),
    )


def _attack(settings: dict[str, Any]) -> AnyAttack:
    kind = method(vestige.audit, cast("type[AnyAttack]", Attack), settings.pop("attack"))
    return TypeAdapter(kind).validate_python(settings)


def verify(
    model: ModelLike,
    *,
    increment: IncrementLike,
    against: Run | str | Path,
    out: str | Path,
    below: Sequence[IncrementLike] = (),
    ledger: str | Path | None = None,
    data: DataLike | None = None,
    non_members: DataLike | None = None,
    reference: ModelLike | None = None,
    probe: Probe | None = None,
    recover: Sequence[Recovery] = (),
    shadows: str | Path | None = None,
    policy: Policy | None = None,
    show_images: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Run:
    """Check an erasure against the audit that preceded it.

    Parameters
    ----------
    model : the base that was audited, without the increment.
    increment : what ``erase`` made.
    against : the audit's run; its attacks, seeds and budget are repeated.
    below : earlier increments that the model carries beneath this one, in order, where it was made on top of some.
        Rows that they forget are neither retained nor judged.
    ledger : file of requests to take them from instead: all active increments up to this one.
    data, non_members : only needed when the audit was given objects instead of paths.
    reference : a model retrained without the forgotten images. The zoo's is taken where it saw at most a tenth.
    probe : times, draws and rows of the residue and retention estimates.
    recover : attacks that try to bring the forgotten images back.
    shadows : folder of the attacker's shadow models (``vestige shadow``), for a membership attack with them.

    Raises
    ------
    DigestMismatch : an increment belongs to another base, or model or data are not those of the audit.
    InvalidInput : the increment was made on top of others that are not given, in their order.
    """
    run = against if isinstance(against, Run) else Run.open(Path(against))
    again = same_again(run, data, non_members)
    subject = resolve_model(model, again.loading)
    base = subject.opened("Verifying an erasure")
    stack = Stack.of(increment, base.digest, below, ledger)
    who, _ = prepare(subject, again.data, again.non_members, again.skip_corrupt)
    _same(run, subject, who)
    rows, gone = stack.forgotten(who), stack.earlier(who)
    retrained, remark = (reference, "") if reference is not None else _retrained(zoo_entry(model), who, rows, gone)
    other = None if retrained is None else resolve_model(retrained, again.loading).opened("The reference")
    probe, policy = probe or Probe(), policy or Policy()
    config = {
        "model": subject.name,
        "increment": stack.increment.digest,
        "below": [each.digest for each in stack.below],
        "against": run.record.config,
        "probe": probe.settings(),
        "recover": [attack.settings() for attack in recover],
        "shadows": None if shadows is None else str(shadows),
        "reference": None if other is None else other.digest,
        "policy": policy.verify.model_dump(),
    }
    desk = Desk(Path(out), config, again.seed, progress=progress or Silent(), overwrite=overwrite)
    context = desk.context
    erased = stack.on(base)
    inside = again.loading.subject(f"{subject.name} without {len(rows)} images", erased)
    # The audit already sampled the base; its store answers without another evaluation.
    earlier = replace(context, store=Store(run.folder / "store"))
    before = examine(subject, who, _extraction_only(again.attacks), earlier)
    after = examine(inside, who, again.attacks, context)
    parts = Comparison(base, erased, other, who, rows, context, probe, gone)
    features, judge = resolve_judges(model)
    remarks = [words for words in (stack.words, remark) if words]
    summary, sections = _measured(parts, before, after, features, judge, remarks)
    summary += [stack.restored(base, desk.out), *stack.costs()]
    label = who.whole_class(rows) if base.classes else None
    target = Target(erased, base, who.members.take(rows), who.others, other, label, judge)
    guess = None if shadows is None else ShadowMembership(shadows, who, rows, again.loading)
    tried, refused = try_recovery(target, recover, context, guess)
    more, recovery = recovery_section(tried, target)
    summary, sections = [*summary, *more], [*sections, *recovery]
    renamed = [line.model_copy(update={"name": f"after/{line.name}"}) for line in after.summary]
    verdict, reasons = judge_verify(summary, policy.verify, tried)
    evaluations = sum(d.evaluations for d in (base, erased, other) if d is not None)
    cost = desk.cost(evaluations)
    record = Record(
        command="verify",
        title=f"What {subject.name} still shows of {len(rows)} forgotten images",
        created=now(),
        subject={"name": inside.name, "digest": inside.digest, "kind": type(inside.generator).__name__},
        access=inside.access.label,
        config=desk.config,
        digests={
            "base": subject.digest,
            "increment": stack.increment.digest,
            "erased": inside.digest,
            "data": who.digest,
        },
        seeds={"seed": again.seed},
        environment=environment(),
        cost=cost,
        verdict=verdict,
        reasons=reasons,
        summary=[*summary, *renamed, *cost_lines(cost.seconds, cost.network_evaluations)],
        sections=[*sections, *(o.section for o in after.outcomes.values())],
        not_done=[*after.not_done, *refused],
    )
    pictures = evidence(after, who)
    strips = {**pictures.strips, "quality": _strips(generations_of(before), generations_of(after))}
    return desk.finish(record, Evidence(pictures.pairs, strips), show_images)


def _retrained(
    entry: ZooModel | None, who: Split, rows: npt.NDArray[np.int64], earlier: npt.NDArray[np.int64]
) -> tuple[str | None, str]:
    """The zoo's model trained on all other members, or failing that one that saw hardly any of these rows.

    ``earlier`` are rows that were forgotten before. Returns its name and what is to be said about it.
    """
    if entry is None:
        return None, ""
    gone = {who.members.ids[row] for row in rows}
    exact = entry.retrained_on(set(who.members.ids) - gone - {who.members.ids[row] for row in earlier})
    other = entry.reference
    if exact is not None or other is None:
        return None if exact is None else exact.name, ""
    saw = len(gone & set(other.training_data().ids))
    if saw > _FEW * len(gone):
        return None, ""
    return other.name, f"{other.name} stands for a model retrained without them; it saw {saw} of the {len(gone)}."


def _measured(
    parts: Comparison,
    before: Findings,
    after: Findings,
    features: FeatureExtractor,
    judge: Classifier | None,
    remarks: list[str],
) -> tuple[list[Estimate], list[Section]]:
    """What still comes out, quality, retention and residue: their numbers and their sections."""
    measured = [
        _forgotten_section(before, after, parts, remarks),
        generation_section(parts, generations_of(before), generations_of(after), features, judge),
        retention_section(parts),
        residue_section(parts),
    ]
    return [line for lines, _ in measured for line in lines], [section for _, section in measured]


def _strips(before: Generations | None, after: Generations | None) -> list[Strip]:
    named = (("Before", before), ("After, same seeds", after))
    return [Strip(title, np.moveaxis(made.pixels[:20], 1, -1)) for title, made in named if made is not None]


def _same(run: Run, subject: Subject, who: Split) -> None:
    for name, have in (("model", subject.digest), ("data", who.digest)):
        if run.record.digests[name] != have:
            raise DigestMismatch(
                f"The {name} is not the one that {run.folder} audited.",
                expected=f"the {name} with digest {run.record.digests[name][:12]}.",
                remedy=f"pass the {name} of that audit, or audit again.",
            )


def _extraction_only(attacks: Sequence[AnyAttack]) -> list[AnyAttack]:
    return [a for a in attacks if type(a).__name__ == "GenerateAndFilter"]


def _forgotten_section(
    before: Findings, after: Findings, parts: Comparison, remarks: list[str]
) -> tuple[list[Estimate], Section]:
    rows, who = parts.rows, parts.who
    lines: list[Estimate] = []
    for name, findings in (("erase/extracted_before", before), ("erase/extracted_after", after)):
        came = np.intersect1d(findings.extracted, rows)
        unit = "forgotten images that come out"
        if generations_of(findings) is None:
            note = "the audit did not try to extract anything"
            lines.append(Estimate(name=name, value=None, n=len(rows), unit=unit, note=note))
            continue
        lines.append(Estimate(name=name, value=float(len(came)), n=len(rows), unit=unit))
    still = np.intersect1d(after.extracted, rows)
    new = np.setdiff1d(after.extracted, before.extracted)
    words = ["The audit's attacks were repeated with the same seeds and budget; none of them extracts images."]
    if lines[0].value is not None:
        words = [
            f"The audit's attacks were repeated with the same seeds and budget: {int(lines[0].value)} of "
            f"{len(rows)} forgotten images came out before, {len(still)} after.",
        ]
    if len(new):
        words.append(f"Training images that come out now and did not before: {len(new)}.")
    if len(still):
        words.append("Still extracted: " + ", ".join(who.members.ids[r] for r in still[:10]) + ".")
    words += remarks
    return lines, Section(name="forgetting", title="Forgetting: what still comes out", text=words)
