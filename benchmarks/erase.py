"""What it costs to forget: erasers at the point where they first reach one level of forgetting.

    python benchmarks/erase.py [--seeds 3] [--out benchmarks/results]

On the shipped ``digits-ddpm`` class 0 is forgotten. EraseDiff (with a bank of targets), Selective Amnesia, SalUn, and
the published loop of EraseDiff with its inner steps written out, all with one learning rate, run until the mean
probability of class 0 under the judge, over samples that ask for it, has come within 0.05 of the model retrained
without that class, at two looks in succession. Looks are neither timed nor counted. Reported are forward-equivalents
(a backward pass counts two) and processor seconds of one core to that point, and what was kept there: the Fréchet
distance of the other classes' samples to their images, and the denoising loss on retained ones.

A run that has only just reached the level has also done most damage: read the costs together with what was kept.

The Fisher information of Selective Amnesia is counted twice: as run here, and with the published budget of 1,000 times
an image, which is out of reach.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from table import RESULTS, Row, write
from torch import Tensor, nn

from vestige.data.images import to_uint8
from vestige.erase import driver as loop_room
from vestige.erase.data.erasediff import EraseDiff
from vestige.erase.data.salun import SalUn
from vestige.erase.data.selective_amnesia import PUBLISHED_TIMES, SelectiveAmnesia
from vestige.erase.driver import Driver, draw_batch, row_losses
from vestige.erase.eraser import Eraser
from vestige.erase.loop import Loop
from vestige.erase.request import Request
from vestige.execute import Context
from vestige.jobs.forget import forgotten_rows, request_for, training_split
from vestige.jobs.resolve import Loading, resolve_model
from vestige.metrics.frechet import Gaussian, frechet_distance
from vestige.models.denoiser import Denoiser
from vestige.models.sampler import DDIM
from vestige.randomness import Stream, generator, normal
from vestige.store import Store
from vestige.zoo import zoo_model

MODEL, RETRAINED, FORGOTTEN = "digits-ddpm", "digits-ddpm-without-0", 0
MARGIN, LOOK_EVERY, LOOKED_AT, DRAWN = 0.05, 2, 64, 900
LEARNING_RATE, STEPS = 7e-4, 200
SAMPLER = DDIM(steps=10)
KEPT = {
    "probability": "mean probability of the class",
    "frechet": "squared feature units",
    "loss": "retain loss after / before",
}


@dataclass
class Judge:
    """Looks at a model: how much of the class comes out, and what the others are worth."""

    base: Denoiser
    request: Request
    retrained: Denoiser

    def __post_init__(self) -> None:
        self.classifier = zoo_model(MODEL).classifier()
        pixels = np.repeat(self.request.retain.pixels, self.request.retain_copies, axis=0)
        self.target = Gaussian.fit(self.classifier.features(pixels))
        self.batch = draw_batch(self.base, self.request.retain, np.random.default_rng(7), 512)
        self.reference = self.loss(self.base)
        self.level = self.forgotten(self.retrained, 256) + MARGIN

    def samples(self, model: Denoiser, labels: np.ndarray) -> np.ndarray:
        """Images uint8 of the labels, from noise that depends on the place alone."""
        start = torch.from_numpy(normal(1, Stream.SAMPLE, range(len(labels)), model.shape))
        condition = torch.from_numpy(labels)
        parts = [
            SAMPLER.sample(model, start[i : i + 128], condition[i : i + 128], lambda draw: torch.empty(0))
            for i in range(0, len(labels), 128)
        ]
        return to_uint8(torch.cat(parts))

    @torch.no_grad()
    def forgotten(self, model: Denoiser, count: int = LOOKED_AT) -> float:
        """Mean probability of the forgotten class over samples that ask for it."""
        made = self.samples(model, np.full(count, FORGOTTEN, np.int64))
        return float(self.classifier.probabilities(made)[:, FORGOTTEN].mean())

    @torch.no_grad()
    def frechet(self, model: Denoiser) -> float:
        """Fréchet distance of the other classes' samples to the retained images, in the judge's features."""
        labels = np.tile(np.delete(np.arange(10), FORGOTTEN), DRAWN // 9).astype(np.int64)
        return frechet_distance(Gaussian.fit(self.classifier.features(self.samples(model, labels))), self.target)

    @torch.no_grad()
    def loss(self, model: Denoiser) -> float:
        """Denoising loss on retained images."""
        parts = (self.batch.part(slice(i, i + 128)) for i in range(0, len(self.batch), 128))
        return float(torch.cat([row_losses(model, part) for part in parts]).mean())


@dataclass
class Watch:
    """Takes the time and the passes of a run, without the looks, and notes where the level was reached."""

    judge: Judge
    seconds: float = 0.0
    passes: float = 0.0
    reached: dict[str, float] = field(default_factory=dict)
    below: bool = False
    _since: float = 0.0

    def start(self) -> None:
        """From here on it counts."""
        self._since = time.process_time()

    def look(self, model: Denoiser, passes: float) -> bool:
        """Whether the level is reached, noting everything at that point."""
        self.seconds += time.process_time() - self._since
        self.passes = passes
        before, self.below = self.below, self.judge.forgotten(model) <= self.judge.level
        if before and self.below:
            self.reached = {
                "seconds": self.seconds,
                "passes": passes,
                "probability": self.judge.forgotten(model, 256),
                "frechet": self.judge.frechet(model),
                "loss": self.judge.loss(model) / self.judge.reference,
            }
        self.start()
        return bool(self.reached)


class Enough(Exception):
    """The level is reached."""


def ours(eraser: Eraser, loop: Loop, base: Denoiser, request: Request, seed: int, judge: Judge) -> Watch:
    """One of the package's erasers, watched from outside."""
    watch, spent = Watch(judge), {"steps": 0.0}
    advance = Driver._advance

    def watched(driver: Driver, index: int, step: Any) -> int:
        passes = advance(driver, index, step)
        spent["steps"] += passes
        if (index + 1) % LOOK_EVERY == 0:
            before = base.evaluations, driver.student.evaluations
            fixed = fixed_cost(eraser, request)
            if watch.look(driver.student, spent["steps"] + fixed):
                raise Enough
            base.evaluations, driver.student.evaluations = before
        return passes

    with tempfile.TemporaryDirectory() as folder:
        loop_room.Driver._advance = watched  # type: ignore[method-assign]
        try:
            watch.start()
            eraser.erase(base, request, Context(Store(Path(folder)), seed), loop=loop)
        except Enough:
            pass
        finally:
            loop_room.Driver._advance = advance  # type: ignore[method-assign]
    return watch


