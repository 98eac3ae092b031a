"""Samples of manifolds of known dimension, to decide what an estimator is worth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vestige.audit.geometry.estimate import Doubles, Integers

_DISC, _STICK = 4 / 7, 2 / 7


@dataclass(frozen=True, eq=False)
class Sample:
    """Points [n, ambient] and the dimension [n] of what each was drawn from."""

    points: Doubles
    dimension: Integers


def sphere(n: int, dimension: int, ambient: int, rng: np.random.Generator) -> Sample:
    """Uniform on the unit sphere of a dimension, turned at random in a larger space."""
    normal = rng.standard_normal((n, dimension + 1))
    return _turned(normal / np.linalg.norm(normal, axis=1, keepdims=True), dimension, ambient, rng)


def ball(n: int, dimension: int, ambient: int, rng: np.random.Generator) -> Sample:
    """Uniform in the unit ball of a dimension (1: a segment, 2: a disc), turned at random in a larger space."""
    normal = rng.standard_normal((n, dimension))
    radius = rng.uniform(size=(n, 1)) ** (1 / dimension)
    return _turned(radius * normal / np.linalg.norm(normal, axis=1, keepdims=True), dimension, ambient, rng)


def gaussian(n: int, dimension: int, ambient: int, rng: np.random.Generator) -> Sample:
    """Standard normal in a plane of a dimension, turned at random in a larger space."""
    return _turned(rng.standard_normal((n, dimension)), dimension, ambient, rng)


def lollipop(n: int, rng: np.random.Generator) -> Sample:
    """A disc about (3, 3) of radius 1, a stick from its rim to (1.5, 1.5), and an atom at the origin of the plane.

    Their weights are 4/7, 2/7 and 1/7, their dimensions 2, 1 and 0 (Kamkari et al. 2024, arXiv 2406.03537).
    """
    part = rng.choice(3, n, p=[1 - _DISC - _STICK, _STICK, _DISC])
    disc = 3 + ball(n, 2, 2, rng).points
    stick = np.repeat(rng.uniform(1.5, 3 - np.sqrt(0.5), (n, 1)), 2, axis=1)
    points = np.select([part[:, None] == 2, part[:, None] == 1], [disc, stick], 0.0)
    return Sample(points, part.astype(np.int64))


def _turned(points: Doubles, dimension: int, ambient: int, rng: np.random.Generator) -> Sample:
    axes = np.linalg.qr(rng.standard_normal((ambient, points.shape[1])))[0]
    return Sample(points @ axes.T, np.full(len(points), dimension, np.int64))
