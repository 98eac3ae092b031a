"""Proximal initialization attack (PIA, Kong et al. 2024, arXiv 2305.18355)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vestige.audit.attack import Outcome
from vestige.audit.membership.rows import DenoiserAttack, Norm, Sides, Statistics, answers, check
from vestige.audit.membership.scoring import Method, judged
from vestige.audit.probe import Clean, Implied
from vestige.data.split import Split
from vestige.execute import Context
from vestige.models.access import Access
from vestige.models.subject import Subject


@dataclass(frozen=True)
class PIA(DenoiserAttack[Statistics]):
    """On a training image the model agrees with itself: the noise that it sees in the image, it finds again.

    With ``e = eps_hat(x, start)``, the noise that the model sees in the clean image, the score is
    ``-mean over pixels of |eps_hat(alpha x + sigma e, time) - e|^p``. No random draw is made.

    Parameters
    ----------
    time : where the second question is put, time 0 clean .. 1 noise.
    start : the time that the network is told with the clean image; the first trained step or near it.
    norm : p, 2 or 4.
    normalised : scale ``e`` of each image to the mean absolute value of standard normal
        noise, sqrt(2 / pi), first (PIAN).
    rows : at most this many members and as many others.
    """

    access: ClassVar[Access] = Access.SCORES
    claim: ClassVar[str] = "tells training images from others by how far the model contradicts its own noise estimate"
    source: ClassVar[str] = "Kong et al. 2024, arXiv 2305.18355"
    needs_others: ClassVar[bool] = True

    time: float = 0.2
    start: float = 0.001
    norm: Norm = Norm.L4
    normalised: bool = False
    rows: int = 2000

    def __post_init__(self) -> None:
        check(rows=self.rows, times=(self.time, self.start))

    def collect(self, subject: Subject, split: Split, context: Context) -> Statistics:
        """Two evaluations a row; the first also fills the entry that SimA reads at time ``start``."""
        denoiser = subject.opened(type(self).__name__)
        sides = Sides.of(split, self.rows, context.seed)
        recipes = [Implied(self.time, self.start, self.normalised), Clean(self.start)]
        inside, outside = answers("PIA", denoiser, recipes, sides.images(split), context)
        place = Norm(self.norm).place
        return Statistics(sides, inside[:, 0, place], outside[:, 0, place])

    def score(self, collected: Statistics, split: Split) -> Outcome:
        """Exact ROC, AUC, TPR at low FPR, the control, and all of it by duplicate count."""
        name = "PIAN" if self.normalised else "PIA"
        inside, outside = -collected.inside, -collected.outside
        words = (
            f"{len(inside):,} members and {len(outside):,} non-members. The noise that the model sees in the clean "
            f"image is added to it at t = {self.time:g}; the score is how closely the model finds it again."
        )
        return judged(
            Method("pia", f"Membership by proximal initialization ({name})", name, 2),
            collected.sides,
            inside,
            outside,
            split,
            text=[words],
        )
