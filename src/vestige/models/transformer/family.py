"""One way of storing a transformer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from vestige.models.transformer.block import Block, Matrix, Norm
from vestige.models.transformer.checkpoint import Checkpoint


@dataclass(frozen=True)
class Outline:
    """What is known of a model before a block is read.

    ``embedding`` and ``head`` name tensors; ``head`` is None where it is the embedding. Embedded rows are multiplied
    by ``embedding_scale``, logits capped at ``logit_cap``.
    """

    architecture: str
    depth: int
    width: int
    embedding: str
    head: str | None
    head_bias: str | None = None
    embedding_scale: float = 1.0
    logit_cap: float | None = None


class Family(ABC):
    """Reads the architectures of one family. A final, frozen dataclass in ``families/``, without fields."""

    @classmethod
    @abstractmethod
    def names(cls) -> tuple[str, ...]:
        """What config.json calls them (``model_type``)."""

    @abstractmethod
    def outline(self, checkpoint: Checkpoint) -> Outline:
        """Checks the settings and finds the tensors. Raises CorruptFile, BadWeights or Unsupported."""

    @abstractmethod
    def block(self, checkpoint: Checkpoint, index: int) -> Block:
        """Reads a block. Raises BadWeights or Unsupported, and what reading raises."""

    @abstractmethod
    def final_norm(self, checkpoint: Checkpoint) -> Norm | None:
        """Reads the norm before the head."""

    def embedding_norm(self, checkpoint: Checkpoint) -> Norm | None:
        """Reads the norm between embedding and first block."""
        return None

    def positions(self, checkpoint: Checkpoint) -> Matrix | None:
        """Reads learned positions [longest, d], the first position first."""
        return None
