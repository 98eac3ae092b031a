"""The contract of an attack: collect what is expensive, then score arrays."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from vestige.data.split import Split
from vestige.errors import NeedsAccess
from vestige.execute import Context
from vestige.models.access import Access
from vestige.models.subject import Subject
from vestige.record import Estimate, NotDone, Section

Collected = TypeVar("Collected")
Scores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Outcome:
    """What an attack found.

    Parameters
    ----------
    summary : headline numbers, each with n and an interval.
    section : the part of the report that explains them.
    member_scores, other_scores : one score a distinct member and other, higher = likelier
        member, NaN where the attack did not look; ``other_scores`` is empty without others.
    extracted : index of every member that was recovered (empty for attacks that recover nothing).
    """

    summary: tuple[Estimate, ...]
    section: Section
    member_scores: Scores
    other_scores: Scores
    extracted: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))


@dataclass(frozen=True)
class Attack(ABC, Generic[Collected]):
    """One way to find out what a model kept. Fields are its settings.

    A subclass is final. Its file's place is its registration.
    """

    access: ClassVar[Access]
    claim: ClassVar[str]
    source: ClassVar[str]
    needs_others: ClassVar[bool] = False
    needs_critic: ClassVar[bool] = False
    """Whether it asks a GAN's discriminator. Every other attack that needs more than samples asks a denoiser."""
    by_default: ClassVar[bool] = True
    """Whether `vestige audit` runs it unasked; False for what costs training or a special experiment."""

    @abstractmethod
    def collect(self, subject: Subject, split: Split, context: Context) -> Collected:
        """Everything that costs network evaluations or large searches; cached in ``context.store``."""

    @abstractmethod
    def score(self, collected: Collected, split: Split) -> Outcome:
        """A pure function of what was collected."""

    def run(self, subject: Subject, split: Split, context: Context) -> Outcome:
        """Collect, then score.

        Raises
        ------
        NeedsAccess : the subject grants less than the attack needs.
        """
        refusal = self.refusal(subject, split)
        if refusal is not None:
            raise NeedsAccess(
                f"{type(self).__name__} cannot run: {refusal.reason}",
                expected=f"{self.access.label} access{' and non-members' if self.needs_others else ''}.",
                remedy=refusal.remedy,
            )
        return self.score(self.collect(subject, split, context), split)

    def refusal(self, subject: Subject, split: Split) -> NotDone | None:
        """Why this attack cannot run here, or None if it can."""
        name = type(self).__name__
        if self.needs_critic and subject.denoiser is not None:
            return NotDone(
                what=f"{name}: {self.claim}",
                reason=f"it asks a GAN's discriminator, and {subject.name} is a diffusion model.",
                remedy="use an attack on denoisers, or audit a GAN.",
            )
        if self.needs_critic and subject.is_gan and subject.critic is None:
            return NotDone(
                what=f"{name}: {self.claim}",
                reason=f"it asks the GAN's discriminator, and {subject.name} comes without one.",
                remedy="wrap the discriminator as a Critic, or keep critic.safetensors beside the generator.",
            )
        if self.access > Access.SAMPLES and not self.needs_critic and subject.is_gan:
            return NotDone(
                what=f"{name}: {self.claim}",
                reason=f"it asks a denoiser, and {subject.name} is a GAN, which has none.",
                remedy="DiscriminatorLoss asks a GAN's discriminator instead; extraction works on every generator.",
            )
        if subject.access < self.access:
            return NotDone(
                what=f"{name}: {self.claim}",
                reason=f"it needs {self.access.label} access and {subject.name} grants {subject.access.label}.",
                remedy="pass the model itself instead of its samples.",
            )
        if self.needs_others and split.others is None:
            return NotDone(
                what=f"{name}: {self.claim}",
                reason="without images that were not trained on there is nothing to compare with.",
                remedy="pass --non-members with images from the same source that the model never saw.",
            )
        return None

    def concerns(self, subject: Subject) -> bool:
        """Whether the attack is about this kind of model at all; an audit left to itself runs only such attacks."""
        if subject.is_gan:
            return self.needs_critic or self.access is Access.SAMPLES
        return not self.needs_critic or subject.denoiser is None

    def settings(self) -> dict[str, Any]:
        """Name and fields as plain values."""
        return {"attack": type(self).__name__, **{f.name: getattr(self, f.name) for f in dataclasses.fields(self)}}
