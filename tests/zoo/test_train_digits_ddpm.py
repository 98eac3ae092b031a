from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from vestige.models.adapters.diffusers import load_folder
from vestige.zoo import train_digits_ddpm as script
from vestige.zoo.digits import digits


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "BATCH", 4)


def test_defences_are_told_and_leave_a_model(tmp_path: Path) -> None:
    pytest.importorskip("opacus")
    script.train(tmp_path, deduplicate=True, privacy_noise=1.0, steps=2)
    told = json.loads((tmp_path / "training.json").read_text())
    assert told["deduplicated"] is True
    assert told["epsilon"] > 0
    assert load_folder(tmp_path, null_condition=script.NULL_CONDITION).classes == 10


def test_deduplication_draws_every_member_equally(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[bool, list[int]] = {True: [], False: []}

    def watch(which: bool) -> None:
        def loss_at(network, alphas, pixels, labels, rows, rng):
            drawn[which] += rows.tolist()
            return next(network.parameters()).square().sum()

        monkeypatch.setattr(script, "loss_at", loss_at)
        script.train(tmp_path / str(which), deduplicate=which, steps=150)

    watch(True)
    watch(False)
    copies = digits().copies[digits().member]
    planted = {which: float(np.mean(copies[rows] > 1)) for which, rows in drawn.items()}
    # 40 of 2,500 images are planted more than once, and hold 3,400 of 5,860 rows; five standard errors of 600 draws.
    assert planted[True] < 0.016 + 5 * np.sqrt(0.016 / 600)
    assert abs(planted[False] - 3400 / 5860) < 5 * np.sqrt(0.25 / 600)


def test_a_step_is_the_same_whether_resumed_or_not(tmp_path: Path) -> None:
    script.train(tmp_path / "whole", steps=3)
    real = torch.Tensor.backward
    with pytest.MonkeyPatch.context() as patch:
        left = [1, 1]

        def backward(loss: torch.Tensor) -> None:
            if not left:
                raise InterruptedError
            left.pop()
            real(loss)

        patch.setattr(torch.Tensor, "backward", backward)
        with pytest.raises(InterruptedError):
            script.train(tmp_path / "broken", steps=3, checkpoint_every=1)
    script.train(tmp_path / "broken", steps=3, checkpoint_every=1)
    digests = {load_folder(tmp_path / name, null_condition=10).digest for name in ("whole", "broken")}
    assert len(digests) == 1
