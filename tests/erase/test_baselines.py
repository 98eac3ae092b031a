from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vestige.data.images import ImageSet
from vestige.erase.applied import applied
from vestige.erase.data.fine_tune import FineTune
from vestige.erase.data.gradient_ascent import GradientAscent, bounded_losses
from vestige.erase.data.retrain import Retrain, reinitialise
from vestige.erase.driver import draw_batch, noise_loss
from vestige.erase.eraser import Eraser
from vestige.erase.request import Request
from vestige.errors import InvalidInput, Unsupported
from vestige.models.denoiser import Denoiser, Prediction

FINE = FineTune(steps=60, batch_size=16, learning_rate=3e-3)
ASCENT = GradientAscent(steps=20, batch_size=16, learning_rate=3e-3)
AGAIN = Retrain(steps=60, batch_size=16, learning_rate=3e-3)


def loss(model: Denoiser, images: ImageSet) -> float:
    with torch.no_grad():
        batch = draw_batch(model, images, np.random.default_rng(1), 512)
        return float(noise_loss(model, batch))


@pytest.mark.parametrize("method", [FINE, ASCENT, AGAIN], ids=lambda m: type(m).__name__)
def test_a_step_costs_three_passes(shop: Any, tmp_path: Path, method: Eraser) -> None:
    cost = method.erase(shop.denoiser(), shop.request(), shop.context(tmp_path)).manifest.cost
    assert cost["forwards_per_step"] == 3


@pytest.mark.parametrize("method", [FINE, AGAIN], ids=lambda m: type(m).__name__)
def test_what_is_forgotten_is_never_looked_at(shop: Any, tmp_path: Path, method: Eraser) -> None:
    request = shop.request()
    other = ImageSet(255 - request.forget.pixels, request.forget.labels)
    made = [
        method.erase(shop.denoiser(), r, shop.context(tmp_path / str(i)))
        for i, r in enumerate((request, dataclasses.replace(request, forget=other)))
    ]
    assert made[0].manifest.delta == made[1].manifest.delta
    assert made[0].manifest.forgotten != made[1].manifest.forgotten


def test_fine_tuning_lowers_the_retain_loss(shop: Any, tmp_path: Path) -> None:
    base, request = shop.denoiser(), shop.request()
    tuned = applied(base, [(FINE.erase(base, request, shop.context(tmp_path)), 1.0)])
    assert loss(tuned, request.retain) < 0.95 * loss(base, request.retain)


def test_ascent_raises_the_loss_of_the_forgotten_and_stops_at_the_ceiling(shop: Any, tmp_path: Path) -> None:
    base, request = shop.denoiser(), shop.request()
    before = loss(base, request.forget)
    ends = []
    for ceiling in (1.05 * before, 100.0):
        method = dataclasses.replace(ASCENT, steps=60, ceiling=ceiling)
        made = method.erase(base, request, shop.context(tmp_path))
        ends.append(loss(applied(base, [(made, 1.0)]), request.forget))
    assert before < ends[0] < 2 * before < ends[1]


@pytest.mark.parametrize("prediction", [Prediction.NOISE, Prediction.CLEAN])
def test_rows_beyond_the_ceiling_exert_no_force(shop: Any, prediction: Prediction) -> None:
    base = shop.denoiser(prediction=prediction)
    batch = draw_batch(base, shop.images(), np.random.default_rng(0), 24)
    parameters = list(base.module.parameters())
    errors = (base.noise(batch.x_t, batch.t, batch.condition) - batch.noise).square().flatten(1).mean(1).detach()
    ceiling = float(errors.median()) + 1e-6
    below = errors < ceiling
    assert 0 < int(below.sum()) < 24
    found = torch.autograd.grad(bounded_losses(base, batch, ceiling).mean(), parameters)
    part = dataclasses.replace(
        batch, x_t=batch.x_t[below], noise=batch.noise[below], t=batch.t[below], condition=batch.condition[below]
    )
    share = int(below.sum()) / 24
    wanted = torch.autograd.grad(share * noise_loss(base, part), parameters)
    torch.testing.assert_close(found, wanted)
    whole = bounded_losses(base, batch, 1e9).mean()
    torch.testing.assert_close(whole, noise_loss(base, batch))


@pytest.mark.parametrize("ceiling", [0.0, -1.0, float("nan"), float("inf")])
def test_a_senseless_ceiling_is_refused(ceiling: float) -> None:
    with pytest.raises(InvalidInput):
        GradientAscent(ceiling=ceiling)


def test_the_retrained_model_knows_nothing_of_the_base(shop: Any, tmp_path: Path) -> None:
    one, two = shop.denoiser(), shop.denoiser()
    with torch.no_grad():
        for parameter in two.module.parameters():
            parameter.mul_(-2).add_(0.1)
    made = [
        applied(base, [(AGAIN.erase(base, shop.request(), shop.context(tmp_path / str(i))), 1.0)]).module.state_dict()
        for i, base in enumerate((one, two))
    ]
    torch.testing.assert_close(made[0], made[1], rtol=1e-5, atol=1e-6)
    other = applied(one, [(AGAIN.erase(one, shop.request(), shop.context(tmp_path, seed=1)), 1.0)])
    assert not torch.allclose(other.module.state_dict()["body.0.weight"], made[0]["body.0.weight"], atol=1e-2)


