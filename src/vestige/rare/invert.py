"""From an image to a latent: where in a generator's reach a given image lies, and how far off the nearest find is."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vestige.errors import EmptySet, InvalidInput
from vestige.metrics.arrays import FloatArray, matrix, same_width
from vestige.models.latent import Calls
from vestige.randomness import Stream
from vestige.rare.draws import Draw
from vestige.rare.objective import within_shell
from vestige.rare.scene import Integers, References, Scene, around

_ROOM = 0.75
"""Share of a real row's ball within which an inversion must come, so that there is room for a group inside it."""


@dataclass(frozen=True, eq=False)
class Inverted:
    """The best latent found for each of r targets.

    ``latents`` [r, ...], ``labels`` [r] or None; ``residual`` [r], the distance that is left in feature space;
    ``start_residual`` [r], that of the nearest candidate; ``calls``, what it cost in all.
    """

    latents: Tensor
    labels: Tensor | None
    residual: FloatArray
    start_residual: FloatArray
    calls: Calls


@dataclass(frozen=True)
class Inversion:
    """Gradient descent in the latent from several starts: Adam lowers ``||f(G(z)) - x*||^2``.

    The starts are those of a common set of draws from the prior that come nearest, so that a generator with classes
    finds the class as well. The latent stays within the norms of the prior, as in
    :class:`~vestige.rare.objective.RareSearch`.

    Parameters
    ----------
    candidates : draws of the prior; starts : how many of them descend, for each target.
    steps, rate : of Adam; the rate falls evenly to a tenth.
    shell : share of the prior outside either bound on the latent's norm.
    """

    candidates: int = 256
    starts: int = 4
    steps: int = 100
    rate: float = 5e-2
    shell: float = 1e-3

    def __post_init__(self) -> None:
        if not 1 <= self.starts <= self.candidates or self.steps < 0 or self.rate <= 0 or not 0 < self.shell < 0.5:
            raise InvalidInput(
                f"candidates={self.candidates}, starts={self.starts}, steps={self.steps}, rate={self.rate:g}, "
                f"shell={self.shell:g}.",
                expected="at least one start and as many candidates, a positive rate, a shell within (0, 0.5).",
                remedy="change the setting.",
            )

    def invert(self, scene: Scene, targets: FloatArray, seed: int) -> Inverted:
        """Latents whose features come nearest to the targets [r, d]; each target's result depends on itself alone.

        Raises
        ------
        Unsupported : the generator is not differentiable. EmptySet, InvalidInput : targets that do not fit.
        """
        scene.generator.need_gradient("Inversion by gradient")
        wanted, before = matrix(targets, "targets"), scene.generator.calls
        same_width(wanted, scene.manifold.rows, "targets and real features")
        generator, rows = scene.generator, np.arange(self.candidates, dtype=np.int64)
        latents = generator.latents(rows, seed, stream=Stream.RARE, draw=Draw.CANDIDATES)
        labels = generator.labels_of(rows)
        known = scene.features(latents, labels)
        nearest = np.argsort(np.linalg.norm(known[None] - wanted[:, None], axis=2), axis=1, kind="stable")
        chosen = torch.from_numpy(nearest[:, : self.starts].flatten()).to(latents.device)
        told = None if labels is None else labels[chosen]
        found, distance = self._descend(scene, latents[chosen], told, wanted.repeat(self.starts, axis=0))
        best = distance.view(len(wanted), -1).argmin(1).cpu()
        place = torch.arange(len(wanted)) * self.starts + best
        start = np.linalg.norm(known[nearest[:, 0]] - wanted, axis=1)
        residual = distance.cpu()[place].double().numpy()
        return Inverted(
            found[place], None if told is None else told[place], residual, start, generator.calls.since(before)
        )

    def _descend(
        self, scene: Scene, starts: Tensor, labels: Tensor | None, targets: FloatArray
    ) -> tuple[Tensor, Tensor]:
        """The best latents [n, ...] met on the way and their distances [n], a batch at a time."""
        step, device = scene.generator.batch_size, starts.device
        goals = torch.from_numpy(targets).to(device, torch.float32)
        told = [None] * len(starts) if labels is None else list(labels.split(step))
        parts = [
            self._batch(scene, z, y, goal)
            for z, y, goal in zip(starts.split(step), told, goals.split(step), strict=False)
        ]
        return torch.cat([latents for latents, _ in parts]), torch.cat([distance for _, distance in parts])

    def _batch(self, scene: Scene, starts: Tensor, labels: Tensor | None, goals: Tensor) -> tuple[Tensor, Tensor]:
        latents = within_shell(starts, self.shell).clone().requires_grad_()
        optimizer = torch.optim.Adam([latents], lr=self.rate)
        best, least = latents.detach().clone(), torch.full((len(latents),), math.inf, device=latents.device)
        for step in range(self.steps + 1):
            with torch.set_grad_enabled(step < self.steps):
                square = (scene.space(scene.generator.outputs(latents, labels)) - goals).square().sum(1)
            better = square.detach() < least
            least = torch.where(better, square.detach().to(least), least)
            best[better] = latents.detach()[better]
            if step == self.steps:
                break
            (latents.grad,) = torch.autograd.grad(square.sum(), [latents])
            optimizer.param_groups[0]["lr"] = self.rate * (1 - 0.9 * step / self.steps)
            optimizer.step()
            with torch.no_grad():
                latents.copy_(within_shell(latents, self.shell))
        return best, least.sqrt()


