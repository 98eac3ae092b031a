"""Mix two models weight by weight."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, ClassVar

import numpy as np

from vestige.errors import InvalidInput
from vestige.fingerprint.launder.launder import Launder, Random
from vestige.fingerprint.launder.rule import narrow
from vestige.models.transformer.memory import InMemoryTransformer

_WEIGHTS = ("blocks", "table", "last_norm", "own_head", "own_head_bias", "learned_positions", "first_norm")


def _weights(model: InMemoryTransformer) -> tuple[object, ...]:
    return tuple(getattr(model, name) for name in _WEIGHTS)


def _unlike(first: object, second: object) -> bool:
    """Whether two pieces of models differ in shape anywhere."""
    if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
        return first.shape != second.shape
    if isinstance(first, tuple) and isinstance(second, tuple):
        return len(first) != len(second) or any(_unlike(*pair) for pair in zip(first, second, strict=True))
    if is_dataclass(first) and not isinstance(first, type) and type(first) is type(second):
        return any(_unlike(getattr(first, field.name), getattr(second, field.name)) for field in fields(first))
    return type(first) is not type(second)


def _mixed(first: object, second: object, share: float) -> Any:
    """``(1 - share) first + share second`` for every array inside."""
    if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
        return narrow((1.0 - share) * first.astype(np.float64) + share * second.astype(np.float64))
    if isinstance(first, tuple) and isinstance(second, tuple):
        return tuple(_mixed(*pair, share) for pair in zip(first, second, strict=True))
    if is_dataclass(first) and not isinstance(first, type):
        names = [field.name for field in fields(first)]
        return replace(first, **{name: _mixed(getattr(first, name), getattr(second, name), share) for name in names})
    return first


@dataclass(frozen=True, eq=False)
class LinearMerge(Launder):
    """Weighted mean with another model of the same shape and tokens.

    Parameters
    ----------
    other : mixed in.
    share : of the other model in [0, 1].
    """

    claim: ClassVar[str] = "The plainest merge; what both parents share stays."
    preserves: ClassVar[bool] = False

    other: InMemoryTransformer
    share: float = 0.3

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise InvalidInput(f"A share of {self.share}.", expected="0 to 1.", remedy="change the setting.")

    def refusal(self, model: InMemoryTransformer) -> str:
        """Shapes and tokens must agree."""
        if model.strings != self.other.strings:
            return "the other model has other tokens"
        return "the other model has another shape" if _unlike(_weights(model), _weights(self.other)) else ""

    def change(self, model: InMemoryTransformer, random: Random) -> InMemoryTransformer:
        """Mixed."""
        mixed = _mixed(_weights(model), _weights(self.other), self.share)
        return replace(model, **dict(zip(_WEIGHTS, mixed, strict=True)))
