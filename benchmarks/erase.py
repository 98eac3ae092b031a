"""What it costs to forget a class, and to forget it without harm: erasers with ever longer schedules.

    python benchmarks/erase.py [--seeds 2] [--work DIR] [--out benchmarks/results]

On the shipped ``digits-ddpm`` class 0 is forgotten by EraseDiff with ``start=others`` and ``eta=0`` (the class's label
embedding starts as the mean of the others', and no step may raise the forget loss), by EraseDiff as it comes, by
Selective Amnesia, by SalUn, by MeanLabel, and by the published loop of EraseDiff with its inner steps written out.
The others also run from the same start as ours (``_same_start``), since they could take it too, at the published rate
and for up to 30 steps; what that start does alone, without a step, is the row ``label_alone``.
Every eraser runs whole schedules, short ones first, at each of two learning rates, the published one and a higher.
The cheapest is reported that brings the mean probability of class 0 under the judge, over samples that ask for it,
within 0.05 of the model retrained without that class

- ``forgets``: at all, whatever it does to the rest;
- ``keeps``: and leaves the Fréchet distance of the other classes' samples to their images within a quarter of the
  original's.

A schedule that is not long enough is reported as a cost of at least the longest that was run. Cost is in
forward-equivalents (a backward pass counts two) and processor seconds; looks at the model are in neither. The
Fisher information of Selective Amnesia is counted twice: as run here, and with the published budget of 1,000 times an
image, which is out of reach.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from table import RESULTS, Row, write
from torch import Tensor, nn

from vestige.data.images import to_uint8
from vestige.erase.applied import applied
from vestige.erase.data.erasediff import EraseDiff, Start
from vestige.erase.data.mean_label import MeanLabel, start_as_others
from vestige.erase.data.salun import SalUn
from vestige.erase.data.selective_amnesia import PUBLISHED_TIMES, SelectiveAmnesia
from vestige.erase.driver import Batch, draw_batch, row_losses
from vestige.erase.eraser import Eraser
from vestige.erase.request import Request
from vestige.execute import Context
from vestige.jobs.forget import forgotten_rows, request_for, training_split
from vestige.jobs.resolve import Loading, resolve_model
from vestige.metrics.frechet import Gaussian, frechet_distance
from vestige.models.denoiser import Denoiser
from vestige.models.sampler import DDIM
from vestige.randomness import Stream, generator, normal
from vestige.store import Store, write_text
from vestige.zoo import zoo_model

MODEL, RETRAINED, FORGOTTEN = "digits-ddpm", "digits-ddpm-without-0", 0
MARGIN, SLACK, ASKED, DRAWN = 0.05, 1.25, 256, 900
SCHEDULES, RATES = (10, 30, 100), (1e-4, 7e-4)
FROM_SAME_START, SAME_START = (10, 30), "_same_start"
SAMPLER = DDIM(steps=10)
OURS = "erasediff"


@dataclass(frozen=True)
class Erased:
    """A model after one schedule, and what that cost: forward-equivalents and processor seconds."""

    model: Denoiser
    passes: float
    seconds: float


Run = Callable[[int, float, int], Erased]
"""From steps, learning rate and seed to the model."""


@dataclass(frozen=True)
class Seen:
    """What one schedule costs, forgets and keeps, a mean over seeds; ``frechet`` and ``loss`` only where it forgets."""

    steps: int
    rate: float
    passes: float
    seconds: float
    probability: float
    frechet: float | None = None
    loss: float | None = None


@dataclass
class Judge:
    """Looks at a model: how much of the class comes out, and what the others are worth."""

    base: Denoiser
    request: Request
    retrained: Denoiser
    level: float = field(init=False)
    bound: float = field(init=False)

    def __post_init__(self) -> None:
        self.classifier = zoo_model(MODEL).classifier()
        pixels = np.repeat(self.request.retain.pixels, self.request.retain_copies, axis=0)
        self.target = Gaussian.fit(self.classifier.features(pixels))
        self.batch = draw_batch(self.base, self.request.retain, np.random.default_rng(7), 512)
        self.reference = self.loss(self.base)
        self.level = self.forgotten(self.retrained) + MARGIN
        self.bound = SLACK * self.frechet(self.base)

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
    def forgotten(self, model: Denoiser) -> float:
        """Mean probability of the forgotten class over samples that ask for it."""
        made = self.samples(model, np.full(ASKED, FORGOTTEN, np.int64))
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

    def seen(self, made: Sequence[Erased], steps: int, rate: float) -> Seen:
        """The means over erasures; what is kept is looked at only where the class is forgotten."""
        passes, seconds = (float(np.mean([getattr(m, k) for m in made])) for k in ("passes", "seconds"))
        found = Seen(steps, rate, passes, seconds, float(np.mean([self.forgotten(m.model) for m in made])))
        if not self.forgets(found):
            return found
        losses = [self.loss(m.model) / self.reference for m in made]
        frechet = float(np.mean([self.frechet(m.model) for m in made]))
        return replace(found, frechet=frechet, loss=float(np.mean(losses)))

    def forgets(self, seen: Seen) -> bool:
        """Whether the class is as good as gone."""
        return seen.probability <= self.level

    def keeps(self, seen: Seen) -> bool:
        """Whether it is, and the rest is not much worse."""
        return seen.frechet is not None and seen.frechet <= self.bound


def ours(eraser: Eraser, base: Denoiser, request: Request) -> Run:
    """One of the package's erasers, with other steps and another rate."""

    def run(steps: int, rate: float, seed: int) -> Erased:
        chosen = replace(eraser, steps=steps, learning_rate=rate)
        with tempfile.TemporaryDirectory() as folder:
            since = time.process_time()
            increment = chosen.erase(base, request, Context(Store(Path(folder)), seed))
            seconds = time.process_time() - since
        return Erased(applied(base, [(increment, 1.0)]), increment.manifest.cost["forward_equivalents"], seconds)

    return run


