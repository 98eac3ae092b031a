"""The contract of a mitigation: another way to ask for what a memorized prompt says."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from vestige.errors import InvalidInput
from vestige.models.adapters.text_to_image import TextToImage


@dataclass(frozen=True, eq=False)
class Mitigated:
    """What became of a prompt.

    Parameters
    ----------
    prompt : as it was.
    text : what is said instead; None where the embedding was moved and no words say it.
    rows : embedding to draw with [1, rows, features].
    before, after : length of the guidance at the first step, on noise that the search did not see.
    closeness : cosine of the new embedding with the old one, averaged over tokens, 1 for no change.
    evaluations : of the network; a backward pass counts two.
    """

    prompt: str
    text: str | None
    rows: Float[Tensor, "1 rows features"]
    before: float
    after: float
    closeness: float
    evaluations: int


@dataclass(frozen=True)
class Mitigation(ABC):
    """Fields are settings; a subclass is final.

    Parameters
    ----------
    share : of the prompt's guidance length at which it counts as no longer memorized, above 0 and below 1. The public
        code takes an absolute length instead, which holds for one model alone.
    draws : starts that the length is averaged over.
    """

    claim: ClassVar[str]
    source: ClassVar[str]

    share: float = 0.6
    draws: int = 4

    def __post_init__(self) -> None:
        if not 0 < self.share < 1 or self.draws < 1:
            raise InvalidInput(
                f"share={self.share:g}, draws={self.draws}.",
                expected="a share above 0 and below 1, and at least 1 draw.",
                remedy="change the setting.",
            )

    @abstractmethod
    def mitigate(self, model: TextToImage, prompt: str, *, seed: int) -> Mitigated:
        """Find another way to ask for what the prompt says."""

    def settings(self) -> dict[str, Any]:
        """Name and fields as plain values."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}  # pyright: ignore[reportUnknownArgumentType]
        return {"mitigation": type(self).__name__, **plain}
