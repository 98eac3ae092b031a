"""What each eraser may spend, and the erasures of a comparison, each made once and kept."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import torch

from vestige.digest import digest_json
from vestige.erase.eraser import Eraser
from vestige.erase.increment import MANIFEST, Increment
from vestige.erase.request import Request
from vestige.errors import InvalidInput
from vestige.execute import Context
from vestige.models.denoiser import Denoiser
from vestige.progress import Progress
from vestige.store import Store, write_text

TIMING = "timing.json"
PROBE_STEPS = 2
_PARTS = "_forward_equivalents"


class Regime(str, Enum):
    """How many steps a method takes: as many as one budget for all allows, or as many as it takes by default."""

    EQUAL = "equal"
    DEFAULT = "default"


@dataclass(frozen=True)
class Price:
    """What a method costs on one request, in forward-equivalents (images forward; a backward pass counts two).

    ``fixed`` is spent once whatever the steps, ``step`` in every step; ``parts`` names what the fixed part is for.
    """

    fixed: float
    step: float
    parts: Mapping[str, float]

    @staticmethod
    def of(cost: Mapping[str, float], batch_size: int) -> Price:
        """From the cost in the manifest of an erasure of a few steps."""
        step = cost["forwards_per_step"] * batch_size
        parts = {k.removesuffix(_PARTS): v for k, v in cost.items() if k.endswith(_PARTS)}
        return Price(max(0.0, cost["forward_equivalents"] - cost["steps"] * step), step, parts)

    def total(self, steps: int) -> float:
        """Forward-equivalents of so many steps."""
        return self.fixed + steps * self.step

    def steps_within(self, budget: float, method: str) -> int:
        """The most steps whose total does not exceed the budget.

        Raises
        ------
        InvalidInput : not even one step fits.
        """
        steps = math.floor((budget - self.fixed) / self.step + 1e-9)
        if steps < 1:
            raise InvalidInput(
                f"A budget of {budget:,.0f} forward-equivalents does not pay for one step of {method}, which costs "
                f"{self.step:,.0f} beside {self.fixed:,.0f} spent once.",
                expected=f"at least {self.total(1):,.0f}.",
                remedy="raise --budget, or lower what the method spends before its first step with --set.",
            )
        return steps


@dataclass(frozen=True, eq=False)
class Made:
    """One erasure. ``seconds`` is None where it was cut off and resumed, ``memory`` where it cannot be told."""

    increment: Increment
    seconds: float | None
    memory: int | None

    @property
    def spent(self) -> float:
        """Forward-equivalents."""
        return self.increment.manifest.cost["forward_equivalents"]

    @property
    def steps(self) -> int:
        """Steps taken."""
        return int(self.increment.manifest.cost["steps"])


@dataclass(frozen=True, eq=False)
class Bench:
    """Where erasures of one request are made: each is a folder, and one that is there is not made again."""

    base: Denoiser
    request: Request
    out: Path
    batch_size: int
    progress: Progress

    def make(self, eraser: Eraser, seed: int) -> Made:
        """The erasure with that seed.

        Raises
        ------
        VestigeError : the method cannot do it, as it says.
        """
        folder = self._folder(eraser) / f"seed-{seed}"
        if (folder / MANIFEST).exists():
            increment = Increment.load(folder)
            increment.check_base(self.base.digest)
            timing = json.loads((folder / TIMING).read_text())
            return Made(increment, timing["seconds"], timing["peak_memory_bytes"])
        scratch = folder / "store"
        fresh, device = not scratch.exists(), self.base.device
        tellable, started = reset_peak(device), time.monotonic()
        context = Context(Store(scratch), seed, self.batch_size, self.progress)
        increment = eraser.erase(self.base, self.request, context, name=f"{type(eraser).__name__}-{seed}")
        seconds = time.monotonic() - started if fresh else None
        memory = peak_memory(device) if tellable else None
        # The manifest comes last: where it stands, the timing does too.
        write_text(folder / TIMING, json.dumps({"seconds": seconds, "peak_memory_bytes": memory}) + "\n")
        increment.save(folder, overwrite=True)
        shutil.rmtree(scratch, ignore_errors=True)
        return Made(increment, seconds, memory)

    def _folder(self, eraser: Eraser) -> Path:
        key = {"base": self.base.digest, "request": self.request.digest, "settings": eraser.settings()}
        return self.out / f"{type(eraser).__name__}-{eraser.steps}-{digest_json(key)[:10]}"

    def price(self, eraser: Eraser, seed: int) -> Price:
        """What the method costs here, from an erasure of two steps."""
        few = self.make(dataclasses.replace(eraser, steps=PROBE_STEPS), seed)
        return Price.of(few.increment.manifest.cost, eraser.batch_size)

    def within(self, eraser: Eraser, budget: float, seed: int) -> Eraser:
        """The method with as many steps as the budget pays for.

        Raises
        ------
        InvalidInput : the budget does not pay for one step.
        """
        name = type(eraser).__name__
        chosen = dataclasses.replace(eraser, steps=self.price(eraser, seed).steps_within(budget, name))
        # A method whose steps differ can cost more than its first two say.
        while (made := self.make(chosen, seed)).spent > budget:
            real = Price.of(made.increment.manifest.cost, eraser.batch_size)
            fewer = min(real.steps_within(budget, name), chosen.steps - 1)
            if fewer < 1:
                real.steps_within(0.0, name)
            chosen = dataclasses.replace(chosen, steps=fewer)
        return chosen


def reset_peak(device: torch.device) -> bool:
    """Start measuring peak memory anew; False where the system cannot."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    if not sys.platform.startswith("linux"):
        return False
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak_memory(device: torch.device) -> int | None:
    """Most bytes since :func:`reset_peak`: of the device's tensors on a GPU, of the whole process on a CPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)
