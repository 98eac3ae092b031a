"""The tables and figures of a comparison."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from vestige.data.split import duplicate_groups
from vestige.jobs.compare_report import Comparison, Entry, shown
from vestige.metrics.interval import Interval, clopper_pearson
from vestige.record import Cell, Estimate, Figure, Section, Series, Table

_POINTS = 60


def section(found: Comparison) -> Section:
    """The part of the report that shows everything."""
    return Section(
        name="comparison",
        title="The models side by side",
        text=[
            "Every model has the same budget: the smallest number of generations among the audits, of which each "
            "contributes its first. Images extracted, false matches and quality are measured anew on those."
        ],
        tables=[_table(found), _by_count(found), _attacks(found), _tests(found)],
        figures=[*_against_quality(found), _recall(found), _growth(found)],
    )


def _rounded(interval: Interval | Estimate | None, digits: int = 4) -> list[Cell]:
    if interval is None:
        return [None, None, None]
    return [None if v is None else round(v, digits) for v in (interval.value, interval.low, interval.high)]


def _table(found: Comparison) -> Table:
    rows: list[list[Cell]] = []
    for entry in found.entries:
        share = entry.share
        bounds: list[Cell] = [round(share.low * share.n, 1), round(share.high * share.n, 1)]
        rows.append(
            [
                *(entry.name, entry.run.record.subject["kind"], entry.budget, entry.made),
                *_rounded(entry.quality),
                *(len(entry.extracted), *bounds, entry.false),
                *(None if entry.precision is None else round(entry.precision.value, 4), entry.attack),
                *_rounded(entry.line("membership/auc")),
                *_rounded(entry.line("membership/tpr@fpr=0.01")),
            ]
        )
    floor = next((entry.floor for entry in found.entries if entry.floor is not None), None)
    lowest = "" if floor is None else f" As many training images lie at a Fréchet distance of {floor.value:.4g}."
    return Table(
        name="comparison",
        title="Quality, extraction and membership at an equal budget",
        columns=[
            *("model", "kind", "generations compared", "made", "Fréchet", "low", "high"),
            *("images extracted", "low", "high", "non-members matched", "precision", "membership attack"),
            *("AUC", "low", "high", "TPR at 1 % FPR", "low", "high"),
        ],
        rows=rows,
        caption=f"Distance of the generations to {found.entries[0].against}; lower is better.{lowest}",
    )


def _groups(entry: Entry) -> list[tuple[str, Interval]]:
    found = np.isin(np.arange(len(entry.rows.members)), entry.extracted)
    groups = duplicate_groups(entry.rows.copies)
    return [(name, clopper_pearson(int(found[mask].sum()), int(mask.sum()))) for name, mask in groups]


def _by_count(found: Comparison) -> Table:
    columns, rows = ["copies in training data", "images"], list[list[Cell]]()
    for name, mask in duplicate_groups(found.entries[0].rows.copies):
        rows.append([name, int(mask.sum())])
    for entry in found.entries:
        columns += [f"{entry.name}: share extracted", "low", "high"]
        for row, (_, share) in zip(rows, _groups(entry), strict=True):
            row += _rounded(share)
    return Table(name="recall", title="Extracted, by duplicate count", columns=columns, rows=rows)


def _attacks(found: Comparison) -> Table:
    rows: list[list[Cell]] = []
    for entry in found.entries:
        for line in entry.run.record.summary:
            if line.name.endswith("/auc"):
                rows.append([entry.name, line.name.removesuffix("/auc"), *_rounded(line)])
    return Table(
        name="attacks",
        title="Every membership attack that ran",
        columns=["model", "lines of the audit", "AUC", "low", "high"],
        rows=rows,
        caption="Different attacks ask different questions; compare a model with another in the same one.",
    )


def _tests(found: Comparison) -> Table:
    rows: list[list[Cell]] = [
        [
            *(pair.first.name, pair.second.name, *pair.alone, *_rounded(pair.difference, 1), float(f"{pair.p:.2g}")),
            *_rounded(pair.membership),
        ]
        for pair in found.pairs
    ]
    return Table(
        name="tests",
        title="Differences on the same training images",
        columns=[
            *("first", "second", "clusters only of the first", "only of the second", "difference", "low", "high"),
            *("p", "AUC difference", "low", "high"),
        ],
        rows=rows,
        caption="Exact McNemar test, p adjusted by Holm's method; interval of the difference by inverting the test; "
        "AUCs by DeLong's variance on the same rows.",
    )


def _against_quality(found: Comparison) -> list[Figure]:
    if any(entry.quality is None for entry in found.entries):
        return []
    series = [
        Series(
            name=f"{entry.name}, Fréchet {shown(entry.quality)}",
            x=[entry.quality.value],
            y=[entry.share.value],
            low=[entry.share.low],
            high=[entry.share.high],
        )
        for entry in found.entries
        if entry.quality is not None
    ]
    return [
        Figure(
            name="extraction-quality",
            title="What comes out against how good the images are",
            kind="points",
            series=series,
            x_label="Fréchet distance (lower is better)",
            y_label="share of training images extracted",
            caption="Bars show 95 % Clopper-Pearson intervals; those of the distance stand beside the names.",
        )
    ]


def _recall(found: Comparison) -> Figure:
    return Figure(
        name="recall",
        title="Share of training images extracted, by duplicate count",
        kind="bars",
        series=[
            _series(entry.name, [name for name, _ in _groups(entry)], [share for _, share in _groups(entry)])
            for entry in found.entries
        ],
        x_label="copies in the training data",
        y_label="share extracted",
        caption="Bars show 95 % Clopper-Pearson intervals.",
    )


def _series(name: str, x: Sequence[str], shares: Sequence[Interval]) -> Series:
    def part(get: Callable[[Interval], float]) -> list[float | None]:
        return [get(share) for share in shares]

    return Series(
        name=name, x=list(x), y=part(lambda s: s.value), low=part(lambda s: s.low), high=part(lambda s: s.high)
    )


def _growth(found: Comparison) -> Figure:
    budget = found.entries[0].budget
    counts = np.unique(np.geomspace(1, budget, _POINTS).round().astype(int))
    return Figure(
        name="growth",
        title="Distinct training images extracted as generations are added",
        kind="line",
        series=[
            Series(
                name=entry.name,
                x=[float(count) for count in counts],
                y=[float((entry.first_copied < count).sum()) for count in counts],
            )
            for entry in found.entries
        ],
        x_label="generations",
        y_label="distinct training images",
        x_log=True,
        caption="Where a line still rises, more generations would find more.",
    )
