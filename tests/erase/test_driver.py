from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vestige.erase.data.erasediff import EraseDiff
from vestige.erase.driver import draw_batch, noise_loss
from vestige.models.denoiser import Prediction


def test_a_batch_holds_noised_rows_with_their_labels(shop: Any) -> None:
    base, data = shop.denoiser(), shop.images()
    batch = draw_batch(base, data, np.random.default_rng(0), 64)
    alpha, sigma = base.levels(batch.t)
    clean = (batch.x_t - sigma * batch.noise) / alpha.clamp_min(1e-3)
    row = torch.cdist(clean.flatten(1), data.floats().flatten(1)).argmin(1)
    sure = batch.t < 0.9
    torch.testing.assert_close(clean[sure], data.floats()[row[sure]], atol=1e-3, rtol=0)
    assert batch.condition[sure].tolist() == data.labels[row[sure]].tolist()
    assert float(batch.t.min()) > 0
    assert float(batch.t.max()) <= 1
    assert abs(float(batch.noise.mean())) < 0.1
    assert float(batch.noise.std()) == pytest.approx(1, abs=0.05)


def test_rows_are_drawn_by_weight(shop: Any) -> None:
    base, data = shop.denoiser(), shop.images()
    weights = np.array([0, 3, *[0] * 9, 1])
    batch = draw_batch(base, data, np.random.default_rng(0), 400, weights)
    alpha, sigma = base.levels(batch.t)
    row = torch.cdist(((batch.x_t - sigma * batch.noise) / alpha).flatten(1), data.floats().flatten(1)).argmin(1)
    counts = np.bincount(row, minlength=12)
    assert counts[1] + counts[11] == 400
    assert counts[1] == pytest.approx(300, abs=35)


def test_an_unconditional_model_gets_no_labels(shop: Any) -> None:
    assert draw_batch(shop.denoiser(0), shop.images(), np.random.default_rng(0), 4).condition is None
    assert draw_batch(shop.denoiser(), shop.images(labels=False), np.random.default_rng(0), 4).condition is None


def test_the_loss_of_a_network_that_predicts_images_is_its_own_training_loss(shop: Any) -> None:
    base, data = shop.denoiser(prediction=Prediction.CLEAN), shop.images()
    batch = draw_batch(base, data, np.random.default_rng(0), 16)
    alpha, sigma = base.levels(batch.t)
    clean = (batch.x_t - sigma * batch.noise) / alpha
    wanted = (base.mean(batch.x_t, batch.t, batch.condition) - clean).square().mean()
    torch.testing.assert_close(noise_loss(base, batch), wanted, rtol=1e-3, atol=0)
    plain = shop.denoiser()
    error = plain.noise(batch.x_t, batch.t, batch.condition) - batch.noise
    torch.testing.assert_close(noise_loss(plain, batch), error.square().mean())


def test_copies_in_the_training_data_weigh_the_retained_rows(
    shop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vestige.erase.data import sides

    calls: list[tuple[int, Any]] = []

    def draw(base: Any, images: Any, rng: Any, size: int, weights: Any = None) -> Any:
        calls.append((len(images), None if weights is None else weights.tolist()))
        return draw_batch(base, images, rng, size, weights)

    monkeypatch.setattr(sides, "draw_batch", draw)
    EraseDiff(steps=1, batch_size=2).erase(shop.denoiser(), shop.request(), shop.context(tmp_path))
    assert calls == [(9, list(range(1, 10))), (3, None)]


def test_a_checkpoint_of_other_settings_is_not_taken_up(shop: Any, tmp_path: Path) -> None:
    method, context = EraseDiff(steps=26, batch_size=2), shop.context(tmp_path)
    method.erase(shop.denoiser(), shop.request(), context)
    for changed, request in [
        (dataclasses.replace(method, eta=0.5), shop.request()),
        (method, shop.request(forget=2)),
    ]:
        resumed = changed.erase(shop.denoiser(), request, context)
        fresh = changed.erase(shop.denoiser(), request, shop.context(tmp_path / "fresh" / str(changed.eta)))
        assert resumed.digest == fresh.digest


def test_the_networks_own_buffers_and_modes_survive(shop: Any, tmp_path: Path) -> None:
    base = shop.denoiser()
    assert not base.module.training
    made = EraseDiff(steps=2, batch_size=2).erase(base, shop.request(), shop.context(tmp_path))
    assert not base.module.training
    assert all(p.grad is None for p in base.module.parameters())
    assert set(made.delta) <= set(base.module.state_dict())
