from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch import Tensor, nn

from vestige.audit.errors import error_table
from vestige.data.images import ImageSet
from vestige.erase.applied import applied
from vestige.erase.data import sides
from vestige.erase.data.balance import Gram
from vestige.erase.data.erasediff import Balance, EraseDiff, Start
from vestige.erase.data.teacher import Target
from vestige.erase.driver import Driver
from vestige.erase.request import Request
from vestige.errors import BadWeights, EmptySet, InvalidInput, NothingChanged, ShapeMismatch, Unsupported
from vestige.models.denoiser import Prediction
from vestige.models.oracle import EmpiricalDenoiser

SHORT = EraseDiff(steps=3, batch_size=5)


def strength(method: EraseDiff, forget: np.ndarray, retain: np.ndarray) -> float:
    return method.weights(Gram(float(retain @ retain), float(forget @ retain), float(forget @ forget))).forget


@given(seed=st.integers(0, 2**32), size=st.integers(1, 6), eta=st.floats(0.1, 3))
def test_lambda_solves_the_quadratic_programme(seed: int, size: int, eta: float) -> None:
    g_f, g_r = np.random.default_rng(seed).standard_normal((2, size))
    d = g_r + strength(EraseDiff(eta=eta), g_f, g_r) * g_f
    bound = eta * g_f @ g_f
    assert g_f @ d >= bound - 1e-9
    best = minimize(
        lambda x: ((x - g_r) ** 2).sum(),
        g_r,
        jac=lambda x: 2 * (x - g_r),
        constraints={"type": "ineq", "fun": lambda x: g_f @ x - bound, "jac": lambda x: g_f},
        method="SLSQP",
        options={"ftol": 1e-12},
    )
    assert best.success
    np.testing.assert_allclose(d, best.x, atol=1e-5 * (1 + np.abs(d).max()))


def test_lambda_is_zero_where_the_retain_gradient_already_lowers_the_forget_loss_enough() -> None:
    forget, retain = np.array([1.0, 0.0]), np.array([2.0, 5.0])
    assert strength(EraseDiff(eta=1.0), forget, retain) == 0
    assert strength(EraseDiff(eta=2.5), forget, retain) == pytest.approx(0.5)
    assert strength(EraseDiff(eta=1.0), 10 * forget, retain) == pytest.approx(0.8)


@pytest.mark.parametrize("balance", [Balance.QUADRATIC, Balance.COSINE])
def test_a_forget_gradient_of_zero_adds_nothing(balance: Balance) -> None:
    assert EraseDiff(balance=balance).weights(Gram(1.0, 0.0, 0.0)).forget == 0
    assert math.isfinite(EraseDiff(balance=balance).weights(Gram(0.0, 0.0, 1.0)).forget)


def test_cosine_and_fixed_follow_the_public_code() -> None:
    forget, retain = np.random.default_rng(0).standard_normal((2, 9))
    cosine = forget @ retain / np.linalg.norm(forget) / np.linalg.norm(retain)
    assert strength(EraseDiff(balance=Balance.COSINE, eta=0.7), forget, retain) == pytest.approx(max(0, 0.7 - cosine))
    assert strength(EraseDiff(balance=Balance.COSINE, eta=0.7), forget, forget) == 0
    assert strength(EraseDiff(balance=Balance.FIXED, fixed_lambda=0.3), forget, retain) == 0.3


@pytest.mark.parametrize("eta", [0.5, 2.0])
def test_every_step_satisfies_its_constraint(
    shop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eta: float
) -> None:
    pairs: list[list[Tensor]] = []
    taken: list[Tensor] = []

    def watched(driver: Driver, batch: Any, loss: Any) -> list[Tensor]:
        found = gradient(driver, batch, loss)
        pairs.append([g.clone() for g in found])
        return found

    def clip(parameters: list[nn.Parameter], norm: float) -> None:
        taken.append(torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]))

    gradient = Driver.gradient
    monkeypatch.setattr(Driver, "gradient", watched)
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", clip)
    dataclasses.replace(SHORT, eta=eta).erase(shop.denoiser(), shop.request(), shop.context(tmp_path))
    assert len(taken) == SHORT.steps
    for step, d in enumerate(taken):
        g_r, g_f = (torch.cat([g.flatten() for g in pairs[2 * step + side]]) for side in (0, 1))
        along, bound = float(g_f @ d), eta * float(g_f @ g_f)
        assert along >= bound * (1 - 1e-4)
        # The closest such direction: the retain gradient itself, or on the boundary.
        assert torch.equal(d, g_r) or along == pytest.approx(bound, rel=1e-3)


