"""Conditional likelihood discrepancy (CLiD, Zhai et al. 2024, arXiv 2405.14800) for class-conditional models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vestige.audit.attack import Attack, Outcome
from vestige.audit.membership.rows import Floats, Sides, answers, check, labelled
from vestige.audit.membership.scoring import Method, judged
from vestige.audit.probe import Condition, Noised
from vestige.data.split import Split
from vestige.errors import InvalidInput
from vestige.execute import Context
from vestige.models.access import Access
from vestige.models.subject import Subject
from vestige.record import NotDone

_ROUNDING = 1e-3
"""Of the losses' interquartile range: a discrepancy that varies less is rounding, and is not scaled up."""


@dataclass(frozen=True, eq=False)
class TwoLosses:
    """Mean squared noise error a pixel of chosen members and others: [n, 2], own label and null condition."""

    sides: Sides
    inside: Floats
    outside: Floats


@dataclass(frozen=True)
class CLiD(Attack[TwoLosses]):
    """A training image gains more from its own label than another image does.

    With ``L_c = -mean over times and draws of ||eps - eps_hat(x_t, t, c)||^2 / pixels`` and the
    discrepancy ``D = L_own - L_null``, the score is ``weight S(D) + (1 - weight) S(L_own)``,
    ``S(v) = (v - median) / (interquartile range)`` over all rows, members and others mixed; the
    range of D counts at least a thousandth of that of L_own.

    Parameters
    ----------
    times : noise levels, time 0 clean .. 1 noise.
    draws : noise draws a time, the same for both conditions.
    weight : of the discrepancy, 0 to 1; 0 is the denoising loss.
    rows : at most this many members and as many others.
    """

    access: ClassVar[Access] = Access.LOSSES
    claim: ClassVar[str] = "tells training images from others by what their label adds to the model's denoising"
    source: ClassVar[str] = "Zhai et al. 2024, arXiv 2405.14800"
    needs_others: ClassVar[bool] = True

    times: tuple[float, ...] = (0.1,)
    draws: int = 4
    weight: float = 0.5
    rows: int = 2000

    def __post_init__(self) -> None:
        check(rows=self.rows, draws=self.draws, times=self.times)
        if not 0 <= self.weight <= 1:
            raise InvalidInput(f"weight={self.weight}.", expected="0 to 1.", remedy="change the option.")

    def refusal(self, subject: Subject, split: Split) -> NotDone | None:
        """As every attack; the model must know classes and a null condition, and the images need labels."""
        missing = super().refusal(subject, split)
        if missing is not None or subject.denoiser is None:
            return missing
        what = f"{type(self).__name__}: {self.claim}"
        if not subject.denoiser.classes or subject.denoiser.null_condition is None:
            return NotDone(
                what=what,
                reason="the model was not trained to do without a label, so there is nothing to compare with.",
                remedy="pass --null-condition if labels were dropped in training; otherwise use DenoisingLoss.",
            )
        if not labelled(split):
            return NotDone(
                what=what,
                reason="the images have no labels.",
                remedy="put each class in its own sub-folder, or store `labels` in the npz.",
            )
        return None

    def collect(self, subject: Subject, split: Split, context: Context) -> TwoLosses:
        """Errors under both conditions; those under the own label are the denoising loss's."""
        denoiser = subject.opened(type(self).__name__)
        sides = Sides.of(split, self.rows, context.seed)
        recipes = [
            Noised(time, draw, condition)
            for condition in (Condition.OWN, Condition.NULL)
            for draw in range(self.draws)
            for time in self.times
        ]
        parts = answers("CLiD", denoiser, recipes, sides.images(split), context)
        inside, outside = (part[..., 0].reshape(len(part), 2, -1).mean(axis=2) for part in parts)
        return TwoLosses(sides, inside, outside)

    def score(self, collected: TwoLosses, split: Split) -> Outcome:
        """Exact ROC, AUC, TPR at low FPR, the control, and all of it by duplicate count."""
        own, null = np.concatenate([collected.inside, collected.outside]).T
        least = _ROUNDING * float(np.subtract(*np.quantile(own, [0.75, 0.25])))
        scores = self.weight * robust_scale(null - own, least) + (1 - self.weight) * robust_scale(-own)
        inside, outside = scores[: len(collected.inside)], scores[len(collected.inside) :]
        words = (
            f"{len(inside):,} members and {len(outside):,} non-members, {self.draws} noise draws at "
            f"t = {', '.join(f'{t:g}' for t in self.times)} with the image's label and without one. The label lowers "
            f"the loss by {np.median(null - own):.2g} in the median. Scaling uses no knowledge of who is a member."
        )
        return judged(
            Method(
                "clid",
                "Membership by conditional likelihood discrepancy (CLiD)",
                "CLiD",
                2 * self.draws * len(self.times),
            ),
            collected.sides,
            inside,
            outside,
            split,
            text=[words],
        )


def robust_scale(values: Floats, least: float = 0.0) -> Floats:
    """``(v - median) / interquartile range`` [n], the range at least ``least``; zero where both are zero."""
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    spread = max(high - low, least)
    return (values - middle) / spread if spread > 0 else np.zeros_like(values)
