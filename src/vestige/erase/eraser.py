"""The contract of an eraser: from a base model, rows to forget and rows to keep, make an increment."""

from __future__ import annotations

import copy
import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from torch import nn

from vestige.data.images import ImageSet, check_fits
from vestige.digest import digest_json
from vestige.erase.increment import Increment
from vestige.errors import EmptySet, InvalidInput
from vestige.execute import Context
from vestige.models.denoiser import Denoiser


@dataclass(frozen=True, eq=False)
class Request:
    """What to forget and what to keep.

    Parameters
    ----------
    forget, retain : distinct images; no image stands in both.
    retain_copies : how often each retained image stands in the training data; the retain
        loss weighs rows by it, as training did.
    forget_copies : the same for the forgotten ones, which weigh alike if it is not given.
    """

    forget: ImageSet
    retain: ImageSet
    retain_copies: npt.NDArray[np.int64]
    forget_copies: npt.NDArray[np.int64] | None = None

    def check(self, denoiser: Denoiser) -> None:
        """Raise EmptySet, ShapeMismatch or InvalidInput if the request makes no sense for the model."""
        if len(self.forget) == 0:
            raise EmptySet(
                "The set of rows to forget is empty.",
                expected="at least one row.",
                remedy="pass --forget with an audit that extracted something, row ids, or class:LABEL.",
            )
        if len(self.retain) == 0:
            raise EmptySet(
                "Nothing is left to retain.",
                expected="training images besides the forgotten ones.",
                remedy="pass the whole training set as --retain.",
            )
        for images in (self.forget, self.retain):
            check_fits(images, denoiser.shape, "the model")
        both = set(self.forget.ids) & set(self.retain.ids)
        if both:
            raise InvalidInput(
                f"{len(both)} rows are to be forgotten and retained, {min(both)} among them.",
                expected="disjoint sets.",
                remedy="take the forgotten rows out of the retained ones.",
            )

    @property
    def digest(self) -> str:
        """Digest of both sets and their counts."""
        copies = [self.retain_copies.tolist(), None if self.forget_copies is None else self.forget_copies.tolist()]
        return digest_json({"forget": self.forget.digest, "retain": self.retain.digest, "copies": copies})


@dataclass(frozen=True)
class Eraser(ABC):
    """One way to make a model forget. Fields are its settings; a subclass is final."""

    claim: ClassVar[str]
    source: ClassVar[str]

    @abstractmethod
    def train(self, base: Denoiser, module: nn.Module, request: Request, context: Context) -> dict[str, float]:
        """Change ``module``, a copy of the base's network, in place; returns what it cost.

        The cost holds at least ``steps`` and ``forwards_per_step`` (forward-equivalents of
        the whole batch; a backward pass counts two).
        """

    def erase(self, base: Denoiser, request: Request, context: Context, *, name: str = "erasure") -> Increment:
        """Make the increment; the base is not touched.

        Raises
        ------
        EmptySet, ShapeMismatch, InvalidInput : see :meth:`Request.check`.
        Unsupported : the model has no weights to change.
        NothingChanged : no weight moved.
        """
        request.check(base)
        module = copy.deepcopy(base.module)
        cost = self.train(base, module, request, context)
        return Increment.between(
            base.module,
            module,
            name=name,
            base_digest=base.digest,
            method=type(self).__name__,
            settings={**self.settings(), "seed": context.seed},
            forgotten=request.forget.ids,
            cost=cost,
        )

    def settings(self) -> dict[str, Any]:
        """Fields as plain values."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {k: v.value if isinstance(v, Enum) else v for k, v in fields.items()}