@pytest.mark.parametrize(
    ("classes", "labels", "target", "cost"),
    [
        (3, True, Target.AUTO, 7),
        (3, True, Target.MISMATCHED, 7),
        (3, True, Target.NOISE, 6),
        (0, True, Target.AUTO, 6),
        (0, False, Target.AUTO, 6),
    ],
)
def test_a_step_costs_what_is_counted(
    shop: Any, tmp_path: Path, classes: int, labels: bool, target: Target, cost: float
) -> None:
    base = shop.denoiser(classes)
    forwards: list[int] = []
    # A copy of the network carries its hooks along, so this sees base and student alike.
    base.module.register_forward_hook(lambda module, given, answer: forwards.append(len(answer)))
    made = dataclasses.replace(SHORT, target=target).erase(base, shop.request(labels=labels), shop.context(tmp_path))
    assert made.manifest.cost["forwards_per_step"] == cost
    assert made.manifest.cost["steps"] == SHORT.steps
    assert sum(forwards) / SHORT.steps / SHORT.batch_size + 4 == cost  # two backward passes count two each
    assert made.manifest.cost["forward_equivalents"] == cost * SHORT.steps * SHORT.batch_size


@pytest.mark.parametrize(("classes", "labels"), [(0, True), (1, True), (0, False)])
def test_mismatched_labels_need_classes(shop: Any, tmp_path: Path, classes: int, labels: bool) -> None:
    request = shop.request(labels=labels)
    if classes == 1:
        request = dataclasses.replace(
            request,
            forget=ImageSet(request.forget.pixels, np.zeros(3, np.int64)),
            retain=ImageSet(request.retain.pixels, np.zeros(9, np.int64)),
        )
    with pytest.raises(Unsupported, match="class-conditional"):
        dataclasses.replace(SHORT, target=Target.MISMATCHED).erase(
            shop.denoiser(classes), request, shop.context(tmp_path)
        )


