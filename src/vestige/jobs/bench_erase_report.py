"""The record of a comparison of erasers: tables, two charts and the numbers behind them."""

from __future__ import annotations

from vestige.jobs.bench_erase_figures import plane, price_figure
from vestige.jobs.bench_erase_outcome import Outcome
from vestige.jobs.bench_erase_score import Trial, quantity
from vestige.jobs.bench_erase_tables import comparison_table, cost_section, goal, parts_of, shown, side_section
from vestige.jobs.run import Desk, environment, now
from vestige.metrics.interval import estimate
from vestige.record import Estimate, NotDone, Record, Section, Verdict

_REGIME = {
    "equal": "at equal budget",
    "default": "at its own defaults",
    "both": "at its own defaults, which are the equal budget",
}


def written(outcome: Outcome, desk: Desk) -> Record:
    """The record."""
    ground = outcome.ground
    cost = desk.cost(outcome.evaluations)
    count = f"{len(ground.rows):,} image{'' if len(ground.rows) == 1 else 's'}"
    what = count if ground.forgotten_class is None else f"{count} of class {ground.forgotten_class}"
    return Record(
        command="bench erase",
        title=f"Erasers compared: {what} taken out of {outcome.subject.name}",
        created=now(),
        subject={
            "name": outcome.subject.name,
            "digest": outcome.subject.digest,
            "kind": type(outcome.subject.generator).__name__,
        },
        access=outcome.subject.access.label,
        config=desk.config,
        digests={"model": outcome.subject.digest, "data": ground.who.digest},
        seeds={"seed": ground.context.seed, "erasures": outcome.seeds},
        environment=environment(),
        cost=cost,
        verdict=Verdict.NONE,
        reasons=_reasons(outcome),
        summary=_summary(outcome),
        sections=[
            _comparison(outcome),
            *(side_section(outcome, side) for side in ("forgetting", "retention")),
            cost_section(outcome),
        ],
        not_done=_not_done(outcome),
    )


def _reasons(outcome: Outcome) -> list[str]:
    best = outcome.ordered[0]
    overall, forgetting, retention = best.distances(outcome.yardstick)
    if overall is None:
        return [
            f"Nothing that was measured tells the original's forgetting from {goal(outcome)}, so the methods are not "
            "ranked: they stand in the order in which they were run."
        ]
    parts = [
        f"{shown(value)} in {name}" for name, value in (("forgetting", forgetting), ("retention", retention)) if value
    ]
    return [
        f"{best.method} {_REGIME[best.regime]} comes nearest to {goal(outcome)}: distance {shown(overall)} "
        f"({', '.join(parts)})."
    ]


def _summary(outcome: Outcome) -> list[Estimate]:
    """Distances first, then the original, the retrained model and every method."""
    lines: list[Estimate] = []
    for place, group in enumerate(("distance", "distance_in_forgetting", "distance_in_retention")):
        for trial in outcome.ordered:
            found, unit, name = (
                trial.distances(outcome.yardstick)[place],
                f"from {goal(outcome)}",
                f"{group}/{trial.name}",
            )
            missing = Estimate(
                name=name, value=None, note="the original is not told apart from what it is compared with"
            )
            lines.append(missing if found is None else estimate(name, found, unit))
    unit = "images forward through the network"
    for trial in outcome.ordered:
        name = f"forward_equivalents/{trial.name}"
        lines.append(Estimate(name=name, value=trial.spent, n=len(trial.made), unit=unit))
    for name, found in (("original", outcome.yardstick.original), ("retrained", outcome.retrained or {})):
        lines += [estimate(f"{name}/{key}", value, quantity(key).unit) for key, value in found.items()]
    for trial in outcome.ordered:
        for key in outcome.yardstick.original:
            value = trial.value(key)
            if value is not None:
                lines.append(estimate(f"{trial.name}/{key}", value, quantity(key).unit, "n counts erasures"))
        lines += _cost_lines(trial)
    return lines


