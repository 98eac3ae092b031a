"""A plain forward pass in numpy: what the matrices of a transformer compute, written from the definitions."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from math import floor, log2, sqrt
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.special import erf, expit

from vestige.errors import InvalidInput
from vestige.models.transformer.block import (
    Activation,
    Attention,
    Block,
    FeedForward,
    Matrix,
    Norm,
    NormKind,
    Pairing,
    Rotary,
    Transformer,
)

Ids = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.floating[Any]]
Precision = type[np.float32] | type[np.float64]


def forward(transformer: Transformer, ids: Ids, precision: Precision = np.float64) -> Numbers:
    """Logits [n, V] at every position of one text.

    Parameters
    ----------
    transformer : read block by block; no more than one block and the head are held at a time.
    ids : rows of the embedding [n], n >= 1, the first at position 0.
    precision : of the activations; matrices stay float32. float32 takes half the memory and time.

    Raises
    ------
    InvalidInput : an id is outside the vocabulary, or the text is empty or longer than the learned positions.
    """
    last = deque(states(transformer, ids, precision), maxlen=1).pop()
    norm = transformer.final_norm()
    last = last if norm is None else normalised(last, norm)
    head = transformer.head()
    if head is None:
        logits = _linear(last, transformer.embedding(), None)
        logits /= transformer.embedding_scale
    else:
        logits = _linear(last, head, None)
    bias = transformer.head_bias()
    return _capped(logits if bias is None else logits + bias, transformer.logit_cap)


def states(transformer: Transformer, ids: Ids, precision: Precision = np.float64) -> Iterator[Numbers]:
    """The residual stream [n, d] before the first block, and after each block in turn; see :func:`forward`."""
    places = transformer.positions()
    _check(ids, transformer.vocabulary, None if places is None else len(places))
    stream: Numbers = transformer.embedding(ids).astype(precision)
    if places is not None:
        stream += places[: len(ids)]
    norm = transformer.embedding_norm()
    stream = stream if norm is None else normalised(stream, norm)
    yield stream
    for index in range(transformer.depth):
        stream = through(stream, transformer.block(index))
        yield stream


def through(stream: Numbers, block: Block) -> Numbers:
    """The stream [n, d] after a block."""
    attended = attend(_maybe(stream, block.before_attention), block.attention)
    attended = _maybe(attended, block.after_attention)
    middle = stream if block.parallel else stream + attended
    entering = _maybe(middle, block.before_feed or block.before_attention)
    fed = _maybe(_feed(entering, block), block.after_feed)
    return stream + attended + fed


def normalised(stream: Numbers, norm: Norm) -> Numbers:
    """``gain * x / sqrt(mean(x^2) + epsilon) + bias`` along the last axis, x centred first for a layer norm."""
    if norm.kind is NormKind.LAYER:
        stream = stream - stream.mean(-1, keepdims=True)
    power = np.mean(np.square(stream), axis=-1, keepdims=True)
    scaled = stream / np.sqrt(power + norm.epsilon) * norm.gain
    return scaled if norm.bias is None else scaled + norm.bias


def attend(stream: Numbers, part: Attention) -> Numbers:
    """What attention adds [n, d] to a stream that was normalised before."""
    count, width = len(stream), len(part.query) // part.heads
    group = part.heads // part.kv_heads
    query = _heads(_linear(stream, part.query, part.query_bias), part.heads, part.query_norm, part.rotary)
    key = _heads(_linear(stream, part.key, part.key_bias), part.kv_heads, part.key_norm, part.rotary)
    value = _heads(_linear(stream, part.value, part.value_bias), part.kv_heads, None, None)
    scale = 1 / sqrt(width) if part.scale is None else part.scale
    scores = query @ np.repeat(key, group, axis=0).swapaxes(1, 2)  # [heads, n, n]
    scores *= scale
    scores = _capped(scores, part.cap)
    behind = np.arange(count)[:, None] - np.arange(count)[None, :]
    if part.alibi:
        scores -= part.alibi_scale * slopes(part.heads)[:, None, None].astype(scores.dtype) * behind
    seen = (behind >= 0) & (behind < (part.window or count))
    scores = np.where(seen, scores, -np.inf)
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    mixed = (shares @ np.repeat(value, group, axis=0)).swapaxes(0, 1).reshape(count, -1)
    return _linear(mixed, part.output, part.output_bias)


def slopes(heads: int) -> npt.NDArray[np.float64]:
    """By how much scores fall with each step back [heads] (Press et al. 2021, arXiv 2108.12409).

    Powers of 2^(-8 / heads) where heads is a power of two; else those of the next lower one, then every second of the
    next higher one.
    """
    lower = 2 ** floor(log2(heads))
    first = 2.0 ** (-8.0 * np.arange(1, lower + 1) / lower)
    rest = 2.0 ** (-4.0 * np.arange(1, 2 * (heads - lower), 2) / lower)
    return np.concatenate([first, rest])


def turned(entries: Numbers, rotary: Rotary) -> Numbers:
    """Heads [heads, n, w] with the first entries of each turned by its position."""
    half = rotary.width // 2
    frequencies = (
        rotary.base ** (-np.arange(half) / half) if rotary.frequencies is None else np.array(rotary.frequencies)
    )
    angles = np.arange(entries.shape[1])[:, None] * frequencies
    cosine, sine = (rotary.magnitude * f(angles).astype(entries.dtype) for f in (np.cos, np.sin))
    if rotary.pairing is Pairing.HALVES:
        first, second = slice(0, half), slice(half, 2 * half)
    else:
        first, second = slice(0, 2 * half, 2), slice(1, 2 * half, 2)
    out = entries.copy()
    out[..., first] = entries[..., first] * cosine - entries[..., second] * sine
    out[..., second] = entries[..., second] * cosine + entries[..., first] * sine
    return out


def _feed(stream: Numbers, block: Block) -> Numbers:
    if block.router is None:
        return _expert(stream, block.experts[0])
    logits = _linear(stream, block.router, None)
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    picked = np.argsort(-shares, axis=-1, kind="stable")[:, : block.active]
    kept = np.zeros_like(shares)
    np.put_along_axis(kept, picked, np.take_along_axis(shares, picked, -1), -1)
    if block.renormalised:
        kept /= kept.sum(-1, keepdims=True)
    out = np.zeros_like(stream)
    for index in np.unique(picked):
        rows = np.flatnonzero((picked == index).any(-1))
        out[rows] += kept[rows, index, None] * _expert(stream[rows], block.experts[int(index)])
    if block.shared is None:
        return out
    gate = 1.0 if block.shared_gate is None else expit(_linear(stream, block.shared_gate, None))
    return out + gate * _expert(stream, block.shared)


def _expert(stream: Numbers, part: FeedForward) -> Numbers:
    up = _linear(stream, part.up, part.up_bias)
    act = _ACTIVATIONS[part.activation]
    hidden = act(up) if part.gate is None else act(_linear(stream, part.gate, part.gate_bias)) * up
    return _linear(hidden, part.down, part.down_bias)


def _heads(rows: Numbers, heads: int, norm: Norm | None, rotary: Rotary | None) -> Numbers:
    """Rows [n, heads * w] as heads [heads, n, w], normalised and turned."""
    entries = rows.reshape(len(rows), heads, -1).swapaxes(0, 1)
    entries = _maybe(entries, norm)
    return entries if rotary is None else turned(entries, rotary)


def _maybe(stream: Numbers, norm: Norm | None) -> Numbers:
    return stream if norm is None else normalised(stream, norm)


def _linear(rows: Numbers, weight: Matrix, bias: Matrix | None) -> Numbers:
    out = rows @ weight.T
    return out if bias is None else out + bias


def _capped(numbers: Numbers, cap: float | None) -> Numbers:
    return numbers if cap is None else cap * np.tanh(numbers / cap)


def _gelu_tanh(x: Numbers) -> Numbers:
    return 0.5 * x * (1 + np.tanh(sqrt(2 / np.pi) * (x + 0.044715 * x * x * x)))


_ACTIVATIONS: Final[Mapping[Activation, Callable[[Numbers], Numbers]]] = MappingProxyType(
    {
        Activation.SILU: lambda x: x * expit(x),
        Activation.GELU: lambda x: 0.5 * x * (1 + erf(x / sqrt(2))),
        Activation.GELU_TANH: _gelu_tanh,
        Activation.RELU: lambda x: np.maximum(x, 0),
    }
)


def _check(ids: Ids, vocabulary: int, longest: int | None) -> None:
    most = len(ids) if longest is None else longest
    if ids.ndim != 1 or not 1 <= len(ids) <= most or int(ids.min()) < 0 or int(ids.max()) >= vocabulary:
        raise InvalidInput(
            f"A text of shape {ids.shape} with ids from {ids.min(initial=0)} to {ids.max(initial=0)}.",
            expected=f"ids [n] below {vocabulary}" + ("." if longest is None else f", at most {longest} of them."),
            remedy="use the tokenizer of this model, and cut the text.",
        )
