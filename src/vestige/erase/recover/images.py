"""How well images come back, one by one: forgotten against unseen, erased against never trained."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from vestige.data.images import ImageSet
from vestige.erase.recover.measure import ByModel, Floats, one_sided, shown
from vestige.erase.recover.recovery import Outcome, Recovery, Target
from vestige.execute import Context
from vestige.metrics.interval import Interval, estimate, mean_interval
from vestige.models.denoiser import Denoiser
from vestige.record import Cell, Estimate, Table


def by_model(
    attack: Recovery,
    target: Target,
    sides: tuple[ImageSet, ImageSet],
    context: Context,
    measured: Callable[[Denoiser, ImageSet], Floats],
) -> ByModel:
    """What ``measured`` gives for a batch of images [n], of both sides under every model; kept in the store."""
    settings = {name: value for name, value in attack.settings().items() if name != "rows"}

    def one(model: Denoiser, images: ImageSet) -> Floats:
        def compute(rows: npt.NDArray[np.int64]) -> Floats:
            starts = range(0, len(rows), context.batch_size)
            parts = [measured(model, images.take(rows[i : i + context.batch_size])) for i in starts]
            return np.concatenate(parts) if parts else np.empty(0)

        key = {"model": model.digest, "images": images.digest, "seed": context.seed, **settings}
        column = context.store.column(f"recover-{type(attack).__name__.lower()}", key)
        return column.fill(len(images), compute, progress=context.progress, label=f"recovery: {type(attack).__name__}")

    return {name: (one(model, sides[0]), one(model, sides[1])) for name, model in target.models.items()}


def advantage(errors: ByModel, model: str, confidence: float) -> Interval:
    """``2 AUC - 1`` of the negative log error of forgotten against unseen images.

    Where there is a reference, its log error of the same image is added: what is hard for every model is then no
    mark of either side.
    """
    scores = [-np.log(part) for part in errors[model]]
    if "reference" in errors:
        scores = [score + np.log(part) for score, part in zip(scores, errors["reference"], strict=True)]
    return one_sided(scores[0], scores[1], confidence)


def compared(
    errors: ByModel, target: Target, *, attack: str, effort: str, budget: int, key: str, quantity: str
) -> Outcome:
    """The outcome of an attack whose success is a small error of each image.

    ``key`` names its summary lines and its table, ``quantity`` says in words what the errors are.
    """
    gain, ceiling = (advantage(errors, model, target.confidence) for model in ("erased", "base"))
    means = {name: [mean_interval(part, within=(0.0, np.inf)) for part in both] for name, both in errors.items()}
    inside, outside = means["erased"]
    beside = f"{shown(outside, 4)} for unseen images"
    if "reference" in means:
        beside += f", {shown(means['reference'][0], 4)} for the forgotten ones in the model that never saw them"
    better = "better" if gain.low > 0 else "no better"
    return Outcome(
        attack=attack,
        effort=effort,
        budget=budget,
        advantage=gain,
        ceiling=ceiling,
        got=f"{quantity} {shown(inside, 4)}",
        control=beside,
        words=f"{quantity} of forgotten images is {shown(inside, 4)}, against {beside}: they come back {better} than "
        f"the control (advantage {shown(gain)}).",
        summary=tuple(_summary(errors, means, gain, key, quantity, target.note)),
        tables=(_table(means, key, quantity),),
    )


def _summary(
    errors: ByModel, means: dict[str, list[Interval]], gain: Interval, key: str, quantity: str, note: str
) -> list[Estimate]:
    lines = [
        estimate(f"recover/{key}_advantage", gain, "0 = as unseen images, 1 = all better", note),
        estimate(f"recover/{key}_error", means["erased"][0], quantity, "forgotten images"),
        estimate(f"recover/{key}_error_unseen", means["erased"][1], quantity, "unseen images"),
    ]
    if "reference" in errors:
        for side, name in enumerate(("", "_unseen")):
            apart = mean_interval(errors["reference"][side] - errors["erased"][side])
            note = "error in the never-trained model less that in the erased one, the same images"
            lines.append(estimate(f"recover/{key}_difference{name}", apart, quantity, note))
    return lines


def _table(means: dict[str, list[Interval]], key: str, quantity: str) -> Table:
    rows: list[list[Cell]] = [
        [model, name, part.n, *(round(v, 5) if np.isfinite(v) else None for v in (part.value, part.low, part.high))]
        for model, both in means.items()
        for name, part in zip(("forgotten", "unseen"), both, strict=True)
    ]
    return Table(
        name=key.replace("_", "-"),
        title=quantity[0].upper() + quantity[1:],
        columns=["model", "images", "n", "mean", "low", "high"],
        rows=rows,
    )
