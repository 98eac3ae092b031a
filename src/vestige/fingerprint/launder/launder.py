"""The contract of laundering: from a model in memory make another that computes the same, or say why it cannot."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vestige.errors import Unsupported
from vestige.models.transformer.memory import InMemoryTransformer
from vestige.randomness import Stream, generator

Random = np.random.Generator


@dataclass(frozen=True)
class Launder(ABC):
    """One change of a model's weights. Fields are its settings; a subclass is final."""

    claim: ClassVar[str]
    preserves: ClassVar[bool] = True
    """Whether the model computes the same afterwards, up to rounding."""

    @abstractmethod
    def refusal(self, model: InMemoryTransformer) -> str:
        """Why the change would not keep this model's function; empty where it does."""

    @abstractmethod
    def change(self, model: InMemoryTransformer, random: Random) -> InMemoryTransformer:
        """The changed model; called where there is no refusal."""

    def apply(self, transformer: InMemoryTransformer, seed: int, draw: int = 0) -> InMemoryTransformer:
        """The changed model; the given one is not touched.

        Parameters
        ----------
        seed, draw : of everything random; another draw is another change.

        Raises
        ------
        Unsupported : the change would alter what this model computes, or cannot be made to it.
        """
        reason = self.refusal(transformer)
        if reason:
            raise Unsupported(
                f"{type(self).__name__} on a model of architecture {transformer.architecture}: {reason}.",
                expected="a model that the change fits.",
                remedy="leave it out, or fold gains and means first where that is what stands in the way.",
            )
        return self.change(transformer, generator(seed, Stream.LAUNDER, row=draw))


def laundered(transformer: InMemoryTransformer, steps: Sequence[Launder], seed: int) -> InMemoryTransformer:
    """All steps, one after the other, each with noise of its own. Raises Unsupported as :meth:`Launder.apply`."""
    for draw, step in enumerate(steps):
        transformer = step.apply(transformer, seed, draw)
    return transformer
