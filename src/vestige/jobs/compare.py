"""``vestige compare``: what several models kept of the same data, at an equal budget."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from vestige.audit.extraction.generate_and_filter import GenerateAndFilter
from vestige.audit.extraction.precision import pooled_precision
from vestige.digest import digest_json
from vestige.errors import DigestMismatch, InvalidInput
from vestige.jobs.compare_report import Comparison, Entry, Pair, not_compared, summary, words
from vestige.jobs.compare_tables import section
from vestige.jobs.kept import Kept, Rows, first, first_copied
from vestige.jobs.quality import frechet
from vestige.jobs.run import Desk, Run, environment, now
from vestige.metrics.interval import Interval
from vestige.metrics.paired import auc_difference, discordance, holm, mcnemar
from vestige.record import Record, Verdict

EXTRACTION = GenerateAndFilter.__name__
HEADLINES = ("DenoisingLoss", "DiscriminatorLoss")
"""Attacks whose summary lines begin with ``membership/``: the plain one for diffusion models and the one for GANs."""


def compare(
    runs: Sequence[Run | str | Path],
    *,
    out: str | Path,
    names: Sequence[str] | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> Run:
    """Compare finished audits of several models on the same data.

    Every model is given the same budget: the smallest number of generations among the runs, of which each contributes
    its first. Extraction, its false matches and the quality of the images are measured anew on those, from what the
    audits kept; membership is that of the audits.

    Parameters
    ----------
    runs : two or more audits, or their folders.
    out : folder for report and record.
    names : what to call the models; their own names if absent.
    seed : deals the images into groups for the interval of their quality.

    Raises
    ------
    InvalidInput : fewer than two runs, a run that is no audit or did not sample, or settings of attacks that differ.
    DigestMismatch : the runs looked at different data.
    NotFound, CorruptFile : a run's files are missing or damaged.
    """
    opened = [run if isinstance(run, Run) else Run.open(Path(run)) for run in runs]
    _comparable(opened)
    entries = _entries(opened, names, seed)
    digests = {"data": opened[0].record.digests["data"]}
    digests |= {entry.name: entry.run.record.digests["model"] for entry in entries}
    config: dict[str, Any] = {
        "runs": [str(run.folder) for run in opened],
        "names": [entry.name for entry in entries],
        "digests": digests,
        "records": [digest_json(run.record.model_dump(mode="json")) for run in opened],
        "seed": seed,
    }
    desk = Desk(Path(out), config, seed, overwrite=overwrite)
    found = Comparison(entries, _pairs(entries))
    record = Record(
        command="compare",
        title=f"What {_listed([entry.name for entry in entries])} kept of the same training data",
        created=now(),
        subject={
            "name": ", ".join(entry.name for entry in entries),
            "digest": digest_json([run.record.digests["model"] for run in opened]),
            "kind": "comparison",
        },
        access=", ".join(sorted({run.record.access for run in opened})),
        config=config,
        digests=digests,
        seeds={"seed": seed},
        environment=environment(),
        cost=desk.cost(0),
        verdict=Verdict.NONE,
        reasons=words(found),
        summary=summary(found),
        sections=[section(found)],
        not_done=not_compared(found),
    )
    return desk.finish(record, None, False)


def _comparable(runs: Sequence[Run]) -> None:
    """Raise unless all runs are audits of the same data with the same settings."""
    if len(runs) < 2:
        raise InvalidInput(f"{len(runs)} run was given.", expected="two or more.", remedy="audit another model.")
    for run in runs:
        if run.record.command != "audit" or EXTRACTION not in _attacks(run):
            raise InvalidInput(
                f"{run.folder} holds the run of `vestige {run.record.command}`, or an audit that sampled nothing.",
                expected=f"an audit with {EXTRACTION}.",
                remedy="pass folders that `vestige audit --out` wrote.",
            )
    base = runs[0]
    for run in runs[1:]:
        if run.record.digests["data"] != base.record.digests["data"]:
            raise DigestMismatch(
                f"{run.folder} and {base.folder} looked at different data.",
                expected="the same training images and the same non-members.",
                remedy="repeat one of the audits with the data of the other.",
            )
        mine, other = _attacks(run), _attacks(base)
        for name in sorted({*mine} & {*other}):
            changed = sorted(k for k in mine[name] if mine[name][k] != other[name].get(k))
            if changed:
                raise InvalidInput(
                    f"{run.folder} and {base.folder} ran {name} with another {', '.join(changed)}.",
                    expected="equal settings of attacks; only the number of generations may differ.",
                    remedy="repeat one of the audits with the settings of the other.",
                )


def _attacks(run: Run) -> dict[str, dict[str, Any]]:
    """Settings of the run's attacks by name; the number of generations, which is made equal here, left out."""
    listed = cast("list[dict[str, Any]]", run.record.config.get("attacks", []))
    found = {str(a["attack"]): {k: v for k, v in a.items() if k != "attack"} for a in listed}
    found.get(EXTRACTION, {}).pop("generations", None)
    return found


