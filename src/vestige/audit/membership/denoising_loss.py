"""Membership inference by denoising loss (Carlini et al. 2023, arXiv 2301.13188, section 5.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from vestige.audit.attack import Attack, Outcome
from vestige.audit.errors import error_table
from vestige.data.images import ImageSet
from vestige.data.split import Split, duplicate_groups
from vestige.errors import InvalidInput, Unsupported
from vestige.execute import Context
from vestige.metrics.interval import estimate
from vestige.metrics.roc import auc, roc, shuffled_control, tpr_at_fpr
from vestige.models.access import Access
from vestige.models.subject import Subject
from vestige.randomness import Stream, generator
from vestige.record import Cell, Estimate, Figure, NotDone, Section, Series, Table

Index = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Losses:
    """Mean squared noise error a pixel: ``member_loss`` of the rows ``members``, ``other_loss`` of ``others``."""

    members: Index
    others: Index
    member_loss: Floats
    other_loss: Floats
    seed: int


@dataclass(frozen=True)
class DenoisingLoss(Attack[Losses]):
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
        if self.draws < 1 or self.rows < 2 or not self.times or not all(0 < t <= 1 for t in self.times):
            raise InvalidInput(
                f"times={self.times}, draws={self.draws}, rows={self.rows}.",
                expected="times in (0, 1], at least 1 draw and 2 rows.",
                remedy="change the option.",
            )

    def refusal(self, subject: Subject, split: Split) -> NotDone | None:
        """As every attack, and a class-conditional model needs labelled images."""
        missing = super().refusal(subject, split)
        if missing is not None or subject.denoiser is None:
            return missing
        denoiser, labelled = (
            subject.denoiser,
            all(s is None or s.labels is not None for s in (split.members, split.others)),
        )
        if denoiser.classes and denoiser.null_condition is None and not labelled:
            return NotDone(
                what=f"{type(self).__name__}: {self.claim}",
                reason="the model is class-conditional and the images have no labels.",
                remedy="put each class in its own sub-folder, or store `labels` in the npz.",
            )
        return None

    def collect(self, subject: Subject, split: Split, context: Context) -> Losses:
        """Errors of the chosen rows, each network evaluation cached."""
        if split.others is None:
            raise Unsupported("No non-members.", expected="images never trained on.", remedy="pass --non-members.")
        denoiser = subject.opened(type(self).__name__)
        members = choose(len(split.members), self.rows, context.seed, keep=np.flatnonzero(split.copies > 1))
        others = choose(len(split.others), self.rows, context.seed)

        def losses(images: ImageSet, name: str) -> Floats:
            label = f"denoising {len(images):,} {name}"
            table = error_table(denoiser, images, self.times, self.draws, context, label=label)
            return table.astype(np.float64).mean(axis=(1, 2)) / float(np.prod(images.shape))

        return Losses(
            members,
            others,
            losses(split.members.take(members), "members"),
            losses(split.others.take(others), "non-members"),
            context.seed,
        )

    def score(self, collected: Losses, split: Split) -> Outcome:
        """Exact ROC, AUC, TPR at 1 % and 0.1 % FPR, the control, and all of it by duplicate count."""
        inside, outside = -collected.member_loss, -collected.other_loss
        area, control = auc(inside, outside), shuffled_control(inside, outside, collected.seed)
        summary = [
            estimate("membership/auc", area, "probability"),
            estimate("membership/auc_control", control, "probability", "members and non-members dealt at random"),
        ]
        summary += [_tpr(inside, outside, fpr) for fpr in (0.01, 0.001)]
        copies = split.copies[collected.members]
        section = Section(
            name="membership",
            title="Membership: which images the model treats as its own",
            text=[
                f"{len(inside):,} members and {len(outside):,} non-members, {self.draws} noise draws at "
                f"t = {', '.join(f'{t:g}' for t in self.times)}. Chance is an AUC of 0.5; the control gives "
                f"{control.value:.3f}. All duplicated members are among them, up to the bound on rows, so the "
                "table by duplicate count tells more than the average."
            ],
            tables=[_by_count(copies, inside, outside)],
            figures=[_curve(inside, outside)],
        )
        member_scores = np.full(len(split.members), np.nan)
        member_scores[collected.members] = inside
        other_scores = np.full(0 if split.others is None else len(split.others), np.nan)
        other_scores[collected.others] = outside
        return Outcome(tuple(summary), section, member_scores, other_scores)


def choose(total: int, most: int, seed: int, keep: Index | None = None) -> Index:
    """At most ``most`` of ``total`` rows in order: all of ``keep`` first, the rest drawn by seed."""
    if total <= most:
        return np.arange(total, dtype=np.int64)
    kept = np.empty(0, np.int64) if keep is None else keep[:most]
    order = generator(seed, Stream.SUBSET, total).permutation(total)
    rest = order[~np.isin(order, kept)][: most - len(kept)]
    return np.sort(np.concatenate([kept, rest])).astype(np.int64)


def _tpr(inside: Floats, outside: Floats, fpr: float) -> Estimate:
    found = tpr_at_fpr(inside, outside, fpr)
    note = "" if found.enough_negatives else f"{len(outside):,} non-members are too few to trust this rate"
    return estimate(f"membership/tpr@fpr={fpr:g}", found.interval, "share of members", note)


def _by_count(copies: Index, inside: Floats, outside: Floats) -> Table:
    rows: list[list[Cell]] = []
    for name, mask in duplicate_groups(copies):
        area, rate = auc(inside[mask], outside), tpr_at_fpr(inside[mask], outside, 0.01).interval
        rows.append([name, int(mask.sum()), *(round(v, 4) for v in (area.value, area.low, area.high, rate.value))])
    columns = ["copies in training data", "images", "AUC", "low", "high", "TPR at 1 % FPR"]
    return Table(name="membership", title="Membership, by duplicate count", columns=columns, rows=rows)


def _curve(inside: Floats, outside: Floats) -> Figure:
    curve = roc(inside, outside)
    keep = np.unique(np.linspace(0, len(curve.fpr) - 1, 400).astype(int))
    series = Series(name="denoising loss", x=curve.fpr[keep].tolist(), y=curve.tpr[keep].tolist())
    return Figure(
        name="roc",
        title="Members found against non-members accused",
        kind="line",
        series=[series],
        x_label="false positive rate",
        y_label="true positive rate",
        diagonal=True,
        caption="The diagonal is chance.",
    )
