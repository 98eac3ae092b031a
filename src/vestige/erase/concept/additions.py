"""Low-rank changes of the layers that read the text, one set a concept, each seen by its own rows of a batch alone."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vestige.models.adapters.text_to_image import TextToImage


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


class Student:
    """A model's answers to some prompts under additions in training; the model itself is not changed."""

    def __init__(self, base: TextToImage, prompts: Sequence[str], additions: Mapping[int, Addition]) -> None:
        self._readers, self._additions = base.readers(), additions
        self._denoiser, self._embeddings = base.denoiser(prompts), base.embeddings(prompts)

    def answer(
        self, x_t: Tensor, t: Float[Tensor, " n"], prompt: Int[Tensor, " n"], owner: Int[Tensor, " n"]
    ) -> Tensor:
        """Raw predictions; row i reads its prompt with the addition ``owner[i]``."""
        rows = {who: torch.nonzero(owner == who).flatten().to(x_t.device) for who in owner.unique().tolist()}
        with self._reading(rows):
            return self._denoiser.predict_embedded(x_t, t, self._embeddings[prompt])

    @contextmanager
    def _reading(self, rows: Mapping[int, Tensor]) -> Generator[None]:
        def hook(name: str) -> Any:
            def add(layer: nn.Module, given: tuple[Tensor], answer: Tensor) -> Tensor:
                for who, own in rows.items():
                    answer = answer.index_add(0, own, self._additions[who].adds(name, given[0][own]))
                return answer

            return add

        handles = [layer.register_forward_hook(hook(name)) for name, layer in self._readers.items()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
