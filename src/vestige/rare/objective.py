"""What a search lowers: the published objective, and a scale-free one whose last step can be used."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, cast

import torch
from scipy.stats import chi
from torch import Tensor

from vestige.errors import InvalidInput
from vestige.rare.density.density import FittedDensity

_TINY = 1e-12


@dataclass(frozen=True, eq=False)
class Edges:
    """How near r groups of N samples are to where they may not go.

    ``ratio`` [r, N] is the least of distance / radius over real balls, ``distance`` [r, N] is ||x - x*||, ``reach``
    [r, 1] is d*; ``from_ball`` and ``from_reference`` [r, N, d] lead from the centre of that ball, and from x*, to x.
    """

    ratio: Tensor
    distance: Tensor
    reach: Tensor
    from_ball: Tensor
    from_reference: Tensor

    @property
    def beyond(self) -> Tensor:
        """``ratio - 1`` and ``distance / reach - 1`` [2, r, N]: positive outside."""
        return torch.stack([self.ratio, self.distance / self.reach]) - 1

    @property
    def accepted(self) -> Tensor:
        """Whether each sample lies inside the real manifold and within reach [r, N]."""
        return (self.ratio <= 1) & (self.distance <= self.reach)


@dataclass(frozen=True, eq=False)
class View:
    """One iterate of r groups of N samples, as an objective sees it.

    ``features`` x [r, N, d] and ``log_density`` log p(x) [r, N], of the features that the objective guards; ``unit``
    [r, 1] as in :class:`~vestige.rare.scene.References`.
    """

    features: Tensor
    log_density: Tensor
    edges: Edges
    unit: Tensor


class Terms(NamedTuple):
    """``loss`` [r, N], of whose sum the gradient is used; ``rank`` [r, N], lowest in the accepted iterate to keep."""

    loss: Tensor
    rank: Tensor


@dataclass(frozen=True)
class Objective(ABC):
    """Fields are settings; a subclass is final.

    Parameters
    ----------
    members : N, samples a group.
    steps : of Adam.
    rate : learning rate of Adam, whose other settings are torch's.
    start : sigma, the deviation of the starts around the reference's latent.
    """

    claim: ClassVar[str]
    source: ClassVar[str]

    members: int = 10
    steps: int = 200
    rate: float = 2e-2
    start: float = 0.1

    def __post_init__(self) -> None:
        if self.members < 1 or self.steps < 1 or self.rate <= 0 or self.start < 0:
            raise InvalidInput(
                f"members={self.members}, steps={self.steps}, rate={self.rate:g}, start={self.start:g}.",
                expected="at least one member and step, a positive rate, a start of 0 or more.",
                remedy="change the setting.",
            )

    @abstractmethod
    def terms(self, view: View, density: FittedDensity) -> Terms:
        """What each sample is to lower, and by what its iterates are compared."""

    @abstractmethod
    def rate_at(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""

    def guarded(self, features: Tensor, edges: Edges) -> Tensor:
        """Features [r, N, d] of the same values, through which the gradient of rarity and diversity flows."""
        return features

    def stride_at(self, step: int) -> float:
        """Most that features may move at a step, in units of d*; infinite for no limit."""
        return math.inf

    def confined(self, latents: Tensor) -> Tensor:
        """Latents [n, ...] as they are allowed to be; called after every step."""
        return latents


@dataclass(frozen=True)
class DivRareGen(Objective):
    """The published objective, per group: ``sum_i log p(x_i) + lambda1 L_sim(x_i) + lambda2 L_div(x_i)``.

    ``L_sim(x) = (max(||x - x*||, d*) - d*)^2`` and ``L_div(x_i) = -sum_{j != i} ||x_i - x_j||^2``; the best iterate of
    each start is the one of lowest loss inside the real manifold and within d*. Nothing keeps log p from falling
    without end, and nothing but that filter keeps the samples on the manifold: the last step is seldom of use.

    This follows the paper. Its public code differs: it sums the similarity over the group, and the diversity over all
    pairs, before it adds them to each of the N samples, which multiplies both weights by N; it leaves the schedule off
    unless told otherwise; it keeps no iterate at steps that are multiples of ten; and its approximate diversity is a
    mean over features of ten random pairs.

    Parameters
    ----------
    similarity, diversity : lambda1 and lambda2: 30 and 0.002 for FFHQ, 200 and 0.02 for AFHQ and MetFaces, in
        4096 rectified VGG16 features; another feature space needs others.
    step_every, step_factor : the rate is multiplied by the factor at every so many steps.
    """

    claim: ClassVar[str] = "lowers log p, stays near a reference and spreads out; the best accepted iterate counts"
    source: ClassVar[str] = "Lee et al. 2025 (AAAI), arXiv 2412.19543"

    similarity: float = 30.0
    diversity: float = 0.002
    step_every: int = 50
    step_factor: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.similarity, self.diversity) < 0 or self.step_every < 1 or not 0 < self.step_factor <= 1:
            raise InvalidInput(
                f"similarity={self.similarity:g}, diversity={self.diversity:g}, step_every={self.step_every}, "
                f"step_factor={self.step_factor:g}.",
                expected="weights of 0 or more, a schedule that falls.",
                remedy="change the setting.",
            )

    def terms(self, view: View, density: FittedDensity) -> Terms:
        """The three terms of each sample are both loss and rank."""
        outside = (view.edges.distance - view.edges.reach).clamp_min(0)
        spread = squared_spread(view.features)
        loss = view.log_density + self.similarity * outside.square() - self.diversity * spread
        return Terms(loss, loss.detach())

    def rate_at(self, step: int) -> float:
        """A staircase."""
        return self.rate * self.step_factor ** (step // self.step_every)


@dataclass(frozen=True)
class Controls:
    """How rare, how different from one another and how similar to the reference, each in [0, 1].

    Parameters
    ----------
    rarity : the share of real rows that a sample is to be rarer than. 0.98 asks for a density below that of 98 % of
        them, and for no more than that; 0 asks for nothing, 1 for a density below that of every held-out real row.
    diversity : the weight c / (1 - c) of spreading out against being rare: 0 none, 0.5 as much, 1 only that.
    similarity : the share of the generator's own images that a sample is to be nearer to the reference than. 0.99 is
        the paper's 100th of 10,000; 0 lets samples go anywhere on the real manifold.

    Raises
    ------
    InvalidInput : one of them is outside [0, 1].
    """

    rarity: float = 0.98
    diversity: float = 0.5
    similarity: float = 0.99

    def __post_init__(self) -> None:
        if not all(0 <= value <= 1 for value in (self.rarity, self.diversity, self.similarity)):
            raise InvalidInput(
                f"rarity={self.rarity:g}, diversity={self.diversity:g}, similarity={self.similarity:g}.",
                expected="three numbers from 0 to 1.",
                remedy="change the setting.",
            )

    def neighbours(self, bank: int) -> int | None:
        """k': d* is the distance from the reference to its k'-th nearest of ``bank`` generations; None for no limit."""
        return None if self.similarity == 0 else max(1, round((1 - self.similarity) * bank))


@dataclass(frozen=True)
class RareSearch(Objective):
    """Bounded and in units of the data, so that its settings carry over between feature spaces.

    A sample is drawn by ``w_r relu((log p(x_i) - tau) / s) - w_d mean_{j != i} ||x_i - x_j|| / d*``: tau is the
    quantile of real log densities that the wanted rarity names, s their standard deviation, and there is nothing to
    gain below tau. It may go neither beyond the real balls nor beyond d*. With the violations
    ``c = distance / radius - 1`` of the nearest ball and ``c = ||x - x*|| / d* - 1``, ``relu(c + margin)^2 / margin``
    pushes it back from an edge, and a share ``clip(1 + c / margin, 0, 1)`` of the pull that leads straight over that
    edge is taken away, so that at the edge the pull leads along it and the push inward, whatever the weights are. A
    step moves features by no more than a stride. After it the latent is pulled back between two quantiles of the norm
    of a standard normal, where the generator was trained. The last step can be used.

    Parameters
    ----------
    controls : what is wanted.
    margin : width of the zone before an edge, as a share of radius and d*.
    push : weight of the push.
    stride : most that features move at a step, in units of d*; it falls with the rate.
    shell : share of the prior whose latents are shorter (longer) than the inner (outer) bound on the norm.
    cool : share of the steps, at the end, over which the rate falls evenly to a tenth.
    """

    claim: ClassVar[str] = (
        "as rare as asked for and no rarer, spread out, kept on the real manifold and near the reference"
    )
    source: ClassVar[str] = "after Lee et al. 2025, arXiv 2412.19543, each term bounded and in units of the data"

    rate: float = 5e-2
    controls: Controls = Controls()
    margin: float = 0.05
    push: float = 10.0
    stride: float = 0.1
    shell: float = 1e-3
    cool: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        shares = 0 < self.margin < 1 and 0 < self.shell < 0.5 and 0 <= self.cool <= 1
        if not shares or min(self.push, self.stride) <= 0:
            raise InvalidInput(
                f"margin={self.margin:g}, push={self.push:g}, stride={self.stride:g}, shell={self.shell:g}, "
                f"cool={self.cool:g}.",
                expected="margin in (0, 1), push and stride above 0, shell in (0, 0.5), cool in [0, 1].",
                remedy="change the setting.",
            )

    @property
    def weights(self) -> tuple[float, float]:
        """``w_r`` and ``w_d``, summing to one."""
        return 1 - self.controls.diversity if self.controls.rarity > 0 else 0.0, self.controls.diversity

    def terms(self, view: View, density: FittedDensity) -> Terms:
        """The pull, faded, and the push; ranked by the pull alone, since all that are compared lie inside."""
        pull = self._pull(view, density)
        push = (view.edges.beyond + self.margin).clamp_min(0).square().sum(0) / self.margin
        return Terms(pull + self.push * push, pull.detach())

    def guarded(self, features: Tensor, edges: Edges) -> Tensor:
        """Without the part of the pull that leads over an edge, as far as that is near."""
        near = 1 - (-edges.beyond.detach() / self.margin).clamp(0, 1)
        for outward, share in zip((edges.from_ball, edges.from_reference), near, strict=True):
            features = cast(Tensor, _Guard.apply(features, outward, share))
        return features

    def _pull(self, view: View, density: FittedDensity) -> Tensor:
        rarity, diversity = self.weights
        tau, spread = density.quantile(1 - self.controls.rarity), density.spread
        too_likely = ((view.log_density - tau) / max(spread, _TINY)).clamp_min(0)
        return rarity * too_likely - diversity * mean_distance(view.features) / view.unit

    def rate_at(self, step: int) -> float:
        """Constant, then falling evenly to a tenth."""
        left = (self.steps - step) / max(1.0, self.cool * self.steps)
        return self.rate * (0.1 + 0.9 * min(1.0, left))

    def stride_at(self, step: int) -> float:
        """In proportion to the rate."""
        return self.stride * self.rate_at(step) / self.rate

    def confined(self, latents: Tensor) -> Tensor:
        """Scaled to the nearest allowed norm."""
        return within_shell(latents, self.shell)


class _Guard(torch.autograd.Function):
    """The same features; of the descent that their gradient asks for, a share of what leads outward is taken away."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, outward: Tensor, share: Tensor) -> Tensor:
        ctx.save_for_backward(outward / outward.norm(dim=-1, keepdim=True).clamp_min(_TINY), share)
        return features.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        normal, share = ctx.saved_tensors
        over = (-gradients[0] * normal).sum(-1, keepdim=True).clamp_min(0)
        return gradients[0] + share[..., None] * over * normal, None, None


