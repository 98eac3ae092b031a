"""``vestige demo``: the main job on a shipped model, from extraction to forgetting and back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vestige.audit.attack import Attack
from vestige.audit.extraction.generate_and_filter import GenerateAndFilter
from vestige.audit.membership.denoising_loss import DenoisingLoss
from vestige.erase.data.unseen_level import UnseenLevel
from vestige.erase.increment import MANIFEST, Increment
from vestige.jobs.audit import audit, cost_lines
from vestige.jobs.erase import Erasure, erase
from vestige.jobs.increments import apply_increments, remove_increments
from vestige.jobs.run import Desk, Run, environment, now
from vestige.jobs.traces import Probe
from vestige.jobs.verify import verify
from vestige.models.sampler import DDIM
from vestige.progress import Progress, Silent
from vestige.record import Cost, Estimate, Record, Section
from vestige.report.evidence import Evidence
from vestige.zoo import zoo_model

MODEL, NAME = "digits-ddpm", "forget-extracted"


@dataclass(frozen=True)
class Plan:
    """How much the demonstration does."""

    attacks: tuple[Attack[Any], ...]
    eraser: UnseenLevel
    probe: Probe
    sampler: DDIM


FULL = Plan(
    attacks=(GenerateAndFilter(generations=600), DenoisingLoss(rows=500, draws=3)),
    eraser=UnseenLevel(),
    probe=Probe(draws=3, rows=100),
    sampler=DDIM(steps=10),
)
QUICK = Plan(
    attacks=(GenerateAndFilter(generations=200), DenoisingLoss(rows=200, draws=2)),
    eraser=UnseenLevel(steps=20),
    probe=Probe(draws=2, rows=40),
    sampler=DDIM(steps=10),
)


def demo(
    out: str | Path,
    *,
    plan: Plan = FULL,
    overwrite: bool = False,
    show_images: bool = True,
    progress: Progress | None = None,
) -> Run:
    """Audit ``digits-ddpm``, erase what it gave up, verify, and put it back.

    Leaves the audit, the increment, the verification, the erased and the restored model in
    sub-folders of ``out``, and one report over all. A second call resumes.
    """
    folder, progress = Path(out), progress or Silent()
    desk = Desk(folder, _config(plan), progress=progress, overwrite=overwrite)
    first = audit(
        MODEL,
        out=folder / "audit",
        attacks=plan.attacks,
        sampler=plan.sampler,
        show_images=show_images,
        overwrite=overwrite,
        progress=progress,
    )
    made, spent = _increment(folder / "increment", first, plan, overwrite, progress)
    check = verify(
        MODEL,
        increment=made,
        against=first,
        out=folder / "verify",
        probe=plan.probe,
        show_images=show_images,
        overwrite=overwrite,
        progress=progress,
    )
    apply_increments(MODEL, [made.folder], out=folder / "erased", overwrite=True)
    _, exact = remove_increments(folder / "erased", [NAME], out=folder / "restored", overwrite=True)
    cost = desk.cost(spent + sum(run.record.cost.network_evaluations for run in (first, check)))
    return desk.finish(_record(desk, first, check, exact, cost), _pictures(folder), show_images)


def _increment(folder: Path, first: Run, plan: Plan, overwrite: bool, progress: Progress) -> tuple[Erasure, int]:
    """The erasure and its network evaluations: none if an earlier call already finished it."""
    if (folder / MANIFEST).exists() and not overwrite:
        return Erasure(folder, Increment.load(folder)), 0
    made = erase(MODEL, forget=first, out=folder, method=plan.eraser, name=NAME, overwrite=overwrite, progress=progress)
    return made, int(made.increment.manifest.cost["forward_equivalents"])


def _config(plan: Plan) -> dict[str, Any]:
    return {
        "model": MODEL,
        "attacks": [{k: list(v) if isinstance(v, tuple) else v for k, v in a.settings().items()} for a in plan.attacks],
        "eraser": plan.eraser.settings(),
        "probe": plan.probe.settings(),
        "sampler": plan.sampler.key(),
        "digests": {"model": zoo_model(MODEL).card.digest},
    }


def _record(desk: Desk, first: Run, check: Run, exact: bool, cost: Cost) -> Record:
    a, v = first.record, check.record
    skip = ("cost/", "after/", "restore/")
    summary = [line for r in (a, v) for line in r.summary if not line.name.startswith(skip)]
    note = "digest of every weight after the increment was applied and removed on disk"
    summary.append(Estimate(name="restore/bit_exact", value=float(exact), n=1, unit="1 = identical", note=note))
    return Record(
        command="demo",
        title=f"{MODEL}: extract, erase, verify, restore",
        created=now(),
        subject=a.subject,
        access=a.access,
        config=desk.config,
        digests={**v.digests, "model": a.digests["model"]},
        seeds=a.seeds,
        environment=environment(),
        cost=cost,
        verdict=v.verdict,
        reasons=[f"Before: {reason}" for reason in a.reasons] + [f"After: {reason}" for reason in v.reasons],
        summary=[*summary, *cost_lines(cost.seconds, cost.network_evaluations)],
        sections=[*a.sections, *(s for s in v.sections if s.name not in ("extraction", "membership")), _back(exact)],
        not_done=[*a.not_done, *v.not_done],
    )


def _back(exact: bool) -> Section:
    words = "is the original, bit for bit" if exact else "is not the original"
    text = [
        "The increment was applied to a copy of the model on disk and removed again; what came back "
        f"{words}. Erased and restored models lie beside this report as diffusers folders."
    ]
    return Section(name="restore", title="Restore: the way back", text=text)


def _pictures(folder: Path) -> Evidence:
    before, after = Evidence.load(folder / "audit" / "evidence.npz"), Evidence.load(folder / "verify" / "evidence.npz")
    return Evidence(before.pairs, {**before.strips, "quality": after.strips.get("quality", [])})
