"""The loop that erasers share: seeded batches, counted passes, frozen targets, checkpoints, exact resumption."""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from vestige.data.images import ImageSet
from vestige.digest import digest_json
from vestige.erase.loop import Loop, Precision
from vestige.erase.workers import Workers
from vestige.errors import InvalidInput, NothingChanged
from vestige.execute import Context
from vestige.models.denoiser import Denoiser, Labels, Prediction
from vestige.randomness import Stream, generator
from vestige.store import write_bytes

CHECKPOINT_EVERY = 25

_BANK = 3
"""Draw of the batches of the bank, which the steps do not use."""


@runtime_checkable
class Divisible(Protocol):
    """A batch that can be taken apart by rows."""

    def __len__(self) -> int: ...

    def part(self: Part, rows: slice) -> Part:
        """The chosen rows."""
        ...


Part = TypeVar("Part", bound=Divisible)


@dataclass(frozen=True)
class Batch:
    """Noisy images with what was put in: x_t, eps [n, c, h, w], t [n], labels [n] or None.

    ``rows`` are their places in the set they were drawn from [n], ``other`` labels of other classes, and ``target``
    what the network should answer, where a method has them.
    """

    x_t: Tensor
    noise: Tensor
    t: Tensor
    condition: Labels | None
    other: Labels | None = None
    target: Tensor | None = None
    rows: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x_t)

    @property
    def wanted(self) -> Tensor:
        """The target; the true noise if there is no other."""
        return self.noise if self.target is None else self.target

    def part(self, rows: slice) -> Batch:
        """The chosen rows."""
        return cut(self, rows)


def cut(batch: Any, rows: slice) -> Any:
    """The chosen rows of a dataclass of tensors; what it does not have stays None."""
    values = {f.name: getattr(batch, f.name) for f in dataclasses.fields(batch)}
    return replace(batch, **{name: None if value is None else value[rows] for name, value in values.items()})


def draw_batch(
    denoiser: Denoiser,
    images: ImageSet,
    rng: np.random.Generator,
    size: int,
    weights: npt.NDArray[np.int64] | npt.NDArray[np.float64] | None = None,
) -> Batch:
    """A batch of the training distribution of the denoiser: uniform times, Gaussian noise, rows by weight."""
    chance = None if weights is None else weights / weights.sum()
    rows = rng.choice(len(images), size=size, p=chance)
    device = denoiser.device
    t = torch.from_numpy(1 - rng.random(size)).float().to(device)
    t = denoiser.schedule.nearest_grid(t)
    noise = torch.from_numpy(rng.standard_normal((size, *images.shape), np.float32)).to(device)
    labels = None if images.labels is None or not denoiser.classes else torch.from_numpy(images.labels[rows])
    x_t = denoiser.noised(images.floats(rows).to(device), noise, t)
    labels = None if labels is None else labels.to(device)
    return Batch(x_t, noise, t, labels, rows=torch.from_numpy(rows).to(device))


def error_scale(student: Denoiser, t: Tensor) -> Tensor:
    """What turns the squared error of the noise into the loss that a network is compared by, [n, 1, 1, 1].

    1, or ``(sigma / alpha)^2`` for a network that predicts the clean image, as it was trained.
    """
    alpha, sigma = student.levels(t)
    return (sigma / alpha).square() if student.prediction is Prediction.CLEAN else torch.ones_like(alpha)


def row_losses(student: Denoiser, batch: Batch) -> Tensor:
    """Loss of each noisy image, a pixel [n]: the squared error of the predicted noise against the batch's target.

    The target is the true noise where the batch has no other. A network that predicts the clean image is compared
    there (:func:`error_scale`); the two agree up to that weight.
    """
    error = student.noise(batch.x_t, batch.t, batch.condition) - batch.wanted
    return (error.square() * error_scale(student, batch.t)).flatten(1).mean(1)


def noise_loss(student: Denoiser, batch: Batch) -> Tensor:
    """Mean of :func:`row_losses`."""
    return row_losses(student, batch).mean()


def derivatives(loss: Tensor, parameters: Sequence[nn.Parameter], *, keep_graph: bool = False) -> list[Tensor]:
    """Gradient of a loss by each parameter; zeros where it does not depend on one.

    ``keep_graph`` leaves the graph for a second loss of the same forward pass.
    """
    return list(torch.autograd.grad(loss, list(parameters), retain_graph=keep_graph, materialize_grads=True))


Loss = Callable[[Any], Tensor]
"""From a part of a batch to the loss of each row [n], or of several losses [k, n]."""


