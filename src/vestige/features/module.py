"""Features from any network, with its preprocessing declared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from vestige.digest import digest_json, digest_tensors
from vestige.errors import BadWeights, InvalidInput
from vestige.features.extractor import FeatureExtractor, Pixels
from vestige.features.preprocessing import Preprocessing

_PROBED = 4
_TOLERANCE = 1e-3
"""Difference, relative to the largest feature, that other batches may make to float32 rounding of a deep network."""


class ModuleFeatures(FeatureExtractor):
    """The output [n, d] of a module that takes images [n, c, h, w] as ``preprocessing`` leaves them.

    The first images it is given are put through it again, and one of them alone: a network whose features depend on
    chance or on the other images of a batch measures nothing.

    Parameters
    ----------
    module : in evaluation mode, on the device on which it is to run.
    preprocessing : what is done to the pixels first; part of the digest.
    known_as : what reports call it.
    batch_size : images at a time; features do not depend on it but for rounding.
    settings : what else decides the features and is neither in the weights nor in how the module prints itself.

    Raises
    ------
    InvalidInput : the module, or a part of it, is in training mode.
    BadWeights : a weight is NaN or infinite.
    """

    def __init__(
        self,
        module: nn.Module,
        preprocessing: Preprocessing,
        *,
        known_as: str,
        batch_size: int = 64,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.module, self.preprocessing, self.known_as = module, preprocessing, known_as
        self._batch_size, self._settings, self._probed = batch_size, dict(settings or {}), False
        training = [name or "the module" for name, part in module.named_modules() if part.training]
        if training:
            raise InvalidInput(
                f"{known_as} is in training mode ({', '.join(training[:3])}).",
                expected="evaluation mode, in which features do not depend on chance or on other images.",
                remedy="call module.eval() first.",
            )
        bad = [name for name, t in module.state_dict().items() if t.is_floating_point() and not t.isfinite().all()]
        if bad:
            raise BadWeights(
                f"{known_as} has weights that are NaN or infinite ({', '.join(bad[:3])}).",
                expected="finite weights.",
                remedy="load the weights again; the file may be damaged.",
            )

    def features(self, pixels: Pixels) -> npt.NDArray[np.float64]:
        """Features [n, d] of images uint8 [n, c, h, w].

        Raises
        ------
        InvalidInput : the output is not [n, d], not finite, not reproducible or depends on the batch.
        ShapeMismatch : images that the preprocessing cannot take.
        """
        if len(pixels) and not self._probed:
            self._probe(pixels[:_PROBED])
        parts = [
            self._finite(self._run(pixels[start : start + self._batch_size]), start)
            for start in range(0, max(1, len(pixels)), self._batch_size)
        ]
        return torch.cat(parts).double().numpy()

    @property
    def digest(self) -> str:
        """Digest of architecture, weights, preprocessing and settings."""
        return digest_json(
            {
                "features": "module",
                "architecture": str(self.module),
                "weights": digest_tensors(self.module.state_dict()),
                "preprocessing": self.preprocessing.settings(),
                "settings": self._settings,
            }
        )

    @property
    def name(self) -> str:
        """What reports call it."""
        return self.known_as

    @torch.inference_mode()
    def _run(self, pixels: Pixels) -> Tensor:
        weight = next(iter(self.module.parameters()), torch.empty(0))
        found = self.module(self.preprocessing(pixels).to(weight.device))
        if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != len(pixels):
            shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise InvalidInput(
                f"{self.known_as} gives {shape} for {len(pixels)} images.",
                expected="one row of features an image, a tensor [n, d].",
                remedy="wrap the network in a module whose forward pools and flattens what it returns.",
            )
        return found.float().cpu()

    def _finite(self, found: Tensor, start: int) -> Tensor:
        bad = (~found.isfinite().all(dim=1)).nonzero()[:, 0]
        if len(bad):
            raise InvalidInput(
                f"{self.known_as} gives NaN or infinity for {len(bad)} of {len(found)} images, first for image "
                f"{start + int(bad[0])}.",
                expected="finite features.",
                remedy="check the preprocessing and the weights, or run the network in float32.",
            )
        return found

    def _probe(self, pixels: Pixels) -> None:
        first, again = (self._finite(self._run(pixels), 0) for _ in range(2))
        alone = self._run(pixels[:1])
        scale = float(first.abs().max()) or 1.0
        for other, what, remedy in (
            (again, "gives other features when it is run again", "turn off dropout and noise, or fix their seed."),
            (alone, "gives an image other features in other company", "use running statistics instead of the batch's."),
        ):
            if float((other - first[: len(other)]).abs().max()) > _TOLERANCE * scale:
                raise InvalidInput(
                    f"{self.known_as} {what}.", expected="features that belong to the image alone.", remedy=remedy
                )
        self._probed = True
