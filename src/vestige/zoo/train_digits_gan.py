"""Train ``digits-gan``, from nothing but seeds, on the very rows of ``digits-ddpm``.

    python -m vestige.zoo.train_digits_gan --out DIR

Data are the members of :mod:`vestige.zoo.digits`, drawn with replacement in proportion to their planted copies. The
networks are a class-conditional DCGAN and a projection critic. The loss is the non-saturating logistic loss of
Goodfellow et al. 2014 (arXiv 1406.2661) with the gradient penalty R1 on training images (Mescheder et al. 2018,
arXiv 1801.04406), taken every few steps (Karras et al. 2020, arXiv 1912.04958). The result is an exponential moving
average of the generator and the critic itself, saved as safetensors beside a JSON configuration.

Training checkpoints every ``--checkpoint-every`` steps and resumes from the last one. Step ``s`` draws its batch and
latents from ``(seed, s)`` alone, so an interrupted run ends with the same weights as one that was not.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from vestige.models.adapters.dcgan import Dcgan
from vestige.models.adapters.gan import save_gan
from vestige.train.checkpoint import save_checkpoint
from vestige.zoo.digits import digits

SEED = 20240202
FORM = Dcgan()
STEPS, BATCH = 6000, 64
LEARNING_RATE, BETAS, EMA_DECAY = 5e-4, (0.5, 0.99), 0.998
PENALTY, PENALTY_EVERY = 2.0, 8


@dataclass
class Networks:
    """Everything that training changes."""

    generator: nn.Module = field(default_factory=FORM.generator)
    critic: nn.Module = field(default_factory=FORM.critic)

    def __post_init__(self) -> None:
        for module in (self.generator, self.critic):
            cast(Any, module).to(memory_format=torch.channels_last)  # a third faster on a CPU
        self.generator_optimizer = torch.optim.Adam(self.generator.parameters(), LEARNING_RATE, BETAS)
        self.critic_optimizer = torch.optim.Adam(self.critic.parameters(), LEARNING_RATE, BETAS)
        self.average = {name: value.detach().clone() for name, value in self.generator.state_dict().items()}

    def parts(self) -> dict[str, Any]:
        """What holds a state, by name."""
        return {
            "generator": self.generator,
            "critic": self.critic,
            "generator_optimizer": self.generator_optimizer,
            "critic_optimizer": self.critic_optimizer,
        }

    def follow(self, step: int) -> None:
        """Move the average towards the generator; counters follow at once."""
        decay = min(EMA_DECAY, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, value in self.generator.state_dict().items():
                if value.is_floating_point():
                    self.average[name].lerp_(value, 1 - decay)
                else:
                    self.average[name].copy_(value)


@dataclass(frozen=True, eq=False)
class Batch:
    """Training images [n, 1, 28, 28] in [-1, 1], their labels, and latents [n, latent] for as many others."""

    images: Tensor
    labels: Tensor
    latents: Tensor


def batch_at(pixels: Tensor, labels: Tensor, weights: np.ndarray, step: int) -> Batch:
    """The batch of one step, from the seed and the step alone."""
    rng = np.random.default_rng([SEED, step])
    rows = torch.from_numpy(rng.choice(len(weights), size=BATCH, p=weights))
    latents = torch.from_numpy(rng.standard_normal((BATCH, FORM.latent), dtype=np.float32))
    return Batch(pixels[rows], labels[rows], latents)


def update(networks: Networks, batch: Batch, *, penalize: bool) -> tuple[float, float]:
    """One step of both: the critic tells training images from generated ones, then the generator answers.

    Returns both losses, without the penalty.
    """
    fakes = networks.generator(batch.latents, batch.labels)
    images = batch.images.detach().requires_grad_(penalize)
    logits = networks.critic(images, batch.labels)
    critic_loss = softplus(-logits).mean() + softplus(networks.critic(fakes.detach(), batch.labels)).mean()
    total = critic_loss
    if penalize:
        (slope,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
        total = critic_loss + PENALTY_EVERY * PENALTY / 2 * slope.square().flatten(1).sum(1).mean()
    networks.critic_optimizer.zero_grad(set_to_none=True)
    total.backward()
    networks.critic_optimizer.step()

    networks.critic.requires_grad_(False)
    generator_loss = softplus(-networks.critic(fakes, batch.labels)).mean()
    networks.generator_optimizer.zero_grad(set_to_none=True)
    generator_loss.backward()
    networks.generator_optimizer.step()
    networks.critic.requires_grad_(True)
    return critic_loss.item(), generator_loss.item()


def train(out: Path, *, steps: int, checkpoint_every: int) -> None:
    """Train, resuming from a checkpoint in ``out``, and save averaged generator and critic there."""
    data = digits()
    rows = np.flatnonzero(data.member)
    weights = np.maximum(data.copies[rows], 1).astype(np.float64)
    weights /= weights.sum()
    pixels = torch.from_numpy(data.pixels[rows]).unsqueeze(1).float() / 127.5 - 1
    labels = torch.from_numpy(data.labels[rows]).long()

    torch.manual_seed(SEED)
    networks = Networks()
    out.mkdir(parents=True, exist_ok=True)
    checkpoint, first, seconds, losses = out / "checkpoint.pt", 0, 0.0, [0.0, 0.0]
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        for name, part in networks.parts().items():
            part.load_state_dict(state[name])
        networks.average = state["average"]
        first, seconds, losses = state["step"], state["seconds"], state["losses"]

    started = time.monotonic()
    for step in range(first, steps):
        for group in (networks.generator_optimizer.param_groups, networks.critic_optimizer.param_groups):
            group[0]["lr"] = LEARNING_RATE * min(1.0, 4 * (1 - step / steps))
        batch = batch_at(pixels, labels, weights, step)
        new = update(networks, batch, penalize=step % PENALTY_EVERY == 0)
        networks.follow(step)
        losses = [old + (value - old) / min(step + 1, 100) for old, value in zip(losses, new, strict=True)]
        done = step + 1
        if done % checkpoint_every == 0 or done == steps:
            spent = seconds + time.monotonic() - started
            state = {name: part.state_dict() for name, part in networks.parts().items()}
            state |= {"average": networks.average, "step": done, "seconds": spent, "losses": losses}
            save_checkpoint(checkpoint, state)
            print(f"step {done}/{steps}  critic {losses[0]:.4f}  generator {losses[1]:.4f}  {spent:.0f} s", flush=True)

    networks.generator.load_state_dict(networks.average)
    save_gan(out, FORM, networks.generator, networks.critic)
    spent = seconds + time.monotonic() - started
    facts: dict[str, Any] = {"steps": steps, "batch": BATCH, "seed": SEED, "seconds": round(spent)}
    facts |= {"threads": torch.get_num_threads(), "rows": len(rows)}
    facts |= {"critic_loss": round(losses[0], 5), "generator_loss": round(losses[1], 5)}
    (out / "training.json").write_text(json.dumps(facts, indent=2) + "\n")


def main() -> None:
    """Read options and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--checkpoint-every", type=int, default=200)
    options = parser.parse_args()
    train(options.out, steps=options.steps, checkpoint_every=options.checkpoint_every)


if __name__ == "__main__":
    main()
