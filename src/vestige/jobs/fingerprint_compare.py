"""``vestige compare-weights``: does one model descend from the other, and what was done to it on the way?"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vestige.digest import digest_json
from vestige.errors import NeedsAccess
from vestige.fingerprint.card import Plan
from vestige.fingerprint.compare import Comparison, Judge, Lineage, compare, compare_cards
from vestige.fingerprint.merge import Shares, merge_shares
from vestige.jobs.fingerprint_open import Side, Watched, open_side
from vestige.jobs.fingerprint_report import Answer, not_looked_at, reasons, sections, summary
from vestige.jobs.run import Desk, cost_since, environment, now
from vestige.progress import Progress, Silent
from vestige.record import Record, Verdict


@dataclass(frozen=True, eq=False)
class Compared:
    """What was found, its record, and the folder of its page where one was asked for."""

    comparison: Comparison
    shares: Shares | None
    record: Record
    folder: Path | None


def compare_weights(
    first: str | Path,
    second: str | Path,
    *,
    parents: Sequence[str | Path] = (),
    expect: Lineage = Lineage.INDEPENDENT,
    out: str | Path | None = None,
    judge: Judge | None = None,
    plan: Plan | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Compared:
    """Compare two models, or their cards; with a card on either side, by cards alone.

    Parameters
    ----------
    first : the supposed base. second : the supposed offspring.
    parents : more possible parents of ``second``, of its shape: the share of each, and of ``first``, is estimated.
    expect : the claim that is judged: the verdict is a pass if it holds and a finding if its opposite does.
    out : folder for report and record; nothing is written if absent.

    Raises
    ------
    NotFound, CorruptFile, BadWeights, Unsupported, InvalidInput, EmptySet : a side cannot be read.
    NeedsAccess : shares of parents were asked for and a side is only a card.
    Unsupported : parents have another shape than the merged model.
    """
    started, listens = time.monotonic(), progress or Silent()
    sides = open_side(first), open_side(second)
    others = [open_side(parent) for parent in parents]
    _need_weights(sides, others)
    config: dict[str, Any] = {
        "first": str(first),
        "second": str(second),
        "parents": [str(parent) for parent in parents],
        "expect": expect.value,
        "digests": [side.digest for side in (*sides, *others)],
        "calibration": (judge or Judge()).calibration.source,
    }
    desk = None if out is None else Desk(Path(out), config, overwrite=overwrite)
    comparison = _compared(sides, judge, plan, listens)
    shares = _shares(sides, others) if others else None
    names = _names((*sides, *others))
    parents_named = (names[0], *names[2:])
    answer = Answer((names[0], names[1]), comparison, judge or Judge(), expect, shares, parents_named)
    record = _record(answer, sides, config, started)
    run = None if desk is None else desk.finish(record, None, False)
    return Compared(comparison, shares, record, None if run is None else run.folder)


def _compared(sides: tuple[Side, Side], judge: Judge | None, plan: Plan | None, progress: Progress) -> Comparison:
    models = [side.model for side in sides]
    if models[0] is None or models[1] is None:
        cards = [side.fingerprint(plan, progress) for side in sides]
        return compare_cards(cards[0], cards[1], judge)
    total = models[0].depth + models[1].depth
    with progress.task(f"Reading {sides[0].name} and {sides[1].name}", total) as task:
        watched = [Watched(model, task.advance) for model in models if model is not None]
        return compare(watched[0], watched[1], judge, plan)


def _need_weights(sides: Sequence[Side], parents: Sequence[Side]) -> None:
    cards = [side for side in (*sides, *parents) if side.model is None]
    if parents and cards:
        raise NeedsAccess(
            f"{cards[0].path} is a card, and shares of a merge are read from weights.",
            expected="models, with --parent.",
            remedy="pass the models themselves, or leave --parent out.",
        )


def _shares(sides: tuple[Side, Side], parents: Sequence[Side]) -> Shares | None:
    models = [side.model for side in (sides[0], *parents)]
    child = sides[1].model
    return None if child is None else merge_shares(child, [model for model in models if model is not None])


def _names(sides: Sequence[Side]) -> tuple[str, ...]:
    """Names of all; the paths of those that are called alike."""
    names = [side.name for side in sides]
    return tuple(side.name if names.count(side.name) == 1 else str(side.path) for side in sides)


def _record(answer: Answer, sides: tuple[Side, Side], config: dict[str, Any], started: float) -> Record:
    weighed = all(side.model is not None for side in sides)
    return Record(
        command="compare-weights",
        title=answer.title,
        created=now(),
        subject={
            "name": " and ".join(answer.names),
            "digest": digest_json([side.digest for side in sides]),
            "kind": "language models",
        },
        access="weights" if weighed else "cards",
        config=config,
        digests={side: item.digest for side, item in zip(("first", "second"), sides, strict=True)},
        seeds={},
        environment=environment(),
        cost=cost_since(started, 0),
        verdict=_verdict(answer),
        reasons=reasons(answer),
        summary=summary(answer),
        sections=sections(answer),
        not_done=not_looked_at(answer, weighed),
    )


def _verdict(answer: Answer) -> Verdict:
    found = answer.comparison.verdict
    if found is Lineage.UNDETERMINED:
        return Verdict.INCONCLUSIVE
    return Verdict.PASS if found is answer.expect else Verdict.FINDING
