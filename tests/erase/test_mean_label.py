from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vestige.data.images import ImageSet
from vestige.erase.applied import applied
from vestige.erase.data.mean_label import MeanLabel
from vestige.erase.request import Request
from vestige.errors import Unsupported


def whole_class(shop: Any, label: int = 1) -> Request:
    data = shop.images()
    gone = data.labels == label
    kept = data.take(np.flatnonzero(~gone))
    return Request(data.take(np.flatnonzero(gone)), kept, np.ones(len(kept), np.int64))


def test_the_label_stands_for_the_others_and_no_other_label_moves(shop: Any, tmp_path: Path) -> None:
    base = shop.denoiser()
    made = MeanLabel(learning_rate=1e-12).erase(base, whole_class(shop), shop.context(tmp_path))
    rows = base.module.embed.weight.detach()
    wanted = torch.zeros_like(rows)
    wanted[1] = (rows[0] + rows[2]) / 2 - rows[1]
    torch.testing.assert_close(made.delta["embed.weight"], wanted, rtol=1e-4, atol=1e-6)


def test_the_jump_alone_changes_no_answer_for_another_class(shop: Any, tmp_path: Path) -> None:
    base = shop.denoiser()
    erased = applied(
        base, [(MeanLabel(learning_rate=1e-12).erase(base, whole_class(shop), shop.context(tmp_path)), 1.0)]
    )
    x_t, t = torch.randn(6, *base.shape), torch.linspace(0.1, 0.9, 6)
    for label, same in ((0, True), (1, False), (2, True)):
        condition = torch.full((6,), label)
        with torch.no_grad():
            change = float((erased.noise(x_t, t, condition) - base.noise(x_t, t, condition)).abs().max())
        assert (change < 1e-5) == same


def test_steps_see_retained_images_alone(shop: Any, tmp_path: Path) -> None:
    request = whole_class(shop)
    other = ImageSet(255 - request.forget.pixels, request.forget.labels)
    method = MeanLabel(steps=4, batch_size=8, learning_rate=1e-3)
    made = [
        method.erase(shop.denoiser(), r, shop.context(tmp_path / str(i)))
        for i, r in enumerate((request, Request(other, request.retain, request.retain_copies)))
    ]
    assert made[0].manifest.delta == made[1].manifest.delta
    assert made[0].manifest.cost["forwards_per_step"] == 3


def test_without_a_whole_class_or_a_table_there_is_nothing_to_set(shop: Any, tmp_path: Path) -> None:
    for model, request in ((shop.denoiser(), shop.request()), (shop.denoiser(0), whole_class(shop))):
        with pytest.raises(Unsupported, match="--method erasediff"):
            MeanLabel().erase(model, request, shop.context(tmp_path))
