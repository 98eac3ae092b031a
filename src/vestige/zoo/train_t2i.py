"""Train `digits-t2i`: the text encoder and the UNet together, on latents of captioned pictures.

    python -m vestige.zoo.train_t2i --out DIR --vae VAE_DIR

``VAE_DIR`` is what ``vestige.zoo.train_t2i_vae`` wrote. Rows of :mod:`vestige.zoo.pictures` are drawn evenly, copies
included, so a caption and picture that stand there 64 times are seen 64 times as often as others. A tenth of the rows
is shown with the empty caption, so that guidance is possible. The loss is the squared error of the predicted noise,
with the weights of Hang et al. (arXiv 2303.09556): at most 5 over the signal-to-noise ratio.

Training checkpoints and resumes; step ``s`` draws its rows, times and noise from ``(seed, s)`` alone. The result is
an exponential moving average of the weights, saved as a ``StableDiffusionPipeline``.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from vestige.randomness import Stream, generator
from vestige.store import write_text
from vestige.zoo.fitting import Course, fit
from vestige.zoo.pictures import picture_index, training_pairs
from vestige.zoo.t2i_parts import (
    LATENT,
    assembled,
    new_scheduler,
    new_text_encoder,
    new_tokenizer,
    new_unet,
    token_ids,
)

SEED, BATCH, EMPTY = 20260909, 64, 0.1
COURSE = Course(steps=3600, learning_rate=1e-3, warmup=300, ema_decay=0.999)
_MOST_WEIGHT = 5.0


@dataclass(frozen=True, eq=False)
class Rows:
    """Training rows: ``latents`` of distinct pictures, scaled; tokens of distinct captions; which each row has."""

    latents: npt.NDArray[np.float32]
    tokens: Tensor
    picture: npt.NDArray[np.int64]
    caption: npt.NDArray[np.int64]

    @classmethod
    def read(cls, folder: Path, scale: float, tokenizer: Any) -> Rows:
        """Latents as ``train_t2i_vae`` left them in ``folder``; caption 0 is the empty one."""
        latents = np.load(folder / "latents.npy", allow_pickle=False).astype(np.float32) * scale
        places = {"": 0}
        caption = [places.setdefault(pair.caption.text, len(places)) for pair in training_pairs()]
        return cls(latents, token_ids(tokenizer, list(places)), picture_index(), np.array(caption))


class TextToImage(nn.Module):
    """The two networks that are trained together."""

    def __init__(self, tokenizer: Any) -> None:
        super().__init__()
        self.text_encoder = new_text_encoder(tokenizer, SEED)
        # Convolutions on a CPU are faster in this layout.
        self.unet: Any = new_unet(SEED).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def forward(self, noisy: Tensor, times: Tensor, tokens: Tensor) -> Tensor:
        """The predicted noise."""
        return self.unet(noisy, times, self.text_encoder(tokens)[0]).sample


def loss_at(network: nn.Module, rows: Rows, alphas: Tensor, rng: np.random.Generator) -> Tensor:
    """The weighted noise-prediction loss of one batch."""
    chosen = rng.integers(0, len(rows.picture), BATCH)
    captions = np.where(rng.random(BATCH) < EMPTY, 0, rows.caption[chosen])
    times = torch.from_numpy(rng.integers(0, len(alphas), BATCH))
    noise = torch.from_numpy(rng.standard_normal((BATCH, *LATENT), np.float32))
    level = alphas[times].view(-1, 1, 1, 1)
    noisy = level.sqrt() * torch.from_numpy(rows.latents[rows.picture[chosen]]) + (1 - level).sqrt() * noise
    error = (network(noisy, times, rows.tokens[torch.from_numpy(captions)]) - noise).square().flatten(1).mean(1)
    ratio = alphas[times] / (1 - alphas[times])
    return (error * (_MOST_WEIGHT / ratio).clamp_max(1)).mean()


def train(out: Path, vae_folder: Path, course: Course = COURSE) -> None:
    """Train, resuming from a checkpoint in ``out``, and save the pipeline in ``out/pipeline``."""
    out.mkdir(parents=True, exist_ok=True)
    vae: Any = AutoencoderKL.from_pretrained(vae_folder / "vae", local_files_only=True)
    tokenizer = new_tokenizer(out / "tokenizer")
    rows = Rows.read(vae_folder, float(vae.config.scaling_factor), tokenizer)
    alphas = new_scheduler().alphas_cumprod
    network = TextToImage(tokenizer)
    fitted = fit(
        network,
        lambda step: loss_at(network, rows, alphas, generator(SEED, Stream.TRAIN, step)),
        course,
        out / "checkpoint.pt",
    )
    unet = network.unet.to(memory_format=torch.contiguous_format)
    assembled(vae.eval(), unet, network.text_encoder, tokenizer).save_pretrained(out / "pipeline")
    facts = {"steps": course.steps, "batch": BATCH, "seed": SEED, **fitted.plain()}
    facts |= {"rows": len(rows.picture), "pictures": len(rows.latents), "captions": len(rows.tokens) - 1}
    write_text(out / "training.json", json.dumps(facts, indent=2) + "\n")
    print(json.dumps(facts, indent=2))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=COURSE.steps)
    options = parser.parse_args()
    train(options.out, options.vae, Course(**{**COURSE.__dict__, "steps": options.steps}))
