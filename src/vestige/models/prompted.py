"""A text-to-image model and a list of prompts as a generator: row after row it goes through the prompts in turn."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from vestige.models.adapters.text_to_image import Drawing, TextToImage
from vestige.models.generator import Generator, Pixels


class PromptedGenerator(Generator):
    """Row r draws prompt ``r mod n`` from the start that belongs to the row.

    Parameters
    ----------
    model : what draws.
    prompts : n of them.
    drawing : sampler, guidance, batch size.
    """

    def __init__(self, model: TextToImage, prompts: tuple[str, ...], drawing: Drawing) -> None:
        self.model, self.prompts, self.drawing = model, prompts, drawing
        self._shape: tuple[int, int, int] | None = None

    @property
    def evaluations(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Network evaluations of the model's sampling."""
        return self.model.evaluations

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of a decoded picture."""
        if self._shape is None:
            channels, height, width = self.model.decode(self.model.starts([0], 0)).shape[1:]
            self._shape = channels, height, width
        return self._shape

    def sample(self, rows: npt.NDArray[np.int64], seed: int) -> Pixels:
        """Pictures uint8 [len(rows), c, h, w]."""
        asked = [self.prompts[place] for place in rows % len(self.prompts)]
        return self.model.sample(asked, rows.tolist(), seed, self.drawing)

    def condition_of(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The place of each row's prompt."""
        return rows % len(self.prompts)

    def key(self) -> dict[str, Any]:
        """Digest of the model, prompts and how they are drawn."""
        how = {"guidance": self.drawing.guidance, **self.drawing.sampler.key()}
        return {"model": self.model.digest, "prompts": list(self.prompts), **how}