@dataclass
class Driver:
    """Runs seeded Adam steps on a copy of a network, the rate falling by a cosine to 0.

    ``step(index, rng)`` must leave the descent direction in the parameters' ``.grad``; what it differentiates goes
    through :meth:`gradient`, which counts the passes, keeps to the memory budget and joins the workers. State is
    saved every 25 steps; a run that was cut off continues to the same weights.

    Raises
    ------
    InvalidInput : options out of range, or weights too coarse for steps of that size.
    NothingChanged : every weight is frozen.
    """

    base: Denoiser
    module: nn.Module
    context: Context
    key: dict[str, Any]
    steps: int
    batch_size: int
    learning_rate: float
    max_norm: float = 1.0
    loop: Loop = field(default_factory=Loop)
    finished: Callable[[Denoiser], bool] | None = None
    """Asked every ``loop.stop_every`` steps whether the student may stop."""

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 1 or not self.learning_rate > 0:
            raise InvalidInput(
                f"steps={self.steps}, batch_size={self.batch_size}, learning_rate={self.learning_rate}.",
                expected="steps and batch size of at least 1 and a positive learning rate.",
                remedy="change the option.",
            )
        self.parameters = [p for p in self.module.parameters() if p.requires_grad]
        if not self.parameters:
            raise NothingChanged(
                "Every weight of the network is frozen, so none can be moved.",
                expected="weights that require gradients.",
                remedy="call requires_grad_(True) on the parts that may change.",
            )
        check_resolution(self.parameters, self.learning_rate)
        self.workers = Workers.of_process()
        if self.batch_size < self.workers.count:
            raise InvalidInput(
                f"{self.workers.count} processes share a batch of {self.batch_size}.",
                expected="at least one image for each.",
                remedy="raise the batch size, or start fewer processes.",
            )
        self.student = self.base.with_module(self.module)
        fused = all(p.dtype == torch.float32 and p.device.type in ("cpu", "cuda") for p in self.parameters)
        self.optimizer = torch.optim.Adam(self.parameters, lr=self.learning_rate, fused=fused)
        self.average: list[Tensor] = []
        self._folder = self.context.store.root / f"erase-{digest_json(self.key)[:24]}"
        self._bank: dict[int, Batch] = {}
        self._spent = 0

    @property
    def evaluations(self) -> int:
        """Network evaluations of this process so far, by student and base."""
        return self.student.evaluations + (0 if self.student is self.base else self.base.evaluations)

    def share(self, batch: Part) -> Part:
        """This worker's rows of a batch: all of them, if it works alone."""
        return batch.part(slice(self.workers.rank, None, self.workers.count))

    def gradient(self, batch: Divisible, loss: Loss, *, weigh: Callable[[Any], Tensor] | None = None) -> list[Tensor]:
        """Gradient of the mean of a loss over the whole batch, for each parameter.

        Parameters
        ----------
        batch : this worker's share.
        loss : from a part of it to losses [rows].
        weigh : from the losses to their weights [rows], for a weighted mean.
        """
        return self.gradients(batch, lambda part: loss(part)[None], weigh=weigh)[0]

    def gradients(
        self, batch: Divisible, losses: Loss, *, weigh: Callable[[Any], Tensor] | None = None
    ) -> list[list[Tensor]]:
        """The same for several losses [k, rows] of one forward pass: k gradients."""
        sums: list[list[Tensor]] = []
        totals: list[Tensor] = []
        for part in pieces(batch, self.loop.micro_batch):
            with self.autocast():
                rows = losses(part)
            weights = torch.ones_like(rows) if weigh is None else weigh(rows.detach())
            totals.append(weights.sum(1))
            for index, value in enumerate((weights * rows).sum(1)):
                found = derivatives(value, self.parameters, keep_graph=index + 1 < len(rows))
                self._spent += 2 * len(part)
                if len(sums) <= index:
                    sums.append(found)
                else:
                    for whole, more in zip(sums[index], found, strict=True):
                        whole.add_(more)
        total = torch.stack(totals).sum(0)
        self.workers.add([total, *(g for gradient in sums for g in gradient)])
        return [[g.div_(weight) for g in gradient] for gradient, weight in zip(sums, total.tolist(), strict=True)]

    def follow(self, direction: Sequence[Tensor]) -> None:
        """Leave the direction that a step is to descend in the parameters' ``.grad``."""
        for parameter, part in zip(self.parameters, direction, strict=True):
            parameter.grad = part

    def taught(
        self,
        index: int,
        rng: np.random.Generator,
        draw: Callable[[np.random.Generator], Batch],
        teach: Callable[[Batch], Tensor],
    ) -> Batch:
        """This worker's share of the batch of a step, its target the frozen model's answer.

        With a bank, the batch is one of ``loop.bank`` that are drawn and taught once and used in turn.
        """
        slot = index % self.loop.bank if self.loop.bank else None
        if slot in self._bank:
            return self._bank[slot]
        own = rng if slot is None else generator(self.context.seed, Stream.ERASE, slot, _BANK)
        batch = self.share(draw(own))
        with torch.no_grad(), self.autocast():
            targets = [teach(part).to(part.noise) for part in pieces(batch, self.loop.micro_batch)]
        taught = replace(batch, target=torch.cat(targets))
        if slot is not None:
            self._bank[slot] = taught
        return taught

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision that networks compute in."""
        wanted = self.loop.precision is Precision.BFLOAT16
        return torch.autocast(self.base.device.type, torch.bfloat16, enabled=wanted)

    def run(self, step: Callable[[int, np.random.Generator], None], label: str) -> dict[str, float]:
        """Take the steps; returns steps, forward-equivalents a step and network evaluations."""
        if self.loop.average:
            self.average = [p.detach().clone() for p in self.parameters]
        first, spent, stopped = self._resume()
        with self.context.progress.task(label, self.steps) as task:
            task.advance(first)
            for index in range(first, self.steps):
                if stopped:
                    task.advance(self.steps - index)
                    break
                spent += self._advance(index, step)
                first = index + 1
                stopped, looked = self._may_stop(first)
                spent += looked
                task.advance()
                if first % CHECKPOINT_EVERY == 0 or stopped:
                    self._save(first, spent, stopped)
        if self.average:
            with torch.no_grad():
                for weight, mean in zip(self.parameters, self.average, strict=True):
                    weight.copy_(mean)
        return {
            "steps": float(first),
            "forwards_per_step": spent / first / self.batch_size,
            "forward_equivalents": float(spent),
        }

    def _advance(self, index: int, step: Callable[[int, np.random.Generator], None]) -> int:
        """One step; returns what it spent, over all workers."""
        before, self._spent = self.evaluations, 0
        step(index, generator(self.context.seed, Stream.ERASE, index))
        torch.nn.utils.clip_grad_norm_(self.parameters, self.max_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * (1 + math.cos(math.pi * index / self.steps)) / 2
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average:
            decay = min(self.loop.average, (1 + index) / (10 + index))
            with torch.no_grad():
                for mean, weight in zip(self.average, self.parameters, strict=True):
                    mean.lerp_(weight, 1 - decay)
        return self.workers.total(self.evaluations - before + self._spent)

    def _may_stop(self, done: int) -> tuple[bool, int]:
        """Whether the stopping rule holds, and what the look cost; every worker looks for itself."""
        if self.finished is None or done % self.loop.stop_every:
            return False, 0
        before = self.evaluations
        return self.finished(self.student), self.evaluations - before

    def _save(self, step: int, spent: int, stopped: bool) -> None:
        if self.workers.rank:
            return
        buffer = io.BytesIO()
        state = {"module": self.module.state_dict(), "optimizer": self.optimizer.state_dict(), "average": self.average}
        bank = {slot: dict(vars(batch)) for slot, batch in self._bank.items()}
        torch.save({**state, "bank": bank, "step": step, "spent": spent, "stopped": stopped}, buffer)
        write_bytes(self._folder / "checkpoint.pt", buffer.getvalue())

    def _resume(self) -> tuple[int, int, bool]:
        path = self._folder / "checkpoint.pt"
        if not path.exists():
            return 0, 0, False
        state = torch.load(io.BytesIO(path.read_bytes()), weights_only=True)
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average = state["average"]
        if self.workers.count == 1:
            self._bank = {slot: Batch(**fields) for slot, fields in state["bank"].items()}
        return state["step"], state["spent"], state["stopped"]


def pieces(batch: Part, most: int) -> Iterator[Part]:
    """A batch in parts of at most ``most`` rows; whole if that is 0."""
    size = most or max(len(batch), 1)
    return (batch.part(slice(start, start + size)) for start in range(0, len(batch), size))


def check_resolution(parameters: Sequence[nn.Parameter], learning_rate: float) -> None:
    """Refuse weights that are stored too coarsely for steps of that size.

    An Adam step moves a weight by about the learning rate. Where half the distance to the weight's neighbouring
    number exceeds that, the step is rounded away.

    Raises
    ------
    InvalidInput : that holds for more than half of all weights.
    """
    stuck = total = 0
    for weight in parameters:
        total += weight.numel()
        if weight.dtype not in (torch.float32, torch.float64):
            spacing = weight.detach().abs().float() * torch.finfo(weight.dtype).eps
            stuck += int((spacing / 2 > learning_rate).sum())
    if 2 * stuck > total:
        raise InvalidInput(
            f"{stuck / total:.0%} of the weights are stored too coarsely to move by {learning_rate:g}.",
            expected="weights in float32, in which steps of that size survive.",
            remedy="load the model in float32 (networks can still compute in bfloat16: --loop precision=bfloat16), "
            "or raise the learning rate.",
        )
