"""``vestige bench erase``: every eraser on one request, under one budget and at its own defaults."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import vestige.erase.data
from vestige.discover import methods
from vestige.erase.applied import applied
from vestige.erase.data.erasediff import EraseDiff
from vestige.erase.data.retrain import Retrain
from vestige.erase.eraser import Eraser
from vestige.erase.request import Request
from vestige.errors import InvalidInput, NotFound, VestigeError
from vestige.features.extractor import FeatureExtractor
from vestige.jobs.audit import prepare
from vestige.jobs.bench_erase_measure import Ground, Measured, measure
from vestige.jobs.bench_erase_outcome import Outcome, measurements
from vestige.jobs.bench_erase_plan import Bench, Regime
from vestige.jobs.bench_erase_report import written
from vestige.jobs.bench_erase_score import Failure, Trial, Yardstick
from vestige.jobs.forget import Forget, forgotten_rows, request_for
from vestige.jobs.resolve import (
    DataLike,
    Loading,
    ModelLike,
    both_sides,
    describe,
    resolve_judges,
    resolve_model,
    zoo_entry,
)
from vestige.jobs.run import Desk, Run, plain
from vestige.jobs.traces import Probe
from vestige.models.denoiser import Denoiser
from vestige.models.sampler import DDIM, Sampler
from vestige.models.subject import Subject
from vestige.progress import Progress, Silent
from vestige.store import write_text

MEASUREMENTS = "measurements.json"


def every_eraser() -> list[Eraser]:
    """All erasers of training data with their defaults, by name; training anew is the reference, not one of them."""
    kinds = cast("dict[str, Callable[[], Eraser]]", methods(vestige.erase.data, Eraser))
    return [kind() for kind in kinds.values() if kind is not Retrain]


def named_erasers(names: Sequence[str]) -> list[type[Eraser]]:
    """Erasers by name, whatever the case, in the order given.

    Raises
    ------
    NotFound : no such eraser; the message lists those there are.
    InvalidInput : one was named twice.
    """
    known = methods(vestige.erase.data, Eraser)
    by_name = {name.lower(): kind for name, kind in known.items()}
    for name in names:
        if name.lower() not in by_name:
            raise NotFound(
                f"No eraser is called '{name}'.",
                expected=f"one or more of {', '.join(known)}, separated by commas.",
                remedy="correct --methods; `vestige ls` says what each one does.",
            )
    chosen = [by_name[name.lower()] for name in names]
    _each_once([kind.__name__ for kind in chosen])
    return chosen


def _each_once(names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InvalidInput(
            f"{twice[0]} is to be compared with itself.", expected="every method once.", remedy="correct --methods."
        )


@dataclass(frozen=True)
class Plan:
    """What is compared.

    Parameters
    ----------
    erasers : the methods, with their settings; all with their defaults if absent.
    regimes : under one budget, at each method's own steps, or both.
    seeds : erasures of each method and regime; the interval is over them.
    budget : forward-equivalents that an erasure may cost under the regime ``equal``; what EraseDiff's defaults cost
        if absent.
    generations : images sampled of each model.
    probe : times, draws and rows of the denoising errors.
    """

    erasers: tuple[Eraser, ...] | None = None
    regimes: tuple[Regime, ...] = (Regime.EQUAL, Regime.DEFAULT)
    seeds: int = 3
    budget: float | None = None
    generations: int = 1000
    probe: Probe = Probe()  # noqa: RUF009 - it is frozen

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise InvalidInput(f"seeds is {self.seeds}.", expected="at least 1; 3 or more.", remedy="raise --seeds.")
        if self.generations < 1 or not self.regimes or (self.budget is not None and not self.budget > 0):
            raise InvalidInput(
                f"generations={self.generations}, budget={self.budget}, {len(self.regimes)} regimes.",
                expected="at least one generation, a positive budget and at least one regime.",
                remedy="change the option.",
            )
        if self.erasers is not None:
            if not self.erasers:
                raise InvalidInput("No method was named.", expected="at least one.", remedy="pass --methods.")
            _each_once([type(eraser).__name__ for eraser in self.erasers])

    @property
    def compared(self) -> tuple[Eraser, ...]:
        """The methods."""
        return tuple(every_eraser()) if self.erasers is None else self.erasers

    def settings(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "methods": {type(eraser).__name__: eraser.settings() for eraser in self.compared},
            "regimes": [regime.value for regime in self.regimes],
            "seeds": self.seeds,
            "budget": self.budget,
            "generations": self.generations,
            "probe": self.probe.settings(),
        }


def bench_erase(
    model: ModelLike,
    *,
    forget: Forget,
    out: str | Path,
    plan: Plan | None = None,
    retain: DataLike | None = None,
    non_members: DataLike | None = None,
    reference: ModelLike | None = None,
    judge: FeatureExtractor | None = None,
    sampler: Sampler | None = None,
    guidance: float | None = None,
    seed: int = 0,
    batch_size: int = 128,
    null_condition: int | None = None,
    skip_corrupt: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Run:
    """Compare erasers: what each forgets and keeps, how far that is from retraining, and at what cost.

    Parameters
    ----------
    model : zoo name, diffusers folder, pipeline or trainable denoiser.
    forget : see :func:`vestige.jobs.forget.forgotten_rows`.
    out : folder of report, increments and cached measurements; the same call resumes there.
    plan : methods, regimes, seeds and budget.
    retain : the training data; the rows to forget are taken out of it. A zoo model brings its own.
    non_members : images of the same source, never trained on; without them membership is not measured.
    reference : a model retrained without the forgotten rows. The zoo's is taken where it is that; without one,
        stand-ins are used, which the report names.
    judge : what quality is measured in and, if it is a classifier, classes are told by; the zoo's own where it has one.
    seed : of measurements, and of the first erasure; the others follow.

    Returns the run. A method that cannot be run is listed with its reason; the others go on.

    Raises
    ------
    VestigeError : bad input, named; or no method could be run.
    """
    plan, loading = plan or Plan(), Loading(sampler or DDIM(), batch_size, null_condition, guidance)
    data, others = both_sides(zoo_entry(model), retain, non_members)
    subject = resolve_model(model, loading)
    base = subject.opened("Erasing")
    who, _ = prepare(subject, data, others, skip_corrupt)
    rows = forgotten_rows(forget, who)
    request = request_for(who, rows)
    request.check(base)
    features = judge if judge is not None else resolve_judges(model)[0]
    other = _reference(model, reference, request, loading)
    config = {
        **plan.settings(),
        "model": subject.name,
        "forget": request.forget.digest,
        "data": describe(data),
        "non_members": describe(others),
        "reference": None if other is None else other.digest,
        "features": features.digest,
        "sampler": loading.sampler.key(),
        "guidance": guidance,
        "seed": seed,
        "digests": {"model": base.digest, "data": who.digest},
    }
    desk = Desk(Path(out), plain(config), seed, batch_size, progress or Silent(), overwrite)
    ground = Ground(base, who, rows, features, loading, plan.generations, plan.probe, desk.context)
    bench = Bench(base, request, desk.out / "erased", batch_size, desk.progress)
    outcome = _compared(_Work(plan, ground, bench), subject, None if other is None else other.opened("The reference"))
    write_text(desk.out / MEASUREMENTS, measurements(outcome))
    return desk.finish(written(outcome, desk), None, False)


def _reference(model: ModelLike, given: ModelLike | None, request: Request, loading: Loading) -> Subject | None:
    """The retrained model: the given one, or the zoo's if it saw the retained rows and nothing else."""
    if given is not None:
        return resolve_model(given, loading)
    entry = zoo_entry(model)
    retrained = None if entry is None else entry.retrained_on(request.retain.ids)
    return None if retrained is None else resolve_model(retrained.name, loading)


