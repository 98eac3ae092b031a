"""Step-wise error comparing attack, statistic form (SecMI, Duan et al. 2023, arXiv 2302.01316)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vestige.audit.attack import Outcome
from vestige.audit.membership.rows import DenoiserAttack, Sides, Statistics, answers, check
from vestige.audit.membership.scoring import Method, judged
from vestige.audit.probe import Chain, Clean
from vestige.data.split import Split
from vestige.errors import InvalidInput
from vestige.execute import Context
from vestige.models.access import Access
from vestige.models.subject import Subject


@dataclass(frozen=True)
class SecMI(DenoiserAttack[Statistics]):
    """On a training image a step of noising and the step back undo each other.

    DDIM inversion takes the image to ``x_t`` without randomness. With one step
    ``phi(x, s -> r) = alpha_r mean(x, s) + sigma_r noise(x, s)`` the score is
    ``-||x_t - phi(phi(x_t, t -> t + h), t + h -> t)||^2 / pixels``.

    Parameters
    ----------
    time : t, time 0 clean .. 1 noise.
    steps : of the inversion; a step of time is ``h = time / steps``.
    start : the time that the network is told with the clean image.
    rows : at most this many members and as many others.
    """

    access: ClassVar[Access] = Access.SCORES
    claim: ClassVar[str] = "tells training images from others by the error of one deterministic step forth and back"
    source: ClassVar[str] = "Duan et al. 2023, arXiv 2302.01316"
    needs_others: ClassVar[bool] = True

    time: float = 0.1
    steps: int = 10
    start: float = 0.001
    rows: int = 2000

    def __post_init__(self) -> None:
        check(rows=self.rows, times=(self.time, self.start))
        if self.steps < 1 or self.time * (1 + 1 / self.steps) > 1:
            raise InvalidInput(
                f"time={self.time}, steps={self.steps}.",
                expected="at least one step, and room for one more before time 1.",
                remedy="lower the time, or raise steps.",
            )

    def collect(self, subject: Subject, split: Split, context: Context) -> Statistics:
        """``steps + 2`` evaluations a row; the first also fills the entry that SimA reads at time ``start``."""
        denoiser = subject.opened(type(self).__name__)
        sides = Sides.of(split, self.rows, context.seed)
        recipes = [Chain(self.time, self.steps, self.start), Clean(self.start)]
        inside, outside = answers("SecMI", denoiser, recipes, sides.images(split), context)
        return Statistics(sides, inside[:, 0, 0], outside[:, 0, 0])

    def score(self, collected: Statistics, split: Split) -> Outcome:
        """Exact ROC, AUC, TPR at low FPR, the control, and all of it by duplicate count."""
        inside, outside = -collected.inside, -collected.outside
        words = (
            f"{len(inside):,} members and {len(outside):,} non-members. {self.steps} deterministic steps lead to "
            f"t = {self.time:g}; the score is how closely one step further and back returns there."
        )
        return judged(
            Method("secmi", "Membership by step-wise error (SecMI)", "SecMI", self.steps + 2),
            collected.sides,
            inside,
            outside,
            split,
            text=[words],
        )
