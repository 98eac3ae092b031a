"""The contract of erasers, over every one that discovery finds: a new eraser is tested by existing."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import vestige.erase
from vestige.data.images import ImageSet
from vestige.digest import digest_tensors
from vestige.discover import methods
from vestige.erase.applied import applied
from vestige.erase.eraser import Eraser
from vestige.erase.increment import Increment
from vestige.erase.request import Request
from vestige.errors import DigestMismatch, EmptySet
from vestige.execute import Context
from vestige.models.adapters.function import FunctionDenoiser
from vestige.models.denoiser import Prediction
from vestige.models.schedule import VariancePreserving
from vestige.progress import Progress, Silent
from vestige.store import Store

SMALL = {"steps": 40, "batch_size": 4}


class Tiny(nn.Module):
    """Two layers over 4x4 pixels, time and class."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(3, 4)
        self.body = nn.Sequential(nn.Linear(21, 24), nn.SiLU(), nn.Linear(24, 16))

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        return self.body(torch.cat([x.flatten(1), self.embed(condition), t[:, None]], 1)).view_as(x)


@pytest.fixture(params=[pytest.param(kind, id=name) for name, kind in methods(vestige.erase, Eraser).items()])
def eraser(request: pytest.FixtureRequest) -> Eraser:
    names = {field.name for field in dataclasses.fields(request.param)}
    return dataclasses.replace(request.param(), **{k: v for k, v in SMALL.items() if k in names})


@pytest.fixture
def base() -> FunctionDenoiser:
    torch.manual_seed(0)
    return FunctionDenoiser(Tiny(), VariancePreserving(), Prediction.NOISE, (1, 4, 4), identity="tiny", classes=3)


@pytest.fixture
def request_(eraser: Eraser) -> Request:
    rng = np.random.default_rng(0)
    data = ImageSet(rng.integers(0, 256, (12, 1, 4, 4), dtype=np.uint8), np.arange(12) % 3)
    unseen = ImageSet(rng.integers(0, 256, (12, 1, 4, 4), dtype=np.uint8), np.arange(12) % 3)
    gone = np.arange(12) % 3 == 0 if eraser.needs_whole_class else np.arange(12) < 3
    kept = data.take(np.flatnonzero(~gone))
    return Request(data.take(np.flatnonzero(gone)), kept, np.arange(1, len(kept) + 1), unseen=unseen)


class Counting(Progress):
    """Counts the advances; raises when ``stop_at`` of the total is done."""

    def __init__(self, stop_at: float = 2.0) -> None:
        self.stop_at, self.total, self.done, self.calls = stop_at, 0, 0, 0

    def start(self, label: str, total: int) -> int:
        self.total += total
        return 0

    def advance(self, task: int, amount: int, note: str) -> None:
        self.done, self.calls = self.done + amount, self.calls + 1
        if self.done >= self.stop_at * self.total:
            raise InterruptedError("the machine went away")

    def finish(self, task: int) -> None:
        pass


def make(
    eraser: Eraser,
    base: FunctionDenoiser,
    request: Request,
    folder: Path,
    seed: int = 0,
    progress: Progress | None = None,
) -> Increment:
    return eraser.erase(base, request, Context(Store(folder), seed, progress=progress or Silent()))


def test_an_increment_is_bound_to_its_untouched_base(
    eraser: Eraser, base: FunctionDenoiser, request_: Request, tmp_path: Path
) -> None:
    before = base.digest
    made = make(eraser, base, request_, tmp_path)
    assert base.digest == before == made.manifest.base
    assert made.manifest.delta == digest_tensors(made.delta)
    assert made.manifest.forgotten == list(request_.forget.ids)
    assert made.manifest.method == type(eraser).__name__
    assert json.loads(json.dumps(eraser.settings())).items() <= made.manifest.settings.items()
    assert {"steps", "forwards_per_step"} <= set(made.manifest.cost)
    assert made.manifest.cost["forwards_per_step"] >= 1


def test_a_scale_of_zero_is_the_base_and_a_scale_of_one_is_not(
    eraser: Eraser, base: FunctionDenoiser, request_: Request, tmp_path: Path
) -> None:
    made, before = make(eraser, base, request_, tmp_path), base.digest
    assert applied(base, [(made, 1.0)]).digest != before
    assert applied(base, [(made, 0.0)]).digest == before
    assert applied(base, []).digest == before
    assert base.digest == before


def test_another_base_is_refused(eraser: Eraser, base: FunctionDenoiser, request_: Request, tmp_path: Path) -> None:
    made = make(eraser, base, request_, tmp_path)
    with pytest.raises(DigestMismatch, match="was made for the model"):
        applied(applied(base, [(made, 1.0)]), [(made, 1.0)])


def test_the_seed_decides_the_increment(
    eraser: Eraser, base: FunctionDenoiser, request_: Request, tmp_path: Path
) -> None:
    one, two = (make(eraser, base, request_, tmp_path / name) for name in ("one", "two"))
    other = make(eraser, base, request_, tmp_path / "other", seed=1)
    assert one.manifest == two.manifest
    assert one.digest == two.digest
    assert other.manifest.delta != one.manifest.delta


def test_an_interrupted_run_ends_with_the_same_weights(
    eraser: Eraser, base: FunctionDenoiser, request_: Request, tmp_path: Path
) -> None:
    whole, rest = Counting(), Counting()
    wanted = make(eraser, base, request_, tmp_path / "whole", progress=whole)
    with pytest.raises(InterruptedError):
        make(eraser, base, request_, tmp_path / "cut", progress=Counting(stop_at=0.8))
    resumed = make(eraser, base, request_, tmp_path / "cut", progress=rest)
    assert resumed.digest == wanted.digest
    assert rest.calls < whole.calls


def test_nothing_to_forget_is_refused(
    eraser: Eraser, base: FunctionDenoiser, request_: Request, tmp_path: Path
) -> None:
    empty = dataclasses.replace(request_, forget=request_.forget.take([]))
    with pytest.raises(EmptySet, match="--forget"):
        make(eraser, base, empty, tmp_path)
