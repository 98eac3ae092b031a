"""Charts of a comparison of erasers: forgetting against retention, and distance against cost."""

from __future__ import annotations

import math
from collections.abc import Sequence

from vestige.jobs.bench_erase_outcome import Outcome
from vestige.jobs.bench_erase_score import Trial, quantity
from vestige.metrics.interval import Interval
from vestige.record import Figure, Series


def _bounds(values: Sequence[Interval | None]) -> tuple[list[float | None], list[float | None]]:
    def finite(number_: float) -> float | None:
        return number_ if math.isfinite(number_) else None

    low = [None if v is None else finite(v.low) for v in values]
    return low, [None if v is None else finite(v.high) for v in values]


def _points(name: str, pairs: Sequence[tuple[str, Interval | None, Interval | None]]) -> Series:
    """A series of named points with intervals both ways; a point without x or y is left out."""
    whole = [(label, x, y) for label, x, y in pairs if x is not None and y is not None]
    x_low, x_high = _bounds([x for _, x, _ in whole])
    low, high = _bounds([y for _, _, y in whole])
    return Series(
        name=name,
        x=[x.value for _, x, _ in whole],
        y=[y.value for _, _, y in whole],
        low=low,
        high=high,
        x_low=x_low,
        x_high=x_high,
        labels=[label for label, _, _ in whole],
    )


def _by_regime(outcome: Outcome, regime: str) -> list[Trial]:
    return [trial for trial in outcome.ordered if trial.regime == regime]


_LEGEND = {"equal": "equal budget", "default": "own defaults", "both": "own defaults, the equal budget"}


def plane(outcome: Outcome) -> Figure:
    """Forgetting against retention."""
    across, up = outcome.forgetting, outcome.retention
    series = [
        _points(title, [(t.method, t.value(across), t.value(up)) for t in _by_regime(outcome, regime)])
        for regime, title in _LEGEND.items()
        if _by_regime(outcome, regime)
    ]
    for name, found in (("original", outcome.yardstick.original), ("retrained", outcome.retrained)):
        if found is not None:
            series.append(_points(name, [(name, found.get(across), found.get(up))]))
    x, y = quantity(across), quantity(up)
    return Figure(
        name="plane",
        title="Forgetting against retention",
        kind="scatter",
        series=series,
        x_label=f"{x.title}: {x.unit}",
        y_label=f"{y.title}: {y.unit}",
        caption="The nearer to the retrained model the better. Lines: 95 % intervals, over erasures for methods and "
        "over images for the original and the retrained model.",
    )


def price_figure(outcome: Outcome) -> list[Figure]:
    """Distance against cost."""
    series: list[Series] = []
    for regime, title in _LEGEND.items():
        pairs = [
            (t.method, Interval(t.spent, math.inf, math.inf, 1), t.distances(outcome.yardstick)[0])
            for t in _by_regime(outcome, regime)
        ]
        if pairs:
            series.append(_points(title, pairs))
    if not any(s.x for s in series):
        return []
    return [
        Figure(
            name="cost",
            title="Distance from the retrained model against cost",
            kind="scatter",
            series=series,
            x_label="forward-equivalents of an erasure",
            y_label="distance",
            x_log=True,
            caption="Below and to the left is better: nearer to the retrained model, and cheaper.",
        )
    ]
