"""Train one small model: seeded step by step, resumed exactly, saved at every length asked for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from diffusers import DDPMPipeline, UNet2DModel
from torch import Tensor, nn

from vestige.data.images import ImageSet
from vestige.digest import digest_json
from vestige.errors import AlreadyExists, InvalidInput
from vestige.progress import Progress, Silent
from vestige.randomness import Stream, generator
from vestige.store import write_bytes, write_text
from vestige.train.checkpoint import save_checkpoint
from vestige.train.network import new_network, new_scheduler
from vestige.train.privacy import Private
from vestige.train.recipe import Augmentation, Recipe, Target

CHECKPOINT, NOTE = "checkpoint.pt", "training.json"


@dataclass(frozen=True)
class Trained:
    """A finished model: its folder, the steps it was trained for, and the label that means "no condition"."""

    folder: Path
    steps: int
    null_condition: int | None
    epsilon: float | None = None
    """Privacy spent on one row at ``delta = 1 / rows``; None without privacy noise."""


def train(
    recipe: Recipe,
    images: ImageSet,
    out: Path,
    *,
    lengths: Sequence[int] = (),
    checkpoint_every: int = 200,
    progress: Progress | None = None,
    label: str = "training",
) -> list[Trained]:
    """Train on ``images`` (a row that stands in twice is seen twice as often) and keep each length.

    Step s draws rows, times, noise and conditions from ``(seed, s)`` alone and the learning rate does not depend on
    the length. So the model of a shorter length is the longer training stopped early, an interrupted training ends
    with the same weights, and every length in ``lengths`` (that of the recipe if empty) comes from one training.
    Each lies in ``out/STEPS`` as a diffusers folder.

    Raises
    ------
    AlreadyExists : ``out`` holds a training with another recipe or other images.
    InvalidInput : a length beyond the recipe's steps, or an image size that the network cannot halve.
    """
    wanted = sorted({*lengths} or {recipe.steps})
    if wanted[0] < 1 or wanted[-1] > recipe.steps:
        raise InvalidInput(
            f"lengths {wanted} of {recipe.steps} steps.", expected="lengths within the steps.", remedy="change them."
        )
    _claim(out, recipe, images)
    folders = {length: out / f"{length:06d}" for length in wanted}
    if not all((folder / NOTE).exists() for folder in folders.values()):
        _train(_State(recipe, images), out, folders, checkpoint_every, progress or Silent(), label)
    return [_read(folder) for folder in folders.values()]


class _State:
    """Network, average, optimizer and the step reached."""

    def __init__(self, recipe: Recipe, images: ImageSet) -> None:
        self.recipe = recipe
        self.pixels = images.floats()
        self.labels = None if images.labels is None else torch.from_numpy(images.labels)
        self.classes = 0 if self.labels is None else int(self.labels.max()) + 1
        self.network = new_network(images.shape, self.classes, recipe.channels, recipe.seed).train()
        self.scheduler = new_scheduler(recipe.target)
        self.parameters = list(self.network.parameters())
        self.average = [p.detach().clone() for p in self.parameters]
        self.optimizer = torch.optim.Adam(self.parameters, lr=recipe.learning_rate)
        self.private = Private(self.network, self.optimizer, recipe, len(images)) if recipe.privacy_noise else None
        self.step = 0

    @property
    def null_condition(self) -> int | None:
        return self.classes if self.classes else None

    def advance(self) -> None:
        """One optimizer step and one update of the average."""
        recipe, rng = self.recipe, generator(self.recipe.seed, Stream.TRAIN, self.step)
        rows = self.private.rows(rng) if self.private else rng.integers(0, len(self.pixels), recipe.batch)
        rate = recipe.learning_rate * min(1.0, (self.step + 1) / max(recipe.warmup, 1))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        if self.private:
            self.private.step(lambda network: self._loss(network, rows, rng), self.step)
        else:
            self._loss(self.network, rows, rng).mean().backward()
            nn.utils.clip_grad_norm_(self.parameters, recipe.clip)
            self.optimizer.step()
        decay = min(recipe.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for mean, parameter in zip(self.average, self.parameters, strict=True):
                mean.lerp_(parameter, 1 - decay)
        self.step += 1

    def _loss(self, network: nn.Module, rows: npt.NDArray[np.int64], rng: np.random.Generator) -> Tensor:
        """Squared error of each row's prediction a pixel (Ho et al. 2020, equation 14, for noise), [rows]."""
        table = self.scheduler.alphas_cumprod
        times = torch.from_numpy(rng.integers(0, len(table), len(rows)))
        clean = _augmented(self.pixels[torch.from_numpy(rows)], self.recipe.augmentation, rng)
        noise = torch.from_numpy(rng.standard_normal(clean.shape, np.float32))
        condition = None
        if self.labels is not None:
            dropped = torch.from_numpy(rng.random(len(rows)) < self.recipe.condition_drop)
            condition = torch.where(dropped, self.classes, self.labels[torch.from_numpy(rows)])
        level = table[times].view(-1, 1, 1, 1)
        alpha, sigma = level.sqrt(), (1 - level).sqrt()
        target = noise if self.recipe.target is Target.NOISE else alpha * noise - sigma * clean
        guess = network(alpha * clean + sigma * noise, times, class_labels=condition).sample
        return (guess - target).square().flatten(1).mean(1)

    def averaged(self) -> UNet2DModel:
        """The network with the averaged weights."""
        shape = cast("tuple[int, int, int]", tuple(self.pixels.shape[1:]))
        network = new_network(shape, self.classes, self.recipe.channels, self.recipe.seed)
        with torch.no_grad():
            for parameter, value in zip(network.parameters(), self.average, strict=True):
                parameter.copy_(value)
        return network.eval()

    def save(self, path: Path) -> None:
        """A checkpoint, whole or not at all."""
        save_checkpoint(
            path,
            {
                "network": self.network.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "average": self.average,
                "step": self.step,
            },
        )

    def load(self, path: Path, *, at_most: int) -> None:
        """Go on from a checkpoint, unless it lies beyond a length that is still wanted."""
        state: dict[str, Any] = torch.load(path, weights_only=True)
        if state["step"] > at_most:
            return
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average, self.step = state["average"], state["step"]


