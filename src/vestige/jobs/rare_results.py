"""What a search found, in summary lines and sentences."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vestige.digest import short
from vestige.jobs.rare_generator import Opened
from vestige.jobs.rare_methods import Comparison, Tried
from vestige.jobs.rare_score import Judge, Scored, difference, group_means
from vestige.jobs.rare_stage import Stage
from vestige.jobs.rare_sweep import Swept
from vestige.metrics.interval import Interval, estimate
from vestige.rare.baselines.prior import Random
from vestige.rare.found import Measured
from vestige.record import Estimate


@dataclass(frozen=True, eq=False)
class Results:
    """All that was measured."""

    opened: Opened
    stage: Stage
    comparison: Comparison
    judge: Judge
    swept: list[Swept]

    @cached_property
    def scores(self) -> dict[str, Scored | None]:
        """Each method in the scoring space."""
        return {tried.name: self.judge.score(tried) for tried in self.comparison.every}

    @property
    def selects(self) -> str:
        """What every number of the selecting space rests on."""
        manifold = self.stage.scene.manifold
        return (
            f"{len(manifold.rows):,} real images, k = {manifold.neighbours}, {self.stage.scene.space.name} "
            f"({short(self.stage.scene.space.digest)})"
        )

    @property
    def scoring(self) -> str:
        """The same of the scoring space."""
        extractor = self.judge.extractor
        return (
            f"{len(self.judge.real):,} real images, k = {self.judge.neighbours}, {extractor.name} "
            f"({short(extractor.digest)})"
        )

    def ratio_of_spread(self) -> Interval | None:
        """Mean over groups of the final over the starting pairwise distance."""
        start, chosen = self.comparison.start, self.comparison.chosen.measured
        if start is None or start.measured is None or chosen is None:
            return None
        return chosen.mean(chosen.spread / np.maximum(start.measured.spread, 1e-12))


def summary(found: Results) -> list[Estimate]:
    """Headline numbers of the samples that are handed over."""
    chosen, places = found.comparison.chosen, found.comparison.chosen.measured
    n = 0 if places is None else int(places.present.sum())
    lines = [Estimate(name="rare/found", value=float(n), unit="images", note=chosen.name)]
    if places is None:
        return lines
    accepted = share_of_present(places, places.accepted)
    lines.append(estimate("rare/in_manifold", share_of_present(places, places.inside), "share", found.selects))
    lines.append(estimate("rare/accepted", accepted, "share", "inside the real manifold and within d*"))
    rows = [
        (
            "rare/percentile",
            places.mean(places.rarity_percentile, (0.0, 1.0)),
            "share",
            "mean place among real radii, selecting",
        ),
        ("rare/rarer_than", rarer(places), "share", "of real images have a higher density, selecting space"),
        ("rare/spread", places.mean(places.spread), "units of the features", "mean pairwise distance in a group"),
        ("rare/spread_ratio", found.ratio_of_spread(), "", "spread over that of the starts"),
    ]
    score = found.scores[chosen.name]
    if score is not None:
        rows += [
            ("rare/percentile_second_space", score.percentile, "share", found.scoring),
            ("rare/in_manifold_second_space", score.inside, "share", found.scoring),
            ("rare/authentic", score.authentic, "share", "farther from the nearest training image than that one's own"),
        ]
    lines += [estimate(name, value, unit, note) for name, value, unit, note in rows if value is not None]
    lines.append(
        Estimate(
            name="rare/calls",
            value=chosen.calls.forward_equivalents / max(1, n),
            n=n,
            unit="generator calls a sample",
            note="forward passes; a backward pass counts two",
        )
    )
    return lines


def share_of_present(measured: Measured, holds: np.ndarray) -> Interval:
    """Share of the samples that are present, over groups."""
    present = measured.present
    if present.all():
        return measured.share(holds)
    share = measured.share(holds)
    value = float((holds & present).sum() / max(1, present.sum()))
    return Interval(value, min(share.low, value), max(share.high, value), int(present.sum()))


def rarer(measured: Measured) -> Interval | None:
    """Mean share of held-out real rows with a higher density."""
    return measured.mean(1 - measured.percentile, (0.0, 1.0))


def reasons(found: Results) -> list[str]:
    """In words: how many are where they may be, and whether rejection did better."""
    chosen = found.comparison.chosen
    if chosen.measured is None:
        return [f"{chosen.name} found no sample that lies in the real manifold and near the reference."]
    measured = chosen.measured
    share, n = share_of_present(measured, measured.accepted), int(measured.present.sum())
    text = [
        f"{share.value:.1%} of {n} samples of {chosen.name} lie in the real manifold and as near to their reference as "
        "asked for."
    ]
    ratio = found.ratio_of_spread()
    if ratio is not None:
        text.append(
            f"Samples of a group lie {ratio.value:.2g} times as far apart as those that the search started from."
        )
    text += [_against(found, other) for other in found.comparison.others if other.name.startswith("Rejection")]
    return text + _unjudged(found)


def _unjudged(found: Results) -> list[str]:
    """Why the scoring space has no rarity of the samples, where it has none."""
    chosen = found.comparison.chosen
    score = found.scores[chosen.name]
    if score is None or score.rarity is not None:
        return []
    text = f"None of {len(chosen.pixels)} samples lies in the real manifold of the scoring space, so it scores none."
    plain = next((found.scores[t.name] for t in found.comparison.every if t.name == Random.__name__), None)
    if plain is None or plain.near.rarity.inside.any():
        return [text]
    return [
        f"{text} Nor does any random draw: to that space no image of this generator looks real. See how they differ "
        "(--data at the brightness and quality of its training images?), or choose another --judge."
    ]


def twins(comparison: Comparison) -> list[str]:
    """In words: methods that came to exactly the images of another one."""
    text: list[str] = []
    every = [tried for tried in comparison.every if len(tried.pixels)]
    for place, tried in enumerate(every):
        same = next((other for other in every[:place] if np.array_equal(other.pixels, tried.pixels)), None)
        if same is not None:
            text.append(f"{tried.name} came to exactly the images of {same.name}.")
    return text


def _against(found: Results, other: Tried) -> str:
    """One sentence on a rejection at equal calls, in both spaces, over groups."""
    chosen = found.comparison.chosen
    if other.measured is None:
        return f"{other.name} at equal calls found nothing where it may look."
    ours, theirs = (_of(t.measured) for t in (chosen, other))
    parts = [_word("selecting", difference(ours, theirs))]
    one, two = found.scores[chosen.name], found.scores[other.name]
    parts.append(_word("scoring", None if one is None or two is None else difference(one.groups, two.groups)))
    spread = difference(_spread(chosen.measured), _spread(other.measured))
    wider = "the spread cannot be compared"
    if spread is not None:
        side = "wider" if spread.low > 0 else "narrower" if spread.high < 0 else "as wide, within the interval"
        wider = f"it is {side} ({_signed(spread)} feature units)"
    return f"Beside {other.name} at equal calls the result is {parts[0]}, and {parts[1]}; {wider}."


def _of(measured: Measured | None) -> np.ndarray:
    return np.full(1, np.nan) if measured is None else group_means(measured.rarity_percentile)


def _spread(measured: Measured | None) -> np.ndarray:
    return np.full(1, np.nan) if measured is None else measured.spread


def _word(space: str, gap: Interval | None) -> str:
    if gap is None:
        return f"not compared in the {space} space"
    word = "rarer" if gap.low > 0 else "less rare (rejection wins)" if gap.high < 0 else "as rare, within the interval,"
    return f"{word} in the {space} space ({_signed(gap)} of the percentile)"


def _signed(gap: Interval) -> str:
    return f"{gap.value:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]"
