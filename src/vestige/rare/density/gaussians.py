"""A mixture of Gaussians as a differentiable density: what several estimators become once fitted."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from vestige.metrics.arrays import FloatArray
from vestige.rare.density.density import Fitted


class Gaussians(Fitted):
    """``log sum_k w_k N(u; mu_k, C_k)``.

    Parameters
    ----------
    weights : [k], summing to one. means : [k, m].
    roots : [k, m, m] with ``C_k^-1 = roots_k roots_k^T``, or [k, m] for diagonal covariances, ``C_k^-1 = roots_k^2``.
    """

    log_weights: Tensor
    means: Tensor
    roots: Tensor
    constants: Tensor

    def __init__(self, weights: FloatArray, means: FloatArray, roots: FloatArray, warnings: tuple[str, ...]) -> None:
        super().__init__(warnings)
        diagonal = roots if roots.ndim == 2 else np.diagonal(roots, axis1=1, axis2=2)
        constants = np.log(np.abs(diagonal)).sum(1) - means.shape[1] / 2 * math.log(2 * math.pi)
        for name, array in (("log_weights", np.log(weights)), ("means", means), ("roots", roots)):
            self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(array)))
        self.register_buffer("constants", torch.from_numpy(constants))

    def joint(self, coordinates: Tensor) -> Tensor:
        """``log w_k + log N(u; mu_k, C_k)`` [n, k]."""
        gaps = coordinates[:, None, :] - self.means
        if self.roots.ndim == 2:
            square = (gaps * self.roots).square().sum(2)
        else:
            # One batched product over components; a triangular root needs no solve.
            square = torch.bmm(gaps.transpose(0, 1), self.roots).square().sum(2).T
        return self.log_weights + self.constants - square / 2

    def forward(self, coordinates: Tensor, labels: Tensor | None = None) -> Tensor:
        """log density [n]; labels play no part."""
        return self.joint(coordinates).logsumexp(1)


def precision_roots(covariances: FloatArray) -> FloatArray:
    """Upper triangular roots with ``C^-1 = root root^T`` of positive definite covariances [k, m, m]."""
    lower = np.linalg.cholesky(covariances)
    inverse = np.linalg.solve(lower, np.broadcast_to(np.eye(lower.shape[-1]), lower.shape))
    return np.swapaxes(inverse, 1, 2).astype(np.float64)
