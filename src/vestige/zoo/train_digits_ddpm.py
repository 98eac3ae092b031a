"""Train ``digits-ddpm`` and its retrained reference, from nothing but seeds.

    python -m vestige.zoo.train_digits_ddpm --out DIR [--without-planted | --without-class 0 | --deduplicate]

Data are the members of :mod:`vestige.zoo.digits`, drawn with replacement in
proportion to their planted copies. With ``--without-planted`` only the members that were
not planted are drawn, and with ``--without-class`` only those of other classes, for as many
steps as show each of them equally often. Two defences can be tried: ``--deduplicate`` draws
every image equally often, and ``--privacy-noise`` trains by DP-SGD (the extra ``private``).
The network is a class-conditional ``UNet2DModel`` that predicts noise on the linear
schedule of Ho et al. 2020 (arXiv 2006.11239), with one extra class for "no condition" so
that guidance is possible. The result is an exponential moving average of the weights, saved
as a diffusers pipeline folder.

Training checkpoints every ``--checkpoint-every`` steps and resumes from the last one.
Step ``s`` draws its batch, times and noise from ``(seed, s)`` alone, so an interrupted
run ends with the same weights as one that was not.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from torch import Tensor, nn

from vestige.train.checkpoint import save_checkpoint
from vestige.train.privacy import Private
from vestige.train.recipe import Recipe
from vestige.zoo.digits import digits

SEED = 20240101
NULL_CONDITION = 10
STEPS, BATCH = 4000, 64
LEARNING_RATE, EMA_DECAY, CONDITION_DROP = 1e-3, 0.999, 0.1


def build_network() -> UNet2DModel:
    """The network of ``digits-ddpm``: 0.6 M parameters, 28 -> 14 -> 7 pixels, no attention."""
    torch.manual_seed(SEED)
    return UNet2DModel(
        sample_size=28,
        in_channels=1,
        out_channels=1,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D",) * 3,
        up_block_types=("UpBlock2D",) * 3,
        norm_num_groups=8,
        add_attention=False,
        num_class_embeds=NULL_CONDITION + 1,
    )


def loss_at(
    network: nn.Module, alphas: Tensor, pixels: Tensor, labels: Tensor, rows: Tensor, rng: np.random.Generator
) -> Tensor:
    """Noise-prediction loss of the rows (Ho et al. 2020, equation 14)."""
    times = torch.from_numpy(rng.integers(0, len(alphas), size=len(rows)))
    noise = torch.from_numpy(rng.standard_normal((len(rows), 1, 28, 28), dtype=np.float32))
    dropped = torch.from_numpy(rng.random(len(rows)) < CONDITION_DROP)
    condition = torch.where(dropped, NULL_CONDITION, labels[rows])
    alpha_bar = alphas[times].view(-1, 1, 1, 1)
    noisy = alpha_bar.sqrt() * pixels[rows] + (1 - alpha_bar).sqrt() * noise
    return (network(noisy, times, class_labels=condition).sample - noise).square().mean()


def train(
    out: Path,
    *,
    without_planted: bool = False,
    without_class: int | None = None,
    deduplicate: bool = False,
    privacy_noise: float = 0.0,
    steps: int = STEPS,
    checkpoint_every: int = 100,
) -> None:
    """Train, resuming from a checkpoint in ``out``, and save the averaged weights as a pipeline there."""
    data = digits()
    members = np.flatnonzero(data.member)
    rows = members[data.copies[members] == 0] if without_planted else members
    rows = rows[data.labels[rows] != without_class] if without_class is not None else rows
    weights = np.maximum(data.copies[rows], 1).astype(np.float64)
    # Equal exposure: a row that both models see is drawn equally often by both in expectation.
    steps = round(steps * weights.sum() / np.maximum(data.copies[members], 1).sum())
    if deduplicate:
        weights[:] = 1
    every_row = np.repeat(np.arange(len(rows)), weights.astype(int))
    weights /= weights.sum()
    pixels = torch.from_numpy(data.pixels[rows]).unsqueeze(1).float() / 127.5 - 1
    labels = torch.from_numpy(data.labels[rows]).long()

    scheduler = DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear", prediction_type="epsilon")
    alphas = scheduler.alphas_cumprod
    network = build_network().train()
    average = {name: value.detach().clone() for name, value in network.state_dict().items()}
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    recipe = Recipe(batch=BATCH, privacy_noise=privacy_noise, seed=SEED)
    private = Private(network, optimizer, recipe, len(every_row)) if privacy_noise else None
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps, eta_min=1e-5)

    out.mkdir(parents=True, exist_ok=True)
    checkpoint, first, seconds = out / "checkpoint.pt", 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        average, first, seconds = state["average"], state["step"], state["seconds"]

    started, running = time.monotonic(), 0.0
    for step in range(first, steps):
        rng = np.random.default_rng([SEED, step])
        if private is None:
            drawn = torch.from_numpy(rng.choice(len(weights), size=BATCH, p=weights))
            loss = loss_at(network, alphas, pixels, labels, drawn, rng)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
        else:
            drawn = torch.from_numpy(every_row[private.rows(rng)])
            loss = private.step(
                partial(loss_at, alphas=alphas, pixels=pixels, labels=labels, rows=drawn, rng=rng), step
            )
        schedule.step()
        decay = min(EMA_DECAY, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, value in network.state_dict().items():
                average[name].lerp_(value, 1 - decay)
        running += (loss.item() - running) / min(step - first + 1, 100)
        done = step + 1
        if done % checkpoint_every == 0 or done == steps:
            spent = seconds + time.monotonic() - started
            save_checkpoint(
                checkpoint,
                {
                    "network": network.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "schedule": schedule.state_dict(),
                    "average": average,
                    "step": done,
                    "seconds": spent,
                },
            )
            print(f"step {done}/{steps}  loss {running:.4f}  {spent:.0f} s", flush=True)

    network.load_state_dict(average)
    DDPMPipeline(network.eval(), scheduler).save_pretrained(out, safe_serialization=True)
    spent = seconds + time.monotonic() - started
    (out / "training.json").write_text(
        json.dumps(
            {
                "steps": steps,
                "batch": BATCH,
                "seed": SEED,
                "seconds": round(spent),
                "threads": torch.get_num_threads(),
                "rows": len(rows),
                "deduplicated": deduplicate,
                "epsilon": None if private is None else round(private.epsilon(steps), 3),
                "final_loss": round(running, 5),
            },
            indent=2,
        )
        + "\n"
    )


def main() -> None:
    """Read options and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--without-planted", action="store_true")
    parser.add_argument("--without-class", type=int, help="a label whose images are not drawn")
    parser.add_argument("--deduplicate", action="store_true")
    parser.add_argument("--privacy-noise", type=float, default=0.0, help="noise multiplier of DP-SGD; 0 for none")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--checkpoint-every", type=int, default=100)
    options = parser.parse_args()
    train(
        options.out,
        without_planted=options.without_planted,
        without_class=options.without_class,
        deduplicate=options.deduplicate,
        privacy_noise=options.privacy_noise,
        steps=options.steps,
        checkpoint_every=options.checkpoint_every,
    )


if __name__ == "__main__":
    main()
