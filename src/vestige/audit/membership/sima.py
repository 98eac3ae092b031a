"""Membership inference by the norm of the predicted noise (SimA, arXiv 2509.25003)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vestige.audit.attack import Outcome
from vestige.audit.membership.rows import DenoiserAttack, Norm, Sides, Statistics, answers, check
from vestige.audit.membership.scoring import Method, judged
from vestige.audit.probe import Clean
from vestige.data.split import Split
from vestige.execute import Context
from vestige.models.access import Access
from vestige.models.subject import Subject


@dataclass(frozen=True)
class SimA(DenoiserAttack[Statistics]):
    """The score at a training image is small, because the model puts a mode there.

    Score ``-mean over pixels of |eps_hat(x, time)|^p``, the clean image as input: the
    model is asked for the noise in an image that holds none. No random draw is made.

    Parameters
    ----------
    time : what the network is told, time 0 clean .. 1 noise.
    norm : p, 2 or 4.
    rows : at most this many members and as many others.
    """

    access: ClassVar[Access] = Access.SCORES
    claim: ClassVar[str] = "tells training images from others by the noise that the model sees in the clean image"
    source: ClassVar[str] = "SimA, arXiv 2509.25003"
    needs_others: ClassVar[bool] = True

    time: float = 0.1
    norm: Norm = Norm.L4
    rows: int = 2000

    def __post_init__(self) -> None:
        check(rows=self.rows, times=(self.time,))

    def collect(self, subject: Subject, split: Split, context: Context) -> Statistics:
        """One evaluation a row."""
        denoiser = subject.opened(type(self).__name__)
        sides = Sides.of(split, self.rows, context.seed)
        inside, outside = answers("SimA", denoiser, [Clean(self.time)], sides.images(split), context)
        place = Norm(self.norm).place
        return Statistics(sides, inside[:, 0, place], outside[:, 0, place])

    def score(self, collected: Statistics, split: Split) -> Outcome:
        """Exact ROC, AUC, TPR at low FPR, the control, and all of it by duplicate count."""
        inside, outside = -collected.inside, -collected.outside
        words = (
            f"{len(inside):,} members and {len(outside):,} non-members. The model is told t = {self.time:g} and given "
            "the clean image; the score is how little noise it sees there."
        )
        return judged(
            Method("sima", "Membership by the norm of the predicted noise (SimA)", "SimA", 1),
            collected.sides,
            inside,
            outside,
            split,
            text=[words],
        )
