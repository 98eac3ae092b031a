"""Classifier-free guidance as a denoiser around a denoiser."""

from __future__ import annotations

import torch
from torch import nn

from vestige.digest import digest_json
from vestige.errors import Unsupported
from vestige.models.denoiser import Denoiser, Images, Labels, Times


class Guided(Denoiser):
    """``p_null + scale (p_c - p_null)`` (Ho and Salimans 2022, arXiv 2207.12598).

    Scale 0 is unconditional, 1 conditional, above 1 guided. Costs two evaluations an
    image, in one batch. The rule is linear, so it holds for every prediction alike.

    Raises
    ------
    Unsupported : the model has no label that means "no condition".
    """

    def __init__(self, inner: Denoiser, scale: float) -> None:
        if inner.null_condition is None:
            raise Unsupported(
                "Guidance needs the model's answer without a condition, and it has no such label.",
                expected="a model trained with a null condition.",
                remedy="pass null_condition=LABEL when loading it, or sample without guidance.",
            )
        super().__init__(
            inner.schedule,
            inner.prediction,
            inner.shape,
            classes=inner.classes,
            null_condition=inner.null_condition,
            access=inner.access,
        )
        self.inner, self.scale, self._null = inner, scale, inner.null_condition

    def forward(self, x_t: Images, t: Times, condition: Labels | None) -> Images:
        """Both predictions from one doubled batch."""
        null = torch.full((len(x_t),), self._null, device=x_t.device)
        if condition is None or self.scale == 0:
            return self.inner.predict(x_t, t, null)
        self.evaluations += len(x_t)  # the second of each image; `predict` counts the first
        both = self.inner.predict(x_t.repeat(2, 1, 1, 1), t.repeat(2), torch.cat([null, condition]))
        without, given = both.chunk(2)
        return without + self.scale * (given - without)

    @property
    def device(self) -> torch.device:
        """Device of the inner model."""
        return self.inner.device

    @property
    def module(self) -> nn.Module:
        """The network of the inner model."""
        return self.inner.module

    def with_module(self, module: nn.Module) -> Guided:
        """The same guidance of another network."""
        return Guided(self.inner.with_module(module), self.scale)

    @property
    def digest(self) -> str:
        """Digest of the inner model and the scale."""
        return digest_json({"guided": self.inner.digest, "scale": self.scale})
