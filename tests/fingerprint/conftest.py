"""Tiny random models of every make, laundered in every way: what their fingerprints must and must not keep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest

from vestige.fingerprint.card import Plan, fingerprint
from vestige.fingerprint.encoder import Sketch
from vestige.fingerprint.pair import Pair
from vestige.fingerprint.words import Rarest, Sampled
from vestige.models.transformer.block import Activation, Attention, Block, FeedForward, Norm, NormKind, Pairing, Rotary
from vestige.models.transformer.memory import InMemoryTransformer

ROTARY = Rotary(1e4, 8)


@dataclass(frozen=True)
class Make:
    """What tells one architecture from another."""

    norm: NormKind = NormKind.RMS
    activation: Activation = Activation.SILU
    gated: bool = True
    kv: int = 2
    rotary: Rotary | None = ROTARY
    alibi: bool = False
    query_bias: bool = False
    other_bias: bool = False
    head_norm: bool = False
    norm_after: bool = False
    embedding_norm: bool = False
    positions: bool = False
    experts: int = 1
    shared: bool = False
    parallel: bool = False
    one_norm: bool = False
    tied: bool = True
    scale: float = 1.0
    cap: float | None = None


LAYER = {"norm": NormKind.LAYER, "gated": False, "kv": 4, "query_bias": True, "other_bias": True}
KINDS = {
    "llama": Make(),
    "qwen2": Make(query_bias=True, tied=False),
    "qwen3": Make(head_norm=True),
    "gemma2": Make(activation=Activation.GELU_TANH, norm_after=True, scale=6.0, cap=20.0),
    "mixtral": Make(experts=4),
    "qwen2_moe": Make(experts=4, shared=True, query_bias=True),
    "gpt2": Make(**LAYER, activation=Activation.GELU_TANH, rotary=None, positions=True),
    "opt": Make(**LAYER, activation=Activation.RELU, rotary=None, positions=True),
    "neox": Make(**LAYER, activation=Activation.GELU, rotary=Rotary(1e4, 4), parallel=True, tied=False),
    "gptj": Make(**LAYER, activation=Activation.GELU, rotary=Rotary(1e4, 4, Pairing.NEIGHBOURS), one_norm=True),
    "bloom": Make(**LAYER, activation=Activation.GELU_TANH, rotary=None, alibi=True, embedding_norm=True),
}


class Maker:
    """Random weights [out, in] of unit gain, and uneven norms."""

    def __init__(self, make: Make, seed: int, d: int) -> None:
        self.make, self.d, self.random = make, d, np.random.default_rng([seed, d])

    def matrix(self, *shape: int) -> np.ndarray:
        return (self.random.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)

    def vector(self, size: int, wanted: bool = True) -> np.ndarray | None:
        return (0.3 * self.random.standard_normal(size)).astype(np.float32) if wanted else None

    def norm(self, size: int, wanted: bool = True) -> Norm | None:
        if not wanted:
            return None
        gain = np.exp(0.5 * self.random.standard_normal(size)).astype(np.float32)
        return Norm(self.make.norm, gain, self.vector(size, self.make.norm is NormKind.LAYER))

    def attention(self, heads: int, width: int) -> Attention:
        make, kv = self.make, self.make.kv * heads // 4
        return Attention(
            self.matrix(heads * width, self.d),
            self.matrix(kv * width, self.d),
            self.matrix(kv * width, self.d),
            self.matrix(self.d, heads * width),
            heads,
            kv,
            self.vector(heads * width, make.query_bias),
            self.vector(kv * width, make.query_bias),
            self.vector(kv * width, make.query_bias),
            self.vector(self.d, make.other_bias),
            self.norm(width, make.head_norm),
            self.norm(width, make.head_norm),
            make.rotary,
            make.alibi,
            cap=make.cap,
        )

    def feed(self, f: int) -> FeedForward:
        make = self.make
        gate = self.matrix(f, self.d) if make.gated else None
        biases = self.vector(f, make.other_bias), None, self.vector(self.d, make.other_bias)
        return FeedForward(self.matrix(f, self.d), self.matrix(self.d, f), make.activation, gate, *biases)

    def block(self, heads: int, width: int, f: int) -> Block:
        make, d = self.make, self.d
        mixture = make.experts > 1
        return Block(
            self.attention(heads, width),
            tuple(self.feed(f) for _ in range(make.experts)),
            self.norm(d),
            self.norm(d, not make.one_norm),
            self.norm(d, make.norm_after),
            self.norm(d, make.norm_after),
            self.matrix(make.experts, d) if mixture else None,
            2 if mixture else 1,
            make.parallel or make.one_norm,
            shared=self.feed(f) if make.shared else None,
            shared_gate=self.matrix(1, d) if make.shared else None,
        )


def build(
    kind: str = "llama",
    seed: int = 0,
    *,
    d: int = 32,
    layers: int = 2,
    heads: int = 4,
    width: int = 8,
    f: int = 48,
    vocabulary: int = 128,
) -> InMemoryTransformer:
    """A random model of a make."""
    make = KINDS[kind]
    maker = Maker(make, seed, d)
    return InMemoryTransformer(
        kind,
        tuple(maker.block(heads, width, f) for _ in range(layers)),
        maker.matrix(vocabulary, d),
        maker.norm(d),
        None if make.tied else maker.matrix(vocabulary, d),
        None if make.tied else maker.vector(vocabulary),
        maker.matrix(32, d) if make.positions else None,
        maker.norm(d, make.embedding_norm),
        tuple(f"t{row}" for row in range(vocabulary)),
        make.scale,
    )


PLAN = Plan(
    sketch=Sketch(size=24),
    bands=(Sampled(96), Rarest(48)),
    layer_sketch=Sketch(size=48),
    layer_tokens=Sampled(64),
)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Every make in turn."""
    return request.param


@pytest.fixture(scope="session")
def model() -> Callable[..., InMemoryTransformer]:
    """A function that builds a model of a make."""
    return build


@pytest.fixture(scope="session")
def plan() -> Plan:
    """A card small enough for tests."""
    return PLAN


@pytest.fixture(scope="session")
def pair() -> Callable[..., Pair]:
    """A function that puts two models side by side."""

    def both(first: InMemoryTransformer, second: InMemoryTransformer, plan: Plan = PLAN) -> Pair:
        return Pair(fingerprint(first, plan), fingerprint(second, plan), (first, second))

    return both


@pytest.fixture(scope="session")
def renamed() -> Callable[[InMemoryTransformer], InMemoryTransformer]:
    """The same model with other token strings, so that nothing can be matched."""

    def rename(model: InMemoryTransformer) -> InMemoryTransformer:
        return replace(model, strings=tuple(f"other {row}" for row in range(model.vocabulary)))

    return rename
