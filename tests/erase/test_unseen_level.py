from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vestige.data.images import ImageSet
from vestige.erase import residue
from vestige.erase.applied import applied
from vestige.erase.data.erasediff import EraseDiff
from vestige.erase.data.gradient_ascent import GradientAscent
from vestige.erase.data.teacher import Unlearned
from vestige.erase.data.unseen_level import UnseenLevel, force
from vestige.erase.driver import draw_batch, row_losses
from vestige.erase.loop import Loop, Stop
from vestige.erase.request import Request
from vestige.erase.residue import TIMES, Level, Reached, errors, traits
from vestige.errors import InvalidInput, Unsupported
from vestige.models.denoiser import Prediction


def unseen(count: int = 40) -> ImageSet:
    pixels = np.random.default_rng(9).integers(0, 256, (count, 1, 6, 6), dtype=np.uint8)
    return ImageSet(pixels, np.arange(count) % 3)


def asked(shop: Any) -> Request:
    return dataclasses.replace(shop.request(), unseen=unseen())


def memorizing(shop: Any, folder: Path) -> Any:
    """The shop's network, trained to know the images that are to be forgotten by heart."""
    from vestige.erase.data.fine_tune import FineTune

    base, request = shop.denoiser(width=96), shop.request()
    swapped = Request(request.retain, request.forget, np.ones(3, np.int64))
    learned = FineTune(steps=600, batch_size=24, learning_rate=5e-3).erase(base, swapped, shop.context(folder))
    return applied(base, [(learned, 1.0)])


@given(low=st.floats(1e-6, 1e3), level=st.floats(1e-3, 10))
def test_the_force_is_the_derivative_of_the_squared_logarithm(low: float, level: float) -> None:
    loss, tau = torch.tensor([low], dtype=torch.float64, requires_grad=True), torch.tensor([level], dtype=torch.float64)
    (wanted,) = torch.autograd.grad((tau / 2 * (loss / tau).log().square()).sum(), loss)
    found = force(loss.detach(), tau, 1e12)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)
    assert float(force(loss.detach(), tau, 3.0).abs()) <= 3
    assert float(force(tau, tau, 3.0)) == 0


@pytest.mark.parametrize("prediction", [Prediction.NOISE, Prediction.CLEAN, Prediction.VELOCITY])
def test_losses_pull_towards_the_level_from_both_sides(shop: Any, prediction: Prediction) -> None:
    base = shop.denoiser(prediction=prediction)
    batch = draw_batch(base, shop.images(), np.random.default_rng(0), 32)
    scale = row_losses(base, batch).detach()
    error = (base.noise(batch.x_t, batch.t, batch.condition) - batch.noise).square().flatten(1).mean(1).detach()
    middle = float(error.quantile(0.5))
    signs = torch.sign(UnseenLevel(teach_weight=0.0).pulled(base, batch, torch.full((32,), middle)).detach())
    assert torch.equal(signs, torch.sign(error - middle))
    assert bool((scale > 0).all())


def test_the_unlearned_model_rules_at_large_noise_and_the_level_at_small(shop: Any) -> None:
    base = shop.denoiser()
    batch = draw_batch(base, shop.images(), np.random.default_rng(0), 32)
    batch = dataclasses.replace(batch, target=torch.randn_like(batch.noise))
    levels = torch.rand(32) + 0.1
    alpha, sigma = (value.flatten() for value in base.levels(batch.t))
    share = (1.5 * alpha) ** 4 / ((1.5 * alpha) ** 4 + sigma**4)
    answer = base.noise(batch.x_t, batch.t, batch.condition)
    own = (answer - batch.noise).square().flatten(1).mean(1)
    taught = (answer - batch.target).square().flatten(1).mean(1)
    method = UnseenLevel(handover=1.5, level_weight=2.0, teach_weight=0.7)
    wanted = share * 2.0 * force(own.detach(), levels, 10.0) * own + (1 - share) * 0.7 * taught
    torch.testing.assert_close(method.pulled(base, batch, levels), wanted)


