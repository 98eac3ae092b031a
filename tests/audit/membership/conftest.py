from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from vestige.data.images import ImageSet
from vestige.execute import Context
from vestige.models.oracle import EmpiricalDenoiser, MixtureDenoiser, gaussian_denoiser
from vestige.store import Store

SIDE = 4
PIXELS = SIDE * SIDE


def random_images(seed: int, count: int, labels: bool = False) -> ImageSet:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 1, SIDE, SIDE), dtype=np.uint8)
    return ImageSet(pixels, np.arange(count) % 2 if labels else None)


@pytest.fixture
def images() -> Callable[..., ImageSet]:
    return random_images


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(Store(tmp_path))


@pytest.fixture(scope="session")
def covariance() -> np.ndarray:
    root = np.random.default_rng(7).normal(size=(PIXELS, PIXELS)) / SIDE
    return root @ root.T / 4


@pytest.fixture
def gauss(covariance: np.ndarray) -> MixtureDenoiser:
    return gaussian_denoiser(torch.zeros(1, SIDE, SIDE), torch.from_numpy(covariance))


@pytest.fixture
def two_classes() -> Callable[[ImageSet], EmpiricalDenoiser]:
    """A memorizer of labelled images that can be asked without a label."""

    def build(train: ImageSet) -> EmpiricalDenoiser:
        model = EmpiricalDenoiser(train.floats(), labels=torch.from_numpy(train.labels))
        model.null_condition = model.classes
        return model

    return build