def label_alone(base: Denoiser, request: Request) -> Denoiser:
    """The model with the class's label embedding set to the mean of the others', and nothing else changed."""
    module = copy.deepcopy(base.module)
    start_as_others(module, base, request)
    return base.with_module(module)


def published_loop(base: Denoiser, request: Request, settings: EraseDiff) -> Run:
    """EraseDiff as published: K passes over the forgotten images on a copy before each pass over retained ones.

    Written from the algorithm and its public settings (K = 2, one other class a batch, the live network as teacher,
    lambda from the gradients, a rate that stays): an inner step costs 4 forward-equivalents, an outer one 11, since
    both gradients are taken apart and then the sum once more. One Adam serves both. Retained images an outer pass: 0.9
    of the forgotten ones', as published. ``steps`` counts outer ones.
    """
    size = settings.batch_size
    inner, outer = max(1, round(len(request.forget) / size)), max(1, round(0.9 * len(request.forget) / size))

    def run(steps: int, rate: float, seed: int) -> Erased:
        student = base.with_module(copy.deepcopy(base.module))
        parameters = list(student.module.parameters())
        optimizer = torch.optim.Adam(parameters, lr=rate)
        rng, spent, done = generator(seed, Stream.ERASE, 0, 9), 0, 0

        def forget(batch: Batch) -> Tensor:
            assert batch.condition is not None
            shift = int(rng.integers(1, base.classes))
            target = student.noise(batch.x_t, batch.t, (batch.condition + shift) % base.classes).detach()
            return row_losses(student, replace(batch, target=target)).mean()

        def follow(loss: Tensor) -> None:
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()

        since = time.process_time()
        while done < steps:
            saved = [p.detach().clone() for p in parameters]
            for _ in range(2 * inner):
                follow(forget(draw_batch(base, request.forget, rng, size)))
                spent += 4 * size
            with torch.no_grad():
                for parameter, value in zip(parameters, saved, strict=True):
                    parameter.copy_(value)
            for _ in range(min(outer, steps - done)):
                gone = forget(draw_batch(base, request.forget, rng, size))
                kept = row_losses(student, draw_batch(base, request.retain, rng, size, request.retain_copies)).mean()
                g_f = torch.autograd.grad(gone, parameters, retain_graph=True)
                g_r = torch.autograd.grad(kept, parameters, retain_graph=True)
                dot = sum(float((a * b).sum()) for a, b in zip(g_f, g_r, strict=True))
                square = sum(float((a * a).sum()) for a in g_f)
                follow(kept + max(0.0, settings.eta - dot / square) * gone)
                spent, done = spent + 11 * size, done + 1
        return Erased(student, spent, time.process_time() - since)

    return run


@dataclass(frozen=True)
class Found:
    """The cheapest schedule that forgets, and that keeps as well; None where none of those run did."""

    forgets: Seen | None
    keeps: Seen | None
    most: Seen


@dataclass
class Book:
    """What was seen before, in a file that a later call reads; nothing is kept without one."""

    path: Path | None
    seeds: int

    def seen(self, name: str, steps: int, rate: float, look: Callable[[], Seen]) -> Seen:
        """From the book, or looked at now and written down."""
        key = f"{name}, {steps} steps, rate {rate:g}, {self.seeds} seeds"
        known = json.loads(self.path.read_text()) if self.path is not None and self.path.exists() else {}
        if key not in known:
            known[key] = asdict(look())
            if self.path is not None:
                write_text(self.path, json.dumps(known, indent=1) + "\n")
        return Seen(**known[key])