@pytest.mark.parametrize(("push", "bank", "cost"), [(1.0, 0, 7.0), (0.0, 0, 6.0), (1.0, 1, 6.5)])
def test_a_step_asks_the_base_once_where_there_is_a_push(
    shop: Any, tmp_path: Path, push: float, bank: int, cost: float
) -> None:
    method, loop = UnseenLevel(steps=2, batch_size=4, push=push), Loop(bank=bank)
    found = method.erase(shop.denoiser(), asked(shop), shop.context(tmp_path), loop=loop).manifest.cost
    assert found["forwards_per_step"] == cost
    assert found["forward_equivalents"] == cost * 8 + found["level_forward_equivalents"]


@pytest.mark.parametrize("classes", [3, 0])
def test_the_unlearned_teacher_answers_from_retained_images_of_the_class(shop: Any, classes: int) -> None:
    base, request = shop.denoiser(classes), shop.request()
    batch = draw_batch(base, request.forget, np.random.default_rng(0), 8)
    answer = Unlearned.of(base, request, 0.0).wanted(batch)
    assert request.retain.labels is not None
    kept, copies = request.retain.floats(), torch.from_numpy(request.retain_copies)
    alpha, sigma = base.levels(batch.t)
    for n in range(8):
        own = torch.from_numpy(request.retain.labels) == batch.condition[n] if classes else copies > 0
        away = (batch.x_t[n] - alpha[n] * kept[own]).square().flatten(1).sum(1).double()
        weights = (copies[own].log() - away / (2 * sigma[n].flatten().double() ** 2)).softmax(0)
        mean = (weights[:, None, None, None] * kept[own]).sum(0).float()
        wanted = (batch.x_t[n] - alpha[n] * mean) / sigma[n]
        torch.testing.assert_close(answer[n], wanted, rtol=1e-3, atol=1e-3)
    with torch.no_grad():
        own = base.noise(batch.x_t, batch.t, batch.condition)
        pushed = Unlearned.of(base, request, 0.5).wanted(batch)
    torch.testing.assert_close(pushed, 1.5 * answer - 0.5 * own)


