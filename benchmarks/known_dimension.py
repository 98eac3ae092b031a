"""Small denoisers of distributions whose local dimension is known everywhere, trained from nothing but seeds.

python benchmarks/known_dimension.py --models DIR               # all sets; resumes where it was interrupted
python benchmarks/known_dimension.py --models DIR --only affine10

``affine10`` and ``affine100`` are equal mixtures of standard normals on random planes of 2, 4, 8 of 10 dimensions and
of 10, 25, 50 of 100. ``circle`` is a training set of 100 points of a von Mises distribution on the unit circle, one
isolated point opposite its mode, and an atom of 25 copies at the centre. The networks are multilayer perceptrons that
predict noise under the linear schedule of Song et al. 2021; what is kept is a moving average of the weights.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from torch import Tensor, nn

from vestige.models.adapters.function import FunctionDenoiser
from vestige.models.denoiser import Prediction
from vestige.models.schedule import VariancePreserving
from vestige.train.checkpoint import save_checkpoint

SEED = 11
SCHEDULE = VariancePreserving()
_EMBEDDED = 64
_DECAY = 0.999
_APART = 10.0
"""Distance of the means of the mixtures from the centre, in standard deviations along a plane."""


@dataclass(frozen=True)
class Planes:
    """An equal mixture of standard normals on random planes of these dimensions, standardised as a whole."""

    name: str
    ambient: int
    dimensions: tuple[int, ...]
    hidden: int
    blocks: int
    steps: int

    def parts(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Mean [D] and orthonormal basis [D, d] of each component."""
        rng = np.random.default_rng(SEED)
        parts = []
        for d in self.dimensions:
            basis = np.linalg.qr(rng.standard_normal((self.ambient, d)))[0]
            mean = rng.standard_normal(self.ambient)
            parts.append((_APART * mean / np.linalg.norm(mean), basis))
        return parts

    def draw(self, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Points float32 [n, D] and their dimension [n]."""
        parts = self.parts()
        means = np.stack([mean for mean, _ in parts])
        # One scale for all axes: it leaves planes planes and the noise round.
        scale = math.sqrt((np.square(means - means.mean(0)).sum(1) + self.dimensions).mean() / self.ambient)
        which = rng.integers(0, len(parts), n)
        points = means[which] - means.mean(0)
        for k, (_, basis) in enumerate(parts):
            chosen = which == k
            points[chosen] += rng.standard_normal((int(chosen.sum()), basis.shape[1])) @ basis.T
        return (points / scale).astype(np.float32), np.array(self.dimensions)[which]


@dataclass(frozen=True)
class Circle:
    """A finite training set on the unit circle, with an isolated point and an atom."""

    name: str
    ambient: int
    hidden: int
    blocks: int
    steps: int

    def training_set(self) -> tuple[np.ndarray, np.ndarray]:
        """Points float32 [126, 2]; 1 for those on the arc, 0 for the isolated one and the copies of the atom."""
        angles = np.random.default_rng(0).vonmises(0, 2, 400)
        angles = np.append(angles[np.abs(angles) < 2.2][:100], math.pi)
        points = np.concatenate([np.stack([np.cos(angles), np.sin(angles)], 1), np.zeros((25, 2))])
        return points.astype(np.float32), np.repeat([1, 0], [100, 26])

    def draw(self, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Points of the training set, with replacement."""
        points, dimension = self.training_set()
        rows = rng.integers(0, len(points), n)
        return points[rows], dimension[rows]


Known = Planes | Circle
SETS: dict[str, Known] = {
    known.name: known
    for known in (
        Circle("circle", 2, 256, 3, 12_000),
        Planes("affine10", 10, (2, 4, 8), 256, 4, 15_000),
        Planes("affine100", 100, (10, 25, 50), 512, 4, 15_000),
    )
}


class Perceptron(nn.Module):
    """Residual multilayer perceptron of points [n, D, 1, 1] and times [n]."""

    def __init__(self, known: Known) -> None:
        super().__init__()
        self.first = nn.Linear(known.ambient, known.hidden)
        self.when = nn.Sequential(nn.Linear(2 * _EMBEDDED, known.hidden), nn.SiLU())
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(known.hidden),
                nn.Linear(known.hidden, known.hidden),
                nn.SiLU(),
                nn.Linear(known.hidden, known.hidden),
            )
            for _ in range(known.blocks)
        )
        self.last = nn.Sequential(nn.SiLU(), nn.Linear(known.hidden, known.ambient))
        self.register_buffer("waves", torch.linspace(0, math.log(200.0), _EMBEDDED).exp())

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = SCHEDULE.alpha_sigma(t)
        # The network sees the noise level on a logarithmic scale: -1 .. 1 for ratios of 0.01 .. 100.
        level = torch.log(sigma / alpha).div(math.log(100.0)).clamp(-1, 1)
        phase = level[:, None] * self.waves * (math.pi / 20)
        when = self.when(torch.cat([phase.sin(), phase.cos()], 1))
        hidden = self.first(x_t.flatten(1))
        for block in self.blocks:
            hidden = hidden + block(hidden + when)
        return self.last(hidden).view_as(x_t)


def train(known: Known, folder: Path, *, batch: int = 512, every: int = 500) -> Perceptron:
    """The network of a set, trained or read; an interrupted training goes on where it stopped."""
    torch.manual_seed(SEED)
    network, average = Perceptron(known), Perceptron(known)
    average.load_state_dict(network.state_dict())
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    path, done = folder / f"{known.name}.pt", 0
    folder.mkdir(parents=True, exist_ok=True)
    if path.exists():
        state = torch.load(path, weights_only=True)
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        done = state["step"]
    for step in track(range(done, known.steps), description=known.name, disable=done >= known.steps):
        rng = np.random.default_rng((SEED, step))
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1.0, (step + 1) / 500) * 0.5 * (1 + math.cos(math.pi * step / known.steps))
        clean = torch.from_numpy(known.draw(rng, batch)[0]).view(batch, -1, 1, 1)
        noise = torch.from_numpy(rng.standard_normal(clean.shape, dtype=np.float32))
        t = torch.from_numpy(rng.uniform(1e-4, 1, batch).astype(np.float32))
        alpha, sigma = (level.view(-1, 1, 1, 1) for level in SCHEDULE.alpha_sigma(t))
        loss = (network(alpha * clean + sigma * noise, t) - noise).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            decay = min(_DECAY, (1 + step) / (10 + step))
            for kept, new in zip(average.parameters(), network.parameters(), strict=True):
                kept.lerp_(new, 1 - decay)
        if (step + 1) % every == 0 or step + 1 == known.steps:
            state = {"network": network.state_dict(), "average": average.state_dict()}
            save_checkpoint(path, {**state, "optimizer": optimizer.state_dict(), "step": step + 1})
    return average.eval()


def denoiser(known: Known, network: Perceptron) -> FunctionDenoiser:
    """The network as a denoiser of points [n, D, 1, 1]."""
    return FunctionDenoiser(
        network, SCHEDULE, Prediction.NOISE, (known.ambient, 1, 1), identity=f"known-dimension/{known.name}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=Path("known-dimension"), help="folder of the trained networks")
    parser.add_argument("--only", choices=tuple(SETS), help="one of the sets")
    options = parser.parse_args()
    for known in SETS.values():
        if options.only in (None, known.name):
            train(known, options.models)


if __name__ == "__main__":
    main()
