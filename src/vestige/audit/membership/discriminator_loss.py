"""Membership inference by a GAN's discriminator (Hayes et al. 2019, arXiv 1705.07663)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch

from vestige.audit.attack import Attack, Outcome
from vestige.audit.membership.rows import Sides, Statistics, check, labelled
from vestige.audit.membership.scoring import Method, judged
from vestige.data.images import ImageSet
from vestige.data.split import Split
from vestige.errors import NeedsAccess
from vestige.execute import Context
from vestige.models.access import Access
from vestige.models.critic import Critic
from vestige.models.subject import Subject
from vestige.record import NotDone


@dataclass(frozen=True)
class DiscriminatorLoss(Attack[Statistics]):
    """An image is likelier a member the surer a GAN's discriminator takes it for a training image.

    Score ``D(x)``, the logit. The loss of the discriminator on a training image,
    ``log(1 + exp(-D(x)))``, falls as the logit rises, so both put images in the same order.
    A class-conditional discriminator is given the image's label. One evaluation a row, no
    noise. The control deals members and others into two random halves and must stay at chance.

    Parameters
    ----------
    rows : at most this many members and as many others; every duplicated member is kept,
        the rest is drawn at random.
    """

    access: ClassVar[Access] = Access.LOSSES
    claim: ClassVar[str] = "tells training images from others by the discriminator of a GAN"
    source: ClassVar[str] = "Hayes et al. 2019, arXiv 1705.07663; Chen et al. 2020, arXiv 1909.03935"
    needs_others: ClassVar[bool] = True
    needs_critic: ClassVar[bool] = True

    rows: int = 2000

    def __post_init__(self) -> None:
        check(rows=self.rows)

    def refusal(self, subject: Subject, split: Split) -> NotDone | None:
        """As every attack, and a class-conditional discriminator needs labelled images."""
        missing = super().refusal(subject, split)
        if missing is not None or subject.critic is None or not subject.critic.classes or labelled(split):
            return missing
        return NotDone(
            what=f"{type(self).__name__}: {self.claim}",
            reason="the discriminator is class-conditional and the images have no labels.",
            remedy="put each class in its own sub-folder, or store `labels` in the npz.",
        )

    def collect(self, subject: Subject, split: Split, context: Context) -> Statistics:
        """Logits of the chosen rows, negated, each computed once.

        Raises
        ------
        NeedsAccess : the subject has no discriminator.
        """
        critic = subject.critic
        if critic is None:
            raise NeedsAccess(
                f"{type(self).__name__} asks a discriminator, and {subject.name} comes without one.",
                expected="a GAN with its discriminator.",
                remedy="pass Subject.of_gan(name, generator, critic).",
            )
        sides = Sides.of(split, self.rows, context.seed)
        members, others = sides.images(split)
        inside = _logits(critic, members, context, "members")
        return Statistics(sides, -inside, -_logits(critic, others, context, "non-members"))

    def score(self, collected: Statistics, split: Split) -> Outcome:
        """Exact ROC, AUC, TPR at 1 % and 0.1 % FPR, the control, and all of it by duplicate count."""
        inside, outside = -collected.inside, -collected.outside
        return judged(
            Method("membership", "Membership: which images the discriminator takes for its own", "discriminator", 1),
            collected.sides,
            inside,
            outside,
            split,
            text=[
                f"{len(inside):,} members and {len(outside):,} non-members; the discriminator's logit is "
                f"{inside.mean():.2f} on members and {outside.mean():.2f} on non-members on average. All duplicated "
                "members are among them, up to the bound on rows, so the table by duplicate count tells more than "
                "the average."
            ],
        )


def _logits(critic: Critic, images: ImageSet, context: Context, name: str) -> npt.NDArray[np.float64]:
    def compute(rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        found = np.empty(len(rows))
        for start in range(0, len(rows), context.batch_size):
            part = rows[start : start + context.batch_size]
            labels = None if images.labels is None else torch.from_numpy(images.labels[part]).to(critic.device)
            found[start : start + len(part)] = critic.logits(images.floats(part).to(critic.device), labels)
        return found

    column = context.store.column("logits", {"critic": critic.digest, "images": images.digest})
    label = f"discriminator: {len(images):,} {name}"
    return column.fill(len(images), compute, shard_rows=1024, progress=context.progress, label=label)
