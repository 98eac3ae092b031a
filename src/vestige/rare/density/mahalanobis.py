"""One Gaussian, or one a class with a shared covariance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vestige.errors import InvalidInput
from vestige.rare.density.density import Density, Fitted, Sample, full_covariance_warning, need_labels
from vestige.rare.density.gaussians import Gaussians, precision_roots


@dataclass(frozen=True)
class Mahalanobis(Density):
    """log p falls with half the squared Mahalanobis distance, to the mean or to the class means.

    By class it is ``log sum_y n_y/n N(u; mu_y, C)`` with the within-class covariance C of Lee et al. 2018, of which
    they take the nearest class alone.

    Parameters
    ----------
    by_class : a mean for each class; needs labels.
    ridge : added to the variance of every coordinate, whose overall variance is one.
    """

    claim: ClassVar[str] = "a Gaussian around the mean or around the class means, with one covariance"
    source: ClassVar[str] = "Lee et al. 2018, arXiv 1807.03888"

    by_class: bool = False
    ridge: float = 1e-6

    def __post_init__(self) -> None:
        if self.ridge < 0:
            raise InvalidInput(f"ridge={self.ridge:g}.", expected="0 or more.", remedy="change the setting.")

    def learn(self, train: Sample, held_out: Sample, seed: int) -> Fitted:
        """Means, class shares and the covariance about the means, all by maximum likelihood."""
        label = np.zeros(len(train), np.int64)
        if self.by_class:
            label = np.unique(need_labels(train.labels, self.name), return_inverse=True)[1]
        sizes = np.bincount(label)
        means = np.stack([train.rows[label == y].mean(0) for y in range(len(sizes))])
        about = train.rows - means[label]
        m = train.rows.shape[1]
        root = precision_roots((about.T @ about / len(train) + self.ridge * np.eye(m))[None])
        warnings = full_covariance_warning(len(train), m)
        return Gaussians(sizes / len(train), means, np.repeat(root, len(sizes), axis=0), warnings)
