"""The second generator that rare samples are compared on, and the networks that score: trained once, then kept.

    python benchmarks/rare_models.py --fashion fashion-mnist --work DIR

The generator is a class-conditional DCGAN of 28x28 Fashion-MNIST images by the recipe of the zoo's ``digits-gan`` at
half its width; its data are the first 2,500 training images a class. Training resumes where it was cut off. Two
classifiers an image set, of different architecture, seed and training half, give the space that selects and the space
that scores.
"""

from __future__ import annotations

import argparse
import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from vestige.data.images import ImageSet, to_uint8
from vestige.features.digit_classifier import DigitNetwork
from vestige.models.adapters.dcgan import Dcgan
from vestige.models.adapters.gan import GanGenerator, is_gan_folder, load_gan, save_gan
from vestige.models.latent import LatentGenerator
from vestige.rare.space import Space, digit_space, module_space
from vestige.train.checkpoint import save_checkpoint
from vestige.zoo import zoo_model
from vestige.zoo.train_digits_gan import LEARNING_RATE, PENALTY_EVERY, Networks, batch_at, update
from vestige.zoo.train_portrait_images import dye, dyes

STEPS, FORM, KEEP_EVERY = 1800, Dcgan(width=48, critic_width=16), 250
A_CLASS, DYED_A_CLASS = 2500, 500
EPOCHS, BATCH, RATE = 6, 64, 2e-3
console = Console(stderr=True)


