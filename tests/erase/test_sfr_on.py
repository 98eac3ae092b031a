from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vestige.erase.data import sfr_on
from vestige.erase.data.sfr_on import SFRon, adaptive, salient
from vestige.erase.driver import draw_batch, noise_loss
from vestige.errors import InvalidInput, NothingChanged
from vestige.randomness import Stream, generator

SHORT = SFRon(steps=6, batch_size=5, fisher_batches=3)


def test_adaptive_weights_follow_the_formula() -> None:
    losses = np.random.default_rng(0).random(9) + 0.01
    for power in (0.0, 0.5, 1.0, 2.0):
        weights = adaptive(torch.from_numpy(losses), power).numpy()
        np.testing.assert_allclose(weights, losses**-power, rtol=1e-12)
    assert len(set(adaptive(torch.zeros(4), 0.5).tolist())) == 1


def test_the_mask_compares_fisher_informations() -> None:
    forget = [torch.tensor([4.0, 1.0, 0.0, 0.0]), torch.tensor([[2.0]])]
    retain = [torch.tensor([2.0, 2.0, 0.0, 1.0]), torch.tensor([[2.0]])]
    found = salient(forget, retain, 1.0)
    assert [m.tolist() for m in found] == [[True, False, True, False], [[True]]]
    assert [m.tolist() for m in salient(forget, retain, 3.0)] == [[False] * 4, [[False]]]


def gradients_of_steps(
    method: SFRon, shop: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[list[Tensor]], list[Tensor]]:
    taken: list[list[Tensor]] = []
    masks: list[list[Tensor]] = []

    def clip(parameters: list[nn.Parameter], norm: float) -> None:
        taken.append([torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters])

    def watched(*arguments: Any) -> list[Tensor]:
        masks.append(salient(*arguments))
        return masks[-1]

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", clip)
    monkeypatch.setattr(sfr_on, "salient", watched)
    made = method.erase(shop.denoiser(), shop.request(), shop.context(folder))
    share = sum(int(m.sum()) for m in masks[0]) / sum(m.numel() for m in masks[0])
    assert made.manifest.cost["mask_share"] == share
    assert 0 < share < 1
    return taken, masks[0]


def test_forgetting_moves_masked_weights_only_and_takes_turns(
    shop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, mask = gradients_of_steps(SHORT, shop, tmp_path, monkeypatch)
    assert len(taken) == 6
    outside = [[bool(g[~m].any()) for g, m in zip(step, mask, strict=True)] for step in taken]
    assert [any(step) for step in outside] == [False, True, False, True, False, True]
    assert all(any(bool(g.any()) for g in step) for step in taken)


def test_an_odd_number_of_steps_ends_with_a_repair(shop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken, mask = gradients_of_steps(dataclasses.replace(SHORT, steps=3), shop, tmp_path, monkeypatch)
    outside = [any(bool(g[~m].any()) for g, m in zip(step, mask, strict=True)) for step in taken]
    assert outside == [True, False, True]


def test_the_first_forget_step_ascends_the_weighted_loss(
    shop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = SFRon(steps=2, batch_size=7, alpha=3.0, power=1.0, fisher_batches=2)
    taken, mask = gradients_of_steps(method, shop, tmp_path, monkeypatch)
    base, request = shop.denoiser(), shop.request()
    batch = draw_batch(base, request.forget, generator(0, Stream.ERASE, 0), 7)
    parameters, expected = list(base.module.parameters()), 0.0
    rows = [(base.noise(batch.x_t, batch.t, batch.condition) - batch.noise)[i].square().mean() for i in range(7)]
    inverse = [1 / float(loss.detach()) for loss in rows]
    for loss, weight in zip(rows, inverse, strict=True):
        expected = expected - 3.0 * weight / sum(inverse) * loss
    wanted = torch.autograd.grad(expected, parameters)  # type: ignore[arg-type]
    for found, gradient, inside in zip(taken[0], wanted, mask, strict=True):
        torch.testing.assert_close(found, gradient * inside, rtol=1e-4, atol=1e-7)


def test_the_fisher_information_is_the_mean_square_of_batch_gradients(
    shop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[Tensor]] = []

    def watched(forget: list[Tensor], retain: list[Tensor], threshold: float) -> list[Tensor]:
        seen.extend([forget, retain])
        return salient(forget, retain, threshold)

    monkeypatch.setattr(sfr_on, "salient", watched)
    base, request = shop.denoiser(), shop.request()
    SHORT.erase(base, request, shop.context(tmp_path))
    sides = ((request.forget, None, 1), (request.retain, request.retain_copies, 2))
    for found, (images, copies, draw) in zip(seen, sides, strict=True):
        squares = []
        for index in range(3):
            batch = draw_batch(base, images, generator(0, Stream.ERASE, index, draw), 5, copies)
            loss = noise_loss(base, batch)
            squares.append([g.square() for g in torch.autograd.grad(loss, list(base.module.parameters()))])
        for total, *parts in zip(found, *squares, strict=True):
            torch.testing.assert_close(total, torch.stack(parts).mean(0), rtol=1e-4, atol=1e-12)


def test_the_mask_is_counted_and_can_be_left_out(shop: Any, tmp_path: Path) -> None:
    cost = SHORT.erase(shop.denoiser(), shop.request(), shop.context(tmp_path)).manifest.cost
    assert cost["forwards_per_step"] == 3
    assert cost["mask_forward_equivalents"] == 6 * 3 * 5
    assert cost["forward_equivalents"] == 3 * 6 * 5 + 6 * 3 * 5
    whole = dataclasses.replace(SHORT, threshold=0.0).erase(shop.denoiser(), shop.request(), shop.context(tmp_path))
    assert whole.manifest.cost["mask_share"] == 1
    assert whole.manifest.cost["forward_equivalents"] == 3 * 6 * 5


def test_a_mask_without_weights_is_refused(shop: Any, tmp_path: Path) -> None:
    with pytest.raises(NothingChanged, match="as important"):
        dataclasses.replace(SHORT, threshold=1e30).erase(shop.denoiser(), shop.request(), shop.context(tmp_path))


@pytest.mark.parametrize(
    "wrong", [{"alpha": 0.0}, {"alpha": math.nan}, {"power": -1.0}, {"threshold": -0.1}, {"fisher_batches": 0}]
)
def test_senseless_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        dataclasses.replace(SHORT, **wrong)