def test_retraining_learns_the_retained_images(shop: Any, tmp_path: Path) -> None:
    base, request = shop.denoiser(), shop.request()
    blank = base.with_module(shop.denoiser().module)
    reinitialise(blank.module, 5)
    made = dataclasses.replace(AGAIN, steps=150).erase(base, request, shop.context(tmp_path))
    assert loss(applied(base, [(made, 1.0)]), request.retain) < 0.8 * loss(blank, request.retain)


@pytest.mark.parametrize("prediction", list(Prediction))
def test_the_training_target_is_what_the_table_of_predictions_inverts(prediction: Prediction) -> None:
    torch.manual_seed(0)
    clean, noise = torch.randn(2, 8, 1, 3, 3, dtype=torch.float64)
    angle = torch.linspace(0.1, 1.4, 8, dtype=torch.float64).view(-1, 1, 1, 1)
    alpha, sigma = angle.cos(), angle.sin()
    if prediction is Prediction.FLOW:
        alpha, sigma = 1 - angle / 2, angle / 2
    x_t, target = alpha * clean + sigma * noise, prediction.target(clean, noise, alpha, sigma)
    torch.testing.assert_close(prediction.mean(target, x_t, alpha, sigma), clean)
    torch.testing.assert_close(prediction.noise(target, x_t, alpha, sigma), noise)


class WithNull(nn.Module):
    """Records the conditions that it is asked under."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.layer, self.seen = nn.Embedding(4, 4), nn.Linear(40, 36), []

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        self.seen += condition.tolist()
        return self.layer(torch.cat([x.flatten(1), self.embed(condition)], 1)).view_as(x)


@pytest.mark.parametrize("drop", [0.0, 0.4])
def test_a_share_of_rows_is_shown_without_its_class(
    shop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drop: float
) -> None:
    from vestige.models.adapters.function import FunctionDenoiser
    from vestige.models.schedule import Cosine

    base = FunctionDenoiser(
        WithNull(), Cosine(), Prediction.NOISE, (1, 6, 6), identity="n", classes=3, null_condition=3
    )
    asked: list[int] = []
    forward = WithNull.forward

    def watched(module: WithNull, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        asked.extend(condition.tolist())
        return forward(module, x, t, condition)

    monkeypatch.setattr(WithNull, "forward", watched)
    Retrain(steps=30, batch_size=40, condition_drop=drop).erase(base, shop.request(), shop.context(tmp_path))
    assert np.mean(np.array(asked) == 3) == pytest.approx(drop, abs=0.05)
    assert set(asked) >= {0, 1, 2}


def test_retained_rows_are_drawn_by_their_copies(shop: Any) -> None:
    request: Request = shop.request()
    request = dataclasses.replace(request, retain_copies=np.array([1, 0, 3, *[0] * 6]))
    base = shop.denoiser()
    batch = Retrain(batch_size=400)._batch(base, request, np.random.default_rng(0))
    x_t, t, noise, labels = batch.x_t, batch.t, batch.wanted, batch.condition
    alpha, sigma = base.levels(t)
    row = torch.cdist(((x_t - sigma * noise) / alpha).flatten(1), request.retain.floats().flatten(1)).argmin(1)
    counts = np.bincount(row, minlength=9)
    assert counts[0] + counts[2] == 400
    assert counts[2] == pytest.approx(300, abs=35)
    assert labels is not None
    assert labels.tolist() == request.retain.labels[row].tolist()


def test_every_trainable_weight_is_drawn_anew_and_frozen_ones_stay() -> None:
    net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.GroupNorm(2, 8), nn.BatchNorm2d(8), nn.Linear(4, 4), nn.Embedding(3, 2))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(7)
    net[3].weight.requires_grad_(False)
    net[2].running_mean.fill_(7)
    state = torch.random.get_rng_state()
    reinitialise(net, 3)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (net[3].weight == 7).all()
    assert not any((p == 7).any() for name, p in net.named_parameters() if name != "3.weight")
    assert not net[2].running_mean.any()
    again = nn.Sequential(nn.Conv2d(1, 8, 3))
    reinitialise(again, 3)
    assert torch.equal(again[0].weight, net[0].weight)
    reinitialise(again, 4)
    assert not torch.equal(again[0].weight, net[0].weight)


def test_a_layer_that_cannot_be_drawn_anew_is_refused(shop: Any, tmp_path: Path) -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return self.scale * x

    with pytest.raises(Unsupported, match="Own has weights of its own"):
        reinitialise(nn.Sequential(nn.Linear(2, 2), Own()), 0)


@pytest.mark.parametrize("drop", [-0.1, 1.0])
def test_a_senseless_share_without_class_is_refused(drop: float) -> None:
    with pytest.raises(InvalidInput):
        Retrain(condition_drop=drop)