def _cost_lines(trial: Trial) -> list[Estimate]:
    unit, key = "images forward through the network", f"{trial.name}/cost"
    lines = [
        Estimate(name=f"{key}/forward_equivalents", value=trial.spent, n=len(trial.made), unit=unit),
        Estimate(name=f"{key}/fixed", value=trial.price.fixed, unit=unit, note=parts_of(trial)),
        Estimate(name=f"{key}/steps", value=float(trial.made[0].steps), unit="steps"),
    ]
    if trial.seconds is not None:
        lines.append(estimate(f"{key}/seconds", trial.seconds, "s"))
    if trial.memory is not None:
        lines.append(Estimate(name=f"{key}/peak_memory", value=float(trial.memory), unit="bytes"))
    return lines


def _comparison(outcome: Outcome) -> Section:
    words = [_protocol(outcome), _meaning(outcome)]
    return Section(
        name="comparison",
        title="The comparison",
        text=words,
        tables=[comparison_table(outcome)],
        figures=[plane(outcome), *price_figure(outcome)],
    )


def _protocol(outcome: Outcome) -> str:
    ground, probe = outcome.ground, outcome.ground.probe
    words = f"{len(ground.rows):,} images are forgotten and {len(ground.kept):,} retained. "
    if outcome.budget is not None:
        words += f"Under equal budget an erasure costs at most {outcome.budget:,.0f} forward-equivalents (images "
        words += "forward; a backward pass counts two), whatever a method spends before its first step included. "
    words += f"Every model is sampled {ground.generations:,} times from the same noise with "
    words += f"{type(ground.loading.sampler).__name__}, and its errors are measured with {probe.draws} shared draws of "
    words += "noise a time. Distances between distributions and per-image feature distances are in "
    words += f"{ground.features.name}; the latter is built like LPIPS and is not LPIPS."
    return words


def _meaning(outcome: Outcome) -> str:
    yardstick = outcome.yardstick
    titles = [quantity(name).title for name in yardstick.telling]
    words = (
        ""
        if yardstick.exact
        else (
            "No model retrained without the forgotten rows was given, so stand-ins take its place: the level of images "
            "never seen for the residue, chance for membership, nothing extracted, and the original's retention. "
        )
    )
    if titles:
        words += (
            f"Distance in forgetting is 0 at {goal(outcome)} and 1 as far from it as the original was, on either "
            f"side: forgetting too much is a mark as well. It is the mean over {', '.join(titles)}, where the "
            "original's interval and the target's do not meet. "
        )
    else:
        words += f"Nothing that was measured tells the original's forgetting from {goal(outcome)}. "
    if yardstick.relative:
        names = ", ".join(quantity(name).title for name in yardstick.relative)
        words += f"Distance in retention is the mean relative difference of {names}. "
    return words + "Distance is the mean of the two."


def _not_done(outcome: Outcome) -> list[NotDone]:
    missing = [
        NotDone(what=f"{f.method} {_REGIME[f.regime.value]}", reason=f.reason, remedy=f.remedy)
        for f in outcome.failures
    ]
    if not outcome.yardstick.exact:
        missing.append(
            NotDone(
                what="distance from a retrained model",
                reason="none was given.",
                remedy="train one on the retained rows alone and pass --reference.",
            )
        )
    if "forgetting/membership" not in outcome.yardstick.original:
        missing.append(
            NotDone(
                what="membership of the forgotten images",
                reason="there are fewer than two forgotten images, or two non-members of their classes.",
                remedy="pass --non-members with images of the same source and classes.",
            )
        )
    if "retention/frechet_data" not in outcome.yardstick.original:
        missing.append(
            NotDone(
                what="distances between distributions, precision, recall and coverage",
                reason=f"{outcome.ground.generations:,} generations or the retained images are too few.",
                remedy="raise --generations.",
            )
        )
    return missing