def fixed_cost(eraser: Eraser, request: Request) -> float:
    """Forward-equivalents before the first step."""
    if isinstance(eraser, SelectiveAmnesia):
        return 3.0 * min(eraser.fisher_images, len(request.retain)) * eraser.fisher_times
    if isinstance(eraser, SalUn):
        rows = min(eraser.mask_samples, len(request.forget))
        return 3.0 * rows * max(1, -(-eraser.mask_samples // len(request.forget)))
    return 0.0


def published_loop(base: Denoiser, request: Request, seed: int, judge: Judge, settings: EraseDiff) -> Watch:
    """EraseDiff as published: K passes over the forgotten images on a copy before each pass over retained ones.

    Written from the algorithm and its public settings (K = 2, S = 2, one other class a batch, the live network as
    teacher, lambda from the gradients): an inner step costs 4 forward-equivalents, an outer one 11, since both
    gradients are taken apart and then the sum once more. One Adam serves both. Retained images an outer pass: 0.9 of
    the forgotten ones', as published.
    """
    watch, size = Watch(judge), settings.batch_size
    module = copy.deepcopy(base.module)
    student = base.with_module(module)
    parameters = list(module.parameters())
    optimizer = torch.optim.Adam(parameters, lr=settings.learning_rate)
    passes, steps = 0.0, 0
    inner, outer = max(1, round(len(request.forget) / size)), max(1, round(0.9 * len(request.forget) / size))
    rng = generator(seed, Stream.ERASE, 0, 9)

    def forget(batch: loop_room.Batch) -> Tensor:
        shift = int(rng.integers(1, base.classes))
        assert batch.condition is not None
        target = student.noise(batch.x_t, batch.t, (batch.condition + shift) % base.classes).detach()
        return row_losses(student, replace(batch, target=target)).mean()

    def follow() -> None:
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()

    watch.start()
    while steps < settings.steps:
        for _ in range(2):
            saved = [p.detach().clone() for p in parameters]
            for _ in range(2 * inner):
                optimizer.zero_grad()
                forget(draw_batch(base, request.forget, rng, size)).backward()
                follow()
                passes += 4 * size
            with torch.no_grad():
                for parameter, value in zip(parameters, saved, strict=True):
                    parameter.copy_(value)
            for _ in range(outer):
                gone = forget(draw_batch(base, request.forget, rng, size))
                kept = row_losses(student, draw_batch(base, request.retain, rng, size, request.retain_copies)).mean()
                g_f = torch.autograd.grad(gone, parameters, retain_graph=True)
                g_r = torch.autograd.grad(kept, parameters, retain_graph=True)
                dot = sum(float((a * b).sum()) for a, b in zip(g_f, g_r, strict=True))
                square = sum(float((a * a).sum()) for a in g_f)
                optimizer.zero_grad()
                (kept + max(0.0, settings.eta - dot / square) * gone).backward()
                follow()
                passes += 11 * size
                steps += 1
                if steps % LOOK_EVERY == 0 and watch.look(student, passes):
                    return watch
    return watch


def main() -> None:
    """Run everything and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    loading = Loading(SAMPLER)
    subject = resolve_model(MODEL, loading)
    base, who = subject.opened("Forgetting"), training_split(subject, MODEL, None, False)
    request = request_for(who, forgotten_rows(f"class:{FORGOTTEN}", who))
    judge = Judge(base, request, resolve_model(RETRAINED, loading).opened("The reference"))
    erasediff = EraseDiff(steps=STEPS, learning_rate=LEARNING_RATE, eta=1.0)
    salun = SalUn(steps=STEPS, learning_rate=LEARNING_RATE)
    amnesia = SelectiveAmnesia(steps=STEPS, learning_rate=LEARNING_RATE)
    runs: dict[str, Callable[[int], Watch]] = {
        "erasediff": lambda seed: ours(erasediff, Loop(bank=50), base, request, seed, judge),
        "published_loop": lambda seed: published_loop(base, request, seed, judge, erasediff),
        "salun": lambda seed: ours(salun, Loop(bank=50), base, request, seed, judge),
        "selective_amnesia": lambda seed: ours(amnesia, Loop(), base, request, seed, judge),
    }
    found: dict[str, list[dict[str, float]]] = {name: [] for name in runs}
    for name, run in runs.items():
        for seed in range(options.seeds):
            watch = run(seed)
            found[name].append(watch.reached)
            print(f"{name}, seed {seed}: {watch.reached or f'level not reached after {watch.passes:,.0f}'}", flush=True)
    rows = rows_of(found, request)
    for name, model in (("original", base), ("retrained", judge.retrained)):
        values = {"probability": judge.forgotten(model, 256), "frechet": judge.frechet(model)}
        values["loss"] = judge.loss(model) / judge.reference
        rows += [Row(f"{name}/{key}", values[key], None, "", None, unit, 1) for key, unit in KEPT.items()]
    title = f"To a probability of {judge.level:.3f} of the forgotten class, within {MARGIN} of the retrained model's"
    write("erase", title, rows, options.out)


def rows_of(found: dict[str, list[dict[str, float]]], request: Request) -> list[Row]:
    """Cost of ours against each, then what each forgot and kept at that point."""
    rows: list[Row] = []

    def mean(name: str, key: str) -> float | None:
        values = [run[key] for run in found[name] if run]
        return float(np.mean(values)) if len(values) == len(found[name]) else None

    published = 3.0 * (len(request.retain) - SelectiveAmnesia().fisher_images) * PUBLISHED_TIMES
    for other in ("published_loop", "selective_amnesia", "salun"):
        for key, unit in (("passes", "forward-equivalents"), ("seconds", "core seconds")):
            mine, theirs = mean("erasediff", key), mean(other, key)
            if mine is None:
                continue
            ratio = None if theirs is None else theirs / mine
            rows.append(Row(f"erasediff/cost/{unit}", mine, theirs, other, ratio, unit, len(found[other])))
            if other == "selective_amnesia" and key == "passes" and theirs is not None:
                whole = theirs + published
                named = f"{other}, published Fisher budget, counted"
                rows.append(Row("erasediff/cost/counted", mine, whole, named, whole / mine, unit, 1))
    for key, unit in KEPT.items():
        for name in found:
            value = mean(name, key)
            if value is not None:
                rows.append(Row(f"{name}/{key}", value, None, "", None, unit, len(found[name])))
    return rows


if __name__ == "__main__":
    main()
