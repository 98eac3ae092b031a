"""What a search or a baseline found, and what it is worth: exact numbers by sample, and means over groups."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vestige.errors import EmptySet
from vestige.metrics.arrays import FloatArray
from vestige.metrics.interval import Interval, beta_bounds, mean_interval
from vestige.models.latent import Calls
from vestige.rare.scene import References, Scene

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Found:
    """r groups of N samples of one method.

    ``latents`` [r, N, ...]; ``present`` [r, N] says which places hold a sample at all; ``calls`` is what all groups
    cost together. The generator's labels are those of the references, one a group.
    """

    method: str
    latents: Tensor
    present: Flags
    calls: Calls

    def outputs(self, scene: Scene, references: References) -> Tensor:
        """What the generator makes of the samples that are present, in order [n, ...]; images in [-1, 1]."""
        return scene.generator.made(*self.flat(references))

    def flat(self, references: References) -> tuple[Tensor, Tensor | None]:
        """Latents [n, ...] and labels of the samples that are present, group by group."""
        here = torch.from_numpy(self.present.flatten()).to(self.latents.device)
        labels = references.labels
        told = None if labels is None else labels.repeat_interleave(self.present.shape[1])[here]
        return self.latents.flatten(0, 1)[here], told


@dataclass(frozen=True, eq=False)
class Measured:
    """Exact numbers of r groups of N samples; NaN where no sample is present.

    Attributes
    ----------
    log_density, percentile : log p in nats, and the share of held-out real rows with a lower one [r, N].
    ratio, inside : least distance / radius over all real balls, and whether that ball holds the sample [r, N].
    rarity, rarity_percentile : the rarity score, in feature distance, and the share of real radii below it; NaN
        outside every ball [r, N].
    distance, within : distance to the reference, and whether it is within d* [r, N].
    spread : mean distance between two present samples of a group [r]; NaN for fewer than two.
    """

    method: str
    calls: Calls
    log_density: FloatArray
    percentile: FloatArray
    ratio: FloatArray
    inside: Flags
    rarity: FloatArray
    rarity_percentile: FloatArray
    distance: FloatArray
    within: Flags
    spread: FloatArray
    present: Flags

    @property
    def accepted(self) -> Flags:
        """Present, inside the real manifold and within d* [r, N]."""
        return self.present & self.inside & self.within

    def share(self, holds: Flags) -> Interval:
        """Share of all r N places for which ``holds`` [r, N], with an interval over groups.

        A group is one observation: its samples repel one another and share a reference. The bounds are Clopper and
        Pearson's at the number of independent samples that would vary as much as the groups do, or at r where the
        groups do not vary at all.
        """
        r, by_group = len(holds), (holds & self.present).mean(1)
        share, variance = float(by_group.mean()), float(by_group.var(ddof=1)) / r if r > 1 else 0.0
        independent = min(share * (1 - share) / variance, holds.size) if variance > 0 else r
        return Interval(share, *beta_bounds(share * independent, independent, 0.95), holds.size)

    def mean(self, values: FloatArray, within: tuple[float, float] = (-math.inf, math.inf)) -> Interval | None:
        """Mean over groups of the mean of the defined ``values`` [r, N] or [r]; None where no group has one.

        ``within`` is the range that the mean cannot leave.
        """
        columns = values.reshape(len(values), -1)
        defined = ~np.isnan(columns)
        some = defined.any(1)
        if not some.any():
            return None
        return mean_interval(np.nansum(columns[some], axis=1) / defined[some].sum(1), within=within)


def measure(scene: Scene, references: References, found: Found) -> Measured:
    """Features of every present sample, and all that follows from them; costs one generator call a sample.

    The calls are not added to those of the method. Raises EmptySet where no sample is present.
    """
    latents, labels = found.flat(references)
    features = scene.features(latents, labels) if len(latents) else np.empty((0, scene.manifold.rows.shape[1]))
    return measure_features(scene, references, found.method, found.calls, features, found.present)


def measure_features(
    scene: Scene, references: References, method: str, calls: Calls, features: FloatArray, present: Flags
) -> Measured:
    """:func:`measure` for images that came without a latent, from the features [n, d] of those present, in order.

    Raises
    ------
    EmptySet : no sample is present.
    """
    if not present.any():
        raise EmptySet(
            f"{method} found no sample.",
            expected="at least one.",
            remedy="give it a larger budget, or a wider reach (a lower similarity).",
        )
    shape, group = present.shape, np.nonzero(present)[0]
    with torch.no_grad():
        told = None if references.labels is None else references.labels.cpu()[torch.from_numpy(group)]
        log_density = scene.density.log_prob(torch.from_numpy(features), told)
    place = scene.manifold.locate(features)

    def filled(values: FloatArray) -> FloatArray:
        whole = np.full(shape, np.nan)
        whole[present] = values
        return whole

    distance = filled(np.linalg.norm(features - references.features[group], axis=1))
    if references.free:
        distance[:] = np.nan
    return Measured(
        method=method,
        calls=calls,
        log_density=filled(log_density.double().numpy()),
        percentile=filled(scene.density.percentile(log_density)),
        ratio=filled(place.ratio),
        inside=~np.isnan(filled(place.rarity)),
        rarity=filled(place.rarity),
        rarity_percentile=filled(place.percentile),
        distance=distance,
        within=np.isinf(references.reach)[:, None] | (distance <= references.reach[:, None]),
        spread=np.array([_spread(features[group == r]) for r in range(shape[0])]),
        present=present,
    )


def _spread(features: FloatArray) -> float:
    if len(features) < 2:
        return float("nan")
    gaps = np.sqrt(np.square(features[:, None] - features).sum(2))
    return float(gaps.sum() / (len(features) * (len(features) - 1)))
