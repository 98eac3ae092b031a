"""Generate-and-filter extraction (Carlini et al. 2023, arXiv 2301.13188, sections 4 and 5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from vestige.audit.attack import Attack, Outcome
from vestige.data.images import ImageSet
from vestige.data.split import Split, duplicate_groups
from vestige.digest import digest_json
from vestige.errors import InvalidInput
from vestige.execute import Context
from vestige.metrics.interval import Interval, clopper_pearson, estimate
from vestige.metrics.roc import exceeds_chance
from vestige.models.access import Access
from vestige.models.subject import Subject
from vestige.nearest import calibrated, cliques, count_within, nearest, pairs_within, rms
from vestige.record import Cell, Estimate, Figure, Match, Section, Series, Table

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

COUNTS = (4, 16, 64, 256)
"""Duplicate counts at and above which recall is summarized."""


@dataclass(frozen=True, eq=False)
class Search:
    """For every generation its nearest row: index, rms distance, calibrated ratio, each [generations]."""

    index: npt.NDArray[np.int64]
    distance: Floats
    ratio: Floats

    def copies(self, delta: float) -> Flags:
        """Which generations are copies: calibrated ratio at most 1, or (no spread to compare with) within delta."""
        return np.where(np.isnan(self.ratio), self.distance <= delta, self.ratio <= 1)


@dataclass(frozen=True, eq=False)
class Generations:
    """All that the attack collects.

    ``pixels`` uint8 [g, c, h, w]; ``condition`` class asked for [g] or None; ``members`` and
    ``others`` the searches; ``member_distance``, ``other_distance`` rms distance from each
    row to its nearest generation; ``neighbours`` how many clusters calibrated the ratio.
    """

    pixels: Pixels
    condition: npt.NDArray[np.int64] | None
    members: Search
    others: Search | None
    member_distance: Floats
    other_distance: Floats


@dataclass(frozen=True)
class GenerateAndFilter(Attack[Generations]):
    """Sample many images and look for training images among them.

    A generation is a copy of its nearest training image x when
    ``l(g, x) <= alpha * mean of l(g, y) over the nearest y``, where l is the rms distance
    with pixels in [0, 1] and the y are one representative of each of the ``neighbours``
    nearest near-duplicate clusters, so that duplicates cannot hide a copy. The same search
    in an equal number of non-members gives the false matches: precision is the share of
    true ones when both are pooled.

    The black-box filter uses no training data: generations of one condition that form a
    clique of at least ``clique_size`` within ``delta`` of one another are claimed to be
    memorized, the tightest clique first.

    Parameters
    ----------
    generations : how many images to sample; of a folder of samples all are searched.
    delta : radius of (l, delta)-eidetic memorization, rms with pixels in [0, 1].
    neighbours, alpha : of the calibrated distance; 50 and 0.5 in the paper.
    clique_size : smallest clique that the black-box filter accepts.
    """

    access: ClassVar[Access] = Access.SAMPLES
    claim: ClassVar[str] = "recovers training images by sampling and searching"
    source: ClassVar[str] = "Carlini et al. 2023, arXiv 2301.13188"

    generations: int = 1000
    delta: float = 0.05
    neighbours: int = 50
    alpha: float = 0.5
    clique_size: int = 4

    def __post_init__(self) -> None:
        if self.generations < 1 or not 0 < self.delta < 1 or self.clique_size < 2:
            raise InvalidInput(
                f"generations={self.generations}, delta={self.delta}, clique_size={self.clique_size}.",
                expected="at least 1 generation, 0 < delta < 1, cliques of at least 2.",
                remedy="change the option.",
            )

    def collect(self, subject: Subject, split: Split, context: Context) -> Generations:
        """Sample, then search members and others; every step cached."""
        limit = subject.generator.limit
        count = self.generations if limit is None else limit
        rows = np.arange(count, dtype=np.int64)
        key = {"generator": subject.generator.key(), "seed": context.seed}
        pixels = context.store.column("generations", key).fill(
            count,
            lambda part: subject.generator.sample(part, context.seed),
            shard_rows=64,
            progress=context.progress,
            label=f"generating {count:,} images",
        )
        flat = np.ascontiguousarray(pixels.reshape(count, -1))
        members = self._search(flat, split.members, split.cluster, key, context, "members")
        if split.others is None:
            others, other_distance = None, np.empty(0)
        else:
            others = self._search(flat, split.others, None, key, context, "non-members")
            other_distance = rms(nearest(split.others.flat, flat).distance2[:, 0], flat.shape[1])
        member_distance = rms(nearest(split.members.flat, flat).distance2[:, 0], flat.shape[1])
        return Generations(
            pixels, subject.generator.condition_of(rows), members, others, member_distance, other_distance
        )

    def _search(
        self,
        flat: Pixels,
        rows: ImageSet,
        cluster: npt.NDArray[np.int64] | None,
        key: dict[str, Any],
        context: Context,
        name: str,
    ) -> Search:
        labels = None if cluster is None else digest_json(cluster.tolist())
        settings = {"rows": rows.digest, "cluster": labels, "neighbours": self.neighbours, "alpha": self.alpha}

        def compute(part: npt.NDArray[np.int64]) -> Floats:
            found = calibrated(flat[part], rows.flat, cluster, neighbours=self.neighbours, alpha=self.alpha)
            return np.stack([found.index.astype(np.float64), found.distance, found.ratio], axis=1)

        table = context.store.column("distances", {**key, **settings}).fill(
            len(flat), compute, shard_rows=1024, progress=context.progress, label=f"searching {len(rows):,} {name}"
        )
        return Search(table[:, 0].astype(np.int64), table[:, 1], table[:, 2])

    def score(self, collected: Generations, split: Split) -> Outcome:
        """Rates by duplicate count, precision against non-members, eidetic counts, black-box cliques."""
        copies = collected.members.copies(self.delta)
        extracted = np.unique(collected.members.index[copies])
        false_copies = np.zeros(0, bool) if collected.others is None else collected.others.copies(self.delta)
        summary = [
            Estimate(
                name="extraction/images",
                value=float(len(extracted)),
                n=len(split.members),
                unit="distinct training images",
                note=f"recovered from {len(copies):,} generations",
            ),
            Estimate(
                name="extraction/near_exact",
                value=float(len(np.unique(collected.members.index[collected.members.distance <= self.delta]))),
                n=len(split.members),
                unit="distinct training images",
                note=f"within delta = {self.delta:g} of a generation",
            ),
            estimate("extraction/copy_rate", clopper_pearson(int(copies.sum()), len(copies)), "share of generations"),
            *self._precision(collected, split, extracted, false_copies),
            *_recall(split, extracted),
        ]
        claims, table = self._black_box(collected, copies)
        if claims:
            hit = sum(bool(copies[list(members)].any()) for members in claims)
            summary.append(
                estimate("extraction/black_box_precision", clopper_pearson(hit, len(claims)), "share of cliques")
            )
        section = Section(
            name="extraction",
            title="Extraction: which training images come out",
            text=_words(split, collected, copies, extracted),
            tables=[_by_count(split, extracted), table],
            figures=[_recall_figure(split, extracted), self._distance_figure(collected)],
            matches=self._matches(collected, split, copies),
        )
        return Outcome(tuple(summary), section, -collected.member_distance, -collected.other_distance, extracted)

    def _precision(
        self, collected: Generations, split: Split, extracted: npt.NDArray[np.int64], false_copies: Flags
    ) -> list[Estimate]:
        name, unit = "extraction/precision", "share of matched images that are members"
        if collected.others is None or split.others is None:
            return [Estimate(name=name, value=None, unit=unit, note="no non-members were given to measure it with")]
        false = len(np.unique(collected.others.index[false_copies]))
        # Unequal pools: scale the expected false matches to the size of the members.
        scaled = round(false * len(split.members) / len(split.others))
        chance = exceeds_chance(len(extracted), len(split.members), false, len(split.others))
        note = f"{false} of {len(split.others):,} non-members matched alike; p = {chance:.2g} for no difference"
        if len(extracted) + scaled == 0:
            return [Estimate(name=name, value=None, n=0, unit=unit, note="nothing was matched on either side")]
        return [estimate(name, clopper_pearson(len(extracted), len(extracted) + scaled), unit, note)]

    def _black_box(self, collected: Generations, copies: Flags) -> tuple[list[tuple[int, ...]], Table]:
        flat = collected.pixels.reshape(len(collected.pixels), -1)
        pairs = pairs_within(np.ascontiguousarray(flat), self.delta)
        if collected.condition is not None:
            pairs = pairs[collected.condition[pairs[:, 0]] == collected.condition[pairs[:, 1]]]
        found = cliques(pairs, len(flat), self.clique_size, _pair_distances(flat, pairs))
        rows: list[list[Cell]] = [
            [
                rank,
                len(clique.members),
                round(clique.mean_distance, 4),
                None if collected.condition is None else int(collected.condition[clique.members[0]]),
                bool(copies[list(clique.members)].any()),
            ]
            for rank, clique in enumerate(found.found[:20], start=1)
        ]
        caption = (
            f"Groups of at least {self.clique_size} generations within {self.delta:g} of one another, found without "
            f"looking at any training image; tightest first, {len(found.found)} in all."
        )
        if found.undecided:
            caption += f" The search stopped early for {len(found.undecided)} generations."
        columns = ["rank", "generations", "mean distance", "class", "matches training data"]
        table = Table(name="cliques", title="What an outsider would claim", columns=columns, rows=rows, caption=caption)
        return [clique.members for clique in found.found], table

    def _matches(self, collected: Generations, split: Split, copies: Flags) -> list[Match]:
        """The best generation of each extracted image, nearest first."""
        search = collected.members
        best: dict[int, int] = {}
        for g in np.flatnonzero(copies):
            row = int(search.index[g])
            if row not in best or search.distance[g] < search.distance[best[row]]:
                best[row] = int(g)
        within = count_within(split.members.flat[list(best)], split.members.flat, self.delta) if best else []
        eidetic = dict(zip(best, within, strict=True))
        ranked = sorted(best.items(), key=lambda item: (search.distance[item[1]], item[0]))
        return [
            Match(
                row=split.members.ids[row],
                generation=g,
                distance=float(search.distance[g]),
                calibrated=None if np.isnan(search.ratio[g]) else float(search.ratio[g]),
                copies=int(split.copies[row]),
                eidetic=int(eidetic[row]),
                picture=place,
            )
            for place, (row, g) in enumerate(ranked)
        ]

    def _distance_figure(self, collected: Generations) -> Figure:
        series = [_histogram("members", collected.members.distance)]
        if collected.others is not None:
            series.append(_histogram("non-members", collected.others.distance))
        return Figure(
            name="distances",
            title="Distance from each generation to its nearest image",
            kind="histogram",
            series=series,
            x_label="rms distance, pixels in [0, 1]",
            y_label="generations",
            thresholds=[("delta", self.delta)],
            caption="A second hump near zero among members only is copying.",
        )


def _pair_distances(flat: Pixels, pairs: npt.NDArray[np.int64]) -> Floats:
    gaps = [((flat[i].astype(np.int64) - flat[j]) ** 2).sum() for i, j in pairs]
    return rms(np.array(gaps, dtype=np.int64), flat.shape[1])


def _histogram(name: str, values: Floats) -> Series:
    counts, edges = np.histogram(values, bins=40, range=(0.0, float(max(values.max(initial=0), 0.2))))
    return Series(name=name, x=[float(e) for e in (edges[:-1] + edges[1:]) / 2], y=[float(c) for c in counts])


def _recall(split: Split, extracted: npt.NDArray[np.int64]) -> list[Estimate]:
    found = np.isin(np.arange(len(split.members)), extracted)
    lines = [("extraction/recall@copies=1", split.copies == 1)]
    lines += [(f"extraction/recall@copies>={c}", split.copies >= c) for c in COUNTS]
    return [
        estimate(name, clopper_pearson(int(found[mask].sum()), int(mask.sum())), "share of training images")
        for name, mask in lines
        if mask.any()
    ]


def _groups(split: Split, extracted: npt.NDArray[np.int64]) -> list[tuple[str, int, Interval]]:
    found = np.isin(np.arange(len(split.members)), extracted)
    return [
        (name, int(found[mask].sum()), clopper_pearson(int(found[mask].sum()), int(mask.sum())))
        for name, mask in duplicate_groups(split.copies)
    ]


def _by_count(split: Split, extracted: npt.NDArray[np.int64]) -> Table:
    rows: list[list[Cell]] = [
        [name, part.n, hits, round(part.value, 4), round(part.low, 4), round(part.high, 4)]
        for name, hits, part in _groups(split, extracted)
    ]
    columns = ["copies in training data", "images", "extracted", "share", "low", "high"]
    return Table(name="recall", title="Extracted, by duplicate count", columns=columns, rows=rows)


def _recall_figure(split: Split, extracted: npt.NDArray[np.int64]) -> Figure:
    groups = _groups(split, extracted)
    series = Series(
        name="extracted",
        x=[name for name, _, _ in groups],
        y=[part.value for _, _, part in groups],
        low=[part.low for _, _, part in groups],
        high=[part.high for _, _, part in groups],
    )
    return Figure(
        name="recall",
        title="Share of training images extracted, by duplicate count",
        kind="bars",
        series=[series],
        x_label="copies in the training data",
        y_label="share extracted",
        caption="Bars show 95 % Clopper-Pearson intervals.",
    )


def _words(split: Split, collected: Generations, copies: Flags, extracted: npt.NDArray[np.int64]) -> list[str]:
    words = [
        f"{len(copies):,} images were generated; {int(copies.sum()):,} of them copy a training image, "
        f"which recovers {len(extracted):,} of {len(split.members):,} distinct training images."
    ]
    if split.others is not None and split.dropped:
        words.append(f"{split.dropped} of the non-members were copies of training images and were left out.")
    if split.others is None:
        words.append("Without non-members the share of false matches is unknown.")
    return words
