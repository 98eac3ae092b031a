"""Which rows membership attacks look at, and what the model answers on both sides: one choice for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

from vestige.audit.attack import Attack, Collected
from vestige.audit.probe import Condition, Recipe, power_sums
from vestige.data.images import ImageSet
from vestige.data.split import Split
from vestige.errors import InvalidInput, Unsupported
from vestige.execute import Context
from vestige.models.denoiser import Denoiser
from vestige.models.subject import Subject
from vestige.randomness import Stream, generator
from vestige.record import NotDone

Index = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Sides:
    """Chosen rows ``members`` and ``others`` of a split, and the seed that chose them."""

    members: Index
    others: Index
    seed: int

    @staticmethod
    def of(split: Split, most: int, seed: int) -> Sides:
        """At most ``most`` rows a side; every duplicated member is kept, the rest is drawn at random.

        Raises
        ------
        Unsupported : there are no non-members.
        """
        outside = others_of(split)
        members = choose(len(split.members), most, seed, keep=np.flatnonzero(split.copies > 1))
        return Sides(members, choose(len(outside), most, seed), seed)

    def images(self, split: Split) -> tuple[ImageSet, ImageSet]:
        """The chosen images of both sides."""
        return split.members.take(self.members), others_of(split).take(self.others)

    def spread(self, split: Split, inside: Floats, outside: Floats) -> tuple[Floats, Floats]:
        """Scores of the chosen rows as scores of all members and others, NaN where nothing was looked at."""
        member_scores = np.full(len(split.members), np.nan)
        member_scores[self.members] = inside
        other_scores = np.full(0 if split.others is None else len(split.others), np.nan)
        other_scores[self.others] = outside
        return member_scores, other_scores


@dataclass(frozen=True, eq=False)
class Statistics:
    """One number for each chosen member and other, lower = likelier member."""

    sides: Sides
    inside: Floats
    outside: Floats


def others_of(split: Split) -> ImageSet:
    """The non-members.

    Raises
    ------
    Unsupported : there are none.
    """
    if split.others is None:
        raise Unsupported("No non-members.", expected="images never trained on.", remedy="pass --non-members.")
    return split.others


def choose(total: int, most: int, seed: int, keep: Index | None = None) -> Index:
    """At most ``most`` of ``total`` rows in order: all of ``keep`` first, the rest drawn by seed."""
    if total <= most:
        return np.arange(total, dtype=np.int64)
    kept = np.empty(0, np.int64) if keep is None else keep[:most]
    order = generator(seed, Stream.SUBSET, total).permutation(total)
    rest = order[~np.isin(order, kept)][: most - len(kept)]
    return np.sort(np.concatenate([kept, rest])).astype(np.int64)


def answers(
    name: str,
    denoiser: Denoiser,
    recipes: Sequence[Recipe],
    images: tuple[ImageSet, ImageSet],
    context: Context,
) -> tuple[Floats, Floats]:
    """Mean second and fourth powers a pixel of members and others [rows, recipes, 2], from the shared table."""
    found: list[Floats] = []
    for side, part in zip(("members", "non-members"), images, strict=True):
        label = f"{name}: {len(part):,} {side}"
        sums = power_sums(denoiser, part, recipes, context, label=label)
        found.append(sums.astype(np.float64) / float(np.prod(part.shape)))
    return found[0], found[1]


def unlabelled(attack: str, claim: str, subject: Subject, split: Split) -> NotDone | None:
    """A class-conditional model without a null condition cannot be asked about images without labels."""
    denoiser = subject.denoiser
    if denoiser is None or not denoiser.classes or denoiser.null_condition is not None or labelled(split):
        return None
    return NotDone(
        what=f"{attack}: {claim}",
        reason="the model is class-conditional and the images have no labels.",
        remedy="put each class in its own sub-folder, or store `labels` in the npz.",
    )


@dataclass(frozen=True)
class DenoiserAttack(Attack[Collected]):
    """An attack that asks a denoiser about the images themselves."""

    def refusal(self, subject: Subject, split: Split) -> NotDone | None:
        """As every attack, and a class-conditional model needs labelled images."""
        missing = super().refusal(subject, split)
        return missing or unlabelled(type(self).__name__, self.claim, subject, split)


def labelled(split: Split) -> bool:
    """Whether all images of a split have labels."""
    return all(side is None or side.labels is not None for side in (split.members, split.others))


def condition_name(condition: Condition, denoiser: Denoiser, split: Split) -> str:
    """In words, what the model is told about each image."""
    if not denoiser.classes:
        return "no label"
    return "its own label" if condition is Condition.OWN and labelled(split) else "the null condition"


def check(*, rows: int = 2, draws: int = 1, times: Sequence[float] = (1.0,)) -> None:
    """Refuse settings that make no sense.

    Raises
    ------
    InvalidInput : fewer than 2 rows or 1 draw, no time, or one outside (0, 1].
    """
    if draws < 1 or rows < 2 or not times or not all(0 < t <= 1 for t in times):
        raise InvalidInput(
            f"times={tuple(times)}, draws={draws}, rows={rows}.",
            expected="times in (0, 1], at least 1 draw and 2 rows.",
            remedy="change the option.",
        )


class Norm(str, Enum):
    """Which power of a residual is averaged over pixels: ``l2`` the second, ``l4`` the fourth."""

    L2 = "l2"
    L4 = "l4"

    @property
    def place(self) -> int:
        """Where the table of power sums keeps it."""
        return 0 if self is Norm.L2 else 1
