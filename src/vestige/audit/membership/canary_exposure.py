"""Exposure of canaries that were inserted into the training data (Carlini et al. 2023, arXiv 2301.13188)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

from vestige.audit.attack import Attack, Outcome
from vestige.audit.errors import error_table
from vestige.audit.membership.rows import check, unlabelled
from vestige.data.canaries import COPIES, PER_COUNT, canaries, dealt
from vestige.data.images import ImageSet
from vestige.data.split import Split
from vestige.errors import InvalidInput
from vestige.execute import Context
from vestige.metrics.interval import Interval, bootstrap, estimate
from vestige.models.access import Access
from vestige.models.subject import Subject
from vestige.record import Cell, Estimate, Figure, NotDone, Section, Series, Table

Index = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

CONTROLS = 200
"""Fresh canaries that are ranked like inserted ones although nothing was trained on them."""

_FIRST_FRESH = 1 << 40
"""Number of the first canary that is never inserted."""
_FEW = 20
"""Canaries below which a percentile bootstrap is too narrow."""
_UNIT = "bits"


def exposure(losses: npt.ArrayLike, candidates: npt.ArrayLike) -> Floats:
    """``log2 |R| - log2 rank`` of each loss [n] in R, which is itself and all candidates [r].

    Bits between 0 and log2(r + 1). Rank 1 is the lowest loss; ties count against the canary.
    Source: Carlini et al. 2019, *The Secret Sharer*, arXiv 1802.08232, definition 1.
    """
    ordered = np.sort(np.asarray(candidates, np.float64))
    rank = 1 + np.searchsorted(ordered, np.asarray(losses, np.float64), side="right")
    return np.log2(len(ordered) + 1) - np.log2(rank)


def chance_exposure(candidates: int) -> float:
    """Expected exposure of an image like any of the candidates: every rank of 1 .. r + 1 is equally likely.

    ``log2 N - log2(N!) / N`` with N = r + 1, which tends to ``log2 e = 1.443``.
    """
    size = candidates + 1
    return float((np.log(size) - gammaln(size + 1) / size) / np.log(2))


@dataclass(frozen=True, eq=False)
class CanaryLosses:
    """Mean squared noise error a pixel of the canaries found among the members, of candidates and of controls.

    ``rows`` [n] are the canaries' places among the members and ``copies`` [n] how often each
    stands in the training data; ``seed`` is that of the run.
    """

    rows: Index
    copies: Index
    canary: Floats
    candidate: Floats
    control: Floats
    seed: int


@dataclass(frozen=True)
class CanaryExposure(Attack[CanaryLosses]):
    """A memorized canary has a lower loss than canaries that were never trained on.

    The model was trained on data with inserted canaries (:func:`vestige.data.canaries.with_canaries`).
    Each is ranked by denoising loss among fresh ones of the same distribution;
    ``exposure = log2 |R| - log2 rank``. Canaries are noise, so nothing but memory can make
    one of them easier than another: the expected exposure without memory is known, and
    controls that were held out must show it.

    Parameters
    ----------
    seed, per_count, copies : as given to ``with_canaries``; canaries are found by content, and
        their copies are counted in the training data.
    candidates : fresh canaries to rank among; the largest exposure is log2 of one more.
    times : noise levels of the loss, time 0 clean .. 1 noise.
    draws : noise draws a time.
    """

    access: ClassVar[Access] = Access.LOSSES
    claim: ClassVar[str] = "measures how well canaries inserted into the training data are remembered"
    source: ClassVar[str] = "Carlini et al. 2023, arXiv 2301.13188; Carlini et al. 2019, arXiv 1802.08232"
    by_default: ClassVar[bool] = False

    seed: int = 0
    per_count: int = PER_COUNT
    copies: tuple[int, ...] = COPIES
    candidates: int = 1000
    times: tuple[float, ...] = (0.1,)
    draws: int = 4

    def __post_init__(self) -> None:
        check(draws=self.draws, times=self.times)
        if self.per_count < 1 or not self.copies or self.candidates < 1 or self.seed < 0:
            raise InvalidInput(
                f"seed={self.seed}, per_count={self.per_count}, copies={self.copies}, candidates={self.candidates}.",
                expected="a seed of 0 or more, numbers of copies, at least 1 canary for each and 1 candidate.",
                remedy="give the numbers with which the canaries were inserted.",
            )

    def refusal(self, subject: Subject, split: Split) -> NotDone | None:
        """As every attack, and the training data must hold canaries of this seed."""
        name = type(self).__name__
        missing = super().refusal(subject, split) or unlabelled(name, self.claim, subject, split)
        if missing is not None or len(self._inserted(split)):
            return missing
        return NotDone(
            what=f"{name}: {self.claim}",
            reason=f"the training data holds no canary of seed {self.seed} among the first "
            f"{self.per_count * len(self.copies)}.",
            remedy="insert canaries before training with `vestige data canaries` (with_canaries in Python), and give "
            "this attack the same seed, per_count and copies.",
        )

    def _inserted(self, split: Split) -> Index:
        """Members that are canaries, ascending."""
        known = set(canaries(self.per_count * len(self.copies), split.members.shape, self.seed).ids)
        return np.array([row for row, identity in enumerate(split.members.ids) if identity in known], dtype=np.int64)

    def collect(self, subject: Subject, split: Split, context: Context) -> CanaryLosses:
        """Losses of canaries, candidates and controls, each network evaluation cached."""
        denoiser, rows = subject.opened(type(self).__name__), self._inserted(split)
        pixels = float(np.prod(split.members.shape))

        def losses(images: ImageSet, name: str) -> Floats:
            label = f"denoising {len(images):,} {name}"
            table = error_table(denoiser, images, self.times, self.draws, context, label=label)
            return table.astype(np.float64).mean(axis=(1, 2)) / pixels

        fresh = canaries(self.candidates + CONTROLS, split.members.shape, self.seed, first=_FIRST_FRESH)
        if split.members.labels is not None:
            # Dealt as with_canaries deals them, so that inserted and fresh ones differ in nothing else.
            labels = dealt(np.unique(split.members.labels), len(fresh))
            fresh = ImageSet(fresh.pixels, labels, fresh.source, fresh.names)
        return CanaryLosses(
            rows,
            split.exact[rows],
            losses(split.members.take(rows), "canaries"),
            losses(fresh.take(np.arange(self.candidates)), "candidates"),
            losses(fresh.take(np.arange(self.candidates, len(fresh))), "held-out canaries"),
            context.seed,
        )

    def score(self, collected: CanaryLosses, split: Split) -> Outcome:
        """Mean exposure by number of copies beside that of held-out canaries, and each canary's exposure as score."""
        bits, chance = exposure(collected.canary, collected.candidate), chance_exposure(len(collected.candidate))
        control = _mean(collected.control, collected.candidate, collected.seed)
        groups = [
            (int(count), _mean(collected.canary[collected.copies == count], collected.candidate, collected.seed))
            for count in np.unique(collected.copies)
        ]
        section = Section(
            name="canary",
            title="Canaries: how many copies it takes to be remembered",
            text=self._words(collected, control, chance),
            tables=[_table(groups, collected)],
            figures=[_figure(groups, chance)],
        )
        member_scores = np.full(len(split.members), np.nan)
        member_scores[collected.rows] = bits
        others = np.full(0 if split.others is None else len(split.others), np.nan)
        return Outcome(
            (*(_line(*group) for group in groups), _control(control, chance)), section, member_scores, others
        )

    def _words(self, collected: CanaryLosses, control: Interval, chance: float) -> list[str]:
        most = np.log2(len(collected.candidate) + 1)
        words = [
            f"{len(collected.rows)} images of uniform noise stand in the training data 1 to "
            f"{int(collected.copies.max())} times. Each is ranked by loss among {len(collected.candidate):,} that do "
            f"not: {chance:.2f} bits are expected without memory, {most:.2f} is the most that can be seen.",
            f"{len(collected.control)} held-out canaries, ranked alike, have a mean exposure of {control.value:.2f} "
            f"bits [{control.low:.2f}, {control.high:.2f}]"
            + (", as they must." if control.covers(chance) else ", which is not chance: do not use this section."),
        ]
        expected = self.per_count * len(self.copies)
        if len(collected.rows) < expected:
            words.append(
                f"Of {expected} canaries that these settings name, {expected - len(collected.rows)} are absent."
            )
        return words