def within_shell(latents: Tensor, share: float) -> Tensor:
    """Latents [n, ...] scaled to the nearest norm between the quantiles ``share`` and 1 - ``share`` of the prior's."""
    size = math.prod(latents.shape[1:])
    low, high = (float(chi.ppf(at, size)) for at in (share, 1 - share))
    norm = latents.flatten(1).norm(dim=1).clamp_min(_TINY).view(-1, *[1] * (latents.ndim - 1))
    return latents * (norm.clamp(low, high) / norm)


def squared_spread(features: Tensor) -> Tensor:
    """``sum_{j != i} ||x_i - x_j||^2`` [r, N] of features [r, N, d]."""
    about = features - features.detach().mean(1, keepdim=True)
    square = about.square().sum(2)
    return features.shape[1] * square - 2 * (about * about.sum(1, keepdim=True)).sum(2) + square.sum(1, keepdim=True)


def mean_distance(features: Tensor) -> Tensor:
    """``mean_{j != i} ||x_i - x_j||`` [r, N] of features [r, N, d]; 0 for a group of one.

    Each sample sees the others as fixed, so that its own weight rules its own gradient.
    """
    n = features.shape[1]
    if n == 1:
        return torch.zeros_like(features[..., 0])
    gaps = features[:, :, None, :] - features.detach()[:, None, :, :]
    # The root has no derivative at 0, where a sample meets itself.
    distance = gaps.square().sum(3).clamp_min(_TINY).sqrt()
    apart = 1 - torch.eye(n, dtype=distance.dtype, device=distance.device)
    return (distance * apart).sum(2) / (n - 1)
