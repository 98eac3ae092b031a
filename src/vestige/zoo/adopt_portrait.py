"""Put the portrait's generator on the shelf: the average of a training's last checkpoint, measured, with a card.

    python -m vestige.zoo.adopt_portrait TRAINED --data fashion-mnist

TRAINED is the ``--out`` of :mod:`vestige.zoo.train_portrait`, whose training may go on meanwhile.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from vestige.digest import digest_tensors
from vestige.errors import NotFound
from vestige.metrics.frechet import Gaussian, frechet_interval
from vestige.metrics.interval import Interval
from vestige.models.adapters.stylegan2.files import StyleGan2Weights, read_stylegan2
from vestige.models.adapters.stylegan2.mean import mean_style
from vestige.models.adapters.stylegan2.network import StyleGan2
from vestige.randomness import Stream, normal
from vestige.store.write import write_text
from vestige.zoo.portrait import CARD, FOLDER, WEIGHTS, PortraitCard
from vestige.zoo.train_portrait import BATCH, FORM, R1, SEED
from vestige.zoo.train_portrait_images import dye, dyes, read_clothes

IMAGES, CELL, BLOCK = 5000, 4, 250
"""Images a side of the measurement; pixels are averaged over cells of 4 x 4, in colour: 192 features."""

Features = npt.NDArray[np.float32]


def adopt(trained: Path, data: Path) -> PortraitCard:
    """Write weights in half precision and their card.

    Raises
    ------
    NotFound : there is no checkpoint. CorruptFile : the images cannot be read.
    """
    checkpoint = trained / "checkpoint.pt"
    if not checkpoint.is_file():
        raise NotFound(
            f"There is no {checkpoint}.",
            expected="a folder of train_portrait.",
            remedy="train for longer, or look there.",
        )
    state: dict[str, Any] = torch.load(checkpoint, weights_only=True)
    weights = StyleGan2Weights(FORM, {name: tensor.contiguous() for name, tensor in state["average"].items()})
    weights = StyleGan2Weights(FORM, {**weights.tensors, "mapping.mean": mean_style(weights)})
    halves = StyleGan2Weights(FORM, {name: tensor.half() for name, tensor in weights.tensors.items()})
    halves.save(WEIGHTS, origin=f"vestige.zoo.train_portrait, {state['step']:,} steps, seed {SEED}")
    steps, seconds = int(state["step"]), round(float(state["seconds"]))
    training = {"steps": steps, "batch": BATCH, "images": steps * BATCH, "seed": SEED, "r1": R1, "cpu_seconds": seconds}
    card = PortraitCard(
        name=FOLDER.name,
        claim="unconditional StyleGAN2 of 32x32 pixels: clothes, shoes and bags, dyed, before a coloured backdrop",
        data="60,000 training images of Fashion-MNIST (Xiao, Rasul, Vollgraf 2017; MIT licence, Zalando SE), dyed anew "
        "each time they are shown",
        training={"script": "vestige.zoo.train_portrait", **training},
        quality=quality(read_stylegan2(WEIGHTS).network(), data),
        digest=digest_tensors(read_stylegan2(WEIGHTS).tensors),
        licence="Apache-2.0",
    )
    write_text(CARD, card.model_dump_json(indent=2) + "\n")
    return card


def quality(network: StyleGan2, data: Path) -> dict[str, Any]:
    """Fréchet distances of generated and of training images to as many test images, all dyed at random."""
    reference = Gaussian.fit(dyed_features(read_clothes(data, "t10k")[:IMAGES], seed=1))
    train = dyed_features(read_clothes(data, "train")[:IMAGES], seed=2)
    found = generated_features(network)
    return {
        "features": f"pixels in [0, 1], mean colour of cells of {CELL}x{CELL}, 192 numbers; {IMAGES:,} images a side",
        "frechet": _plain(frechet_interval(found, reference, seed=0)),
        "frechet_of_training_images": _plain(frechet_interval(train, reference, seed=0)),
    }


def dyed_features(grey: Tensor, seed: int) -> Features:
    """Features [n, 192] of clothes [n, 1, 32, 32] dyed by a seed."""
    return features(dye(grey, *dyes(len(grey), np.random.default_rng([SEED, seed, 0]))))


@torch.no_grad()
def generated_features(network: StyleGan2) -> Features:
    """Features [n, 192] of images of seeded latents."""
    latents = torch.from_numpy(normal(0, Stream.SAMPLE, range(IMAGES), (FORM.latent,)))
    return np.concatenate([features(network(block).clamp(-1, 1)) for block in latents.split(BLOCK)])


def features(images: Tensor) -> Features:
    """Mean colour of cells, [n, 3 (side / 4)^2], of images in [-1, 1]."""
    return avg_pool2d((images + 1) / 2, CELL).flatten(1).numpy()


def _plain(interval: Interval) -> dict[str, float]:
    return {name: round(float(getattr(interval, name)), 4) for name in ("value", "low", "high", "n")}


def main() -> None:
    """Read options and adopt."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trained", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    options = parser.parse_args()
    print(adopt(options.trained, options.data).model_dump_json(indent=2))


if __name__ == "__main__":
    main()
