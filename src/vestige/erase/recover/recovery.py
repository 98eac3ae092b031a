"""The contract of a recovery attack: how much an erased model gives back of what it forgot, against a control."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from vestige.data.images import ImageSet, check_fits
from vestige.erase.recover.measure import choose
from vestige.errors import EmptySet, InvalidInput, Unsupported
from vestige.execute import Context
from vestige.features.extractor import Classifier
from vestige.metrics.interval import Interval
from vestige.models.denoiser import Denoiser
from vestige.record import Estimate, Figure, NotDone, Table

FEWEST = 4
"""Fewer unseen images of the forgotten classes than this, and those of all classes serve as control."""


@dataclass(frozen=True, eq=False)
class Target:
    """What is attacked, and what its answers are compared with.

    Parameters
    ----------
    erased : the model that is said to have forgotten.
    base : the model before the erasure; on it an attack shows whether it can find anything at all.
    forgotten : distinct images that were to be forgotten, with labels if the model takes them.
    unseen : distinct images of the same source that no model here was trained on.
    reference : a model trained without the forgotten images.
    forgotten_class : the label of a class that was forgotten altogether, if that is what was asked for.
    judge : a classifier that knows the class.
    comparisons : how many attacks are judged together; their intervals share an error rate of 5 % (Bonferroni).

    Raises
    ------
    EmptySet, ShapeMismatch, InvalidInput : nothing was forgotten, images do not fit the model, or an image is both
        forgotten and unseen.
    """

    erased: Denoiser
    base: Denoiser
    forgotten: ImageSet
    unseen: ImageSet | None = None
    reference: Denoiser | None = None
    forgotten_class: int | None = None
    judge: Classifier | None = None
    comparisons: int = 1

    def __post_init__(self) -> None:
        if len(self.forgotten) == 0:
            raise EmptySet("There is no forgotten image.", expected="at least one.", remedy="name what was forgotten.")
        for images in (self.forgotten, *(() if self.unseen is None else (self.unseen,))):
            check_fits(images, self.erased.shape, "the model")
        both = set(self.forgotten.ids) & set(() if self.unseen is None else self.unseen.ids)
        if both or self.comparisons < 1:
            raise InvalidInput(
                f"{len(both)} images are both forgotten and unseen; {self.comparisons} comparisons are planned.",
                expected="disjoint sets and at least one comparison.",
                remedy="take the forgotten images out of the unseen ones.",
            )

    @property
    def confidence(self) -> float:
        """Of each attack's interval, so that all of them together hold at 95 %."""
        return 1 - 0.05 / self.comparisons

    @property
    def note(self) -> str:
        """What a summary line says of such an interval; nothing at 95 %."""
        return "" if self.comparisons == 1 else f"interval at {self.confidence:.2%}"

    @cached_property
    def control(self) -> ImageSet | None:
        """The unseen images, those of the forgotten classes alone where both sides have labels and enough are left."""
        unseen, labels = self.unseen, self.forgotten.labels
        if unseen is None or len(unseen) < 2:
            return None
        if labels is None or unseen.labels is None:
            return unseen
        alike = np.flatnonzero(np.isin(unseen.labels, labels))
        return unseen.take(alike) if len(alike) >= FEWEST else unseen

    @property
    def unlabelled(self) -> bool:
        """Whether the model must be told a label and some images have none."""
        sides = (self.forgotten, *(() if self.control is None else (self.control,)))
        must = self.erased.classes > 0 and self.erased.null_condition is None
        return must and any(side.labels is None for side in sides)

    @property
    def models(self) -> dict[str, Denoiser]:
        """The models by the name that tables give them."""
        found = {"erased": self.erased, "base": self.base}
        return found if self.reference is None else {**found, "reference": self.reference}

    def sides(self, most: int, seed: int) -> tuple[ImageSet, ImageSet]:
        """At most so many forgotten images, and control images, drawn by seed. Raises as :meth:`outside`."""
        return choose(self.forgotten, most, seed), choose(self.outside(), most, seed)

    def outside(self) -> ImageSet:
        """The control images.

        Raises
        ------
        EmptySet : there are none.
        """
        if self.control is None:
            raise EmptySet(
                "There are fewer than 2 unseen images.",
                expected="images of the same source that no model here was trained on.",
                remedy="pass --non-members.",
            )
        return self.control


@dataclass(frozen=True)
class Outcome:
    """What an attack got, beside its controls.

    Parameters
    ----------
    attack : the attack in a word or two, as a sentence names it.
    effort : how hard it tried, e.g. "5 seeds".
    budget : network evaluations of the whole attack with its controls, one an image; a backward pass counts two.
    advantage : how much more it got than its control, 0 nothing to 1 everything; its interval has the target's
        confidence.
    ceiling : the same for the base, in which the images are: an attack that gets nothing there is blind.
    got, control : both sides in words and numbers, for a table.
    words : one sentence that states the result.
    """

    attack: str
    effort: str
    budget: int
    advantage: Interval
    ceiling: Interval
    got: str
    control: str
    words: str
    summary: tuple[Estimate, ...] = ()
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()

    @property
    def tells(self) -> bool:
        """Whether it got certainly more than its control."""
        return self.advantage.low > 0

    @property
    def blind(self) -> bool:
        """Whether it would have found nothing even with nothing erased."""
        return not self.tells and not self.ceiling.low > 0


@dataclass(frozen=True)
class Recovery(ABC):
    """One way to get forgotten images back. Fields are its settings; a subclass is final.

    Its file's place is its registration.
    """

    claim: ClassVar[str]
    source: ClassVar[str]
    needs_weights: ClassVar[bool] = False
    needs_unseen: ClassVar[bool] = True

    @abstractmethod
    def attack(self, target: Target, context: Context) -> Outcome:
        """Try; what costs network evaluations is kept in ``context.store``.

        Every evaluation is counted by the model of ``target`` that it concerns.
        """

    def refusal(self, target: Target) -> NotDone | None:
        """Why this attack cannot be tried here, or None if it can."""
        what = f"{type(self).__name__}: {self.claim}"
        if self.needs_unseen and target.control is None:
            return NotDone(
                what=what,
                reason="without images never trained on, nothing shows what it would get by chance.",
                remedy="pass --non-members with images from the same source that the model never saw.",
            )
        if self.needs_weights and not has_weights(target.erased):
            return NotDone(
                what=what, reason="the erased model has no weights to work with.", remedy="pass the model itself."
            )
        if target.unlabelled:
            return NotDone(
                what=what,
                reason="the model is class-conditional and the images have no labels.",
                remedy="put each class in its own sub-folder, or store `labels` in the npz.",
            )
        return None

    def settings(self) -> dict[str, Any]:
        """Name and fields as plain values."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        values = {k: v.value if isinstance(v, Enum) else v for k, v in fields.items()}
        values = {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}  # pyright: ignore[reportUnknownArgumentType,reportUnknownVariableType]
        return {"recovery": type(self).__name__, **values}


def has_weights(denoiser: Denoiser) -> bool:
    """Whether the denoiser is a network that can be changed or differentiated."""
    try:
        return any(True for _ in denoiser.module.parameters())
    except Unsupported:
        return False