class Scorer(nn.Module):
    """Four convolutions, pooled, of another make than the network that selects; ``embed`` gives 96 features."""

    def __init__(self, colours: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(colours, 24, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(24, 48, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(48, 96, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(96, 96, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(384, 96),
            nn.Tanh(),
        )
        self.head = nn.Linear(96, 10)

    def embed(self, images: Tensor) -> Tensor:
        """Features [n, 96] of images in [-1, 1]."""
        return self.body(images)

    def forward(self, images: Tensor) -> Tensor:
        """Class logits [n, 10]."""
        return self.head(self.embed(images))


class Selector(nn.Module):
    """Three strided convolutions for RGB images of 32x32 pixels; ``embed`` gives 64 features."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1, stride=2),
            nn.GELU(),
            nn.Conv2d(16, 32, 3, padding=1, stride=2),
            nn.GELU(),
            nn.Conv2d(32, 64, 3, padding=1, stride=2),
            nn.GELU(),
            nn.Flatten(),
            nn.Linear(1024, 64),
            nn.GELU(),
        )
        self.head = nn.Linear(64, 10)

    def embed(self, images: Tensor) -> Tensor:
        """Features [n, 64] of images in [-1, 1]."""
        return self.body(images)

    def forward(self, images: Tensor) -> Tensor:
        """Class logits [n, 10]."""
        return self.head(self.embed(images))


Network = DigitNetwork | Scorer | Selector


class Embedded(nn.Module):
    """The features of a classifier, as a module whose weights are part of a digest."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Features [n, d]."""
        return self.network.embed(images)


@dataclass(frozen=True, eq=False)
class Bench:
    """A generator, what it saw, real images that it did not see, and the two spaces."""

    name: str
    generator: LatentGenerator
    training: ImageSet
    real: ImageSet
    selects: Space
    scores: Space


def fitted(network: Network, images: ImageSet, seed: int) -> None:
    """Train a classifier in place on images with labels, shifted by up to two pixels."""
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    pixels = torch.from_numpy(images.pixels).float() / 127.5 - 1
    labels = torch.from_numpy(np.asarray(images.labels))
    for part in network.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            part.reset_parameters()
    steps = EPOCHS * (len(images) // BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    network.train()
    for _ in range(EPOCHS):
        order = random.permutation(len(images))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            rows = torch.from_numpy(order[start : start + BATCH])
            right, down = random.integers(-2, 3, size=2)
            shifted = torch.roll(pixels[rows], (int(down), int(right)), (2, 3))
            loss = cross_entropy(network(shifted), labels[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    network.eval()


def classifier(network: Network, images: ImageSet, path: Path, seed: int) -> Embedded:
    """The network trained on the images, from the file where it was trained before."""
    if not path.is_file():
        console.print(f"training {path.stem} on {len(images):,} images")
        fitted(network, images, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(network.state_dict(), path)
    network.load_state_dict(load_file(path))
    return Embedded(network.eval())


def fashion_gan(images: ImageSet, folder: Path, steps: int) -> GanGenerator:
    """The generator, trained for so many steps unless the folder holds one."""
    if not is_gan_folder(folder):
        console.print(f"training the Fashion-MNIST GAN for {steps:,} steps")
        torch.manual_seed(0)
        networks, checkpoint, first = Networks(FORM.generator(), FORM.critic()), folder / "checkpoint.pt", 0
        pixels = torch.from_numpy(images.pixels).float() / 127.5 - 1
        labels, weights = torch.from_numpy(np.asarray(images.labels)), np.full(len(images), 1 / len(images))
        folder.mkdir(parents=True, exist_ok=True)
        if checkpoint.is_file():
            state = torch.load(checkpoint, weights_only=True)
            for name, part in networks.parts().items():
                part.load_state_dict(state[name])
            networks.average, first = state["average"], state["step"]
        for step in range(first, steps):
            for group in (networks.generator_optimizer.param_groups, networks.critic_optimizer.param_groups):
                group[0]["lr"] = LEARNING_RATE * min(1.0, 4 * (1 - step / steps))
            update(networks, batch_at(pixels, labels, weights, step), penalize=step % PENALTY_EVERY == 0)
            networks.follow(step)
            if (step + 1) % KEEP_EVERY == 0:
                state = {name: part.state_dict() for name, part in networks.parts().items()}
                save_checkpoint(checkpoint, {**state, "average": networks.average, "step": step + 1})
                console.print(f"step {step + 1:,} of {steps:,}")
        networks.generator.load_state_dict(networks.average)
        save_gan(folder, FORM, networks.generator, networks.critic)
    return load_gan(folder).generator


def read_fashion(folder: Path, part: str, a_class: int) -> ImageSet:
    """The first so many images of every class of the original idx files, classes by turns."""
    with gzip.open(folder / f"{part}-images-idx3-ubyte.gz") as file:
        pixels = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)
    with gzip.open(folder / f"{part}-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8).astype(np.int64)
    rows = np.stack([np.flatnonzero(labels == c)[:a_class] for c in range(10)], axis=1).ravel()
    return ImageSet(pixels[rows], labels[rows], f"fashion:{part}")


def half(images: ImageSet, odd: bool) -> ImageSet:
    """Every second image of each run of twenty, so that both halves are balanced over ten classes."""
    rows = np.arange(len(images), dtype=np.int64)
    return images.take(rows[(rows // 10 % 2 == 1) == odd])


def digits(work: Path) -> Bench:
    """``digits-gan``; the zoo's classifier selects, one trained on the digits that the GAN did not see scores."""
    zoo = zoo_model("digits-gan")
    generator = LatentGenerator.of_gan(load_gan(zoo.folder).generator)
    real = zoo.held_out()
    scores = classifier(Scorer(), real, work / "digits-scorer.safetensors", seed=101)
    return Bench(
        "digits-gan",
        generator,
        zoo.training_data(),
        real,
        digit_space(zoo.classifier()),
        module_space(scores, "an independent digit classifier, 96 features", identity="bench-scorer"),
    )


def fashion(data: Path, work: Path, steps: int = STEPS) -> Bench:
    """The Fashion-MNIST GAN; each space is learnt from another half of its training images."""
    training = read_fashion(data, "train", A_CLASS)
    generator = LatentGenerator.of_gan(fashion_gan(training, work / "fashion-gan", steps))
    selects = classifier(DigitNetwork(), half(training, odd=False), work / "fashion-selector.safetensors", seed=201)
    scores = classifier(Scorer(), half(training, odd=True), work / "fashion-scorer.safetensors", seed=202)
    return Bench(
        "fashion-gan",
        generator,
        training,
        read_fashion(data, "t10k", 500),
        module_space(selects, "a Fashion-MNIST classifier, 64 features", identity="bench-selector"),
        module_space(scores, "an independent Fashion-MNIST classifier, 96 features", identity="bench-scorer"),
    )


def dyed(images: ImageSet, seed: int) -> ImageSet:
    """Grey images of clothes in the colours, before the backdrops and at the size that ``clothes-stylegan2`` saw."""
    grey = pad(torch.from_numpy(images.pixels).float() / 255, (2, 2, 2, 2))
    pixels = to_uint8(dye(grey, *dyes(len(grey), np.random.default_rng(seed))))
    return ImageSet(pixels, images.labels, f"{images.source}:dyed")


def clothes(generator: LatentGenerator, data: Path, work: Path) -> Bench:
    """The zoo's StyleGAN2; each space is learnt from another half of dyed training images, by the kind of clothing."""
    training = dyed(read_fashion(data, "train", DYED_A_CLASS), seed=1)
    selects = classifier(Selector(), half(training, odd=False), work / "clothes-selector.safetensors", seed=301)
    scores = classifier(Scorer(3), half(training, odd=True), work / "clothes-scorer.safetensors", seed=302)
    return Bench(
        "clothes-stylegan2",
        generator,
        training,
        dyed(read_fashion(data, "t10k", 500), seed=2),
        module_space(selects, "a classifier of dyed clothes, 64 features", identity="bench-selector"),
        module_space(scores, "an independent classifier of dyed clothes, 96 features", identity="bench-scorer"),
    )


def main() -> None:
    """Train whatever is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fashion", type=Path, required=True, help="folder with the four idx files of Fashion-MNIST")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=STEPS)
    options = parser.parse_args()
    digits(options.work)
    fashion(options.fashion, options.work, options.steps)


if __name__ == "__main__":
    main()
