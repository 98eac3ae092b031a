"""Membership inference by quantile regression (Bertran et al. 2023, arXiv 2307.03694; Tang et al. 2023, 2312.05140)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vestige.audit.attack import Outcome
from vestige.audit.membership.image_statistics import (
    Described,
    apply_fit,
    describe,
    fold_numbers,
    quantile_fit,
    together,
)
from vestige.audit.membership.rows import DenoiserAttack, Floats, Sides, answers, check
from vestige.audit.membership.scoring import Method, judged
from vestige.audit.probe import Noised
from vestige.data.split import Split
from vestige.errors import InvalidInput
from vestige.execute import Context
from vestige.metrics.interval import clopper_pearson, estimate
from vestige.models.access import Access
from vestige.models.subject import Subject

_LEAST_LOSS = 1e-9


@dataclass(frozen=True, eq=False)
class DescribedLosses:
    """Log denoising losses of chosen members [m] and others [k], and all m + k images in numbers."""

    sides: Sides
    inside: Floats
    outside: Floats
    described: Described


@dataclass(frozen=True)
class QuantileRegression(DenoiserAttack[DescribedLosses]):
    """An image is likelier a member the further its loss lies below what such an image costs when unseen.

    With ``l(x) = log(mean over times and draws of ||eps - eps_hat(x_t, t)||^2 / pixels)``, the score
    is ``q(x) - l(x)``: q is the ``alpha`` quantile of l given the image, a linear function of
    moments, roughness and principal components, fitted on non-members by the pinball loss.
    Calling an image a member when the score is positive accuses a share ``alpha`` of non-members.
    No row is scored by a fit that saw it: non-members are dealt into folds, members as
    well, and each fold is scored by the fit on the non-members of the other folds.

    Parameters
    ----------
    times : noise levels, time 0 clean .. 1 noise.
    draws : noise draws a time.
    alpha : the quantile, and the share of non-members accused.
    folds : of the cross-fitting.
    penalty : of the absolute weights of the regression.
    rows : at most this many members and as many others.
    """

    access: ClassVar[Access] = Access.LOSSES
    claim: ClassVar[str] = "tells training images from others by losses below what their looks predict"
    source: ClassVar[str] = "Bertran et al. 2023, arXiv 2307.03694; Tang et al. 2023, arXiv 2312.05140"
    needs_others: ClassVar[bool] = True

    times: tuple[float, ...] = (0.1,)
    draws: int = 4
    alpha: float = 0.05
    folds: int = 5
    penalty: float = 0.0001
    rows: int = 2000

    def __post_init__(self) -> None:
        check(rows=self.rows, draws=self.draws, times=self.times)
        if not 0 < self.alpha < 1 or self.folds < 2 or self.penalty < 0:
            raise InvalidInput(
                f"alpha={self.alpha}, folds={self.folds}, penalty={self.penalty}.",
                expected="alpha between 0 and 1, at least 2 folds, no negative penalty.",
                remedy="change the option.",
            )

    def collect(self, subject: Subject, split: Split, context: Context) -> DescribedLosses:
        """The denoising loss's own errors, and a description of every chosen image."""
        denoiser = subject.opened(type(self).__name__)
        sides = Sides.of(split, self.rows, context.seed)
        images = sides.images(split)
        recipes = [Noised(time, draw) for draw in range(self.draws) for time in self.times]
        parts = answers("quantile regression", denoiser, recipes, images, context)
        inside, outside = (np.log(np.maximum(part[..., 0].mean(axis=1), _LEAST_LOSS)) for part in parts)
        return DescribedLosses(sides, inside, outside, together(*(describe(part) for part in images)))

    def score(self, collected: DescribedLosses, split: Split) -> Outcome:
        """Exact ROC, AUC, TPR at low FPR, control, by duplicate count; and the rates at the method's own threshold."""
        count = len(collected.inside)
        found = self._scores(collected)
        inside, outside = found[:count], found[count:]
        accused = clopper_pearson(int((outside > 0).sum()), len(outside))
        caught = clopper_pearson(int((inside > 0).sum()), count)
        words = [
            f"{count:,} members and {len(outside):,} non-members. What the loss of an unseen image would be is learned "
            f"from non-members in {self.folds} folds, none of which scores itself.",
            f"At the {self.alpha:g} quantile the attack accuses {accused.value:.1%} of non-members "
            f"[{accused.low:.1%}, {accused.high:.1%}] and finds {caught.value:.1%} of members.",
        ]
        lines = [
            estimate(f"quantile/accused@alpha={self.alpha:g}", accused, "share of non-members", "alpha if it fits"),
            estimate(f"quantile/found@alpha={self.alpha:g}", caught, "share of members"),
        ]
        return judged(
            Method(
                "quantile", "Membership by quantile regression", "quantile regression", self.draws * len(self.times)
            ),
            collected.sides,
            inside,
            outside,
            split,
            text=words,
            lines=lines,
        )

    def _scores(self, collected: DescribedLosses) -> Floats:
        losses = np.concatenate([collected.inside, collected.outside])
        other = np.arange(len(losses)) >= len(collected.inside)
        seed = collected.sides.seed
        numbers = (
            fold_numbers(len(p), self.folds, seed, side) for side, p in enumerate((collected.inside, collected.outside))
        )
        fold = np.concatenate(list(numbers))
        scores = np.empty(len(losses))
        for number in range(self.folds):
            train, held = other & (fold != number), fold == number
            columns = collected.described.design(train)
            fit = quantile_fit(columns[train], losses[train], self.alpha, self.penalty)
            scores[held] = apply_fit(fit, columns[held]) - losses[held]
        return scores
