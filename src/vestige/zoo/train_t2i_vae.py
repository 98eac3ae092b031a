"""Train the VAE of `digits-t2i`.

    python -m vestige.zoo.train_t2i_vae --out DIR --judge judge.safetensors

Learns to reconstruct the training pictures of :mod:`vestige.zoo.pictures`, each distinct one as often as any other.
The loss is that of Kingma and Welling (arXiv 1312.6114) a pixel, with an absolute error beside the squared one, which
keeps edges sharp. The scaling factor makes the latents of all training pictures vary by one, as in Rombach et al.
(arXiv 2112.10752). Then the decoder goes on alone, on the means of the latents, which stay as they are. Writes the VAE
as a diffusers folder, the latents of the pictures, and vae.json with the share of unseen pictures that the judge still
names rightly after reconstruction.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from vestige.data.images import to_float, to_uint8
from vestige.features.scene_judge import SceneJudge
from vestige.metrics.interval import wilson
from vestige.randomness import Stream, generator
from vestige.store import write_text
from vestige.zoo.fitting import Course, Fitted, fit
from vestige.zoo.pictures import distinct_pictures, held_out_pairs, rendered
from vestige.zoo.t2i_parts import new_vae
from vestige.zoo.train_scene_judge import answers

Latents = npt.NDArray[np.float16]

SEED, BATCH, EXAM = 20260808, 48, 1000
COURSE = Course(steps=1600, learning_rate=2e-3, ema_decay=0.998)
DECODER = Course(steps=1500, learning_rate=1e-3, ema_decay=0.998)
ABSOLUTE, DIVERGENCE = 0.5, 3e-4


@torch.inference_mode()
def latents(vae: AutoencoderKL, pixels: npt.NDArray[np.uint8]) -> Latents:
    """Means of the latents [n, 4, 8, 8] of pictures uint8 [n, 3, 32, 32], not scaled."""
    parts = [vae.encode(to_float(pixels[i : i + 256])).latent_dist.mean for i in range(0, len(pixels), 256)]  # pyright: ignore[reportAttributeAccessIssue]
    return torch.cat(parts).numpy().astype(np.float16)


@torch.inference_mode()
def reconstructed(vae: AutoencoderKL, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Pictures uint8 after encoding to the mean and decoding."""
    parts: list[npt.NDArray[np.uint8]] = []
    for start in range(0, len(pixels), 256):
        images: Any = vae(to_float(pixels[start : start + 256])).sample
        parts.append(to_uint8(images))
    return np.concatenate(parts)


def loss_of(vae: AutoencoderKL, images: Tensor, noise: Tensor) -> Tensor:
    """Error, and divergence of the latents from a standard normal a value."""
    posterior: Any = vae.encode(images).latent_dist  # pyright: ignore[reportAttributeAccessIssue]
    decoded: Any = vae.decode(posterior.mean + posterior.std * noise).sample  # pyright: ignore[reportAttributeAccessIssue]
    divergence = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).mean()
    return apart(decoded, images) + DIVERGENCE * divergence


def apart(decoded: Tensor, images: Tensor) -> Tensor:
    """Squared and absolute error a value."""
    error = decoded - images
    return error.square().mean() + ABSOLUTE * error.abs().mean()


def train(out: Path, judge: SceneJudge, course: Course = COURSE, decoder: Course = DECODER) -> None:
    """Train, resuming from checkpoints in ``out``, measure the scale and examine."""
    out.mkdir(parents=True, exist_ok=True)
    pixels = distinct_pictures(out / "pictures.npy")
    vae = new_vae(SEED)

    def loss_at(step: int) -> Tensor:
        rng = generator(SEED, Stream.TRAIN, step)
        images = to_float(pixels[rng.integers(0, len(pixels), BATCH)])
        noise = torch.from_numpy(rng.standard_normal((BATCH, 4, 8, 8), np.float32))
        return loss_of(vae, images, noise)

    fitted = fit(vae, loss_at, course, out / "checkpoint.pt")
    means = latents(vae, pixels)
    scale = 1 / float(means.std(dtype=np.float64))
    vae.register_to_config(scaling_factor=round(scale, 5))
    np.save(out / "latents.npy", means)
    refined = refine(vae, pixels, means, decoder, out / "decoder.pt")
    vae.save_pretrained(out / "vae")
    card = {"batch": BATCH, "seed": SEED, "scaling_factor": round(scale, 5)}
    card |= {"both": {"steps": course.steps, **fitted.plain()}, "decoder": {"steps": decoder.steps, **refined.plain()}}
    card |= examined(vae, judge)
    write_text(out / "vae.json", json.dumps(card, indent=2) + "\n")
    print(json.dumps(card, indent=2))


class _Decoder(nn.Module):
    """The part of a VAE from latents to pictures, sharing its weights."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.entrance, self.decoder = cast(nn.Module, vae.post_quant_conv), vae.decoder

    def forward(self, means: Tensor) -> Tensor:
        return self.decoder(self.entrance(means))


def refine(
    vae: AutoencoderKL, pixels: npt.NDArray[np.uint8], means: Latents, course: Course, checkpoint: Path
) -> Fitted:
    """Train the decoder alone on the means of the latents."""
    decoder = _Decoder(vae)

    def loss_at(step: int) -> Tensor:
        rows = generator(SEED, Stream.TRAIN, step, 1).integers(0, len(pixels), BATCH)
        return apart(decoder(torch.from_numpy(means[rows].astype(np.float32))), to_float(pixels[rows]))

    return fit(decoder, loss_at, course, checkpoint)


def examined(vae: AutoencoderKL, judge: SceneJudge) -> dict[str, Any]:
    """How well pictures of unseen digits survive: root mean squared error in [0, 1], and what the judge still names."""
    shown = [pair.shown for pair in held_out_pairs(EXAM)]
    pictures = rendered(shown)
    decoded = reconstructed(vae, pictures)
    error = (decoded.astype(np.float64) - pictures) / 255
    found: dict[str, Any] = {"held_out": EXAM, "rms_error": round(float(np.sqrt(np.mean(error**2))), 5)}
    said = {"pictures": judge.probabilities(pictures), "reconstructions": judge.probabilities(decoded)}
    for what, answer in said.items():
        found[f"judge_of_{what}"] = {}
        for name, right in answers(shown).items():
            rate = wilson(int((answer[name].argmax(1) == right.numpy()).sum()), EXAM)
            found[f"judge_of_{what}"][name] = [round(value, 4) for value in (rate.value, rate.low, rate.high)]
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--judge", type=Path, required=True)
    options = parser.parse_args()
    train(options.out, SceneJudge(options.judge))
