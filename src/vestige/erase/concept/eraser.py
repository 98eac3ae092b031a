"""The contract of a concept eraser: from a text-to-image model and a request, make increments."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

import torch
from torch import Tensor

from vestige.digest import digest_tensors
from vestige.erase import encoding
from vestige.erase.concept.request import ConceptRequest
from vestige.erase.increment import Increment
from vestige.erase.manifest import Manifest
from vestige.errors import BadWeights, NothingChanged
from vestige.models.adapters.text_to_image import TextToImage
from vestige.progress import Progress, Silent


@dataclass(frozen=True)
class ConceptEraser(ABC):
    """One way to take concepts out of a text-to-image model. Fields are its settings; a subclass is final."""

    claim: ClassVar[str]
    source: ClassVar[str]

    @abstractmethod
    def increments(self, base: TextToImage, request: ConceptRequest, seed: int, progress: Progress) -> list[Increment]:
        """Increments of the concepts; the base is not changed."""

    def erase(
        self, base: TextToImage, request: ConceptRequest, *, seed: int = 0, progress: Progress | None = None
    ) -> list[Increment]:
        """An increment a concept, in their order, or a single one where a method takes all out together.

        Their sum erases all; any subset erases its own.

        Raises
        ------
        InvalidInput : a text is no string of the model's tokenizer, or there is no room for the prompts to keep.
        NothingChanged : no weight moved.
        BadWeights : a weight became NaN or infinite.
        """
        request.check(base)
        with torch.enable_grad():
            return self.increments(base, request, seed, progress or Silent())

    def settings(self) -> dict[str, Any]:
        """Fields as plain values."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {name: value.value if isinstance(value, Enum) else value for name, value in fields.items()}

    def made(
        self,
        base: str,
        request: ConceptRequest,
        delta: Mapping[str, Tensor],
        *,
        cost: Mapping[str, float],
        seed: int,
        factors: Mapping[str, tuple[Tensor, Tensor]] | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> Increment:
        """An increment of changed weights, or of products ``up down`` [out, r] [r, in] in their place.

        ``base`` is the model's digest. ``facts`` are kept beside the settings.
        """
        parts = dict(factors or {})
        whole = {**delta, **{name: encoding.product(*pair) for name, pair in parts.items()}}
        name = type(self).__name__
        if not any(bool(change.count_nonzero()) for change in whole.values()):
            raise NothingChanged(
                f"{name} moved no weight.",
                expected="a change.",
                remedy="raise the learning rate or the number of steps, or name another anchor.",
            )
        for key, change in whole.items():
            if not bool(torch.isfinite(change).all()):
                raise BadWeights(
                    f"{name} turned {key} into NaN or infinity.",
                    expected="finite weights.",
                    remedy="lower the learning rate.",
                )
        asked = {"templates": list(request.templates), "keep": list(request.keep), "guard": list(request.guard)}
        told = {"anchors": list(request.anchors), "seed": seed, **dict(facts or {})}
        manifest = Manifest(
            format=encoding.format_of(whole, parts),
            name=" ".join(request.concepts),
            base=base,
            method=name,
            settings={**self.settings(), **asked, **told, "concepts": list(request.concepts)},
            forgotten=[f"concept:{concept}" for concept in request.concepts],
            delta=digest_tensors(whole),
            cost={key: float(value) for key, value in cost.items()},
        )
        return Increment(manifest, whole, parts)
