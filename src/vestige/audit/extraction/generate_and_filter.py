"""Generate-and-filter extraction (Carlini et al. 2023, arXiv 2301.13188, sections 4 and 5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from vestige.audit.attack import Attack, Outcome
from vestige.audit.extraction.budget import Budget
from vestige.audit.extraction.precision import Claim, Curve, curve_figure, pooled_precision
from vestige.audit.extraction.search import Finder, Flags, Floats, Index, Pixels, Search
from vestige.audit.extraction.tables import (
    clique_table,
    distance_figure,
    matches,
    recall_figure,
    recall_lines,
    recall_table,
)
from vestige.data.split import Split
from vestige.errors import InvalidInput
from vestige.execute import Context
from vestige.metrics.interval import clopper_pearson, estimate
from vestige.metrics.roc import exceeds_chance
from vestige.models.access import Access
from vestige.models.subject import Subject
from vestige.nearest import cliques, distance2_of_pairs, nearest, pairs_within, rms
from vestige.record import Estimate, Section, Table


@dataclass(frozen=True, eq=False)
class Generations:
    """All that the attack collects.

    ``pixels`` uint8 [g, c, h, w]; ``condition`` class asked for [g] or None; ``members`` and
    ``others`` the searches; ``member_distance``, ``other_distance`` rms distance from each
    row to its nearest generation.
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
    true ones when both are pooled. The curve of precision lets the threshold on the ratio
    of both sides vary.

    The black-box filter uses no training data: generations of one condition that form a
    clique of at least ``clique_size`` within ``delta`` of one another are claimed to be
    memorized, the tightest clique first.

    Parameters
    ----------
    generations : how many images to sample in total; a class-conditional model is asked for
        its classes in turn, so each gets its equal share. Of a folder of samples all are searched.
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

    @property
    def finder(self) -> Finder:
        """How copies are searched for."""
        return Finder(self.neighbours, self.alpha)

    def copied(self, pixels: Pixels, split: Split) -> Flags:
        """Which pictures [n, h, w, c] copy a member, judged as generations are; nothing is kept."""
        flat = np.ascontiguousarray(pixels.reshape(len(pixels), -1))
        return self.finder.at_once(flat, split.members, split.cluster).copies(self.delta)

    def collect(self, subject: Subject, split: Split, context: Context) -> Generations:
        """Sample, then search members and others; every step cached."""
        limit = subject.generator.limit
        count = self.generations if limit is None else limit
        key = {"generator": subject.generator.key(), "seed": context.seed}
        pixels = context.store.column("generations", key).fill(
            count,
            lambda part: subject.generator.sample(part, context.seed),
            shard_rows=64,
            progress=context.progress,
            label=f"generating {count:,} images",
        )
        flat = np.ascontiguousarray(pixels.reshape(count, -1))
        finder = self.finder
        members = finder.search(flat, split.members, split.cluster, key, context, "members")
        if split.others is None:
            others, other_distance = None, np.empty(0)
        else:
            others = finder.search(flat, split.others, None, key, context, "non-members")
            other_distance = rms(nearest(split.others.flat, flat).distance2[:, 0], flat.shape[1])
        member_distance = rms(nearest(split.members.flat, flat).distance2[:, 0], flat.shape[1])
        condition = subject.generator.condition_of(np.arange(count, dtype=np.int64))
        return Generations(pixels, condition, members, others, member_distance, other_distance)

    def score(self, collected: Generations, split: Split) -> Outcome:
        """Rates by duplicate count, precision at one threshold and at all, eidetic counts, black-box cliques."""
        search = collected.members
        copies, extracted = search.copies(self.delta), search.found(self.delta)
        budget = Budget.of(len(copies), collected.condition)
        curve = self._curve(collected, split)
        claims, table = self._black_box(collected, copies)
        summary = [
            *self._counts(search, copies, extracted, len(split.members)),
            self._precision(collected, split, extracted),
            *([] if curve is None else curve.summary()),
            *recall_lines(split, extracted),
            *self._black_box_lines(claims, budget),
        ]
        figure = curve_figure(curve, claims)
        section = Section(
            name="extraction",
            title="Extraction: which training images come out",
            text=[*_words(split, copies, extracted), budget.words(self.clique_size)],
            tables=[recall_table(split, extracted), table],
            figures=[
                recall_figure(split, extracted),
                *([] if figure is None else [figure]),
                distance_figure(search, collected.others, self.delta),
            ],
            matches=matches(search, split, self.delta),
        )
        return Outcome(tuple(summary), section, -collected.member_distance, -collected.other_distance, extracted)

    def _counts(self, search: Search, copies: Flags, extracted: Index, members: int) -> list[Estimate]:
        unit, near = "distinct training images", np.unique(search.index[search.distance <= self.delta])
        rate = clopper_pearson(int(copies.sum()), len(copies))
        return [
            Estimate(
                name="extraction/images",
                value=float(len(extracted)),
                n=members,
                unit=unit,
                note=f"recovered from {len(copies):,} generations",
            ),
            Estimate(
                name="extraction/near_exact",
                value=float(len(near)),
                n=members,
                unit=unit,
                note=f"within delta = {self.delta:g} of a generation",
            ),
            estimate("extraction/copy_rate", rate, "share of generations"),
        ]

    def _precision(self, collected: Generations, split: Split, extracted: Index) -> Estimate:
        name, unit = "extraction/precision", "share of matched images that are members"
        if collected.others is None or split.others is None:
            return Estimate(name=name, value=None, unit=unit, note="no non-members were given to measure it with")
        true, false = len(extracted), len(collected.others.found(self.delta))
        if true + false == 0:
            return Estimate(name=name, value=None, n=0, unit=unit, note="nothing was matched on either side")
        sizes = len(split.members), len(split.others)
        chance = exceeds_chance(true, sizes[0], false, sizes[1])
        note = f"{false} of {sizes[1]:,} non-members matched alike; p = {chance:.2g} for no difference"
        return estimate(name, pooled_precision(true, sizes[0], false, sizes[1]), unit, note)

    def _curve(self, collected: Generations, split: Split) -> Curve | None:
        if collected.others is None or split.others is None:
            return None
        inside = collected.members.best(len(split.members), self.delta)
        return Curve.of(inside, collected.others.best(len(split.others), self.delta))

    def _black_box(self, collected: Generations, copies: Flags) -> tuple[list[Claim], Table]:
        flat = np.ascontiguousarray(collected.pixels.reshape(len(collected.pixels), -1))
        pairs, condition = pairs_within(flat, self.delta), collected.condition
        if condition is not None:
            pairs = pairs[condition[pairs[:, 0]] == condition[pairs[:, 1]]]
        found = cliques(pairs, len(flat), self.clique_size, rms(distance2_of_pairs(flat, flat, pairs), flat.shape[1]))
        claims: list[Claim] = []
        for clique in found.found:
            nodes = np.array(clique.members)
            copied = np.unique(collected.members.index[nodes[copies[nodes]]])
            asked = None if condition is None else int(condition[nodes[0]])
            claims.append(Claim(clique.members, clique.mean_distance, asked, tuple(copied.tolist())))
        return claims, clique_table(claims, self.clique_size, self.delta, len(found.undecided))

    def _black_box_lines(self, claims: list[Claim], budget: Budget) -> list[Estimate]:
        name, unit = "extraction/black_box_precision", "share of cliques"
        if claims:
            right = sum(bool(claim.copied) for claim in claims)
            return [estimate(name, clopper_pearson(right, len(claims)), unit)]
        if budget.detectable(self.clique_size) is None:
            note = f"a condition gets {budget.least} generations, fewer than a clique of {self.clique_size}"
            return [Estimate(name=name, value=None, n=0, unit=unit, note=note)]
        return []


def _words(split: Split, copies: Flags, extracted: Index) -> list[str]:
    words = [
        f"{len(copies):,} images were generated; {int(copies.sum()):,} of them copy a training image, "
        f"which recovers {len(extracted):,} of {len(split.members):,} distinct training images."
    ]
    if split.others is not None and split.dropped:
        words.append(f"{split.dropped} of the non-members were copies of training images and were left out.")
    if split.others is None:
        words.append("Without non-members the share of false matches is unknown.")
    return words
