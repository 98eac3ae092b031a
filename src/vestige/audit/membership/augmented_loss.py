"""Denoising loss averaged over augmentations and many draws (Carlini et al. 2023, arXiv 2301.13188, section 5.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vestige.audit.attack import Outcome
from vestige.audit.membership.rows import DenoiserAttack, Sides, Statistics, answers, check
from vestige.audit.membership.scoring import Method, judged
from vestige.audit.probe import Augmentation, Noised
from vestige.data.split import Split
from vestige.execute import Context
from vestige.models.access import Access
from vestige.models.subject import Subject

_SHIFTS = (Augmentation.UP, Augmentation.DOWN, Augmentation.LEFT, Augmentation.RIGHT)


@dataclass(frozen=True)
class AugmentedLoss(DenoiserAttack[Statistics]):
    """What training saw augmented, the model denoises well in every augmented form.

    Score ``-mean over augmentations, times and draws of ||eps - eps_hat(alpha A(x) + sigma eps, t)||^2 / pixels``,
    the image itself being one of the augmentations A.

    Parameters
    ----------
    times : noise levels, time 0 clean .. 1 noise.
    draws : noise draws a time and augmentation.
    flip : average over the horizontal flip as well.
    shifts : average over the four shifts by one pixel (edge repeated) as well.
    rows : at most this many members and as many others.
    """

    access: ClassVar[Access] = Access.LOSSES
    claim: ClassVar[str] = (
        "tells training images from others by the denoising loss of the image and its augmented forms"
    )
    source: ClassVar[str] = "Carlini et al. 2023, arXiv 2301.13188"
    needs_others: ClassVar[bool] = True

    times: tuple[float, ...] = (0.1,)
    draws: int = 4
    flip: bool = True
    shifts: bool = False
    rows: int = 2000

    def __post_init__(self) -> None:
        check(rows=self.rows, draws=self.draws, times=self.times)

    @property
    def augmentations(self) -> tuple[Augmentation, ...]:
        """The forms of an image that are looked at."""
        flips = (Augmentation.FLIP,) if self.flip else ()
        return (Augmentation.NONE, *flips, *(_SHIFTS if self.shifts else ()))

    def collect(self, subject: Subject, split: Split, context: Context) -> Statistics:
        """Errors of every form; those of the image itself are the denoising loss's."""
        denoiser = subject.opened(type(self).__name__)
        sides = Sides.of(split, self.rows, context.seed)
        recipes = [
            Noised(time, draw, augmentation=augmentation)
            for augmentation in self.augmentations
            for draw in range(self.draws)
            for time in self.times
        ]
        parts = answers("augmented loss", denoiser, recipes, sides.images(split), context)
        inside, outside = (part[..., 0].mean(axis=1) for part in parts)
        return Statistics(sides, inside, outside)

    def score(self, collected: Statistics, split: Split) -> Outcome:
        """Exact ROC, AUC, TPR at low FPR, the control, and all of it by duplicate count."""
        inside, outside = -collected.inside, -collected.outside
        forms = len(self.augmentations)
        words = (
            f"{len(inside):,} members and {len(outside):,} non-members, each in {forms} forms "
            f"({', '.join(a.value for a in self.augmentations)}) with {self.draws} noise draws at "
            f"t = {', '.join(f'{t:g}' for t in self.times)}. A form that training never made says less than the image "
            "itself and dilutes it."
        )
        return judged(
            Method(
                "augmented",
                "Membership by denoising loss over augmentations",
                "augmented loss",
                forms * self.draws * len(self.times),
            ),
            collected.sides,
            inside,
            outside,
            split,
            text=[words],
        )
