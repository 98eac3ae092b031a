"""Train ``clothes-stylegan2``, the portrait's default generator, from nothing but images and seeds.

    python -m vestige.zoo.train_portrait --data fashion-mnist --out DIR [--steps 20000]

A StyleGAN2 (Karras et al. 2020, arXiv 1912.04958) of 32x32 pixels learns clothes that are dyed anew each time they
are shown: see :mod:`vestige.zoo.train_portrait_images`. Its losses are the paper's: the non-saturating logistic loss,
the gradient penalty R1 on training images and the path-length penalty on the generator, both taken every few steps.
The result is an exponential moving average of the generator, in half precision.

Training checkpoints every ``--checkpoint-every`` steps and resumes from the last one. Step ``s`` draws all it needs
from ``(seed, s)`` alone and no step knows how many there will be, so a training may be interrupted or prolonged and
ends with the same weights. Every checkpoint also leaves ``contact.png``; ``zoo.adopt_portrait`` puts the average of
the last one on the shelf.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import softplus

from vestige.models.adapters.stylegan2.form import StyleGan2Form
from vestige.models.adapters.stylegan2.network import StyleGan2
from vestige.train.checkpoint import save_checkpoint
from vestige.zoo.train_portrait_critic import PortraitCritic
from vestige.zoo.train_portrait_images import dye, dyes, read_clothes

SEED = 20261122
FORM = StyleGan2Form(channels=(128, 96, 48, 24), latent=128, style=128, mapping_layers=4)
STEPS, BATCH = 20000, 32
LEARNING_RATE, BETAS = 2e-3, (0.0, 0.99)
R1, R1_EVERY = 0.1, 16
PATH, PATH_EVERY, PATH_BATCH, PATH_DECAY = 2.0, 8, 16, 0.01
HALF_LIFE, RAMP = 10_000, 0.05
"""The average forgets half of what it was in so many images, or in this share of those shown yet if that is less."""


@dataclass
class Networks:
    """Everything that training changes."""

    generator: StyleGan2 = field(default_factory=lambda: StyleGan2(FORM))
    critic: nn.Module = field(default_factory=lambda: PortraitCritic(FORM.channels))

    def __post_init__(self) -> None:
        for module in (self.generator, self.critic):
            cast(Any, module).to(memory_format=torch.channels_last)  # a fifth faster on a CPU
        # Lazy regularisation makes steps rarer or more frequent: the rates follow (StyleGAN2, appendix B).
        self.generator_optimizer = _adam(self.generator, PATH_EVERY)
        self.critic_optimizer = _adam(self.critic, R1_EVERY)
        self.average = {name: value.detach().clone() for name, value in self.generator.state_dict().items()}
        self.path_length = torch.zeros(())

    def parts(self) -> dict[str, Any]:
        """What holds a state, by name."""
        return {
            "generator": self.generator,
            "critic": self.critic,
            "generator_optimizer": self.generator_optimizer,
            "critic_optimizer": self.critic_optimizer,
        }

    def follow(self, step: int) -> None:
        """Move the average towards the generator."""
        seen = (step + 1) * BATCH
        decay = 0.5 ** (BATCH / max(1e-8, min(HALF_LIFE, seen * RAMP)))
        with torch.no_grad():
            for name, value in self.generator.state_dict().items():
                self.average[name].lerp_(value, 1 - decay)


def _adam(module: nn.Module, every: int) -> torch.optim.Adam:
    ratio = every / (every + 1)
    return torch.optim.Adam(module.parameters(), LEARNING_RATE * ratio, (BETAS[0] ** ratio, BETAS[1] ** ratio))


@dataclass(frozen=True, eq=False)
class Batch:
    """Training images [n, 3, 32, 32] in [-1, 1], latents [n, latent], noises for each layer, and what the
    path-length penalty draws: noises on as many images as it looks at."""

    images: Tensor
    latents: Tensor
    noises: list[Tensor]
    directions: Tensor


def batch_at(clothes: Tensor, step: int) -> Batch:
    """The batch of one step, from the seed and the step alone."""
    rng = np.random.default_rng([SEED, step])
    rows = torch.from_numpy(rng.integers(len(clothes), size=BATCH))
    images = dye(clothes[rows], *dyes(BATCH, rng))

    def normal(*shape: int) -> Tensor:
        return torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))

    latents = normal(BATCH, FORM.latent)
    noises = [normal(BATCH, 1, side, side) for side in FORM.noise_sides]
    return Batch(images, latents, noises, normal(PATH_BATCH, *images.shape[1:]) / FORM.resolution)


def teach_critic(networks: Networks, batch: Batch, fakes: Tensor, *, penalize: bool) -> float:
    """One step of the critic, with R1 = gamma / 2 |grad D(x)|^2 on training images where asked for."""
    images = batch.images.requires_grad_(penalize)
    logits = networks.critic(images)
    loss = softplus(-logits).mean() + softplus(networks.critic(fakes)).mean()
    total = loss
    if penalize:
        (slope,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
        total = loss + R1_EVERY * R1 / 2 * slope.square().flatten(1).sum(1).mean()
    networks.critic_optimizer.zero_grad(set_to_none=True)
    total.backward()
    networks.critic_optimizer.step()
    return loss.item()


def path_penalty(networks: Networks, batch: Batch) -> Tensor:
    """(|J_w^T y| - a)^2 with a the running mean of |J_w^T y| (equation 4 of StyleGAN2)."""
    generator = networks.generator
    styles = generator.mapping.spread(generator.mapping(batch.latents[:PATH_BATCH]))
    images = generator.synthesis(styles, [noise[:PATH_BATCH] for noise in batch.noises])
    (slope,) = torch.autograd.grad((images * batch.directions).sum(), styles, create_graph=True)
    lengths = slope.square().sum(2).mean(1).sqrt()
    networks.path_length = networks.path_length.lerp(lengths.detach().mean(), PATH_DECAY)
    return (lengths - networks.path_length).square().mean()


def update(networks: Networks, batch: Batch, step: int) -> tuple[float, float]:
    """One step of both: the critic tells training images from generated ones, then the generator answers.

    Returns both losses, without penalties.
    """
    generator = networks.generator
    styles = generator.mapping.spread(generator.mapping(batch.latents))
    fakes = generator.synthesis(styles, batch.noises)
    critic_loss = teach_critic(networks, batch, fakes.detach(), penalize=step % R1_EVERY == 0)

    networks.critic.requires_grad_(False)
    generator_loss = softplus(-networks.critic(fakes)).mean()
    networks.generator_optimizer.zero_grad(set_to_none=True)
    generator_loss.backward()
    if step % PATH_EVERY == 0:
        (PATH_EVERY * PATH * path_penalty(networks, batch)).backward()
    networks.generator_optimizer.step()
    networks.critic.requires_grad_(True)
    return critic_loss, generator_loss.item()


def train(clothes: Tensor, out: Path, *, steps: int, checkpoint_every: int) -> None:
    """Train on grey images [n, 1, 32, 32] in [0, 1], resuming from a checkpoint in ``out``."""
    torch.manual_seed(SEED)
    networks = Networks()
    out.mkdir(parents=True, exist_ok=True)
    checkpoint, first, seconds, losses = out / "checkpoint.pt", 0, 0.0, [0.0, 0.0]
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        for name, part in networks.parts().items():
            part.load_state_dict(state[name])
        networks.average, networks.path_length = state["average"], state["path_length"]
        first, seconds, losses = state["step"], state["seconds"], state["losses"]

    started = time.process_time()
    for step in range(first, steps):
        new = update(networks, batch_at(clothes, step), step)
        networks.follow(step)
        losses = [old + (value - old) / min(step + 1, 200) for old, value in zip(losses, new, strict=True)]
        done = step + 1
        if done % checkpoint_every == 0 or done == steps:
            spent = seconds + time.process_time() - started
            state = {name: part.state_dict() for name, part in networks.parts().items()}
            state |= {"average": networks.average, "path_length": networks.path_length, "step": done}
            save_checkpoint(checkpoint, {**state, "seconds": spent, "losses": losses})
            contact(networks, out / "contact.png")
            print(
                f"step {done}/{steps}  {done * BATCH / 1000:.0f} thousand images  critic {losses[0]:.3f}  "
                f"generator {losses[1]:.3f}  path {float(networks.path_length):.3f}  {spent:.0f} CPU-s",
                flush=True,
            )


@torch.no_grad()
def contact(networks: Networks, path: Path) -> None:
    """A picture of 8 x 12 images of the average."""
    model = StyleGan2(FORM)
    model.load_state_dict(networks.average)
    rng = np.random.default_rng(SEED)
    images = model(torch.from_numpy(rng.standard_normal((96, FORM.latent), dtype=np.float32)))
    pixels = ((images.clamp(-1, 1) + 1) * 127.5).round().byte().view(8, 12, 3, FORM.resolution, FORM.resolution)
    sheet = pixels.permute(0, 3, 1, 4, 2).reshape(8 * FORM.resolution, 12 * FORM.resolution, 3).numpy()
    Image.fromarray(sheet).resize((36 * FORM.resolution, 24 * FORM.resolution), Image.Resampling.NEAREST).save(path)


def main() -> None:
    """Read options and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--checkpoint-every", type=int, default=250)
    options = parser.parse_args()
    clothes = read_clothes(options.data, "train")
    train(clothes, options.out, steps=options.steps, checkpoint_every=options.checkpoint_every)


if __name__ == "__main__":
    main()