def test_mismatched_targets_come_from_the_frozen_base_under_every_other_class(
    shop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, gone, asked = shop.denoiser(), [], []

    def draw(*arguments: Any, **named: Any) -> Any:
        batch = original(*arguments, **named)
        gone.append(batch)
        return batch

    def noise(x_t: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        answer = type(base).noise(base, x_t, t, condition)
        assert not answer.requires_grad
        asked.append((x_t, t, condition))
        return answer

    original = sides.draw_batch
    monkeypatch.setattr(sides, "draw_batch", draw)
    monkeypatch.setattr(base, "noise", noise)
    EraseDiff(steps=6, batch_size=16).erase(base, shop.request(), shop.context(tmp_path))
    pairs = set()
    for batch, (x_t, t, condition) in zip(gone[1::2], asked, strict=True):
        assert torch.equal(batch.x_t, x_t)
        assert torch.equal(batch.t, t)
        pairs |= set(zip(batch.condition.tolist(), condition.tolist(), strict=True))
    assert pairs == {(own, other) for own in range(3) for other in range(3) if own != other}


def test_requests_that_make_no_sense_are_refused(shop: Any, tmp_path: Path) -> None:
    base, good = shop.denoiser(), shop.request()
    context = shop.context(tmp_path)
    wide = ImageSet(np.zeros((3, 1, 8, 8), np.uint8))
    grey = ImageSet(np.zeros((3, 3, 6, 6), np.uint8))
    for request, error, words in [
        (dataclasses.replace(good, forget=good.forget.take([])), EmptySet, "forget is empty"),
        (dataclasses.replace(good, retain=good.retain.take([])), EmptySet, "left to retain"),
        (dataclasses.replace(good, retain=shop.images()), InvalidInput, "3 rows are to be forgotten and retained"),
        (dataclasses.replace(good, forget=wide), ShapeMismatch, "8x8 pixels.*6x6"),
        (dataclasses.replace(good, retain=grey), ShapeMismatch, "RGB.*grey"),
    ]:
        with pytest.raises(error, match=words):
            SHORT.erase(base, request, context)
    with pytest.raises(Unsupported, match="no weights to change"):
        SHORT.erase(EmpiricalDenoiser(good.retain.floats()), good, context)


def test_an_erasure_that_moves_no_weight_is_no_success(shop: Any, tmp_path: Path) -> None:
    with pytest.raises(NothingChanged, match="moved no weight"):
        dataclasses.replace(SHORT, learning_rate=1e-30).erase(shop.denoiser(), shop.request(), shop.context(tmp_path))
    frozen = shop.denoiser()
    frozen.module.requires_grad_(False)
    with pytest.raises(NothingChanged, match="frozen"):
        SHORT.erase(frozen, shop.request(), shop.context(tmp_path))


def test_an_erasure_that_diverges_is_no_success(shop: Any, tmp_path: Path) -> None:
    with pytest.raises(BadWeights, match="NaN or infinity"):
        dataclasses.replace(SHORT, learning_rate=1e30).erase(shop.denoiser(), shop.request(), shop.context(tmp_path))


@pytest.mark.parametrize(
    "wrong",
    [{"steps": 0}, {"batch_size": 0}, {"learning_rate": 0.0}, {"eta": math.nan}],
)
def test_senseless_settings_are_refused(shop: Any, tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        dataclasses.replace(SHORT, **wrong).erase(shop.denoiser(), shop.request(), shop.context(tmp_path))


def test_forgetting_raises_the_error_of_the_forgotten_and_not_of_the_others(shop: Any, tmp_path: Path) -> None:
    base, data = shop.denoiser(prediction=Prediction.CLEAN, width=96), shop.images()
    clean, labels = data.floats(), torch.from_numpy(data.labels)
    optimizer, random = torch.optim.Adam(base.module.parameters(), 3e-3), torch.Generator().manual_seed(0)
    for _ in range(500):
        t = torch.rand(12, generator=random)
        x_t = base.noised(clean, torch.randn(clean.shape, generator=random), t)
        loss = (base.module(x_t, t, labels) - clean).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    request = shop.request(forget=1)
    request = dataclasses.replace(request, retain_copies=np.ones(11, np.int64))
    method = EraseDiff(steps=120, batch_size=24, learning_rate=2e-3)
    made = method.erase(base, request, shop.context(tmp_path))
    erased = applied(base, [(made, 1.0)])

    def error(model: Any, images: ImageSet) -> float:
        return float(error_table(model, images, (0.4, 0.6, 0.8), 8, shop.context(tmp_path), label="").mean())

    assert error(erased, request.forget) > 1.5 * error(base, request.forget)
    assert error(erased, request.retain) < 1.05 * error(base, request.retain)


def test_a_forgotten_class_can_start_as_the_mean_of_the_others(shop: Any, tmp_path: Path) -> None:
    base, data = shop.denoiser(), shop.images()
    gone = data.labels == 1
    kept = data.take(np.flatnonzero(~gone))
    request = Request(data.take(np.flatnonzero(gone)), kept, np.ones(len(kept), np.int64))
    method = dataclasses.replace(SHORT, start=Start.OTHERS, learning_rate=1e-12)
    made = method.erase(base, request, shop.context(tmp_path))
    rows = base.module.embed.weight.detach()
    wanted = torch.zeros_like(rows)
    wanted[1] = (rows[0] + rows[2]) / 2 - rows[1]
    torch.testing.assert_close(made.delta["embed.weight"], wanted, rtol=1e-4, atol=1e-6)
    for model, asked in ((base, shop.request()), (shop.denoiser(0), request)):
        with pytest.raises(Unsupported, match="--method erasediff"):
            method.erase(model, asked, shop.context(tmp_path))
