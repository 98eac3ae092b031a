"""A convolutional encoder of terms, trained as its paper means it; the training-free sketch keeps similarity better.

Zeng et al. 2024 (arXiv 2312.04828, HuRef) train a convolutional network on products of random matrices: the terms of
an anchor ``x q k x^T``, of a positive with a little noise on x, q and k, and of a negative drawn anew. The loss pulls
the positive's vector to the anchor's and the negative's to a right angle, and a discriminator has the vectors of
anchors look standard normal. In the released code the anchor's right factor is independent of its left one while the
positive's is not, so that the two are unrelated; here both have ``x`` on both sides. The network is the published one
at a smaller size: four strided convolutions with batch normalisation, averaged over what is left.

This module imports torch. :class:`vestige.fingerprint.encoder.Sketch` is what cards use: ``benchmarks/
fingerprint_encoder.py`` compares the two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cosine_similarity

from vestige.errors import InvalidInput
from vestige.fingerprint.fold import Doubles
from vestige.fingerprint.similarity import Layer
from vestige.fingerprint.terms import Term

_STRIDE, _KERNEL, _DEPTH = 4, 8, 4
SMALLEST = _STRIDE**_DEPTH
"""Tokens below which nothing is left to average."""


@dataclass(frozen=True)
class Lessons:
    """How the encoder is trained. The defaults are the published ones but for sizes.

    Parameters
    ----------
    terms, tokens, inner : matrices [tokens, tokens] a sample, of products with so many columns.
    size : of the vector.
    rounds, steps, batch : encoder and discriminator take turns of so many steps over so many triples.
    rate, last_rate : of Adam, falling along a cosine.
    noise, token_noise : relative to q and k, and to x.
    near, far, normal : weights of the three losses.
    seed : of weights and data.
    """

    terms: int = 6
    tokens: int = 256
    inner: int = 64
    size: int = 512
    rounds: int = 17
    steps: int = 10
    batch: int = 10
    rate: float = 1e-4
    last_rate: float = 5e-6
    noise: float = 0.1
    token_noise: float = 0.4
    near: float = 1.3
    far: float = 0.7
    normal: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        least = min(self.terms, self.inner, self.size, self.rounds, self.steps)
        if least < 1 or self.tokens < SMALLEST or self.batch < 2 or not 0 < self.last_rate <= self.rate:
            raise InvalidInput(
                f"Lessons over {self.tokens} tokens in batches of {self.batch} with rates {self.rate:g} to "
                f"{self.last_rate:g}.",
                expected=f"at least {SMALLEST} tokens, batches of 2 or more, falling positive rates, counts above 0.",
                remedy="change the setting.",
            )


def standardised(terms: Float[Tensor, "n c k k"]) -> Float[Tensor, "n c k k"]:
    """Every matrix with rows and columns of mean 0 and entries of mean square 1; zero stays zero."""
    centred = terms - terms.mean(2, keepdim=True) - terms.mean(3, keepdim=True) + terms.mean((2, 3), keepdim=True)
    return centred / centred.square().mean((2, 3), keepdim=True).sqrt().clamp_min(1e-12)


@dataclass(frozen=True, eq=False)
class Triples:
    """Terms [n, terms, tokens, tokens] of anchors, of what descends from them, and of strangers."""

    anchor: Tensor
    positive: Tensor
    negative: Tensor

    @staticmethod
    def drawn(lessons: Lessons, random: torch.Generator) -> Triples:
        """A batch of random triples."""

        def normal(*shape: int) -> Tensor:
            return torch.randn(lessons.batch, *shape, generator=random)

        def product(x: Tensor, q: Tensor, k: Tensor) -> Tensor:
            side = x[:, None]
            return standardised((side @ q) @ (side @ k).transpose(2, 3))

        def factors() -> tuple[Tensor, Tensor, Tensor]:
            square = lessons.terms, lessons.inner, lessons.inner
            return normal(lessons.tokens, lessons.inner), normal(*square), normal(*square)

        own, levels = factors(), (lessons.token_noise, lessons.noise, lessons.noise)
        near = [part + level * normal(*part.shape[1:]) for part, level in zip(own, levels, strict=True)]
        return Triples(product(*own), product(near[0], near[1], near[2]), product(*factors()))


class ConvolutionalEncoder(nn.Module):
    """Terms [n, terms, k, k] to vectors [n, size]."""

    def __init__(self, terms: int, size: int) -> None:
        super().__init__()
        widths = [terms, 8, 32, 128, size]
        layers: list[nn.Module] = []
        for place, (inputs, outputs) in enumerate(pairwise(widths)):
            layers.append(nn.Conv2d(inputs, outputs, _KERNEL, _STRIDE, (_KERNEL - _STRIDE) // 2))
            layers += [nn.ReLU()] if place < _DEPTH - 1 else []
            layers.append(nn.BatchNorm2d(outputs))
        self.layers = nn.Sequential(*layers)

    def forward(self, terms: Tensor) -> Tensor:
        """Vectors of mean 0 and mean square 1."""
        held = cast("Tensor", self.layers(standardised(terms))).mean((2, 3))
        held = held - held.mean(1, keepdim=True)
        return held / held.square().mean(1, keepdim=True).sqrt().clamp_min(1e-12)

    def encode(self, layers: Sequence[Layer]) -> Doubles:
        """The vector [size] of the terms of these layers, over the same tokens, in the order of layers and terms.

        Raises
        ------
        InvalidInput : there are fewer tokens than the network halves away.
        """
        dense = [_dense(layer, term) for layer in layers for term in Term]
        if len(dense[0]) < SMALLEST:
            raise InvalidInput(
                f"Terms over {len(dense[0])} tokens.", expected=f"at least {SMALLEST}.", remedy="take more tokens."
            )
        self.eval()
        with torch.no_grad():
            vector = self(torch.from_numpy(np.stack(dense).astype(np.float32))[None])[0]
        return vector.numpy().astype(np.float64)


def _dense(layer: Layer, term: Term) -> Doubles:
    parts = [(left, right) for _, left, right in layer.factors(term)]
    left, right = (np.concatenate(side).astype(np.float64) for side in zip(*parts, strict=True))
    return left @ right.T


def _discriminator(size: int) -> nn.Sequential:
    """Tells vectors from standard normal ones; its answer is a logit."""
    return nn.Sequential(nn.Linear(size, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 1))


def train_encoder(lessons: Lessons | None = None) -> ConvolutionalEncoder:
    """Train an encoder on random products; a minute or two on one core at the default size."""
    lessons = lessons or Lessons()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(lessons.seed)
        encoder = ConvolutionalEncoder(lessons.terms, lessons.size)
        discriminator = _discriminator(lessons.size)
    random = torch.Generator().manual_seed(lessons.seed)
    optimizers = [torch.optim.Adam(part.parameters(), lessons.rate) for part in (encoder, discriminator)]
    for turn in range(lessons.rounds):
        falling = 0.5 * (1 + math.cos(math.pi * turn / lessons.rounds))
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = lessons.last_rate + (lessons.rate - lessons.last_rate) * falling
        for teach, optimizer in zip((_encoder_loss, _discriminator_loss), optimizers, strict=True):
            for _ in range(lessons.steps):
                loss = teach(encoder, discriminator, Triples.drawn(lessons, random), lessons, random)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
    return encoder.eval()


def _encoder_loss(
    encoder: nn.Module, discriminator: nn.Module, triples: Triples, lessons: Lessons, random: torch.Generator
) -> Tensor:
    """Near ones together, far ones at a right angle, all like normal numbers."""
    anchor, positive, negative = (encoder(side) for side in (triples.anchor, triples.positive, triples.negative))
    near = 1 - cosine_similarity(anchor, positive)
    far = cosine_similarity(anchor, negative).abs()
    judged = discriminator(anchor)
    real = binary_cross_entropy_with_logits(judged, torch.ones_like(judged))
    return (lessons.near * near + lessons.far * far).mean() + lessons.normal * real


def _discriminator_loss(
    encoder: nn.Module, discriminator: nn.Module, triples: Triples, lessons: Lessons, random: torch.Generator
) -> Tensor:
    """Normal numbers are real, vectors are not."""
    with torch.no_grad():
        anchor = encoder(triples.anchor)
    real = discriminator(torch.randn(anchor.shape, generator=random))
    made = discriminator(anchor)
    return binary_cross_entropy_with_logits(real, torch.ones_like(real)) + binary_cross_entropy_with_logits(
        made, torch.zeros_like(made)
    )