def near_images(
    scene: Scene,
    targets: FloatArray,
    bank: npt.ArrayLike,
    *,
    neighbours: int = 100,
    inversion: Inversion | None = None,
    seed: int = 0,
) -> tuple[References, Inverted]:
    """References at given features x* [r, d] of real images, with the latents that come nearest as starts.

    As :func:`~vestige.rare.scene.near`, for images instead of latents. ``d*`` is read around the image, so a residual
    beyond it says that the generator has nothing as near as was asked for.

    Raises
    ------
    Unsupported, EmptySet, InvalidInput, ShapeMismatch : as for ``near`` and :meth:`Inversion.invert`.
    """
    found = (inversion or Inversion()).invert(scene, targets, seed)
    wanted = matrix(targets, "targets")
    return around(scene, found.latents, wanted, bank, neighbours, found.labels, None), found


def uncovered(scene: Scene, bank: npt.ArrayLike, count: int) -> Integers:
    """Numbers of the real rows that generations come least near: what the data hold and the generator hardly makes.

    Rows are ranked by how much farther their nearest row of the bank lies than their own ball reaches (a positive gap
    leaves the row uncovered in the sense of the coverage of Naeem et al. 2020). A row within the ball of one taken
    before is passed over. Fewer than ``count`` may come back, and rows that the bank covers never do.
    """
    known = matrix(bank, "bank")
    real, radii = scene.manifold.rows, scene.manifold.balls.radii
    same_width(known, real, "bank and real features")
    distance = np.array([np.linalg.norm(known - row, axis=1).min() for row in real])
    gap = distance - radii
    order = np.argsort(-gap, kind="stable")
    taken: list[int] = []
    for row in order[gap[order] > 0]:
        apart = np.linalg.norm(real[taken] - real[row], axis=1)
        if len(taken) < count and (apart > radii[taken]).all():
            taken.append(int(row))
    return np.array(taken, np.int64)


def near_uncovered(
    scene: Scene, bank: npt.ArrayLike, count: int, *, inversion: Inversion | None = None, seed: int = 0
) -> tuple[References, Inverted]:
    """References at :func:`uncovered` real rows; each group stays within the ball of its row, and so covers it.

    Rows that the inversion does not bring within three quarters of their ball's radius are left out of the references:
    the generator has nothing there, or too little for a group. The second answer tells the residual of every row that
    was tried.

    Raises
    ------
    EmptySet : the bank covers every real row, or the generator reaches none of those that it leaves.
    Otherwise as :meth:`Inversion.invert`.
    """
    rows = uncovered(scene, bank, count)
    if not len(rows):
        raise EmptySet(
            "The bank of generations covers every real row.",
            expected="a real row that no generation comes near.",
            remedy="search from the prior or near references of your own; there is no gap of this kind to fill.",
        )
    targets, reach = scene.manifold.rows[rows], scene.manifold.balls.radii[rows]
    found = (inversion or Inversion()).invert(scene, targets, seed)
    able = np.flatnonzero(found.residual <= _ROOM * reach)
    if not len(able):
        raise EmptySet(
            f"None of {len(rows)} uncovered real rows was reached: the nearest find lies "
            f"{(found.residual / reach).min():.3g} radii away.",
            expected="a real row that the generator can come near.",
            remedy="invert with more candidates, starts and steps, or take the rows for what the generator has lost.",
        )
    place = torch.from_numpy(able)
    labels = None if found.labels is None else found.labels[place]
    return References(found.latents[place], targets[able], reach[able], reach[able], rows[able], labels), found
