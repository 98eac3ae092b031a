"""The contract of an eraser: from a base model, rows to forget and rows to keep, make an increment."""

from __future__ import annotations

import copy
import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

from vestige.erase.driver import Driver
from vestige.erase.increment import Increment, add
from vestige.erase.loop import Loop, Stop
from vestige.erase.low_rank import attach, merge
from vestige.erase.request import Request
from vestige.erase.residue import Reached
from vestige.execute import Context
from vestige.models.denoiser import Denoiser


@dataclass(frozen=True)
class Eraser(ABC):
    """One way to make a model forget. Fields are its settings; a subclass is final.

    Parameters
    ----------
    steps, batch_size, learning_rate : of Adam; the batch is that of either side.
    """

    claim: ClassVar[str]
    source: ClassVar[str]
    needs_whole_class: ClassVar[bool] = False
    """Whether it forgets whole classes and nothing else."""

    steps: int = 200
    batch_size: int = 24
    learning_rate: float = 2.2e-4

    @abstractmethod
    def train(self, driver: Driver, request: Request) -> dict[str, float]:
        """Change ``driver.module``, a copy of the base's network, in place; returns what it cost.

        The cost holds at least ``steps`` and ``forwards_per_step`` (forward-equivalents of
        the whole batch; a backward pass counts two).
        """

    def erase(
        self,
        base: Denoiser,
        request: Request,
        context: Context,
        *,
        name: str = "erasure",
        loop: Loop | None = None,
        after: Sequence[Increment] = (),
    ) -> Increment:
        """Make the increment; the base is not touched.

        Parameters
        ----------
        loop : how the loop is carried out.
        after : increments of earlier erasures that the model carries; this one is trained on top of them.

        Raises
        ------
        EmptySet, ShapeMismatch, InvalidInput : see :meth:`Request.check` and :class:`Driver`.
        Unsupported : the model has no weights to change.
        NothingChanged : no weight moved.
        """
        request.check(base)
        loop, start = loop or Loop(), copy.deepcopy(base.module)
        add(start, [(increment, 1.0) for increment in after])
        module = copy.deepcopy(start)
        if loop.rank:
            attach(module, loop.rank, context.seed)
        below = base.with_module(start) if after else base
        key = {"eraser": type(self).__name__, "base": below.digest, "request": request.digest, "seed": context.seed}
        key |= {**self.settings(), "loop": loop.settings()}
        driver = Driver(below, module, context, key, self.steps, self.batch_size, self.learning_rate, loop=loop)
        measured = driver.evaluations
        if loop.stop is Stop.RESIDUE:
            driver.finished = Reached.by(below, request, context.seed)
        measured = driver.evaluations - measured
        cost = self.train(driver, request)
        if measured:
            cost["stop_forward_equivalents"] = float(measured)
            cost["forward_equivalents"] += measured
        if loop.rank:
            merge(module)
        return Increment.between(
            start,
            module,
            name=name,
            base_digest=base.digest,
            method=type(self).__name__,
            settings={**self.settings(), **loop.settings(), "seed": context.seed},
            forgotten=request.forget.ids,
            cost=cost,
            after=[increment.digest for increment in after],
        )

    def settings(self) -> dict[str, Any]:
        """Fields as plain values."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {k: v.value if isinstance(v, Enum) else v for k, v in fields.items()}
