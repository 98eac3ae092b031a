from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vestige.erase.data import sides
from vestige.erase.data.munba import MUNBa
from vestige.erase.data.teacher import Target
from vestige.erase.driver import Driver
from vestige.errors import Unsupported

SHORT = MUNBa(steps=4, batch_size=5)


def test_every_step_lowers_both_losses_at_one_length(
    shop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs: list[Tensor] = []
    taken: list[Tensor] = []

    def watched(driver: Driver, batch: Any, loss: Any) -> list[Tensor]:
        found = gradient(driver, batch, loss)
        pairs.append(torch.cat([g.flatten() for g in found]).clone())
        return found

    def clip(parameters: list[nn.Parameter], norm: float) -> None:
        taken.append(torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]))

    gradient = Driver.gradient
    monkeypatch.setattr(Driver, "gradient", watched)
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", clip)
    SHORT.erase(shop.denoiser(), shop.request(), shop.context(tmp_path))
    assert len(taken) == SHORT.steps
    for step, d in enumerate(taken):
        g_r, g_f = pairs[2 * step : 2 * step + 2]
        assert float(g_r @ d) > 0
        assert float(g_f @ d) > 0
        assert float(d.norm()) == pytest.approx(math.sqrt(2), rel=1e-4)
        # Equal gains, each in units of its own gradient.
        assert float(g_r @ d / g_r.norm()) == pytest.approx(float(g_f @ d / g_f.norm()), rel=1e-3)


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
    made = dataclasses.replace(SHORT, target=target).erase(base, shop.request(labels=labels), shop.context(tmp_path))
    assert made.manifest.cost["forwards_per_step"] == cost


def test_mismatched_targets_come_from_the_frozen_base_under_every_other_class(
    shop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, gone, asked = shop.denoiser(), [], []

    def draw(*arguments: Any, **named: Any) -> Any:
        gone.append(original(*arguments, **named))
        return gone[-1]

    def noise(x_t: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        answer = type(base).noise(base, x_t, t, condition)
        assert not answer.requires_grad
        asked.append((x_t, condition))
        return answer

    original = sides.draw_batch
    monkeypatch.setattr(sides, "draw_batch", draw)
    monkeypatch.setattr(base, "noise", noise)
    MUNBa(steps=6, batch_size=16).erase(base, shop.request(), shop.context(tmp_path))
    pairs = set()
    for batch, (x_t, condition) in zip(gone[1::2], asked, strict=True):
        assert torch.equal(batch.x_t, x_t)
        pairs |= set(zip(batch.condition.tolist(), condition.tolist(), strict=True))
    assert pairs == {(own, other) for own in range(3) for other in range(3) if own != other}


def test_mismatched_labels_need_classes(shop: Any, tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="class-conditional"):
        dataclasses.replace(SHORT, target=Target.MISMATCHED).erase(
            shop.denoiser(0), shop.request(), shop.context(tmp_path)
        )
