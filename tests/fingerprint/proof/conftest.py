from __future__ import annotations

import hashlib

import numpy as np
import pytest

from vestige.fingerprint.proof.challenge import Challenge
from vestige.fingerprint.proof.commitment import commit
from vestige.fingerprint.proof.integers import IntegerBlock, IntegerModel
from vestige.fingerprint.words import Words
from vestige.models.transformer.block import (
    Activation,
    Attention,
    Block,
    FeedForward,
    Norm,
    NormKind,
    Transformer,
)


class Tiny(Transformer):
    """A random grouped-query transformer in memory."""

    def __init__(self, seed=0, vocabulary=30, width=8, depth=3, heads=4, kv=2, inner=2, feed=5, tokens=True):
        random = np.random.default_rng(seed)

        def normal(*shape):
            return random.standard_normal(shape).astype(np.float32)

        self._embedding = normal(vocabulary, width)
        self._tokens = tuple(f"token-{row}" for row in range(vocabulary)) if tokens else None
        self._blocks = [
            Block(
                Attention(
                    normal(heads * inner, width),
                    normal(kv * inner, width),
                    normal(kv * inner, width),
                    normal(width, heads * inner),
                    heads,
                    kv,
                ),
                (FeedForward(normal(feed, width), normal(width, feed), Activation.SILU, normal(feed, width)),),
                Norm(NormKind.RMS, np.exp(0.1 * normal(width))),
                Norm(NormKind.RMS, np.exp(0.1 * normal(width))),
            )
            for _ in range(depth)
        ]

    architecture = "llama"
    digest = "tiny"

    @property
    def depth(self):
        return len(self._blocks)

    @property
    def width(self):
        return self._embedding.shape[1]

    @property
    def vocabulary(self):
        return len(self._embedding)

    @property
    def tokens(self):
        return self._tokens

    def embedding(self, rows=None):
        return self._embedding if rows is None else self._embedding[rows]

    def positions(self):
        return None

    def embedding_norm(self):
        return None

    def final_norm(self):
        return Norm(NormKind.RMS, np.ones(self.width, np.float32))

    def head(self):
        return None

    def block(self, index):
        return self._blocks[index]


def integers(seed=0, tokens=6, width=4, heads=4, kv=2, inner=2, feed=3, layers=(1, 3)):
    """A model of random int8 matrices."""
    random = np.random.default_rng(seed)

    def drawn(*shape):
        return random.integers(-127, 128, shape, dtype=np.int8)

    blocks = tuple(
        IntegerBlock(
            layer,
            drawn(heads, inner, width),
            drawn(kv, inner, width),
            drawn(kv, inner, width),
            drawn(heads, inner, width),
            drawn(feed, width),
            drawn(feed, width),
        )
        for layer in layers
    )
    words = Words(tuple(f"w{row}" for row in range(tokens)), np.arange(tokens, dtype=np.int64))
    return IntegerModel(words, drawn(tokens, width), blocks)


def entropy(seed=b"test"):
    """Bytes that can be drawn again; every call gives others."""
    drawn = 0

    def draw(count):
        nonlocal drawn
        drawn += 1
        return hashlib.shake_256(seed + drawn.to_bytes(4, "big")).digest(count)

    return draw


@pytest.fixture(scope="session")
def make_integers():
    return integers


@pytest.fixture(scope="session")
def make_entropy():
    return entropy


@pytest.fixture(scope="session")
def make_tiny():
    return Tiny


@pytest.fixture(scope="session")
def model():
    return integers()


@pytest.fixture(scope="session")
def committed(model):
    return commit(model, entropy())


@pytest.fixture(scope="session")
def challenge(committed):
    return Challenge.draw([committed[0].digest], 3, entropy(b"verifier"))
