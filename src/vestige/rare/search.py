"""The search: one driver that moves latents down an objective, a step at a time, and keeps what is accepted."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vestige.errors import EmptySet
from vestige.metrics.arrays import count
from vestige.models.latent import Calls
from vestige.progress import Progress, Silent
from vestige.randomness import Stream, normal
from vestige.rare.density.density import FittedDensity
from vestige.rare.draws import Draw
from vestige.rare.found import Found
from vestige.rare.manifold import Manifold
from vestige.rare.objective import Edges, Objective, View
from vestige.rare.scene import References, Scene
from vestige.rare.settings import named, settings
from vestige.store import Store

_BALLS = 16
"""Real balls that a sample is measured against between two looks at all of them."""

_LOOK_EVERY = 5
_TINY = 1e-12


@dataclass(frozen=True, eq=False)
class State:
    """One iterate of r groups of N samples.

    ``step`` counts from 0, the starts. ``latents`` [r, N, ...]; ``log_density``, ``distance``, ``ratio`` and
    ``accepted`` [r, N] belong to them; ``best`` [r, N, ...] are the latents of the best accepted iterate so far of
    each sample where ``found`` [r, N], and mean nothing elsewhere. ``calls`` is what the search cost so far.
    """

    step: int
    latents: Tensor
    log_density: Tensor
    distance: Tensor
    ratio: Tensor
    accepted: Tensor
    best: Tensor
    found: Tensor
    calls: Calls


def steps(scene: Scene, references: References, objective: Objective, seed: int) -> Iterator[State]:
    """Yield every iterate, the starts first; whoever consumes it may stop at any.

    All groups move in one batch, and no group depends on another. One step costs one image and one gradient a sample.

    Raises
    ------
    Unsupported : the generator is not differentiable. ShapeMismatch, BadWeights : see LatentGenerator.outputs.
    """
    scene.generator.need_gradient("A search by gradient")
    latents = starts(scene, references, objective, seed)
    walk = _Walk.begin(scene, references, objective, latents)
    optimizer = torch.optim.Adam([latents], lr=objective.rate)
    best, rank = latents.detach().clone(), torch.full(walk.shape, torch.inf, device=latents.device)
    for step in range(objective.steps + 1):
        last = step == objective.steps
        with torch.set_grad_enabled(not last):
            view = walk.view(latents, step)
            terms = objective.terms(view, walk.density)
        better = view.edges.accepted & (terms.rank < rank)
        rank = torch.where(better, terms.rank, rank)
        best[better.flatten()] = latents.detach()[better.flatten()]
        yield walk.state(step, latents, view, best, rank)
        if last:
            return
        before = latents.detach().clone()
        (latents.grad,) = torch.autograd.grad(terms.loss.sum(), [latents])
        optimizer.param_groups[0]["lr"] = objective.rate_at(step)
        optimizer.step()
        with torch.no_grad():
            reined = walk.reined(before, latents, view, objective.stride_at(step))
            latents.copy_(objective.confined(reined))


def starts(scene: Scene, references: References, objective: Objective, seed: int) -> Tensor:
    """Latents [r N, ...]: ``z* + sigma eps``, eps by seed, reference and member; of the prior without a reference."""
    shape = scene.generator.latent_shape
    draws = range(Draw.STARTS, Draw.STARTS + objective.members)
    noise = np.stack([normal(seed, Stream.RARE, references.rows, shape, draw=draw) for draw in draws], 1)
    scale = 1.0 if references.free else objective.start
    centres = references.latents[:, None].to(scene.generator.device)
    around = centres + scale * torch.from_numpy(noise).to(centres)
    return objective.confined(around.flatten(0, 1)).requires_grad_()


@dataclass(eq=False)
class _Walk:
    """What one batch of groups needs at every step, on the generator's device and in its precision."""

    scene: Scene
    objective: Objective
    density: FittedDensity
    manifold: Manifold
    labels: Tensor | None
    anchors: Tensor
    reach: Tensor
    unit: Tensor
    shape: tuple[int, int]
    before: Calls
    balls: Tensor | None = None
    last: tuple[Tensor, Tensor] | None = None

    @staticmethod
    def begin(scene: Scene, references: References, objective: Objective, latents: Tensor) -> _Walk:
        device, r = latents.device, len(references)
        members = len(latents) // r

        def given(array: object) -> Tensor:
            return torch.as_tensor(array).to(device, torch.float32)

        return _Walk(
            scene=scene,
            objective=objective,
            density=copy.deepcopy(scene.density).to(device, torch.float32),
            manifold=copy.deepcopy(scene.manifold).to(device, torch.float32),
            labels=None if references.labels is None else references.labels.repeat_interleave(members),
            anchors=given(references.features)[:, None],
            reach=given(references.reach)[:, None],
            unit=given(references.unit)[:, None],
            shape=(r, members),
            before=scene.generator.calls,
        )

    def view(self, latents: Tensor, step: int) -> View:
        features = self.scene.space(self.scene.generator.outputs(latents, self.labels)).float()
        if self.balls is None or step % _LOOK_EVERY == 0:
            self.balls = self.manifold.nearest_balls(features.detach(), _BALLS)
        grouped = features.view(*self.shape, -1)
        ratio, centres = self.manifold.ratio(features, self.balls)
        edges = Edges(
            ratio=ratio.view(self.shape),
            distance=(grouped - self.anchors).square().sum(2).clamp_min(_TINY).sqrt(),
            reach=self.reach,
            from_ball=(features - centres).detach().view_as(grouped),
            from_reference=(grouped - self.anchors).detach(),
        )
        guarded = self.objective.guarded(grouped, edges)
        log_density = self.density.log_prob(guarded.flatten(0, 1), self.labels)
        return View(guarded, log_density.view(self.shape), edges, self.unit)

    def reined(self, before: Tensor, after: Tensor, view: View, stride: float) -> Tensor:
        """``after``, its step from ``before`` shortened so that features move by no more than ``stride`` units.

        How far features move for a step in the latent is taken from the last step; at the first, from the mean over
        the prior.
        """
        if math.isinf(stride):
            return after
        x, move = view.features.detach().flatten(0, 1), after - before
        if self.last is None:
            stretch = self.scene.typical_distance / math.sqrt(2 * self.scene.generator.latent_size)
            stretch = torch.full((len(x),), stretch, device=x.device)
        else:
            z_last, x_last = self.last
            stretch = (x - x_last).norm(dim=1) / (before - z_last).flatten(1).norm(dim=1).clamp_min(_TINY)
        self.last = before, x
        length = (stretch * move.flatten(1).norm(dim=1)).clamp_min(_TINY)
        share = (stride * self.unit.expand(self.shape).flatten() / length).clamp(max=1)
        return before + share.view(-1, *[1] * (move.ndim - 1)) * move

    def state(self, step: int, latents: Tensor, view: View, best: Tensor, rank: Tensor) -> State:
        def grouped(flat: Tensor) -> Tensor:
            return flat.detach().clone().view(*self.shape, *flat.shape[1:])

        return State(
            step=step,
            latents=grouped(latents),
            log_density=view.log_density.detach(),
            distance=view.edges.distance.detach(),
            ratio=view.edges.ratio.detach(),
            accepted=view.edges.accepted.detach(),
            best=grouped(best),
            found=torch.isfinite(rank),
            calls=self.scene.generator.calls.since(self.before),
        )


