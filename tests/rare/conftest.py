"""A planted rare mode with everything known about it, small enough for every test."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import pytest
import torch

from vestige.rare.manifold import Manifold
from vestige.rare.oracle import PlantedMode, known_density
from vestige.rare.scene import Scene
from vestige.rare.space import plain_space


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Work this small is slower when it is shared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def planted() -> PlantedMode:
    """A generator that makes the rare mode once in 10,000."""
    return PlantedMode(dimension=4)


@pytest.fixture(scope="session")
def build_scene(planted: PlantedMode) -> Callable[..., Scene]:
    """``build_scene(rows, weight, seed)``: real data with that weight of the rare mode, and a fresh generator."""

    def build(rows: int = 1000, weight: float = 4e-3, seed: int = 0) -> Scene:
        real = dataclasses.replace(planted, weight=weight)
        density = known_density(real.log_prob, real.sample(500, seed + 100), identity=f"planted-{weight}")
        return Scene(planted.generator(), plain_space(), density, Manifold(real.sample(rows, seed)))

    return build


@pytest.fixture
def scene(build_scene: Callable[..., Scene]) -> Scene:
    """The usual one."""
    return build_scene()