def _train(state: _State, out: Path, folders: dict[int, Path], every: int, progress: Progress, label: str) -> None:
    missing = [length for length, folder in folders.items() if not (folder / NOTE).exists()]
    if (out / CHECKPOINT).exists():
        state.load(out / CHECKPOINT, at_most=min(missing) - 1)
    last = max(missing)
    # Weights of vanishing magnitude make float arithmetic on CPUs many times slower.
    torch.set_flush_denormal(True)
    try:
        with progress.task(label, last) as task:
            task.advance(state.step)
            while state.step < last:
                state.advance()
                task.advance(1)
                if state.step in missing:
                    _keep(state, folders[state.step])
                if state.step % every == 0 or state.step == last:
                    state.save(out / CHECKPOINT)
    finally:
        torch.set_flush_denormal(False)


def _keep(state: _State, folder: Path) -> None:
    DDPMPipeline(state.averaged(), state.scheduler).save_pretrained(folder, safe_serialization=True)
    epsilon = state.private.epsilon(state.step) if state.private else None
    note = {
        "steps": state.step,
        "null_condition": state.null_condition,
        "epsilon": epsilon,
        "rows": len(state.pixels),
        "recipe": state.recipe.plain(),
    }
    write_text(folder / NOTE, json.dumps(note, indent=2) + "\n")


def _read(folder: Path) -> Trained:
    note = json.loads((folder / NOTE).read_text())
    return Trained(folder, note["steps"], note["null_condition"], note["epsilon"])


def _claim(out: Path, recipe: Recipe, images: ImageSet) -> None:
    """Mark the folder as this training's, or refuse if it is another's."""
    # Steps may grow: a longer training continues a shorter one.
    plain = {name: value for name, value in recipe.plain().items() if name != "steps"}
    mark = digest_json({"recipe": plain, "images": images.digest})
    path = out / "claim.txt"
    if path.exists() and path.read_text().strip() != mark:
        raise AlreadyExists(
            f"{out} holds a training with another recipe or other images.",
            expected="an empty folder, or the same training to resume.",
            remedy="choose another folder.",
        )
    out.mkdir(parents=True, exist_ok=True)
    write_bytes(path, (mark + "\n").encode())


def _augmented(clean: Tensor, how: Augmentation, rng: np.random.Generator) -> Tensor:
    if how is Augmentation.NONE:
        return clean
    if how is Augmentation.FLIP:
        turned = torch.from_numpy(rng.random(len(clean)) < 0.5).view(-1, 1, 1, 1)
        return torch.where(turned, clean.flip(3), clean)
    shifts = rng.integers(-1, 2, (len(clean), 2))
    padded = nn.functional.pad(clean, (1, 1, 1, 1), mode="replicate")
    height, width = clean.shape[2:]
    return torch.stack(
        [image[:, 1 + y : 1 + y + height, 1 + x : 1 + x + width] for image, (y, x) in zip(padded, shifts, strict=True)]
    )