def _entries(runs: Sequence[Run], names: Sequence[str] | None, seed: int) -> list[Entry]:
    if names is not None and (len(names) != len(runs) or len(set(names)) != len(names)):
        raise InvalidInput(
            f"The names {', '.join(names)} were given for {len(runs)} runs.",
            expected="one name a run, all different.",
            remedy="correct the names.",
        )
    own = [run.record.subject["name"] for run in runs]
    unique = [name if own.count(name) == 1 else f"{name} ({place + 1})" for place, name in enumerate(own)]
    kept = [Kept.load(run.folder) for run in runs]
    rows = [Rows.load(run.folder) for run in runs]
    for run, table, part in zip(runs, rows, kept, strict=True):
        ids = [line["id"] for line in table.members]
        if ids != [line["id"] for line in rows[0].members] or part.members.index.max(initial=-1) >= len(ids):
            raise DigestMismatch(
                f"The rows of {run.folder} are not those of {runs[0].folder}.",
                expected="the same training images in the same order, as the records say.",
                remedy="repeat the audit; its files were changed.",
            )
    budget = min(len(part.members.index) for part in kept)
    same = len({(part.scene.digest, digest_json(part.scene.reference.tolist())) for part in kept}) == 1
    return [
        _entry(name, run, part, table, budget, same, seed)
        for name, run, part, table in zip(names or unique, runs, kept, rows, strict=True)
    ]


def _entry(name: str, run: Run, kept: Kept, rows: Rows, budget: int, same_judge: bool, seed: int) -> Entry:
    delta = float(_attacks(run)[EXTRACTION]["delta"])
    members = first(kept.members, budget)
    others = None if kept.others is None else first(kept.others, budget)
    extracted, scene = members.found(delta), kept.scene.first(budget)
    precision, false = None, None
    if others is not None:
        false = len(others.found(delta))
        if len(extracted) + false:
            precision = pooled_precision(len(extracted), len(rows.members), false, len(rows.others))
    ran = {*_attacks(run)}
    attack = next((a for a in HEADLINES if a in ran and not np.isnan(rows.scores(a)[1]).all()), None)
    return Entry(
        name=name,
        run=run,
        rows=rows,
        made=len(kept.members.index),
        budget=budget,
        extracted=extracted,
        first_copied=first_copied(members, len(rows.members), delta),
        false=false,
        precision=precision,
        quality=frechet(scene.generated, scene.reference, seed) if same_judge else None,
        floor=None if scene.floor is None or not same_judge else frechet(scene.floor, scene.reference, seed),
        same_judge=same_judge,
        judge=scene.judge,
        against=scene.against,
        attack=attack,
    )


def _pairs(entries: Sequence[Entry]) -> list[Pair]:
    """Every two models, tested on the same training images; p-values adjusted for the number of pairs."""
    both = [(a, b) for i, a in enumerate(entries) for b in entries[i + 1 :]]
    hits = {entry.name: entry.clusters_hit() for entry in entries}
    alone = [(int((hits[a.name] & ~hits[b.name]).sum()), int((hits[b.name] & ~hits[a.name]).sum())) for a, b in both]
    adjusted = holm([mcnemar(*counts) for counts in alone])
    return [
        Pair(
            a,
            b,
            counts,
            discordance(*counts),
            p,
            _membership(a, b),
        )
        for (a, b), counts, p in zip(both, alone, adjusted, strict=True)
    ]


def _membership(a: Entry, b: Entry) -> Interval | None:
    if a.attack is None or b.attack is None:
        return None
    mine, other = a.rows.scores(a.attack), b.rows.scores(b.attack)
    looked = [~np.isnan(x) & ~np.isnan(y) for x, y in zip(mine, other, strict=True)]
    if min(int(mask.sum()) for mask in looked) < 2:
        return None
    return auc_difference((mine[0][looked[0]], other[0][looked[0]]), (mine[1][looked[1]], other[1][looked[1]]))


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"
