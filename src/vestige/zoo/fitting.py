"""One training loop for the parts of `digits-t2i`: averaged weights, checkpoints, exact resumption."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vestige.train.checkpoint import save_checkpoint


@dataclass(frozen=True)
class Course:
    """How long and how fast: Adam with a linear warm-up and a cosine down to a hundredth of ``learning_rate``."""

    steps: int
    learning_rate: float
    warmup: int = 200
    ema_decay: float = 0.999
    weight_decay: float = 0.0
    checkpoint_every: int = 200


@dataclass(frozen=True)
class Fitted:
    """What a training took, over all its parts: seconds, and the loss averaged over the last steps."""

    seconds: float
    loss: float

    def plain(self) -> dict[str, float | int]:
        """As JSON values, with the number of threads."""
        return {"seconds": round(self.seconds), "threads": torch.get_num_threads(), "final_loss": round(self.loss, 5)}


def fit(network: nn.Module, loss_at: Callable[[int], Tensor], course: Course, checkpoint: Path) -> Fitted:
    """Train and leave the averaged weights in ``network``, in evaluation mode.

    ``loss_at(step)`` must draw whatever it draws from the step alone; then a training that was interrupted and goes on
    from ``checkpoint`` ends with the same weights as one that was not.
    """
    network.train()
    optimizer = torch.optim.AdamW(
        network.parameters(), course.learning_rate, betas=(0.9, 0.99), weight_decay=course.weight_decay
    )
    average = {name: value.detach().clone() for name, value in network.state_dict().items()}
    first, before, running = 0, 0.0, 0.0
    if checkpoint.exists():
        state: dict[str, Any] = torch.load(checkpoint, weights_only=True)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        average, first, before, running = state["average"], state["step"], state["seconds"], state["loss"]
    started = time.monotonic()
    # Weights of vanishing magnitude make float arithmetic on CPUs many times slower.
    torch.set_flush_denormal(True)
    try:
        for step in range(first, course.steps):
            loss = _step(network, optimizer, loss_at, step, course)
            _follow(average, network, min(course.ema_decay, (1 + step) / (10 + step)))
            running += (loss - running) / min(step + 1, 200)
            done = step + 1
            if done % course.checkpoint_every == 0 or done == course.steps:
                spent = before + time.monotonic() - started
                state = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "average": average}
                state |= {"step": done, "seconds": spent, "loss": running}
                save_checkpoint(checkpoint, state)
                print(f"step {done}/{course.steps}  loss {running:.5f}  {spent:.0f} s", flush=True)
    finally:
        torch.set_flush_denormal(False)
    network.load_state_dict(average)
    network.eval()
    return Fitted(before + time.monotonic() - started, running)


def _step(
    network: nn.Module, optimizer: torch.optim.Optimizer, loss_at: Callable[[int], Tensor], step: int, course: Course
) -> float:
    for group in optimizer.param_groups:
        group["lr"] = course.learning_rate * _rate(step, course)
    optimizer.zero_grad(set_to_none=True)
    loss = loss_at(step)
    loss.backward()
    nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()
    return loss.item()


def _rate(step: int, course: Course) -> float:
    warm = min(1.0, (step + 1) / max(course.warmup, 1))
    cosine = 0.5 + 0.5 * torch.cos(torch.tensor(torch.pi * step / course.steps)).item()
    return warm * (0.01 + 0.99 * cosine)


@torch.no_grad()
def _follow(average: dict[str, Tensor], network: nn.Module, decay: float) -> None:
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            average[name].lerp_(value, 1 - decay)
        else:
            average[name].copy_(value)
