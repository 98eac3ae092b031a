"""Normalizing flows: an invertible network from coordinates to Gaussian noise, trained by likelihood."""

from __future__ import annotations

import copy
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vestige.dependencies import need
from vestige.errors import InvalidInput
from vestige.randomness import Stream, generator
from vestige.rare.density.density import Density, Fitted, Sample, need_labels
from vestige.rare.draws import Draw

_CLIP = 5.0


@dataclass(frozen=True)
class Flow(Density):
    """``log p(u) = log N(f(u); 0, I) + log |det df/du|``, f trained by Adam and stopped by held-out likelihood.

    Parameters
    ----------
    transforms : layers of the flow.
    width, depth : of the network inside each layer.
    epochs, batch_size, rate : of Adam.
    patience : epochs without a better held-out mean after which training stops; the best epoch is kept.
    noise : deviation of the fresh Gaussian noise on every training batch, against overfitting.
    conditional : learn log p(u | class); needs labels, at the fit and at every question.
    """

    transforms: int = 4
    width: int = 128
    depth: int = 2
    epochs: int = 60
    batch_size: int = 128
    rate: float = 1e-3
    patience: int = 8
    noise: float = 0.05
    conditional: bool = False

    def __post_init__(self) -> None:
        sizes = (self.transforms, self.width, self.depth, self.epochs, self.batch_size, self.patience)
        if min(sizes) < 1 or self.rate <= 0 or self.noise < 0:
            raise InvalidInput(
                f"{self.name}.",
                expected="sizes of at least 1, a positive rate, noise of 0 or more.",
                remedy="change the setting.",
            )

    @abstractmethod
    def build(self, zuko: Any, dimensions: int, context: int) -> nn.Module:
        """The untrained network of this kind, from the module zuko."""

    def learn(self, train: Sample, held_out: Sample, seed: int) -> Fitted:
        """Train. Raises MissingExtra without zuko, InvalidInput where the training diverges."""
        zuko = need("flow", "zuko")
        classes = int(need_labels(train.labels, self.name).max()) + 1 if self.conditional else 0
        if self.conditional and held_out.labels is not None:
            classes = max(classes, int(held_out.labels.max()) + 1)
        with torch.random.fork_rng():
            torch.manual_seed(int(generator(seed, Stream.RARE, row=0, draw=Draw.WEIGHTS).integers(1 << 62)))
            model = _Trained(self.build(zuko, train.rows.shape[1], classes), classes)
        return self._trained(model, train, held_out, seed)

    def _trained(self, model: _Trained, train: Sample, held_out: Sample, seed: int) -> _Trained:
        rows, labels = _tensors(train, self.conditional)
        away = _tensors(held_out, self.conditional)
        optimizer = torch.optim.Adam(model.parameters(), lr=self.rate)
        best, state, idle = -np.inf, copy.deepcopy(model.state_dict()), 0
        for epoch in range(self.epochs):
            model.train()
            random = generator(seed, Stream.RARE, row=epoch, draw=Draw.BATCHES)
            for some in np.array_split(random.permutation(len(rows)), max(1, len(rows) // self.batch_size)):
                self._step(model, optimizer, rows[some], None if labels is None else labels[some], random)
            score = _mean(model.eval(), *away)
            idle = 0 if score > best else idle + 1
            if score > best:
                best, state = score, copy.deepcopy(model.state_dict())
            if idle >= self.patience:
                break
        if not np.isfinite(best):
            raise InvalidInput(
                f"The training of {self.name} never reached a finite likelihood.",
                expected="a flow that fits.",
                remedy="lower the rate, or look for outliers in the features.",
            )
        model.load_state_dict(state)
        return model

    def _step(
        self,
        model: _Trained,
        optimizer: torch.optim.Optimizer,
        rows: Tensor,
        labels: Tensor | None,
        random: np.random.Generator,
    ) -> None:
        noise = torch.from_numpy(random.standard_normal(rows.shape, np.float32))
        loss = -model(rows + self.noise * noise, labels).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), _CLIP)
        optimizer.step()


class _Trained(Fitted):
    def __init__(self, flow: nn.Module, classes: int) -> None:
        super().__init__()
        self.flow, self.classes = flow, classes

    def forward(self, coordinates: Tensor, labels: Tensor | None = None) -> Tensor:
        if not self.classes:
            return self.flow(None).log_prob(coordinates)
        if labels is None:
            raise InvalidInput(
                "A conditional flow was asked without labels.", expected="one label a row.", remedy="pass labels."
            )
        context = nn.functional.one_hot(labels, self.classes).to(coordinates.dtype)
        return self.flow(context).log_prob(coordinates)


def _tensors(sample: Sample, conditional: bool) -> tuple[Tensor, Tensor | None]:
    rows = torch.from_numpy(sample.rows).float()
    return rows, torch.from_numpy(need_labels(sample.labels, "flow")) if conditional else None


@torch.no_grad()
def _mean(model: _Trained, rows: Tensor, labels: Tensor | None) -> float:
    return float(model(rows, labels).mean())
