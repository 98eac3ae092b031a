from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vestige.audit.errors import error_table
from vestige.audit.geometry.dsm import dsm_dimension
from vestige.data.images import ImageSet, to_uint8
from vestige.execute import Context
from vestige.models.oracle import EmpiricalDenoiser, gaussian_denoiser
from vestige.store import Store


def images(count: int = 6, labels: bool = False) -> ImageSet:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (count, 1, 4, 4), dtype=np.uint8)
    return ImageSet(pixels, np.arange(count) % 2 if labels else None)


class Watched(EmpiricalDenoiser):
    """Remembers what it was asked."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.seen: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        self.conditions: list[torch.Tensor | None] = []

    def noised(self, x_0: torch.Tensor, noise: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        self.seen.append((x_0, noise, t))
        return super().noised(x_0, noise, t)

    def forward(self, x_t: torch.Tensor, t: torch.Tensor, condition: torch.Tensor | None) -> torch.Tensor:
        self.conditions.append(condition)
        return super().forward(x_t, t, condition)


def test_entries_are_squared_noise_errors(tmp_path: Path) -> None:
    data, times = images(), (0.1, 0.4)
    model = Watched(data.floats()[:3])
    table = error_table(model, data, times, 2, Context(Store(tmp_path)), label="errors")
    assert table.shape == (6, 2, 2)
    assert model.evaluations == 24
    # In the order in which they were asked for: draws, then times.
    for (clean, noise, t), place in zip(model.seen, [(0, 0), (1, 0), (0, 1), (1, 1)], strict=True):
        assert float(t[0]) == pytest.approx(times[place[0]])
        error = model.noise(EmpiricalDenoiser.noised(model, clean, noise, t), t) - noise
        np.testing.assert_allclose(table[:, place[0], place[1]], error.flatten(1).norm(dim=1) ** 2, rtol=1e-5)


def test_noise_belongs_to_the_image_and_the_draw(tmp_path: Path) -> None:
    data = images()
    model = Watched(data.floats()[:3])
    table = error_table(model, data, (0.2, 0.3), 2, Context(Store(tmp_path / "all")), label="")
    noises = torch.cat([noise.flatten(1) for _, noise, t in model.seen if float(t[0]) < 0.25])
    assert torch.corrcoef(noises).fill_diagonal_(0).abs().max() < 0.95
    assert len(torch.unique(noises, dim=0)) == 12
    # Alone, in another order and in other batches, an image is probed with the same noise.
    part = error_table(model, data.take([4, 1]), (0.2, 0.3), 2, Context(Store(tmp_path), batch_size=1), label="")
    np.testing.assert_allclose(part, table[[4, 1]], rtol=1e-4)


def test_a_conditional_model_is_asked_with_the_labels(tmp_path: Path) -> None:
    data = images(labels=True)
    model = Watched(data.floats(), labels=torch.from_numpy(data.labels))
    error_table(model, data, (0.2,), 1, Context(Store(tmp_path / "labels")), label="")
    assert model.conditions[0] is not None
    assert model.conditions[0].tolist() == [0, 1, 0, 1, 0, 1]
    plain = Watched(data.floats())
    error_table(plain, data, (0.2,), 1, Context(Store(tmp_path / "plain")), label="")
    assert plain.conditions[0] is None


def test_dimension_of_a_gaussian_on_a_plane_is_that_of_the_plane(tmp_path: Path) -> None:
    # E ||eps - eps_hat||^2 = sum_i a^2 l_i / (a^2 l_i + s^2), near k for variances l_i far above s^2.
    torch.manual_seed(0)
    axes = torch.linalg.qr(torch.randn(16, 3)).Q
    model = gaussian_denoiser(torch.zeros(1, 4, 4), axes @ axes.T / 20)
    data = ImageSet(to_uint8((torch.randn(400, 3) @ axes.T * 0.05**0.5).view(-1, 1, 4, 4)))
    table = error_table(model, data, (0.01,), 4, Context(Store(tmp_path)), label="")
    alpha, sigma = (float(v) for v in model.schedule.alpha_sigma(torch.tensor(0.01)))
    wanted = 3 * alpha**2 / 20 / (alpha**2 / 20 + sigma**2)
    assert dsm_dimension(table).shape == (400,)
    assert dsm_dimension(table).mean() == pytest.approx(wanted, rel=0.05)
    assert wanted == pytest.approx(3, rel=0.05)


def test_dimension_of_a_memorized_image_is_zero_and_of_another_is_not(tmp_path: Path) -> None:
    data = images(8)
    model = EmpiricalDenoiser(data.floats()[:4])
    dimension = dsm_dimension(error_table(model, data, (0.05,), 4, Context(Store(tmp_path)), label=""))
    assert dimension[:4].max() < 0.1
    assert dimension[4:].min() > 16
