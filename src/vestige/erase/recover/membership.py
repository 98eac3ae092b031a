"""Membership: are the forgotten images still, or only now, told from images never seen?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vestige.data.images import ImageSet
from vestige.erase.recover.images import by_model
from vestige.erase.recover.measure import Floats, check, denoising_errors, shown, told_apart
from vestige.erase.recover.recovery import Outcome, Recovery, Target
from vestige.execute import Context
from vestige.metrics.interval import Interval, estimate
from vestige.metrics.roc import auc, either_way, shuffled_control
from vestige.models.denoiser import Denoiser
from vestige.record import Estimate


@dataclass(frozen=True)
class LossMembership(Recovery):
    """Tell forgotten images from unseen ones by the erased model's denoising loss, in either direction.

    A loss below that of unseen images means that they were not forgotten; one above it, that they were forgotten
    past the level of an image never seen, which marks them just as well. Hence the advantage is ``2 |AUC - 1/2|``,
    or, with a model that never saw the forgotten images, ``2 |AUC - AUC of that model|`` on the same rows: forgotten
    images may differ from unseen ones whoever looks at them.

    Parameters
    ----------
    times, draws : noise levels and noise draws of the loss.
    rows : most images a side.
    """

    claim: ClassVar[str] = "tells forgotten images from unseen ones by denoising loss, too low or too high"
    source: ClassVar[str] = "Carlini et al. 2023, arXiv 2301.13188; Yeom et al. 2018, arXiv 1709.01604"

    times: tuple[float, ...] = (0.1, 0.2, 0.3)
    draws: int = 4
    rows: int = 250

    def __post_init__(self) -> None:
        check(times=self.times, draws=self.draws, rows=self.rows)

    def attack(self, target: Target, context: Context) -> Outcome:
        """Losses of both sides under every model with the same noise, then the area under the ROC curve."""
        sides = target.sides(self.rows, context.seed)

        def losses(model: Denoiser, images: ImageSet) -> Floats:
            return denoising_errors(model, images, self.times, self.draws, context.seed)

        found = by_model(self, target, sides, context, losses)
        scores = {name: (-inside, -outside) for name, (inside, outside) in found.items()}
        areas = {name: auc(*both) for name, both in scores.items()}
        area, other = areas["erased"], areas.get("reference")
        gain, ceiling = (told_apart(scores, name, target.confidence) for name in ("erased", "base"))
        beside = "chance is 0.5" if other is None else f"{shown(other, 3)} in the model that never saw them"
        way = ""
        if gain.low > 0:
            short = area.value > (0.5 if other is None else other.value)
            way = ": they were not forgotten" if short else ": they were forgotten past the unseen level"
        dealt = shuffled_control(*scores["erased"], seed=context.seed)
        return Outcome(
            attack="membership by denoising loss",
            effort=f"{len(sides[0])} forgotten and {len(sides[1])} unseen images",
            budget=len(scores) * sum(map(len, sides)) * len(self.times) * self.draws,
            advantage=gain,
            ceiling=ceiling,
            got=f"AUC {shown(area, 3)}",
            control=beside,
            words=f"forgotten images are told from unseen ones with AUC {shown(area, 3)}, {beside}{way}.",
            summary=tuple(_summary(areas, dealt, gain, target.note)),
        )


def _summary(areas: dict[str, Interval], control: Interval, advantage: Interval, joint: str) -> list[Estimate]:
    area, unit = areas["erased"], "probability"
    lines = [
        estimate("recover/membership_auc", area, unit, "above 0.5: not forgotten; below: forgotten past unseen images"),
        estimate("recover/membership_auc_either_way", either_way(area), unit),
        estimate("recover/membership_auc_control", control, unit, "forgotten and unseen dealt at random"),
        estimate("recover/membership_auc_base", areas["base"], unit, "before the erasure"),
    ]
    if "reference" in areas:
        note = "the model that never saw the forgotten images"
        lines.append(estimate("recover/membership_auc_reference", areas["reference"], unit, note))
    return [*lines, estimate("recover/membership_advantage", advantage, "2 |AUC - that of the control|", joint)]
