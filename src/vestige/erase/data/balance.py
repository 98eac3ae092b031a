"""Two losses, one direction: gradients to retain and to forget, their Gram matrix, and the weights that follow.

Every balancer moves along ``d = w_r g_r + w_f g_f`` (a step subtracts ``d``). Its two weights are a pure
function of the three inner products of the gradients, so that a rule costs nothing beside the two backward
passes and can be tested without a network.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

OPPOSED = 1e-6
"""Least ``1 + cos`` of two gradients that leaves a direction in which both losses fall, in float32."""


@dataclass(frozen=True)
class Gram:
    """Inner products over all parameters: ``<g_r, g_r>``, ``<g_r, g_f>`` and ``<g_f, g_f>``."""

    retain: float
    cross: float
    forget: float

    @property
    def cosine(self) -> float:
        """Cosine of the angle between the gradients; 0 if one of them is 0."""
        if self.retain <= 0 or self.forget <= 0:
            return 0.0
        return min(1.0, max(-1.0, self.cross / math.sqrt(self.retain) / math.sqrt(self.forget)))


@dataclass(frozen=True)
class Weights:
    """``w_r`` and ``w_f`` of the direction ``w_r g_r + w_f g_f``."""

    retain: float
    forget: float


def nearest(gram: Gram, eta: float) -> Weights:
    """Weights of the direction nearest to ``g_r`` along which the forget loss falls fast enough.

    ``min ||d - g_r||^2`` subject to ``<g_f, d> >= eta ||g_f||^2`` gives ``w_r = 1`` and
    ``w_f = max(0, eta - <g_f, g_r> / ||g_f||^2)`` (EraseDiff, arXiv 2401.05779). A forget
    gradient of zero has weight zero.
    """
    return Weights(1.0, max(0.0, eta - gram.cross / gram.forget) if gram.forget > 0 else 0.0)


def nash(gram: Gram) -> Weights:
    """Weights of the Nash bargaining solution between two players whose gains are ``<g_i, d>``.

    ``max <g_r, d> <g_f, d>`` over ``||d||^2 <= 2`` is solved by ``w_i = 1 / (||g_i|| sqrt(1 + cos))``, which
    satisfies ``w_i (G w)_i = 1`` for the Gram matrix ``G`` (MUNBa, arXiv 2411.15537): the bisector of the two
    gradients, whatever their lengths. A player without a gradient has nothing to bargain for and leaves
    the other its own gradient, of length ``sqrt 2`` too. Gradients that point against each other allow no agreement:
    both weights are 0, the disagreement point.
    """
    lengths = math.sqrt(max(gram.retain, 0.0)), math.sqrt(max(gram.forget, 0.0))
    if lengths[0] == 0 or lengths[1] == 0:
        retain, forget = (math.sqrt(2) / length if length else 0.0 for length in lengths)
        return Weights(retain, forget)
    room = 1 + gram.cosine
    if room <= OPPOSED:
        return Weights(0.0, 0.0)
    return Weights(1 / lengths[0] / math.sqrt(room), 1 / lengths[1] / math.sqrt(room))


def subtracted(gram: Gram, share: float) -> Weights:
    """Weights that subtract the forget gradient at a given share of the retain gradient's length.

    ``w_r = 1`` and ``w_f = -share ||g_r|| / ||g_f||`` (SISS, arXiv 2503.01034); 0 for a forget gradient of zero.
    """
    return Weights(1.0, -share * math.sqrt(gram.retain / gram.forget) if gram.forget > 0 else 0.0)


def gram(retain: Sequence[Tensor], forget: Sequence[Tensor]) -> Gram:
    """The Gram matrix of two gradients, summed over parameters in double precision."""

    def products(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
        return torch.stack([torch.dot(x.flatten(), y.flatten()) for x, y in zip(a, b, strict=True)]).double().sum()

    # One transfer from the device for all three.
    pairs = ((retain, retain), (retain, forget), (forget, forget))
    found: list[float] = torch.stack([products(a, b) for a, b in pairs]).tolist()
    return Gram(*found)


def descend(
    parameters: Sequence[nn.Parameter], retain: Sequence[Tensor], forget: Sequence[Tensor], weights: Weights
) -> None:
    """Leave ``w_r g_r + w_f g_f`` in the parameters' ``.grad``; the retain gradient's memory is reused."""
    for parameter, kept, gone in zip(parameters, retain, forget, strict=True):
        parameter.grad = kept.mul_(weights.retain).add_(gone, alpha=weights.forget)
