"""The contract of a density: settings that fit, and what they become."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from vestige.digest import digest_json, digest_tensors
from vestige.errors import InvalidInput
from vestige.metrics.arrays import FloatArray
from vestige.metrics.interval import Interval, mean_interval
from vestige.randomness import Stream, normal
from vestige.rare.density.preparation import Preparation, Whitening, checked
from vestige.rare.draws import Draw
from vestige.rare.settings import named, settings

Labels = npt.NDArray[np.int64]
_CHUNK = 1024


@dataclass(frozen=True, eq=False)
class Sample:
    """Coordinates [n, m] to learn from or to be judged on, with the class [n] of each where known."""

    rows: FloatArray
    labels: Labels | None = None

    def __len__(self) -> int:
        return len(self.rows)


class Fitted(nn.Module, ABC):
    """A density of coordinates, fitted. All that it knows is in its parameters and buffers.

    ``warnings`` are sentences about how far it can be trusted.
    """

    def __init__(self, warnings: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.warnings = warnings

    @abstractmethod
    def forward(self, coordinates: Tensor, labels: Tensor | None = None) -> Tensor:
        """log density [n] in nats of coordinates [n, m], differentiable; a conditional one needs labels [n]."""


@dataclass(frozen=True)
class Density(ABC):
    """One way to estimate a density. Fields are its settings; a subclass is final."""

    claim: ClassVar[str]
    source: ClassVar[str]
    normalised: ClassVar[bool] = True
    """Whether the density integrates to one, so that its held-out likelihood can be compared."""

    @abstractmethod
    def learn(self, train: Sample, held_out: Sample, seed: int) -> Fitted:
        """Fit to training coordinates; ``held_out`` serves early stopping alone."""

    def fit(
        self,
        features: npt.ArrayLike,
        labels: npt.ArrayLike | None = None,
        *,
        preparation: Preparation | None = None,
        seed: int = 0,
    ) -> FittedDensity:
        """Prepare features float [n, d], split them, fit and calibrate.

        Raises
        ------
        EmptySet : fewer than four rows, or fewer than the estimator needs.
        InvalidInput : features that are not finite or constant; labels that are missing, too few or not asked for.
        MissingExtra : the estimator needs a package that is not installed.
        """
        preparation = preparation or Preparation()
        told = None if labels is None else np.asarray(labels, np.int64)
        rows = checked(features, told)
        learning, away = preparation.split(len(rows), seed)
        whitening = preparation.whitening(rows[learning])

        def sample(chosen: npt.NDArray[np.int64]) -> Sample:
            coordinates = whitening(torch.from_numpy(rows[chosen])).numpy()
            return Sample(coordinates, None if told is None else told[chosen])

        train, held_out = sample(learning), sample(away)
        noise = normal(seed, Stream.RARE, learning, train.rows.shape[1:], Draw.TRAINING_NOISE)
        inner = self.learn(Sample(train.rows + preparation.noise * noise, train.labels), held_out, seed)
        return FittedDensity(self.name, settings(self), whitening, inner, held_out, train)

    @property
    def name(self) -> str:
        """Class name with the fields that differ from their defaults."""
        return named(self)


class FittedDensity(nn.Module):
    """A density of features: the preparation, the fitted density of its coordinates, and what held-out real rows get.

    Move it with ``.to(device, dtype)`` like any module; float64 as fitted.

    Attributes
    ----------
    name, settings : what was fitted, in words and as plain values.
    held_out : mean log density of held-out rows, nats, with its interval. Where these rows also stopped the fit or
        chose a bandwidth, the mean is slightly too good.
    held_out_values : log density of each held-out row, in the order of the split.
    train_mean : the same mean over training rows, without noise.
    warnings : sentences about how far the estimate can be trusted.
    """

    def __init__(
        self, name: str, settings: dict[str, Any], whitening: Whitening, inner: Fitted, held_out: Sample, train: Sample
    ) -> None:
        super().__init__()
        self.name, self.settings, self.warnings = name, settings, inner.warnings
        self.whitening, self.inner = whitening.double(), inner.double().eval().requires_grad_(False)
        self.held_out_values = values = self._values(held_out)
        self.held_out: Interval = mean_interval(values)
        self.train_mean = float(self._values(train).mean())
        self._known = np.sort(values)

    def forward(self, features: Tensor, labels: Tensor | None = None) -> Tensor:
        """:meth:`log_prob`."""
        return self.log_prob(features, labels)

    def log_prob(self, features: Tensor, labels: Tensor | None = None) -> Tensor:
        """log density [n] of features [n, d], in nats, differentiable.

        It is the density of the prepared coordinates (unit variance along each kept principal axis); add
        :attr:`log_volume` for that of the features themselves.
        """
        return self.inner(self.whitening(features.to(self.whitening.turn)), labels)

    @property
    def log_volume(self) -> float | None:
        """What turns the density of coordinates into that of features; None where principal axes were dropped."""
        return self.whitening.log_volume

    @property
    def spread(self) -> float:
        """Standard deviation of the log density over held-out real rows."""
        return float(self._known.std(ddof=1))

    def quantile(self, share: float) -> float:
        """Log density below which a ``share`` in [0, 1] of the held-out real rows lies (linear interpolation)."""
        return float(np.quantile(self._known, share))

    def percentile(self, log_density: Tensor) -> FloatArray:
        """Share [n] of held-out real rows with a lower density than each value: 0 is rarer than all of them."""
        values = log_density.detach().double().cpu().numpy()
        return np.searchsorted(self._known, values, side="left") / len(self._known)

    @property
    def digest(self) -> str:
        """Digest of the settings and of everything that was fitted."""
        return digest_json({**self.settings, "fitted": digest_tensors(self.state_dict())})

    @torch.no_grad()
    def _values(self, sample: Sample) -> FloatArray:
        rows = torch.from_numpy(sample.rows)
        labels = None if sample.labels is None else torch.from_numpy(sample.labels)
        told = [None] * len(rows) if labels is None else list(labels.split(_CHUNK))
        parts = [self.inner(x, y) for x, y in zip(rows.split(_CHUNK), told, strict=False)]
        values = torch.cat(parts).double().numpy()
        if not np.isfinite(values).all():
            raise InvalidInput(
                f"{self.name} gives {int((~np.isfinite(values)).sum())} of {len(values)} real rows no finite "
                "log density.",
                expected="a finite density for every real row.",
                remedy="add training noise, keep fewer dimensions, or use another density.",
            )
        return values


def full_covariance_warning(rows: int, dimensions: int, covariances: int = 1) -> tuple[str, ...]:
    """A warning where a full covariance has fewer than 20 training rows a dimension to be learnt from."""
    each = rows / covariances
    if each >= 20 * dimensions:
        return ()
    return (
        f"{each:.0f} training rows for each of {covariances} full covariance(s) of {dimensions} dimensions; below "
        f"{20 * dimensions} (20 a dimension) the estimate leans on its ridge.",
    )


def need_labels(labels: Labels | None, name: str) -> Labels:
    """Labels of the training rows. Raises InvalidInput where there are none."""
    if labels is None:
        raise InvalidInput(
            f"{name} is conditional and was given no labels.",
            expected="the class of every row.",
            remedy="pass labels, or fit the unconditional density.",
        )
    return labels
