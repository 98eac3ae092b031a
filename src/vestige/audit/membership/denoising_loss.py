"""Membership inference by denoising loss (Carlini et al. 2023, arXiv 2301.13188, section 5.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vestige.audit.attack import Outcome
from vestige.audit.membership.rows import DenoiserAttack, Floats, Index, Sides, answers, check, choose
from vestige.audit.membership.scoring import Method, judged
from vestige.audit.probe import Noised
from vestige.data.split import Split
from vestige.execute import Context
from vestige.models.access import Access
from vestige.models.subject import Subject

__all__ = ["DenoisingLoss", "Losses", "choose"]


@dataclass(frozen=True, eq=False)
class Losses:
    """Mean squared noise error a pixel: ``member_loss`` of the rows ``members``, ``other_loss`` of ``others``."""

    members: Index
    others: Index
    member_loss: Floats
    other_loss: Floats
    seed: int


@dataclass(frozen=True)
class DenoisingLoss(DenoiserAttack[Losses]):
    """An image is likelier a member the better the model denoises it.

    Score ``-mean over times and draws of ||eps - eps_hat(alpha x + sigma eps, t)||^2 / pixels``
    (the threshold attack of Yeom et al. 2018 on the loss of a diffusion model), with several
    noise draws at each time. The control deals members and others into two random halves
    and must stay at chance.

    Parameters
    ----------
    times : noise levels, time 0 clean .. 1 noise; 0.05 to 0.3 is the informative zone.
    draws : noise draws a time.
    rows : at most this many members and as many others; every duplicated member is kept,
        the rest is drawn at random.
    """

    access: ClassVar[Access] = Access.LOSSES
    claim: ClassVar[str] = "tells training images from others by the model's denoising loss"
    source: ClassVar[str] = "Carlini et al. 2023, arXiv 2301.13188; Yeom et al. 2018, arXiv 1709.01604"
    needs_others: ClassVar[bool] = True

    times: tuple[float, ...] = (0.1,)
    draws: int = 4
    rows: int = 2000

    def __post_init__(self) -> None:
        check(rows=self.rows, draws=self.draws, times=self.times)

    def collect(self, subject: Subject, split: Split, context: Context) -> Losses:
        """Errors of the chosen rows, each network evaluation cached."""
        denoiser = subject.opened(type(self).__name__)
        sides = Sides.of(split, self.rows, context.seed)
        recipes = [Noised(time, draw) for draw in range(self.draws) for time in self.times]
        parts = answers("denoising loss", denoiser, recipes, sides.images(split), context)
        inside, outside = (part[..., 0].mean(axis=1) for part in parts)
        return Losses(sides.members, sides.others, inside, outside, context.seed)

    def score(self, collected: Losses, split: Split) -> Outcome:
        """Exact ROC, AUC, TPR at 1 % and 0.1 % FPR, the control, and all of it by duplicate count."""
        inside, outside = -collected.member_loss, -collected.other_loss
        return judged(
            Method(
                "membership",
                "Membership: which images the model treats as its own",
                "denoising loss",
                self.draws * len(self.times),
            ),
            Sides(collected.members, collected.others, collected.seed),
            inside,
            outside,
            split,
            text=[
                f"{len(inside):,} members and {len(outside):,} non-members, {self.draws} noise draws at "
                f"t = {', '.join(f'{t:g}' for t in self.times)}. All duplicated members are among them, up to the "
                "bound on rows, so the table by duplicate count tells more than the average."
            ],
        )
