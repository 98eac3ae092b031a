"""Low-rank changes of the layers that read the text, one set a concept, each seen by its own rows of a batch alone.

Keys and values of a prompt do not depend on the picture: what a change adds to them is computed once a prompt and step.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Addition:
    """``W + up down`` in every layer.

    Parameters
    ----------
    down : [r, d], the same in all layers.
    up : [out, r] of each layer, by its name; trained, zero at first.
    """

    down: Float[Tensor, "r d"]
    up: dict[str, nn.Parameter]

    @staticmethod
    def new(readers: Mapping[str, nn.Linear], down: Tensor) -> Addition:
        """One that adds nothing yet."""
        down = down.to(next(iter(readers.values())).weight)
        return Addition(
            down,
            {name: nn.Parameter(down.new_zeros(layer.out_features, len(down))) for name, layer in readers.items()},
        )

    def adds(self, name: str, tokens: Float[Tensor, "n tokens d"]) -> Float[Tensor, "n tokens out"]:
        """What it adds to a layer's answer to these tokens."""
        return (tokens @ self.down.mT) @ self.up[name].mT

    def size(self) -> Float[Tensor, ""]:
        """Mean over layers of ``|up down|_F^2``; ``down`` has orthonormal rows."""
        return torch.stack([up.square().sum() for up in self.up.values()]).mean()


class Reading:
    """Adds to the answers of a network's readers while it is open.

    Parameters
    ----------
    readers : layers by name.
    tokens : rows of a prompt that are read so; others, of a pooled vector, are not.
    """

    def __init__(self, readers: Mapping[str, nn.Linear], tokens: int) -> None:
        self.readers, self.tokens = readers, tokens
        self._added: dict[str, Tensor] = {}

    def ask(
        self, additions: Mapping[int, Addition], embeddings: Tensor, prompt: Tensor, owner: Int[Tensor, " p"]
    ) -> None:
        """What the next call shall be: row i asks prompt ``prompt[i]``, which belongs to addition ``owner[prompt]``.

        ``embeddings`` [p, rows, d] of the prompts.
        """
        seen = embeddings[:, : self.tokens]
        for name in self.readers:
            parts = [additions[int(who)].adds(name, seen[place : place + 1]) for place, who in enumerate(owner)]
            self._added[name] = torch.cat(parts)[prompt]

    @contextmanager
    def open(self) -> Generator[None]:
        """Within it the layers add what :meth:`ask` says."""
        handles = [layer.register_forward_hook(self._hook(name)) for name, layer in self.readers.items()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            self._added.clear()

    def _hook(self, name: str) -> Any:
        def add(layer: nn.Module, given: Any, answer: Tensor) -> Tensor:
            return answer + self._added[name]

        return add
