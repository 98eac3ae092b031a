from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vestige.erase.data import fisher
from vestige.erase.data.fisher import ImageLoss, fisher_diagonal, squares_by_loop, squares_by_vmap
from vestige.erase.data.saliency import stratified
from vestige.erase.driver import derivatives, noise_loss
from vestige.errors import NothingChanged, Unsupported
from vestige.models.adapters.diffusers import load_folder
from vestige.models.adapters.function import FunctionDenoiser
from vestige.models.denoiser import Denoiser, Prediction
from vestige.models.schedule import Cosine


def written_out(base: Denoiser, images: Any, times: int, seed: int = 0) -> list[Tensor]:
    """One image at a time, one time at a time."""
    parameters = list(base.module.parameters())
    total = [torch.zeros_like(p, dtype=torch.float64) for p in parameters]
    for row in range(len(images)):
        alone = [torch.zeros_like(p, dtype=torch.float64) for p in parameters]
        batch = stratified(base, images, np.array([row]), times, seed)
        for k in range(times):
            condition = None if batch.condition is None else batch.condition[k : k + 1]
            error = base.noise(batch.x_t[k : k + 1], batch.t[k : k + 1], condition) - batch.noise[k : k + 1]
            if base.prediction is Prediction.CLEAN:
                alpha, sigma = base.levels(batch.t[k : k + 1])
                error = error * sigma / alpha
            for sum_, gradient in zip(alone, derivatives(error.square().mean(), parameters), strict=True):
                sum_ += gradient / times
        for sum_, single in zip(total, alone, strict=True):
            sum_ += single.square() / len(images)
    return total


@pytest.mark.parametrize("prediction", [Prediction.NOISE, Prediction.CLEAN, Prediction.VELOCITY])
@pytest.mark.parametrize("classes", [0, 3])
def test_the_diagonal_is_that_of_a_plain_loop(
    shop: Any, tmp_path: Path, prediction: Prediction, classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fisher, "CHUNK", 20)  # five images together, so that the last chunk is smaller
    monkeypatch.setattr(fisher, "squares_by_loop", None)
    base, images = shop.denoiser(classes, prediction), shop.images()
    found, spent = fisher_diagonal(base, base.module, images, 99, 4, shop.context(tmp_path))
    assert spent == 3 * 12 * 4
    for one, two in zip(found, written_out(base, images, 4), strict=True):
        torch.testing.assert_close(one.double(), two, rtol=1e-3, atol=1e-6 * float(two.max()))
    assert all(p.grad is None for p in base.module.parameters())


def test_all_at_once_equals_one_by_one_on_a_unet(pipeline_folder: Path, shop: Any) -> None:
    base = load_folder(pipeline_folder)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 1, 8, 8), dtype=np.uint8)
    images = type(shop.images())(pixels)
    parameters = list(base.module.parameters())
    loss = ImageLoss(base.with_module(base.module), base.module)
    batch = stratified(base, images, np.arange(3), 2, 0)
    at_once = squares_by_vmap(loss, parameters, batch, 2)
    for one, two in zip(at_once, squares_by_loop(loss, parameters, batch, 2), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-5 * float(two.max()) + 1e-12)


def test_a_network_that_cannot_be_batched_is_taken_one_by_one(shop: Any, tmp_path: Path) -> None:
    class Stubborn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1, 1, 1, 1))

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return self.scale * x * (2.0 if float(t.detach().sum()) > 0 else 1.0)  # a branch on a value

    base = FunctionDenoiser(Stubborn(), Cosine(), Prediction.NOISE, (1, 6, 6), identity="stubborn")
    images = shop.images()
    loss = ImageLoss(base, base.module)
    with pytest.raises(RuntimeError, match="vmap"):
        squares_by_vmap(loss, list(base.module.parameters()), stratified(base, images, np.arange(2), 3, 0), 3)
    found, _ = fisher_diagonal(base, base.module, images, 12, 3, shop.context(tmp_path))
    torch.testing.assert_close(found[0].double(), written_out(base, images, 3)[0], rtol=1e-4, atol=0)


def test_other_errors_of_the_network_are_not_swallowed(
    shop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: Any) -> Any:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(fisher, "squares_by_vmap", broken)
    base = shop.denoiser()
    with pytest.raises(RuntimeError, match="out of memory"):
        fisher_diagonal(base, base.module, shop.images(), 4, 2, shop.context(tmp_path))


def test_frozen_weights_have_no_entry(shop: Any, tmp_path: Path) -> None:
    base = shop.denoiser()
    base.module.embed.requires_grad_(False)
    found, _ = fisher_diagonal(base, base.module, shop.images(), 4, 2, shop.context(tmp_path))
    assert [f.shape for f in found] == [p.shape for p in base.module.body.parameters()]
    base.module.requires_grad_(False)
    with pytest.raises(NothingChanged, match="frozen"):
        fisher_diagonal(base, base.module, shop.images(), 4, 2, shop.context(tmp_path))


def test_a_model_that_answers_with_other_weights_is_refused(
    shop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = shop.denoiser()
    monkeypatch.setattr(base, "with_module", lambda module: base)
    with pytest.raises(Unsupported, match="influence"):
        fisher_diagonal(base, shop.denoiser(width=8).module, shop.images(), 4, 2, shop.context(tmp_path))


def test_it_is_found_once(shop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, context = shop.denoiser(), shop.context(tmp_path)
    first = fisher_diagonal(base, base.module, shop.images(), 4, 2, context)
    monkeypatch.setattr(fisher, "squares_by_vmap", None)
    again = fisher_diagonal(base, base.module, shop.images(), 4, 2, context)
    assert first[1] == again[1] == 3 * 4 * 2
    assert all(torch.equal(a, b) for a, b in zip(first[0], again[0], strict=True))


def test_the_loss_of_an_image_is_the_mean_over_its_times(shop: Any) -> None:
    base = shop.denoiser()
    batch = stratified(base, shop.images(), np.array([3]), 5, 0)
    loss = ImageLoss(base, base.module)(batch.x_t, batch.noise, batch.t, batch.condition)
    torch.testing.assert_close(loss, noise_loss(base, batch))