@dataclass
class _Work:
    """A comparison under way."""

    plan: Plan
    ground: Ground
    bench: Bench
    evaluations: int = 0

    def budget(self) -> float:
        """The given budget, or what EraseDiff's defaults cost here."""
        if self.plan.budget is not None:
            return self.plan.budget
        default = EraseDiff()
        return self.bench.price(default, self.ground.context.seed).total(default.steps)

    def chosen(self, eraser: Eraser, regime: Regime, budget: float | None) -> Eraser:
        """The method with its steps in that regime."""
        if regime is Regime.DEFAULT or budget is None:
            return eraser
        return self.bench.within(eraser, budget, self.ground.context.seed)

    def trial(self, eraser: Eraser, regimes: Sequence[Regime]) -> Trial:
        """Erase with every seed and measure."""
        first = self.ground.context.seed
        price = self.bench.price(eraser, first)
        made = [self.bench.make(eraser, first + index) for index in range(self.plan.seeds)]
        found: list[Measured] = []
        for each in made:
            model = applied(self.ground.base, [(each.increment, 1.0)])
            found.append(self.measured(model))
        return Trial(type(eraser).__name__, tuple(regimes), eraser.steps, price, made, found)

    def measured(self, model: Denoiser) -> Measured:
        """What is measured of a model, its evaluations counted."""
        before = model.evaluations
        found = measure(self.ground, model)
        if model is not self.ground.base:
            self.evaluations += model.evaluations - before
        return found


def _compared(work: _Work, subject: Subject, other: Denoiser | None) -> Outcome:
    """Run every method in every regime; what fails is listed."""
    plan = work.plan
    original = work.measured(work.ground.base)
    retrained = None if other is None else work.measured(other)
    budget = work.budget() if Regime.EQUAL in plan.regimes else None
    trials: list[Trial] = []
    failures: list[Failure] = []
    errors: list[VestigeError] = []
    with work.bench.progress.task("methods", len(plan.compared)) as task:
        for eraser in plan.compared:
            steps: dict[Eraser, list[Regime]] = {}
            name = type(eraser).__name__
            for regime in plan.regimes:
                try:
                    steps.setdefault(work.chosen(eraser, regime, budget), []).append(regime)
                except VestigeError as error:
                    errors.append(error)
                    failures.append(Failure(name, regime, error.found, error.remedy))
            for chosen, regimes in steps.items():
                try:
                    trials.append(work.trial(chosen, regimes))
                except VestigeError as error:
                    errors.append(error)
                    failures += [Failure(name, regime, error.found, error.remedy) for regime in regimes]
            task.advance(note=f"methods: {name} done")
    if not trials:
        raise errors[0]
    yardstick = Yardstick.of(original, retrained)
    evaluations = work.evaluations + work.ground.base.evaluations
    return Outcome(subject, work.ground, plan.seeds, budget, trials, failures, yardstick, retrained, evaluations)