def _mean(losses: Floats, candidates: Floats, seed: int) -> Interval:
    """Mean exposure with a bootstrap over canaries and candidates; ``n`` counts the canaries."""
    found = bootstrap(lambda own, fresh: float(exposure(own, fresh).mean()), losses, candidates, seed=seed)
    return Interval(found.value, found.low, found.high, len(losses))


def _line(count: int, mean: Interval) -> Estimate:
    note = f"fewer than {_FEW} canaries: the interval is too narrow" if mean.n < _FEW else ""
    return estimate(f"canary/exposure@copies={count}", mean, _UNIT, note)


def _control(control: Interval, chance: float) -> Estimate:
    return estimate("canary/exposure_control", control, _UNIT, f"held-out canaries; {chance:.3f} is expected")


def _table(groups: list[tuple[int, Interval]], collected: CanaryLosses) -> Table:
    rows: list[list[Cell]] = []
    for count, mean in groups:
        losses = collected.canary[collected.copies == count]
        first = int((losses < collected.candidate.min()).sum())
        bounds = (mean.value, mean.low, mean.high)
        rows.append([count, mean.n, *(round(b, 3) if np.isfinite(b) else None for b in bounds), first])
    columns = ["copies in training data", "canaries", "mean exposure in bits", "low", "high", "below every candidate"]
    return Table(name="exposure", title="Exposure, by number of copies", columns=columns, rows=rows)


def _figure(groups: list[tuple[int, Interval]], chance: float) -> Figure:
    x: list[float | str] = [float(count) for count, _ in groups]

    def bounds(values: list[float]) -> list[float | None]:
        return [value if np.isfinite(value) else None for value in values]

    found = Series(
        name="canaries",
        x=x,
        y=[mean.value for _, mean in groups],
        low=bounds([mean.low for _, mean in groups]),
        high=bounds([mean.high for _, mean in groups]),
    )
    return Figure(
        name="exposure",
        title="Exposure of canaries",
        kind="line",
        series=[found, Series(name="expected without memory", x=x, y=[chance] * len(x))],
        x_label="copies in the training data",
        y_label="mean exposure in bits",
        x_log=True,
        caption="Bands are 95 % bootstrap intervals over canaries and candidates.",
    )
