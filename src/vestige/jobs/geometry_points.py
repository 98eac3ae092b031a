"""Which points a look at the geometry judges, and which non-members it learns from what is normal."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from vestige.audit.extraction.generate_and_filter import GenerateAndFilter
from vestige.audit.extraction.search import Finder, Search
from vestige.audit.membership.rows import choose
from vestige.data.images import ImageSet
from vestige.data.split import Split, duplicate_groups
from vestige.errors import InvalidInput
from vestige.execute import Context
from vestige.models.subject import Subject
from vestige.randomness import Stream, generator

Index = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Doubles = npt.NDArray[np.float64]

SEARCH = GenerateAndFilter()
"""What counts as a copy of a training image is what an audit calls one."""


@dataclass(frozen=True)
class Rows:
    """Training images: one of every cluster of near-duplicates up to half of ``count``, the rest seen once.

    Parameters
    ----------
    count : training images in all.
    controls : non-members beside them.
    """

    count: int = 200
    controls: int = 100

    def __post_init__(self) -> None:
        _check(self.count, self.controls)


@dataclass(frozen=True)
class Generated:
    """The model's own generations.

    Parameters
    ----------
    count : how many; of a folder of samples its first.
    controls : non-members beside them.
    """

    count: int = 200
    controls: int = 100

    def __post_init__(self) -> None:
        _check(self.count, self.controls)


Choice = Rows | Generated


@dataclass(frozen=True, eq=False)
class Copying:
    """For every generation the training image that is nearest, and whether it is a copy of that.

    ``row`` [n] is the member, ``distance`` [n] root mean square with pixels in [0, 1], ``copied`` bool [n].
    """

    row: Index
    distance: Doubles
    copied: Flags


@dataclass(frozen=True, eq=False)
class Points:
    """What is judged.

    Parameters
    ----------
    images : the points, labelled with what the model is told there.
    controls : non-members; for a GAN generations that copy no training image.
    row : member that each point is, [n]; -1 for a generation.
    copies : rows of the training data in the cluster of each point, [n]; 0 for a generation that copies nothing.
    copying : what generations copy; None for training images.
    drawn : rows of the generator that points [n] and controls [m] are, for a GAN, which can be asked of nothing else.
    """

    images: ImageSet
    controls: ImageSet | None
    row: Index
    copies: Index
    copying: Copying | None = None
    drawn: tuple[Index, Index] | None = None

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def groups(self) -> list[tuple[str, Flags]]:
        """Points by what is known of them: duplicate counts, or copies and other generations; none empty."""
        if self.copying is None:
            found = [(f"{name} copies", mask) for name, mask in duplicate_groups(self.copies)]
            return [("seen once" if name == "1 copies" else name, mask) for name, mask in reversed(found)]
        sides = (("copies of a training image", self.copying.copied), ("other generations", ~self.copying.copied))
        return [(name, mask) for name, mask in sides if mask.any()]


def choose_points(choice: Choice, subject: Subject, who: Split, context: Context, keep: Index | None = None) -> Points:
    """The points of a choice, drawn by the seed of ``context``; generations and their search are cached.

    Members ``keep`` that were seen once come before others.
    """
    others = who.others
    controls = None if others is None else others.take(choose(len(others), choice.controls, context.seed))
    if isinstance(choice, Rows):
        rows = _rows(who, choice.count, context.seed, np.empty(0, np.int64) if keep is None else keep)
        return Points(who.members.take(rows), controls, rows, who.copies[rows])
    return _generated(choice, subject, who, controls, context)


def _rows(who: Split, count: int, seed: int, keep: Index) -> Index:
    """One member a cluster: repeated ones by turns from every duplicate count, then members seen once."""
    clusters = np.unique(who.cluster)
    copies = who.copies[clusters]
    turns: list[tuple[int, int, int]] = []
    for place, (_, mask) in enumerate(duplicate_groups(copies)):
        group = clusters[mask & (copies > 1)]
        mixed = generator(seed, Stream.SUBSET, len(clusters), draw=2 + place).permutation(group)
        turns += [(turn, -place, int(row)) for turn, row in enumerate(mixed)]
    repeated = np.array([row for *_, row in sorted(turns)][: max(count // 2, 1)], dtype=np.int64)
    once = clusters[copies == 1]
    single = once[choose(len(once), count - len(repeated), seed, np.flatnonzero(np.isin(once, keep)))]
    return np.sort(np.concatenate([repeated, single]))


def _generated(choice: Generated, subject: Subject, who: Split, controls: ImageSet | None, context: Context) -> Points:
    """Generations; for a GAN, which no other image can be put to, further ones that copy nothing are the controls."""
    limit = subject.generator.limit
    count = choice.count if limit is None else min(choice.count, limit)
    spare = 2 * choice.controls if subject.is_gan else 0
    rows = np.arange(count + spare, dtype=np.int64)
    images = ImageSet(draw(subject, rows, context), subject.generator.condition_of(rows), "generations")
    search = find_copies(images, who, context)
    copied = search.copies(SEARCH.delta)
    copying = Copying(search.index[:count], search.distance[:count], copied[:count])
    copies = np.where(copied, who.copies[search.index], 0)[:count]
    points, row = images.take(rows[:count]), np.full(count, -1)
    if not subject.is_gan:
        return Points(points, controls, row, copies, copying)
    new = (count + np.flatnonzero(~copied[count:]))[: choice.controls]
    return Points(points, images.take(new), row, copies, copying, (rows[:count], new))


def draw(subject: Subject, rows: Index, context: Context) -> npt.NDArray[np.uint8]:
    """Generations of the rows 0 .. n-1, cached as in an audit."""
    key = {"generator": subject.generator.key(), "seed": context.seed}
    return context.store.column("generations", key).fill(
        len(rows),
        lambda part: subject.generator.sample(part, context.seed),
        shard_rows=64,
        progress=context.progress,
        label=f"generating {len(rows):,} images",
    )


def find_copies(images: ImageSet, who: Split, context: Context) -> Search:
    """The nearest training image of each generation, cached."""
    finder = Finder(SEARCH.neighbours, SEARCH.alpha)
    return finder.search(images.flat, who.members, who.cluster, {"images": images.digest}, context, "members")


def _check(count: int, controls: int) -> None:
    if count < 2 or controls < 0:
        raise InvalidInput(
            f"count={count}, controls={controls}.", expected="at least 2 points.", remedy="change the option."
        )
