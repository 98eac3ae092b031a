"""A run: the folder that a command fills, and the record it leaves there."""

from __future__ import annotations

import platform
import resource
import sys
import time
from dataclasses import dataclass, field
from datetime import datetime, timezone
from enum import Enum
from pathlib import Path
from typing import Any, cast

import torch

from vestige.dependencies import installed
from vestige.digest import digest_json
from vestige.errors import AlreadyExists
from vestige.execute import Context
from vestige.progress import Progress, Silent
from vestige.record import Cost, Environment, Record
from vestige.report.evidence import Evidence
from vestige.report.folder import load, write
from vestige.store import Store


@dataclass(frozen=True)
class Run:
    """A finished run: its folder and record."""

    folder: Path
    record: Record

    @staticmethod
    def open(folder: Path) -> Run:
        """Read a run's folder (NotFound or CorruptFile if it is none)."""
        return Run(folder, load(folder))


@dataclass
class Desk:
    """Where a job works: its folder, store, clock and counters."""

    out: Path
    config: dict[str, Any]
    seed: int = 0
    batch_size: int = 128
    progress: Progress = field(default_factory=Silent)
    overwrite: bool = False
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        if not (self.out / "report.json").exists() or self.overwrite:
            return
        before = load(self.out).config
        if digest_json(before) != digest_json(self.config):
            changed = sorted(k for k in {*before, *self.config} if before.get(k) != self.config.get(k))
            raise AlreadyExists(
                f"{self.out} holds a finished run with other settings ({', '.join(changed)}).",
                expected="a new folder, or the same settings to resume.",
                remedy="choose another --out, or pass --overwrite to replace its report.",
            )

    @property
    def context(self) -> Context:
        """What methods are handed."""
        return Context(Store(self.out / "store"), self.seed, self.batch_size, self.progress)

    def cost(self, evaluations: int) -> Cost:
        """Seconds since the start, network evaluations, peak memory of this process."""
        return cost_since(self.started, evaluations)

    def finish(self, record: Record, evidence: Evidence | None, show_images: bool) -> Run:
        """Write report and evidence; pictures enter the page only when asked for."""
        if evidence is not None:
            evidence.save(self.out / "evidence.npz")
        write(record, self.out, evidence if show_images else None)
        return Run(self.out, record)


def cost_since(started: float, evaluations: int) -> Cost:
    """Seconds since a reading of ``time.monotonic``, network evaluations, peak memory of this process."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 1 if sys.platform == "darwin" else 1024
    return Cost(seconds=time.monotonic() - started, network_evaluations=evaluations, peak_memory_bytes=peak * unit)


def environment() -> Environment:
    """Versions, platform, device and threads of this process."""
    versions = {name: version for name, version in installed().items() if version is not None}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return Environment(
        versions=versions,
        python=platform.python_version(),
        platform=platform.platform(),
        device=device,
        threads=torch.get_num_threads(),
    )


def now() -> str:
    """UTC, ISO 8601, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def plain(value: Any) -> Any:
    """Tuples as lists and enumerations as their values, so that a configuration equals itself after JSON."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in cast("dict[Any, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in cast("list[Any]", value)]
    return value.value if isinstance(value, Enum) else value
