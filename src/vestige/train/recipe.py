"""How a small diffusion model is trained."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import Enum
from typing import Any

from vestige.errors import InvalidInput


class Augmentation(Enum):
    """What happens to an image before it is shown: nothing, a shift by at most one pixel, or a mirror."""

    NONE = "none"
    SHIFT = "shift"
    FLIP = "flip"


class Target(Enum):
    """What the network learns to predict: the noise, or the velocity ``alpha eps - sigma x_0`` (arXiv 2202.00512)."""

    NOISE = "epsilon"
    VELOCITY = "v_prediction"


@dataclass(frozen=True)
class Recipe:
    """Everything that determines the weights, given the rows.

    Parameters
    ----------
    channels : width of each level of the UNet; each level but the first halves the side.
    steps, batch : optimizer steps, and rows a step (expected rows under privacy noise).
    learning_rate : of Adam, constant after ``warmup`` steps, so that a shorter training is a
        prefix of a longer one.
    ema_decay : of the averaged weights, which are the result.
    condition_drop : share of rows shown without their label, so that guidance is possible.
    target : what the network predicts; velocity gives usable samples after far fewer steps.
    privacy_noise : noise multiplier of DP-SGD (Abadi et al. 2016, arXiv 1607.00133); 0 trains
        without privacy.
    clip : bound on the gradient's norm: of a row under privacy noise, of a batch otherwise.
    seed : of weights, rows, times and noise.
    """

    channels: tuple[int, ...] = (8, 16, 32)
    steps: int = 1000
    batch: int = 64
    learning_rate: float = 1e-3
    warmup: int = 50
    ema_decay: float = 0.995
    condition_drop: float = 0.1
    augmentation: Augmentation = Augmentation.NONE
    target: Target = Target.VELOCITY
    privacy_noise: float = 0.0
    clip: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.channels or any(width < 4 or width % 4 for width in self.channels):
            raise InvalidInput(
                f"channels={self.channels}.", expected="multiples of 4, one a level.", remedy="change the recipe."
            )
        positive = self.steps > 0 and self.batch > 0 and self.learning_rate > 0 and self.clip > 0
        shares = 0 <= self.ema_decay < 1 and 0 <= self.condition_drop < 1
        if not positive or not shares or self.warmup < 0 or self.privacy_noise < 0:
            raise InvalidInput(
                f"{self}.",
                expected="positive steps, batch, learning rate and clip; shares below 1; no negative noise.",
                remedy="change the recipe.",
            )

    def plain(self) -> dict[str, Any]:
        """Fields as JSON values."""
        values = dataclasses.asdict(self)
        return {
            **values,
            "channels": list(self.channels),
            "augmentation": self.augmentation.value,
            "target": self.target.value,
        }
