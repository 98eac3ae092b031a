from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vestige.zoo.fitting import Course, fit

COURSE = Course(steps=12, learning_rate=0.05, warmup=3, ema_decay=0.9, checkpoint_every=2)


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))


def loss_of(model: nn.Module, step: int) -> Tensor:
    rng = np.random.default_rng(step)
    x = torch.from_numpy(rng.standard_normal((16, 3), np.float32))
    return (model(x) - x.sum(1, keepdim=True)).square().mean()


def weights(model: nn.Module) -> list[Tensor]:
    return [value.clone() for value in model.state_dict().values()]


def test_the_result_is_the_average_of_the_weights_along_the_way(tmp_path: Path):
    model, followed = network(), network()
    seen: list[list[Tensor]] = []

    def loss_at(step: int) -> Tensor:
        seen.append([value.detach().clone() for value in model.parameters()])
        return loss_of(model, step)

    fitted = fit(model, loss_at, COURSE, tmp_path / "checkpoint.pt")
    raw = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["network"]
    followed.load_state_dict(raw)
    seen.append([value.detach() for value in followed.parameters()])
    average = seen[0]
    for step, values in enumerate(seen[1:]):
        decay = min(0.9, (1 + step) / (10 + step))
        average = [decay * old + (1 - decay) * new for old, new in zip(average, values, strict=True)]
    for expected, found in zip(average, model.parameters(), strict=True):
        assert torch.allclose(expected, found, rtol=0, atol=1e-6)
    assert not model.training
    assert fitted.loss > 0
    assert set(fitted.plain()) == {"seconds", "threads", "final_loss"}


def test_an_interrupted_training_ends_with_the_same_weights(tmp_path: Path):
    whole, parts = network(), network()
    fit(whole, lambda step: loss_of(whole, step), COURSE, tmp_path / "whole.pt")

    def stopping(step: int) -> Tensor:
        if step == 7:
            raise KeyboardInterrupt
        return loss_of(parts, step)

    with pytest.raises(KeyboardInterrupt):
        fit(parts, stopping, COURSE, tmp_path / "parts.pt")
    again = network()
    steps: list[int] = []

    def watched(step: int) -> Tensor:
        steps.append(step)
        return loss_of(again, step)

    fit(again, watched, COURSE, tmp_path / "parts.pt")
    assert steps == list(range(6, 12))  # the last checkpoint lay at step 6
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(again), strict=True))


def test_a_finished_training_is_taken_from_its_checkpoint(tmp_path: Path):
    model, again = network(), network()
    fit(model, lambda step: loss_of(model, step), COURSE, tmp_path / "checkpoint.pt")
    fit(again, lambda _: pytest.fail("trained again"), COURSE, tmp_path / "checkpoint.pt")
    assert all(torch.equal(a, b) for a, b in zip(weights(model), weights(again), strict=True))