def test_the_level_follows_time_and_the_traits_of_an_image(shop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rng, request = np.random.default_rng(0), asked(shop)
    smooth = (rng.integers(0, 256, (200, 1, 1, 1)) + rng.integers(0, 12, (200, 1, 6, 6))).clip(0, 255)
    rough = rng.integers(0, 256, (200, 1, 6, 6))
    images = ImageSet(np.concatenate([smooth, rough]).astype(np.uint8))
    request = dataclasses.replace(request, unseen=images)
    described, spread = traits(images, request.retain), 0.2

    def law(rows: Any, times: Any) -> torch.Tensor:
        t, x = torch.tensor(times), described[rows]
        return -1 - 2 * t + 0.7 * x[:, :1] - 0.4 * x[:, 1:] * t

    def measured(denoiser: Any, images: Any, rows: Any, times: Any, seed: int, draw: int) -> torch.Tensor:
        places = [same[image] for image in images.ids] if rows is None else rows
        noise = torch.from_numpy(np.random.default_rng(5).normal(0, spread, (len(places), len(times)))).float()
        return (law(places, times) + noise).exp()

    same = {name: row for row, name in enumerate(images.ids)}
    monkeypatch.setattr(residue, "errors", measured)
    level = Level.of(shop.denoiser(), request, 0, samples=4000, knots=10)
    rows, t = np.arange(0, 400, 7), torch.full((58,), 0.35)
    wanted = (law(rows, [0.35])[:, 0] + spread**2 / 2).exp()
    torch.testing.assert_close(level.at(t, described[rows]), wanted, rtol=0.08, atol=0)
    torch.testing.assert_close(level.at(0 * t, described[rows]), level.at(0 * t + 0.05, described[rows]))


def test_images_without_differences_have_a_level_too(shop: Any) -> None:
    request = dataclasses.replace(
        asked(shop), unseen=ImageSet(np.full((5, 1, 6, 6), 77, np.uint8), np.zeros(5, np.int64))
    )
    level = Level.of(shop.denoiser(), request, 0)
    found = level.at(torch.tensor([0.0, 0.5, 1.0]), traits(request.forget, request.retain))
    assert bool(torch.isfinite(found).all())


def test_errors_do_not_depend_on_what_stands_beside(shop: Any) -> None:
    base, images = shop.denoiser(), unseen(150)
    rows = np.arange(150, dtype=np.int64)
    whole = errors(base, images, rows, TIMES, 3, 1)
    parts = torch.cat([errors(base, images, rows[i : i + 1], TIMES, 3, 1) for i in (0, 77, 149)])
    torch.testing.assert_close(whole[[0, 77, 149]], parts, rtol=1e-4, atol=1e-6)


def test_memorized_images_come_to_the_level_of_unseen_ones_and_not_past_it(shop: Any, tmp_path: Path) -> None:
    base, request = memorizing(shop, tmp_path / "learn"), asked(shop)
    rule = Reached.by(base, request, 7)
    before = rule.ratio(base)
    method = UnseenLevel(steps=300, batch_size=24, learning_rate=2e-3)
    made = method.erase(base, request, shop.context(tmp_path))
    after = rule.ratio(applied(base, [(made, 1.0)]))
    assert before < 0.3
    assert 0.7 < after < 1.35
    # As many steps without a level go far beyond it.
    far = GradientAscent(steps=300, batch_size=24, learning_rate=2e-3, ceiling=1e3)
    assert rule.ratio(applied(base, [(far.erase(base, request, shop.context(tmp_path)), 1.0)])) > 1.6


def test_the_rule_stops_where_the_level_is_reached(shop: Any, tmp_path: Path) -> None:
    base, request = memorizing(shop, tmp_path / "learn"), asked(shop)
    method = GradientAscent(steps=400, batch_size=16, learning_rate=1e-3, ceiling=1e3)
    loop = Loop(stop=Stop.RESIDUE, stop_every=5)
    made = method.erase(base, request, shop.context(tmp_path / "a"), loop=loop)
    steps = int(made.manifest.cost["steps"])
    assert 5 <= steps < 400
    assert steps % 5 == 0
    rule = Reached.by(base, request, 0)
    assert rule.ratio(applied(base, [(made, 1.0)])) >= 1
    looks = steps // 5 * 3 * len(TIMES)
    level = made.manifest.cost["stop_forward_equivalents"]
    assert 900 < level <= 1024
    assert made.manifest.cost["forward_equivalents"] == 3 * 16 * steps + looks + level
    again = method.erase(base, request, shop.context(tmp_path / "a"), loop=loop)
    assert again.digest == made.digest


def test_without_unseen_images_there_is_no_level(shop: Any, tmp_path: Path) -> None:
    for method, loop in ((UnseenLevel(), None), (EraseDiff(), Loop(stop=Stop.RESIDUE))):
        with pytest.raises(InvalidInput, match="--non-members"):
            method.erase(shop.denoiser(), shop.request(), shop.context(tmp_path), loop=loop)


def test_a_whole_class_has_no_level(shop: Any, tmp_path: Path) -> None:
    data = shop.images()
    gone = data.labels == 1
    kept = data.take(np.flatnonzero(~gone))
    request = Request(data.take(np.flatnonzero(gone)), kept, np.ones(len(kept), np.int64), unseen=unseen())
    with pytest.raises(Unsupported, match=r"Class 1(.|\n)*erasediff"):
        UnseenLevel().erase(shop.denoiser(), request, shop.context(tmp_path))


@pytest.mark.parametrize(
    "wrong",
    [
        {"level_weight": 0.0},
        {"level_weight": float("nan")},
        {"most": -1.0},
        {"handover": 0.0},
        {"teach_weight": -1.0},
        {"push": -0.1},
    ],
)
def test_senseless_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidInput):
        UnseenLevel(**wrong)
