"""What a search is about: a generator, a feature space, the density and the manifold of real features, references."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vestige.digest import digest_array, digest_json, digest_tensors
from vestige.errors import EmptySet, InvalidInput, ShapeMismatch
from vestige.metrics.arrays import FloatArray, count, matrix
from vestige.models.latent import LatentGenerator
from vestige.randomness import Stream
from vestige.rare.density.density import FittedDensity
from vestige.rare.draws import Draw
from vestige.rare.manifold import Manifold
from vestige.rare.space import Space

Integers = npt.NDArray[np.int64]

_PAIRS = 256


@dataclass(frozen=True, eq=False)
class Scene:
    """A generator and what is known of the real data, all in one feature space.

    Raises
    ------
    ShapeMismatch : density, manifold and the features of generations do not have the same width.
    """

    generator: LatentGenerator
    space: Space
    density: FittedDensity
    manifold: Manifold

    def __post_init__(self) -> None:
        probe = np.zeros(1, np.int64)
        widths = {
            "generations": self.features(self.generator.latents(probe, 0), self.generator.labels_of(probe)).shape[1],
            "the density": len(self.density.whitening.centre),
            "the manifold": self.manifold.centres.shape[1],
        }
        if len(set(widths.values())) > 1:
            raise ShapeMismatch(
                f"Features differ in width: {', '.join(f'{name} {width}' for name, width in widths.items())}.",
                expected="one feature space for all three.",
                remedy="fit density and manifold to the features that Scene.space gives real images.",
            )

    def features(self, latents: Tensor, labels: Tensor | None = None) -> FloatArray:
        """Features float64 [n, d] of the generations of latents, in batches, without a gradient."""
        with torch.no_grad():
            step = self.generator.batch_size
            told = [None] * len(latents) if labels is None else list(labels.split(step))
            parts = [
                self.space(self.generator.outputs(z, y)).double().cpu()
                for z, y in zip(latents.split(step), told, strict=False)
            ]
        return torch.cat(parts).numpy() if parts else np.empty((0, self.manifold.centres.shape[1]))

    def bank(self, rows: int, seed: int, *, label: int | None = None) -> FloatArray:
        """Features [rows, d] of generations of the prior, against which distances to a reference are read.

        Under ``label``, or under the labels in turn for a generator with classes.
        """
        chosen = np.arange(count(rows, "rows of the bank", 1), dtype=np.int64)
        labels = self.generator.labels_of(chosen)
        if labels is not None and label is not None:
            labels = torch.full_like(labels, label)
        return self.features(self.generator.latents(chosen, seed, stream=Stream.RARE, draw=Draw.BANK), labels)

    @cached_property
    def typical_distance(self) -> float:
        """Median distance between two real rows, over pairs of at most 256 of them."""
        rows = self.manifold.rows
        some = rows[np.linspace(0, len(rows) - 1, min(len(rows), _PAIRS)).round().astype(np.int64)]
        gaps = np.sqrt(np.square(some[:, None] - some).sum(2))[np.triu_indices(len(some), 1)]
        return float(np.median(gaps))

    @cached_property
    def digest(self) -> str:
        """Digest of all four."""
        parts = {"generator": self.generator.digest, "space": self.space.digest}
        return digest_json({**parts, "density": self.density.digest, "manifold": self.manifold.digest})


@dataclass(frozen=True, eq=False)
class References:
    """Where searches start, and how far from there they may lead; one group of samples is found for each.

    Parameters
    ----------
    latents : z* [r, *latent_shape], where a group starts.
    features : x* [r, d], what a group stays near: the features of G(z*), or of the image that z* was inverted from.
    reach : d* [r], how far from x* a sample may lie; infinite where anything goes.
    unit : [r], the finite distance in which distances are counted; d* where that is finite.
    rows : [r] names of the references; randomness belongs to them.
    labels : class [r] of each group, for a generator with classes.
    free : there is no reference: starts are draws of the prior, and ``features`` mean nothing.
    """

    latents: Tensor
    features: FloatArray
    reach: FloatArray
    unit: FloatArray
    rows: Integers
    labels: Tensor | None = None
    free: bool = False

    def __len__(self) -> int:
        return len(self.rows)

    def some(self, chosen: slice) -> References:
        """A part of them."""
        labels = None if self.labels is None else self.labels[chosen]
        arrays = (self.features[chosen], self.reach[chosen], self.unit[chosen], self.rows[chosen])
        return References(self.latents[chosen], *arrays, labels, self.free)

    @property
    def digest(self) -> str:
        """Digest of all of it."""
        arrays = [self.features, self.reach, self.unit, self.rows]
        tensors = {"latents": self.latents} | ({} if self.labels is None else {"labels": self.labels})
        return digest_json({"tensors": digest_tensors(tensors), "arrays": [digest_array(a) for a in arrays]})


def near(
    scene: Scene,
    latents: Tensor,
    bank: npt.ArrayLike,
    *,
    neighbours: int = 100,
    labels: Tensor | None = None,
    rows: Sequence[int] | None = None,
) -> References:
    """References at latents z* [r, ...]; ``d*`` is the distance from x* = f(G(z*)) to its k'-th nearest in the bank.

    Parameters
    ----------
    bank : features [m, d] of generations, from :meth:`Scene.bank`.
    neighbours : k', 100 of 10,000 in the paper; see :meth:`Controls.neighbours` for a similarity instead.
    rows : names of the references, 0 .. r - 1 by default.

    Raises
    ------
    EmptySet : no latent, or a bank of fewer than k' rows. ShapeMismatch, InvalidInput : latents or labels that do not
    fit; a reference outside the real manifold.
    """
    if not len(latents):
        raise EmptySet("No reference was given.", expected="at least one latent.", remedy="draw some from the prior.")
    return around(scene, latents, scene.features(latents, labels), bank, neighbours, labels, rows)


def around(
    scene: Scene,
    latents: Tensor,
    features: FloatArray,
    bank: npt.ArrayLike,
    neighbours: int,
    labels: Tensor | None,
    rows: Sequence[int] | None,
) -> References:
    """:func:`near`, with x* given."""
    known = matrix(bank, "bank", rows=count(neighbours, "neighbours", 1))
    place = scene.manifold.locate(features)
    if not place.inside.all():
        bad = np.flatnonzero(~place.inside)
        raise InvalidInput(
            f"{len(bad)} of {len(features)} references lie outside the real manifold (the first is number {bad[0]}, at "
            f"{place.ratio[bad[0]]:.3g} of the nearest ball's radius).",
            expected="references inside a ball that reaches a real row's "
            f"{scene.manifold.neighbours}-th nearest neighbour.",
            remedy="choose other references, use a larger k for the manifold, or give more real images.",
        )
    reach = np.array([np.sort(np.linalg.norm(known - x, axis=1))[neighbours - 1] for x in features])
    if not reach.all():
        raise InvalidInput(
            f"{int((reach == 0).sum())} references have {neighbours} copies in the bank.",
            expected="generations that differ.",
            remedy="use more neighbours, or another feature space.",
        )
    named = np.arange(len(features)) if rows is None else np.asarray(rows, np.int64)
    count(len(named), "the number of rows", len(features), len(features))
    return References(latents.detach(), features, reach, reach, named, labels)


def anywhere(scene: Scene, rows: Sequence[int]) -> References:
    """No reference: one group a row, from starts of the prior, free to go anywhere on the real manifold.

    Distances are counted in the typical distance between real rows. A generator with classes gives group r class
    ``r mod classes``.
    """
    named = np.asarray(rows, np.int64)
    r = len(named)
    return References(
        latents=torch.zeros(r, *scene.generator.latent_shape, device=scene.generator.device),
        features=np.zeros((r, scene.manifold.centres.shape[1])),
        reach=np.full(r, np.inf),
        unit=np.full(r, scene.typical_distance),
        rows=named,
        labels=scene.generator.labels_of(named),
        free=True,
    )
