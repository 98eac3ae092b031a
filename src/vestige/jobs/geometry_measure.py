"""The dimensions that a verdict compares: of the model at any point, and of what it is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from vestige.audit.geometry.estimate import Curve, Dimension
from vestige.audit.geometry.estimator import DataEstimator, ModelEstimator, Work
from vestige.audit.geometry.reading import at_ratio
from vestige.audit.geometry.verdict import Measured
from vestige.audit.probe import Condition, label_tensor, told
from vestige.data.images import ImageSet
from vestige.data.split import Split
from vestige.errors import InvalidInput, Unsupported
from vestige.execute import Context
from vestige.jobs.geometry_points import Points
from vestige.jobs.resolve import ModelLike
from vestige.jobs.run import plain
from vestige.models.access import Access
from vestige.models.adapters.gan import GanGenerator
from vestige.models.denoiser import Denoiser

Index = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]
Pixels = npt.NDArray[np.uint8]

_SHARD = 32


@runtime_checkable
class GeneratorEstimator(Protocol):
    """An estimator that asks a GAN at its own generations, such as the spectrum of its Jacobian."""

    access: ClassVar[Access]

    def curve(self, generator: GanGenerator, rows: Sequence[int], *, work: Work) -> Curve:
        """Estimates over scales at the generations of rows [n]."""
        ...

    def read(self, curve: Curve) -> Dimension:
        """The dimension that a curve shows."""
        ...

    def settings(self) -> dict[str, Any]:
        """Name and fields."""
        ...


@dataclass(frozen=True)
class Neighbourhood:
    """The dimension of the training data around the point."""

    estimator: DataEstimator


@dataclass(frozen=True)
class Baseline:
    """The dimension of a model that has fitted the data less, such as an earlier checkpoint (arXiv 2605.26756)."""

    model: ModelLike


@dataclass(frozen=True)
class Unconditional:
    """The dimension of the same model told nothing of the class."""


@dataclass(frozen=True)
class NoReference:
    """None: what is memorized is found, but not why."""


Reference = Neighbourhood | Baseline | Unconditional | NoReference


@dataclass(frozen=True, eq=False)
class Look:
    """One dimension at the points and at the non-members, and what it is called.

    ``cost`` is the network evaluations that one point took.
    """

    name: str
    points: Dimension
    controls: Dimension
    cost: float

    @property
    def judged(self) -> Measured:
        """At the points."""
        return Measured(self.points.value, self.points.error)

    @property
    def normal(self) -> Measured:
        """At the non-members."""
        return Measured(self.controls.value, self.controls.error)


def model_curve(
    denoiser: Denoiser,
    estimator: ModelEstimator,
    images: ImageSet,
    condition: Condition,
    context: Context,
    name: str,
) -> tuple[Curve, float]:
    """The curve of each image and the network evaluations an image, from the store where it holds them.

    The probes of an image follow from its content, so that it has the same curve in every set.

    Raises
    ------
    InvalidInput : the model answered with infinity.
    """
    said = told(denoiser, images, condition)
    key = {
        "model": denoiser.digest,
        "images": images.digest,
        "condition": said,
        "seed": context.seed,
        **plain(estimator.settings()),
    }
    work = Work(context.seed, context.batch_size)

    def compute(part: Index) -> Doubles:
        labels = label_tensor(denoiser, images, part) if said == "own" else None
        names = [int(images.ids[row], 16) for row in part]
        points = images.floats(part).to(denoiser.device)
        found = estimator.curve(denoiser, points, names, labels, work=work)
        if np.isinf(found.dimension).any():
            raise InvalidInput(
                f"{type(estimator).__name__} found infinite dimensions.",
                expected="a model whose answers are finite.",
                remedy="check the weights, or choose noise levels further from 0.",
            )
        levels = len(found.scale)
        table = np.empty((len(part), levels, 4))
        table[..., 0], table[..., 1] = found.dimension, found.error
        table[..., 2], table[..., 3] = found.scale, found.evaluations / max(len(part), 1)
        return table

    table = context.store.column("geometry", key).fill(
        len(images), compute, shard_rows=_SHARD, progress=context.progress, label=f"{name}: {len(images):,} images"
    )
    cost = float(table[:, :, 3].max(initial=0.0))
    scale = table[0, :, 2] if len(table) else np.empty(0)
    return Curve(scale, table[..., 0], table[..., 1], int(np.prod(images.shape)), round(cost * len(images))), cost


def model_look(
    denoiser: Denoiser,
    estimator: ModelEstimator,
    points: Points,
    condition: Condition,
    context: Context,
    scale: float | None,
    name: str,
) -> Look:
    """The model's dimension at points and non-members, read where the estimator reads it or at a given scale."""
    inside, cost = model_curve(denoiser, estimator, points.images, condition, context, f"{name}, points")
    if points.controls is None or len(points.controls) == 0:
        return Look(name, read(estimator, inside, scale), _nothing(inside), cost)
    outside, _ = model_curve(denoiser, estimator, points.controls, condition, context, f"{name}, non-members")
    return Look(name, read(estimator, inside, scale), read(estimator, outside, scale), cost)


