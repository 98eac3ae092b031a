"""What a network's cross-attention looks at, token by token."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from vestige.models.adapters.text_to_image_network import Maps

Shares = Float[Tensor, "n tokens"]


def shares(maps: Maps) -> Shares:
    """Each token's share of the attention, averaged over layers, heads and pixels; every row sums to 1."""
    return torch.stack([layer.float().mean((1, 2)) for layer in maps.values()]).mean(0)


def spread(weights: Shares) -> Float[Tensor, " n"]:
    """``-sum a log a`` of each row, in nats; 0 log 0 is 0. The entropy, where rows sum to 1."""
    return torch.special.entr(weights).sum(-1)
