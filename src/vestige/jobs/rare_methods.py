"""The methods of a comparison at equal calls, each with its images, kept as they are made."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from vestige.data.images import to_uint8
from vestige.execute import Context
from vestige.jobs.rare_ways import OwnWay, Pixels
from vestige.models.latent import Calls
from vestige.rare.baselines.baseline import Baseline
from vestige.rare.baselines.prior import Random
from vestige.rare.baselines.rejection import Rejection, Selection
from vestige.rare.baselines.scaling import LatentScaling
from vestige.rare.baselines.truncation import Truncation
from vestige.rare.found import Found, Measured, measure, measure_features
from vestige.rare.objective import Objective
from vestige.rare.scene import References, Scene
from vestige.rare.search import search, starts
from vestige.rare.settings import named, settings

Method = Objective | Baseline

BESIDE: tuple[Baseline, ...] = (
    Random(),
    Rejection(),
    Rejection(selection=Selection.RAREST),
    Truncation(),
    Truncation(inverse=True, threshold=0.5),
    LatentScaling(),
)
"""What every search is compared with. The first shows what is easy, the second what has to be beaten."""


@dataclass(frozen=True, eq=False)
class Tried:
    """What one method found, measured where it was selected; ``measured`` is None where it found nothing.

    ``pixels`` uint8 [m, c, h, w] of the samples that are present, group by group, and ``latents`` where it has any.
    """

    name: str
    measured: Measured | None
    pixels: Pixels
    latents: Found | None
    calls: Calls


@dataclass(frozen=True, eq=False)
class Comparison:
    """The samples that are handed over first, the start they came from, and the others."""

    chosen: Tried
    start: Tried | None
    others: tuple[Tried, ...]

    @property
    def every(self) -> tuple[Tried, ...]:
        """All of them, the chosen one first."""
        return (self.chosen, *(() if self.start is None else (self.start,)), *self.others)


def compare(
    scene: Scene,
    references: References,
    method: Method,
    members: int,
    spare: int,
    budget: int,
    ways: Sequence[OwnWay],
    context: Context,
) -> Comparison:
    """Run the method, and beside it everything in ``BESIDE`` at the same generator calls and the generator's own ways.

    ``spare`` samples of the last group are not asked for. ``budget`` is what a group may cost where the method is a
    baseline; a search costs what it costs.
    """
    seed = context.seed
    start, best = None, list[Tried]()
    if isinstance(method, Objective):
        objective = dataclasses.replace(method, members=members)
        begun = starts(scene, references, objective, seed).detach()
        shape = (len(references), members)
        found = Found("its starts", begun.view(*shape, *begun.shape[1:]), np.ones(shape, np.bool_), Calls())
        start = look(scene, references, _without(found, spare))
        result = search(scene, references, objective, seed=seed, store=context.store, progress=context.progress)
        budget = result.last.calls.forward_equivalents // len(references)
        name = named(dataclasses.replace(objective, members=type(objective)().members))
        chosen = look(scene, references, dataclasses.replace(_without(result.last, spare), method=name))
        best = [look(scene, references, dataclasses.replace(_without(result.best, spare), method=f"{name}, best"))]
    else:
        chosen = look(scene, references, _without(drawn(method, scene, references, members, budget, context), spare))
    beside = [b for b in BESIDE if b != method]
    others = [
        look(scene, references, _without(drawn(baseline, scene, references, members, budget, context), spare))
        for baseline in beside
    ]
    others += [sampled(way, scene, references, members, spare, context) for way in ways]
    return Comparison(chosen, start, (*best, *others))


def drawn(
    baseline: Baseline, scene: Scene, references: References, members: int, budget: int, context: Context
) -> Found:
    """:meth:`Baseline.draw`, a group at a time, from the store where it was drawn before."""
    size = scene.generator.latent_size

    def compute(rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        kept = np.empty((len(rows), members * (size + 1) + 2))
        for place, r in enumerate(rows):
            found = baseline.draw(scene, references.some(slice(int(r), int(r) + 1)), members, budget, context.seed)
            latents = found.latents.flatten(1).double().cpu().numpy()
            cost = [found.calls.images, found.calls.gradients]
            kept[place] = np.concatenate([latents[0], found.present[0], cost])
        return kept

    key = {"scene": scene.digest, "references": references.digest, "method": settings(baseline)}
    key |= {"seed": context.seed, "members": members, "budget": budget}
    table = context.store.column("rare-baseline", key).fill(
        len(references), compute, shard_rows=1, progress=context.progress, label=named(baseline)
    )
    shape = (len(references), members)
    latents = torch.from_numpy(table[:, : members * size]).float().view(*shape, *scene.generator.latent_shape)
    cost = table[:, -2:].sum(0)
    present = table[:, members * size : -2] > 0
    return Found(named(baseline), latents.to(scene.generator.device), present, Calls(int(cost[0]), int(cost[1])))


def look(scene: Scene, references: References, found: Found) -> Tried:
    """The images of what was found, and what they are worth where they were selected."""
    if not found.present.any():
        return Tried(found.method, None, np.empty((0, *scene.generator.shape), np.uint8), found, found.calls)
    pixels = to_uint8(found.outputs(scene, references))
    return Tried(found.method, measure(scene, references, found), pixels, found, found.calls)


def sampled(way: OwnWay, scene: Scene, references: References, members: int, spare: int, context: Context) -> Tried:
    """As many images of the generator's own way, in groups only for the count: they know nothing of the references."""
    present = _kept((len(references), members), spare)
    pixels = way.draw(int(present.sum()), context)
    calls = Calls(math.ceil(len(pixels) * way.cost))
    measured = measure_features(scene, references, way.name, calls, scene.space.of(pixels), present)
    return Tried(way.name, measured, pixels, None, calls)


def _without(found: Found, spare: int) -> Found:
    return dataclasses.replace(found, present=found.present & _kept(found.present.shape, spare))


def _kept(shape: tuple[int, ...], spare: int) -> npt.NDArray[np.bool_]:
    kept = np.ones(shape, np.bool_)
    if spare:
        kept[-1, -spare:] = False
    return kept