def search(name: str, run: Run, judge: Judge, book: Book) -> Found:
    """Run schedules, short ones first, at each rate, until one keeps; longer ones cost more."""
    seen: list[Seen] = []
    same = name.endswith(SAME_START)
    for rate in RATES[:1] if same else RATES:
        for steps in FROM_SAME_START if same else SCHEDULES:

            def look(steps: int = steps, rate: float = rate) -> Seen:
                return judge.seen([run(steps, rate, seed) for seed in range(book.seeds)], steps, rate)

            seen.append(book.seen(name, steps, rate, look))
            print(f"{name}: {seen[-1]}", flush=True)
            if judge.keeps(seen[-1]):
                break

    def cheapest(suits: Callable[[Seen], bool]) -> Seen | None:
        return min((s for s in seen if suits(s)), key=lambda s: s.passes, default=None)

    return Found(cheapest(judge.forgets), cheapest(judge.keeps), max(seen, key=lambda s: s.passes))


def compared(found: dict[str, Found], request: Request, seeds: int) -> list[Row]:
    """Cost of ours against each other's, then what each forgot and kept there."""
    rows: list[Row] = []
    published = 3.0 * (len(request.retain) - SelectiveAmnesia().fisher_images) * PUBLISHED_TIMES
    for aim in ("forgets", "keeps"):
        mine = getattr(found[OURS], aim)
        for other in (name for name in found if name != OURS and mine is not None):
            theirs = getattr(found[other], aim)
            least, named = theirs or found[other].most, other if theirs else f"{other}, which did not"
            for key, unit in (("passes", "forward-equivalents"), ("seconds", "core seconds")):
                ours, cost = getattr(mine, key), getattr(least, key)
                rows.append(Row(f"{OURS}/cost/{aim}/{unit}", ours, cost, named, cost / ours, unit, seeds))
            if other.startswith("selective_amnesia"):
                whole = least.passes + published
                label = f"{named}, published Fisher budget, counted"
                ratio = whole / mine.passes
                rows.append(
                    Row(f"{OURS}/cost/{aim}/counted", mine.passes, whole, label, ratio, "forward-equivalents", 1)
                )
        for name, each in found.items():
            at = getattr(each, aim)
            if at is not None:
                rows += kept(f"{name}/{aim}", at.probability, at.frechet, at.loss, seeds)
                rows.append(Row(f"{name}/{aim}/steps", at.steps, at.rate, "learning rate", None, "steps", seeds))
    return rows


def kept(name: str, probability: float, frechet: float, loss: float, seeds: int) -> list[Row]:
    """What a model forgot and kept."""
    return [
        Row(f"{name}/probability", probability, None, "", None, "mean probability of the class", seeds),
        Row(f"{name}/frechet", frechet, None, "", None, "squared feature units", seeds),
        Row(f"{name}/loss", loss, None, "", None, "retain loss after / before", seeds),
    ]


def main() -> None:
    """Run everything and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--work", type=Path, help="folder in which a run that was cut off goes on")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    loading = Loading(SAMPLER)
    subject = resolve_model(MODEL, loading)
    base, who = subject.opened("Forgetting"), training_split(subject, MODEL, None, False)
    request = request_for(who, forgotten_rows(f"class:{FORGOTTEN}", who))
    judge = Judge(base, request, resolve_model(RETRAINED, loading).opened("The reference"))
    jumped = label_alone(base, request)
    runs = {
        OURS: ours(EraseDiff(start=Start.OTHERS, eta=0.0), base, request),
        "erasediff_as_it_comes": ours(EraseDiff(), base, request),
        "mean_label": ours(MeanLabel(), base, request),
        "salun": ours(SalUn(), base, request),
        "selective_amnesia": ours(SelectiveAmnesia(), base, request),
        "published_loop": published_loop(base, request, EraseDiff()),
        "salun" + SAME_START: ours(SalUn(), jumped, request),
        "selective_amnesia" + SAME_START: ours(SelectiveAmnesia(), jumped, request),
        "published_loop" + SAME_START: published_loop(jumped, request, EraseDiff()),
    }
    book = Book(None if options.work is None else options.work / "seen.json", options.seeds)
    found = {name: search(name, run, judge, book) for name, run in runs.items()}
    rows = compared(found, request, options.seeds)
    for name, model in (("original", base), ("label_alone", jumped), ("retrained", judge.retrained)):
        rows += kept(name, judge.forgotten(model), judge.frechet(model), judge.loss(model) / judge.reference, 1)
    title = f"To a probability of {judge.level:.3f} of the class, and a Fréchet distance of {judge.bound:.2f}"
    write("erase", title, rows, options.out)


if __name__ == "__main__":
    main()
