"""A decoder-only transformer as its matrices, whatever the file called them and however it packed them.

Every matrix is [out, in], as ``y = x W^T + b`` has it, and float32 in row-major order. Queries, keys and values are
split from whatever they were fused into, heads lie one after the other, and query head h reads from key-value head
``h // (heads // kv_heads)``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float32]


class NormKind(Enum):
    """What a normalisation divides by, and whether it takes the mean away first."""

    RMS = "rms"
    LAYER = "layer"


class Activation(Enum):
    """The nonlinearity of a feed-forward part."""

    SILU = "silu"
    GELU = "gelu"
    GELU_TANH = "gelu_tanh"
    RELU = "relu"


class Pairing(Enum):
    """Which two entries of a head rotary embedding turns together: i and i + width/2, or 2i and 2i + 1."""

    HALVES = "halves"
    NEIGHBOURS = "neighbours"


@dataclass(frozen=True, eq=False)
class Norm:
    """``gain * normalise(x) + bias``; ``gain`` [d] is what multiplies, so Gemma's has its 1 added."""

    kind: NormKind
    gain: Matrix
    bias: Matrix | None = None
    epsilon: float = 1e-5


@dataclass(frozen=True)
class Rotary:
    """Rotary position embedding of the first ``width`` entries of a head.

    At position p pair i turns by the angle ``p * frequencies[i]``, which is ``p * base^(-2i / width)`` where None. The
    turned entries are multiplied by ``magnitude``.
    """

    base: float
    width: int
    pairing: Pairing = Pairing.HALVES
    frequencies: tuple[float, ...] | None = None
    magnitude: float = 1.0


@dataclass(frozen=True, eq=False)
class Attention:
    """Multi-head attention with grouped keys and values.

    ``query`` [heads * w, d], ``key`` and ``value`` [kv_heads * w, d], ``output`` [d, heads * w]; biases have the
    length of what they are added to. ``query_norm`` and ``key_norm`` act on one head [w]. ``alibi`` says that
    positions enter as a linear bias instead of ``rotary``.
    """

    query: Matrix
    key: Matrix
    value: Matrix
    output: Matrix
    heads: int
    kv_heads: int
    query_bias: Matrix | None = None
    key_bias: Matrix | None = None
    value_bias: Matrix | None = None
    output_bias: Matrix | None = None
    query_norm: Norm | None = None
    key_norm: Norm | None = None
    rotary: Rotary | None = None
    alibi: bool = False
    scale: float | None = None
    """What scores are multiplied by; ``1 / sqrt(w)`` where None."""
    alibi_scale: float = 1.0
    """What the slopes of ``alibi`` are multiplied by."""
    cap: float | None = None
    """Scores s become ``cap * tanh(s / cap)`` before the mask, where there is a cap."""
    window: int | None = None
    """A query sees this many of the latest keys, its own included; all where None."""


@dataclass(frozen=True, eq=False)
class FeedForward:
    """``down(act(gate x) * up x)``, or ``down(act(up x))`` where there is no gate.

    ``up`` and ``gate`` [f, d], ``down`` [d, f].
    """

    up: Matrix
    down: Matrix
    activation: Activation
    gate: Matrix | None = None
    up_bias: Matrix | None = None
    gate_bias: Matrix | None = None
    down_bias: Matrix | None = None


@dataclass(frozen=True, eq=False)
class Block:
    """One layer: ``x + attention(norm(x))``, then ``x + feed(norm(x))``, or both at once where ``parallel``.

    ``experts`` holds one feed-forward part, or all of a mixture, which ``router`` [experts, d] picks ``active`` of;
    those of a mixture in a file are read when they are indexed. ``before_feed`` is None where attention and
    feed-forward share one norm. ``after_*`` act on what a part adds.

    The answers of the picked experts are weighed by the softmax of the router's logits over all experts, divided by
    its sum over the picked ones where ``renormalised``. ``shared`` answers every token beside them, multiplied by
    the sigmoid of ``shared_gate`` [1, d] where there is one.
    """

    attention: Attention
    experts: Sequence[FeedForward]
    before_attention: Norm | None
    before_feed: Norm | None
    after_attention: Norm | None = None
    after_feed: Norm | None = None
    router: Matrix | None = None
    active: int = 1
    parallel: bool = False
    renormalised: bool = True
    shared: FeedForward | None = None
    shared_gate: Matrix | None = None


class Transformer(ABC):
    """A language model whose matrices are read when they are asked for and kept by nobody."""

    @property
    @abstractmethod
    def architecture(self) -> str:
        """Its name in the field, such as ``llama`` or ``gpt2``."""

    @property
    @abstractmethod
    def depth(self) -> int:
        """Number of blocks."""

    @property
    @abstractmethod
    def width(self) -> int:
        """Width d of the residual stream."""

    @property
    @abstractmethod
    def vocabulary(self) -> int:
        """Rows of the embedding, including rows that no token uses."""

    @property
    @abstractmethod
    def tokens(self) -> tuple[str, ...] | None:
        """The token of every row as a string of the vocabulary, where the file has them; unused rows may be absent."""

    @property
    @abstractmethod
    def digest(self) -> str:
        """Identifies every weight, whatever the file that holds it was called."""

    @abstractmethod
    def embedding(self, rows: npt.NDArray[np.int64] | None = None) -> Matrix:
        """Embedding of these rows, or of all [V, d], as it enters the first block (a constant scale included)."""

    @abstractmethod
    def positions(self) -> Matrix | None:
        """Learned absolute positions [longest, d], where there are any."""

    @abstractmethod
    def embedding_norm(self) -> Norm | None:
        """The norm between embedding and first block (BLOOM), where there is one."""

    @abstractmethod
    def final_norm(self) -> Norm | None:
        """The norm before the head."""

    @abstractmethod
    def head(self) -> Matrix | None:
        """The head [V, d], or None where it is the embedding again (without its constant scale)."""

    @abstractmethod
    def block(self, index: int) -> Block:
        """Block ``index`` from 0, read now."""

    @property
    def embedding_scale(self) -> float:
        """The constant that the embedding's rows are multiplied by before the first block (Gemma)."""
        return 1.0

    @property
    def logit_cap(self) -> float | None:
        """Logits l become ``cap * tanh(l / cap)``, where there is a cap (Gemma 2)."""
        return None

    def head_bias(self) -> Matrix | None:
        """What is added to the logits [V], where there is something (Phi)."""
        return None
