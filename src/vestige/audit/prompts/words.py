"""Which words of a prompt are to blame: the contract, and prompts taken apart into words."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from vestige.audit.geometry.estimate import Doubles
from vestige.audit.geometry.estimator import Work
from vestige.audit.prompts.detector import PromptDetector
from vestige.models.adapters.text_to_image import TextToImage


@dataclass(frozen=True, eq=False)
class Blame:
    """How much each word of a prompt drives its memorization.

    Parameters
    ----------
    words : of the prompt, in order.
    strength : [words], higher = drives it more.
    evaluations : network evaluations; a backward pass counts two.
    """

    words: tuple[str, ...]
    strength: Doubles
    evaluations: int

    @property
    def order(self) -> list[int]:
        """Places of the words, the strongest first; the earlier of two equals first."""
        return np.argsort(-self.strength, kind="stable").tolist()


@dataclass(frozen=True)
class WordAttribution(ABC):
    """Fields are settings; a subclass is final."""

    claim: ClassVar[str]
    source: ClassVar[str]

    @abstractmethod
    def blame(self, model: TextToImage, prompt: str, *, seed: int) -> Blame:
        """The strength of each word of a prompt."""

    def settings(self) -> dict[str, Any]:
        """Name and fields as plain values."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {"attribution": type(self).__name__, **fields}


def scores(detector: PromptDetector, model: TextToImage, texts: list[str], row: int, seed: int) -> tuple[Doubles, int]:
    """The detector's value of each text, all on the same noise, that of ``row``; and the evaluations."""
    denoiser = model.denoiser(texts)
    found = detector.measure(denoiser, torch.arange(len(texts)), [row] * len(texts), work=Work(seed))
    return found.value, found.evaluations


def closeness(model: TextToImage, text: str, others: list[str]) -> Doubles:
    """Cosine of the text's embedding with that of each other, averaged over tokens, -1 .. 1."""
    own, told = model.tokens([text]).double(), model.tokens(others).double()
    return torch.cosine_similarity(own, told, dim=2).mean(1).cpu().numpy()
