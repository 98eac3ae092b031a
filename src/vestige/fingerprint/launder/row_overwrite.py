"""Overwrite rows of tokens that are hardly ever used."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from vestige.errors import InvalidInput
from vestige.fingerprint.launder.launder import Launder, Random
from vestige.fingerprint.launder.rule import narrow, untied
from vestige.models.transformer.memory import InMemoryTransformer


@dataclass(frozen=True)
class RowOverwrite(Launder):
    """The last rows of the embedding replaced by noise of the same length; the head is untied and keeps its rows.

    Texts that use none of these tokens are answered exactly as before.

    Parameters
    ----------
    count : rows.
    """

    claim: ClassVar[str] = "Destroys invariants over the rarest tokens at no cost."

    count: int = 1024

    def __post_init__(self) -> None:
        if self.count < 1:
            raise InvalidInput(f"{self.count} rows.", expected="at least 1.", remedy="change the setting.")

    def refusal(self, model: InMemoryTransformer) -> str:
        """Some rows must be left."""
        return "" if self.count < len(model.table) else f"it has only {len(model.table)} rows"

    def change(self, model: InMemoryTransformer, random: Random) -> InMemoryTransformer:
        """Overwritten."""
        own = untied(model)
        last = own.table[-self.count :].astype(np.float64)
        noise = random.standard_normal(last.shape)
        noise *= np.linalg.norm(last, axis=1, keepdims=True) / np.linalg.norm(noise, axis=1, keepdims=True)
        return replace(own, table=np.concatenate([own.table[: -self.count], narrow(noise)]))
