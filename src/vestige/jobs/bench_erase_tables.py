"""Tables of a comparison of erasers."""

from __future__ import annotations

import math

from vestige.jobs.bench_erase_outcome import Outcome
from vestige.jobs.bench_erase_score import Trial, quantity
from vestige.metrics.interval import Interval
from vestige.record import Cell, Section, Table
from vestige.report.wording import memory, number, together


def goal(outcome: Outcome) -> str:
    """What distances are measured from, in words."""
    return "the retrained model" if outcome.yardstick.exact else "the stand-ins for a retrained model"


def parts_of(trial: Trial) -> str:
    """What a method spends once, by what it is for."""
    return ", ".join(f"{name}: {number(value)}" for name, value in trial.price.parts.items())


def shown(value: Interval | None) -> str:
    """A value and half the width of its interval."""
    if value is None:
        return ""
    half = (value.high - value.low) / 2
    if not math.isfinite(half) or half == 0:
        return number(value.value)
    middle, width = together([value.value, half])
    return f"{middle} ± {width}"


def comparison_table(outcome: Outcome) -> Table:
    """One row a method and regime, nearest to the retrained model first, then the models they are compared with."""
    columns = [
        name
        for name in (
            "forgetting/residue",
            "forgetting/membership",
            "forgetting/class_probability",
            "forgetting/extracted",
            "retention/frechet_data",
            "retention/class_accuracy",
            "retention/loss_ratio",
        )
        if name in outcome.yardstick.original
    ]
    rows: list[list[Cell]] = []
    for trial in outcome.ordered:
        overall, forgetting, retention = trial.distances(outcome.yardstick)
        distances = [shown(v) or None for v in (overall, forgetting, retention)]
        values = [shown(trial.value(name)) or None for name in columns]
        cost: list[Cell] = [trial.made[0].steps, number(round(trial.spent)), shown(trial.seconds) or None]
        rows.append([trial.method, trial.regime, *distances, *values, *cost])
    for name, found in (("original", outcome.yardstick.original), ("retrained", outcome.retrained)):
        if found is not None:
            values = [number(found[key].value) if key in found else None for key in columns]
            rows.append([name, None, None, None, None, *values, None, None, None])
    for failure in outcome.failures:
        empty: list[Cell] = [None] * (len(columns) + 6)
        rows.append([failure.method, failure.regime.value, *empty])
    return Table(
        name="comparison",
        title="Erasers, nearest to the retrained model first"
        if outcome.yardstick.exact
        else "Erasers, nearest to the stand-ins first",
        columns=[
            "method",
            "regime",
            "distance",
            "in forgetting",
            "in retention",
            *(quantity(name).title for name in columns),
            "steps",
            "forward-equivalents",
            "seconds",
        ],
        rows=rows,
        caption=f"Mean over {outcome.seeds} erasures ± half the 95 % interval (Student's); a single erasure has none. "
        "A row without numbers could not be run; what was not done says why.",
    )


def side_section(outcome: Outcome, side: str) -> Section:
    """Every quantity of one side, and how far it is from the target's value."""
    names = outcome.names(side)
    values: list[list[Cell]] = []
    gaps: list[list[Cell]] = []
    for trial in outcome.ordered:
        head: list[Cell] = [trial.method, trial.regime]
        values.append([*head, *(shown(trial.value(name)) or None for name in names)])
        gaps.append([*head, *(shown(trial.difference(name, outcome.yardstick)) or None for name in names)])
    for name, found in (("original", outcome.yardstick.original), ("retrained", outcome.retrained)):
        if found is not None:
            values.append([name, None, *(shown(found[key]) if key in found else None for key in names)])
    units = "; ".join(f"{quantity(n).title}: {quantity(n).unit}" for n in names if "@" not in n)
    columns = ["method", "regime", *(quantity(name).title for name in names)]
    title = {"forgetting": "Forgetting: what is left of the forgotten", "retention": "Retention: what was kept"}[side]
    return Section(
        name=side,
        title=title,
        tables=[
            Table(name=side, title="Values", columns=columns, rows=values, caption=f"{units}."),
            Table(
                name=f"{side}-difference",
                title=f"Less the value of {goal(outcome)}",
                columns=columns,
                rows=gaps,
                caption="0 is what retraining gives; a value past it on the other side is a mark as well.",
            ),
        ],
    )


def cost_section(outcome: Outcome) -> Section:
    """Cost of every erasure with its fixed part named."""
    rows: list[list[Cell]] = []
    for trial in outcome.ordered:
        price, held = trial.price, trial.memory
        rows.append(
            [
                trial.method,
                trial.regime,
                trial.made[0].steps,
                round(price.step, 2),
                round(price.fixed, 2),
                parts_of(trial) or None,
                round(trial.spent, 2),
                shown(trial.seconds) or None,
                None if held is None else memory(held),
            ]
        )
    columns = ["method", "regime", "steps", "a step", "spent once", "for", "in all", "seconds", "peak memory"]
    return Section(
        name="cost",
        title="Cost: forward-equivalents, time and memory",
        tables=[
            Table(
                name="cost",
                title="Cost of an erasure",
                columns=columns,
                rows=rows,
                caption="A step, what is spent once and the whole in forward-equivalents. Seconds are those of the "
                "machine named below; erasures that were cut off and resumed are not timed. Memory is the whole "
                "process's on a CPU, the tensors' on a GPU.",
            )
        ],
    )
