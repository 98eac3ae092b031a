"""What any wrapped network has to keep: one finite answer to one input, whatever else stands in its batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vestige.digest import digest_tensors
from vestige.errors import BadWeights, InvalidInput

PROBES = 4
"""Inputs that a network is tried with."""

_SAME = 1e-3
"""How far two answers for one row may lie apart, as a share of their spread: rounding differs between batches."""


@dataclass(frozen=True)
class PixelRange:
    """What a network calls black and white.

    Raises
    ------
    InvalidInput : ``low`` is not below ``high``.
    """

    low: float = -1.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise InvalidInput(
                f"The range of pixels is {self.low:g} to {self.high:g}.",
                expected="low below high.",
                remedy="say what the network calls black and white, -1 and 1 or 0 and 1 for most.",
            )

    def inward(self, images: Tensor) -> Tensor:
        """From the network's range to [-1, 1]."""
        return (images - self.low) * (2 / (self.high - self.low)) - 1

    def outward(self, images: Tensor) -> Tensor:
        """From [-1, 1] to the network's range."""
        return (images + 1) * ((self.high - self.low) / 2) + self.low


def settle(network: Callable[..., Tensor], name: str) -> None:
    """Put a module into evaluation mode and see that it stays there and that its weights are finite.

    Raises
    ------
    BadWeights, InvalidInput : see each message.
    """
    if isinstance(network, nn.Module):
        for part, tensor in network.state_dict().items():
            finite(tensor, f"{name}'s weight {part}")
        network.eval()
        still_settled(network, name)


def still_settled(network: Callable[..., Tensor], name: str) -> None:
    """Raise InvalidInput if a part of a module is in training mode."""
    if isinstance(network, nn.Module) and any(part.training for part in network.modules()):
        raise InvalidInput(
            f"A part of the {name} is in training mode.",
            expected="evaluation mode, in which an image does not depend on the rest of its batch.",
            remedy="call .eval() on it, and see that its own train() passes the mode on.",
        )


def repeatable(first: Tensor, again: Tensor, last_alone: Tensor, name: str) -> None:
    """Raise InvalidInput unless one batch, asked twice, and its last row alone get the same answers."""
    spread = float(first.max() - first.min()) or 1.0
    if float((first - again).abs().max()) > _SAME * spread:
        raise InvalidInput(
            f"The {name} answers the same question differently from call to call.",
            expected="one answer to one input.",
            remedy="switch off dropout and fix the noise that it adds (noise_mode='const' for StyleGAN).",
        )
    if float((first[-1:] - last_alone).abs().max()) > _SAME * spread:
        raise InvalidInput(
            f"The {name} answers differently for a row alone and in a batch.",
            expected="answers that depend on their own row.",
            remedy="keep batch statistics out of it: use evaluation mode, or wrap it to take one row at a time.",
        )


def finite(answer: Tensor, name: str) -> None:
    """Raise BadWeights if a number is NaN or infinite; ``name`` says whose it is."""
    if not bool(torch.isfinite(answer).all()):
        raise BadWeights(
            f"The {name} holds NaN or infinity.",
            expected="finite numbers.",
            remedy="check the weights and the range of the inputs; if training diverged, go back to a checkpoint.",
        )


def device_of(network: Callable[..., Tensor]) -> torch.device:
    """Device of a module's first parameter; the CPU for a plain function."""
    if isinstance(network, nn.Module):
        return next((p.device for p in network.parameters()), torch.device("cpu"))
    return torch.device("cpu")


def weights_digest(network: Callable[..., Tensor]) -> str:
    """Digest of a module's weights; empty for a plain function."""
    return digest_tensors(network.state_dict()) if isinstance(network, nn.Module) else ""