def data_look(estimator: DataEstimator, points: Points, who: Split, context: Context, name: str) -> Look:
    """The dimension of the training rows, every copy counted, around points and non-members.

    A training image is left out once where it is looked from, so that one seen once lies among its neighbours and one
    with copies on an atom. A generation that copies a training image is asked about there: next to an atom the
    distances to its copies say nothing.
    """
    row = points.row if points.copying is None else np.where(points.copying.copied, points.copying.row, -1)
    inside = _data_curve(estimator, points.images, row, who, context, f"{name}, points")
    if points.controls is None or len(points.controls) == 0:
        return Look(name, estimator.read(inside), _nothing(inside), 0.0)
    none = np.full(len(points.controls), -1)
    outside = _data_curve(estimator, points.controls, none, who, context, f"{name}, non-members")
    return Look(name, estimator.read(inside), estimator.read(outside), 0.0)


def _data_curve(
    estimator: DataEstimator, images: ImageSet, row: Index, who: Split, context: Context, name: str
) -> Curve:
    """The curve at images [n] of which ``row`` [n] says which member they are, -1 for none."""
    key = {
        "data": who.digest,
        "images": images.digest,
        "rows": row.tolist(),
        "seed": context.seed,
        **plain(estimator.settings()),
    }
    work = Work(context.seed, context.batch_size)

    def compute(part: Index) -> Doubles:
        pieces: list[tuple[Index, Curve]] = []
        known, unknown = part[row[part] >= 0], part[row[part] < 0]
        reference = np.repeat(who.members.flat, who.exact, axis=0)
        if known.size:
            # Queries are leading rows: the members that are asked about go first, one copy each.
            asked, back = np.unique(row[known], return_inverse=True)
            further = who.exact - np.isin(np.arange(len(who.exact)), asked)
            rows = np.concatenate((who.members.flat[asked], np.repeat(who.members.flat, further, axis=0)))
            found = estimator.curve(rows[: len(asked)], rows, same_index=True, work=work)
            pieces.append((known, replace(found, dimension=found.dimension[back], error=found.error[back])))
        if unknown.size:
            pieces.append((unknown, estimator.curve(images.flat[unknown], reference, work=work)))
        levels = max((len(curve.scale) for _, curve in pieces), default=0)
        table = np.full((len(part), levels, 3), np.nan)
        for places, curve in pieces:
            at = np.searchsorted(part, places)
            table[at, : len(curve.scale)] = np.stack(
                [curve.dimension, curve.error, np.broadcast_to(curve.scale, curve.dimension.shape)], axis=2
            )
        return table

    # One shard: the reference is searched once for all points.
    table = context.store.column("neighbourhoods", key).fill(
        len(images), compute, shard_rows=max(len(images), 1), progress=context.progress, label=name
    )
    scale = np.nanmax(table[..., 2], axis=0) if len(table) else np.empty(0)
    return Curve(scale, table[..., 0], table[..., 1], int(np.prod(images.shape)))


def generator_look(
    generator: GanGenerator, estimator: GeneratorEstimator, points: Points, context: Context, name: str
) -> Look:
    """The dimension of a GAN at its own generations, read where the estimator reads it."""
    looks: list[tuple[Dimension, float]] = []
    for rows, what in zip(points.drawn or (), ("points", "controls"), strict=False):
        key = {
            "generator": generator.key(),
            "rows": rows.tolist(),
            "seed": context.seed,
            **plain(estimator.settings()),
        }
        work = Work(context.seed, context.batch_size)

        def compute(part: Index, rows: Index = rows, work: Work = work) -> Doubles:
            found = estimator.curve(generator, rows[part].tolist(), work=work)
            cost = np.full(found.dimension.shape, found.evaluations / max(len(part), 1))
            return np.stack(
                [found.dimension, found.error, np.broadcast_to(found.scale, found.dimension.shape), cost], axis=2
            )

        table = context.store.column("geometry", key).fill(
            len(rows), compute, shard_rows=_SHARD, progress=context.progress, label=f"{name}, {what}"
        )
        scale = table[0, :, 2] if len(table) else np.empty(0)
        cost = float(table[:, :, 3].max(initial=0.0))
        curve = Curve(scale, table[..., 0], table[..., 1], int(np.prod(generator.shape)), round(cost * len(rows)))
        looks.append((estimator.read(curve) if len(table) else _nothing(curve), cost))
    return Look(name, looks[0][0], looks[1][0], looks[0][1])


def unconditional(denoiser: Denoiser) -> None:
    """Raise Unsupported unless the model can be told nothing."""
    if denoiser.null_condition is None:
        raise Unsupported(
            "The model has no label that means 'no condition', so its unconditional dimension is unknown.",
            expected="a model trained with a null condition.",
            remedy="pass --null-condition, or choose another --reference.",
        )


def read(estimator: ModelEstimator, curve: Curve, scale: float | None) -> Dimension:
    """What the estimator reads, or the values at the level nearest to ``scale``."""
    return estimator.read(curve) if scale is None else at_ratio(curve, scale)


def _nothing(like: Curve) -> Dimension:
    """No point at all, over the scales of ``like``."""
    levels = len(like.scale)
    curve = Curve(like.scale, np.empty((0, levels)), np.empty((0, levels)), like.ambient)
    return Dimension(np.empty(0), np.empty(0), np.empty(0, np.int64), (), curve)