@dataclass(frozen=True, eq=False)
class Result:
    """What a search leaves: the samples of its ``last`` step, and the ``best`` accepted iterate of each start."""

    last: Found
    best: Found


def search(
    scene: Scene,
    references: References,
    objective: Objective,
    *,
    seed: int = 0,
    groups: int = 16,
    store: Store | None = None,
    progress: Progress | None = None,
) -> Result:
    """Run :func:`steps` to the end for every reference.

    Parameters
    ----------
    groups : references that move in one batch; results do not depend on it, up to rounding.
    store : where finished batches are kept; a repeated call with the same scene, references and settings takes them
        from there, and ``calls`` then counts what they cost when they were made.

    Raises
    ------
    EmptySet : no reference. Otherwise as :func:`steps`.
    """
    if not len(references):
        raise EmptySet(
            "There is no reference to search from.", expected="at least one.", remedy="make some with near or anywhere."
        )
    groups = count(groups, "groups", 1)
    # Both kinds of latent and whether the second was found, as one array of rows that a store can keep.
    form = (objective.members, 2 * scene.generator.latent_size + 1)
    with (progress or Silent()).task("search", len(references) * objective.steps) as task:

        def compute(rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
            if not len(rows):
                return np.empty((0, *form), np.float32)
            state, some = None, references.some(slice(int(rows[0]), int(rows[-1]) + 1))
            for state in steps(scene, some, objective, seed):
                if state.step:
                    share = float(state.accepted.float().mean())
                    task.advance(len(rows), f"step {state.step} of {objective.steps}, {share:.0%} accepted")
            return _packed(cast(State, state))

        if store is None:
            parts = [compute(np.arange(i, min(i + groups, len(references)))) for i in range(0, len(references), groups)]
            packed = np.concatenate(parts)
        else:
            key = {
                "scene": scene.digest,
                "references": references.digest,
                "seed": seed,
                "objective": settings(objective),
            }
            packed = store.column("rare-search", key).fill(len(references), compute, shard_rows=groups)
    return _unpacked(packed, scene, objective)


def _packed(state: State) -> npt.NDArray[np.float32]:
    parts = (state.latents.flatten(2), state.best.flatten(2), state.found[..., None].float())
    return torch.cat(parts, dim=2).cpu().numpy().astype(np.float32)


def _unpacked(packed: npt.NDArray[np.float32], scene: Scene, objective: Objective) -> Result:
    r, members = packed.shape[:2]
    size, shape = scene.generator.latent_size, (r, members, *scene.generator.latent_shape)
    whole = torch.from_numpy(packed).to(scene.generator.device)
    last, best = whole[..., :size].reshape(shape), whole[..., size:-1].reshape(shape)
    found = packed[..., -1] > 0
    name = named(objective)
    calls = Calls(r * members * (objective.steps + 1), r * members * objective.steps)
    return Result(
        Found(f"{name}, last step", last, np.ones_like(found), calls),
        Found(f"{name}, best accepted", best, found, calls),
    )
