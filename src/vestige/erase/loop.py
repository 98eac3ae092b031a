"""How the loop of an eraser is carried out, whichever eraser it is."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import Enum
from typing import Any

from vestige.errors import InvalidInput


class Precision(Enum):
    """What networks compute in; weights and optimizer always stay in the model's own precision.

    ``bfloat16`` runs forward and backward passes under autocast.
    """

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class Stop(Enum):
    """When to end before the last step.

    ``never``; ``residue``: as soon as the error on the forgotten images at small noise has risen to that of images
    never seen (:mod:`vestige.erase.residue`).
    """

    NEVER = "never"
    RESIDUE = "residue"


@dataclass(frozen=True)
class Loop:
    """What erasers share beside their mathematics.

    Parameters
    ----------
    micro_batch : most images that pass through the network together, for a memory budget; 0 for the whole batch.
        Gradients are accumulated, so the result is the same up to rounding.
    precision : see :class:`Precision`.
    average : decay of an exponential moving average of the weights, which then is the result; 0 for the last weights.
    bank : batches of the frozen model's targets that are kept and used in turn, each computed once; 0 for new ones at
        every step.
    rank : of low-rank changes (LoRA through PEFT); 0 moves all weights freely.
    stop : see :class:`Stop`.
    stop_every : steps between two looks at the stopping rule.
    """

    micro_batch: int = 0
    precision: Precision = Precision.FLOAT32
    average: float = 0.0
    bank: int = 0
    rank: int = 0
    stop: Stop = Stop.NEVER
    stop_every: int = 10

    def __post_init__(self) -> None:
        counts = self.micro_batch >= 0 and self.bank >= 0 and self.rank >= 0 and self.stop_every >= 1
        if not counts or not 0 <= self.average < 1:
            raise InvalidInput(
                f"{self}.",
                expected="counts that are not negative, at least one step between looks, and an average in [0, 1).",
                remedy="change --loop.",
            )

    def settings(self) -> dict[str, Any]:
        """What differs from the defaults, as plain values."""
        fields = {f.name: (getattr(self, f.name), f.default) for f in dataclasses.fields(self)}
        return {k: v.value if isinstance(v, Enum) else v for k, (v, default) in fields.items() if v != default}
