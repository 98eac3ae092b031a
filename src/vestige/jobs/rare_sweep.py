"""What each control does: the same start, one control at a time from little to much."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from vestige.data.images import to_uint8
from vestige.execute import Context
from vestige.jobs.rare_methods import Pixels
from vestige.jobs.rare_stage import BANK, Stage
from vestige.rare.found import measure
from vestige.rare.objective import Controls, RareSearch
from vestige.rare.scene import References, anywhere
from vestige.rare.search import search

SWEPT: dict[str, tuple[float, ...]] = {
    "rarity": (0.0, 0.5, 0.9, 0.98, 1.0),
    "diversity": (0.0, 0.25, 0.5, 0.75, 1.0),
    "similarity": (0.5, 0.8, 0.95, 0.99, 0.998),
}
MEMBERS, STEPS = 8, 100


@dataclass(frozen=True, eq=False)
class Swept:
    """One value of one control: images uint8 [N, c, h, w] and what was measured of them.

    ``percentile`` of real rows with a lower density, ``spread`` between samples and ``distance`` to the reference, both
    in units of d* at the usual similarity, ``accepted`` the share inside the manifold and the reach of this value.
    """

    control: str
    value: float
    pixels: Pixels
    percentile: float
    spread: float
    distance: float
    accepted: float


def sweep(stage: Stage, objective: RareSearch, context: Context) -> list[Swept]:
    """Search near the first reference under every value of every control; the others stay as they are."""
    one = stage.references.some(slice(0, 1))
    found: list[Swept] = []
    with context.progress.task("sweep of the controls", sum(map(len, SWEPT.values()))) as task:
        for control, values in SWEPT.items():
            for value in values:
                controls = dataclasses.replace(objective.controls, **{control: value})
                steps = min(objective.steps, STEPS)
                moved = dataclasses.replace(objective, controls=controls, members=MEMBERS, steps=steps)
                found.append(_searched(stage, one, moved, control, value, context))
                task.advance(1, f"{control} {value:g}")
    return found


def _searched(
    stage: Stage, one: References, objective: RareSearch, control: str, value: float, context: Context
) -> Swept:
    here = one if one.free else _reached(stage, one, objective.controls)
    result = search(stage.scene, here, objective, seed=context.seed, store=context.store).last
    measured = measure(stage.scene, here, result)
    unit = float(one.unit[0])
    return Swept(
        control=control,
        value=value,
        pixels=to_uint8(result.outputs(stage.scene, here)),
        percentile=float(np.nanmean(measured.percentile)),
        spread=float(measured.spread[0]) / unit,
        distance=float(np.nanmean(measured.distance)) / unit if not here.free else float("nan"),
        accepted=float(measured.accepted.mean()),
    )


def _reached(stage: Stage, one: References, controls: Controls) -> References:
    """The same reference with the reach of another similarity, read from the same bank."""
    neighbours = controls.neighbours(BANK)
    if neighbours is None:
        return anywhere(stage.scene, one.rows.tolist())
    gaps = np.sort(np.linalg.norm(stage.bank - one.features[0], axis=1))
    reach = np.maximum(gaps[[neighbours - 1]], np.finfo(np.float64).tiny)
    return dataclasses.replace(one, reach=reach, unit=reach)
