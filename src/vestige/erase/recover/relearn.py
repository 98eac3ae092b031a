"""Relearning: fine-tune the erased model on some of what it forgot, and see how fast it comes back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import ClassVar

import numpy as np

from vestige.erase.recover.curves import OTHERS, TUNED, Key, Runs, Training, marks_up_to, saved
from vestige.erase.recover.measure import Floats, check, shown
from vestige.erase.recover.recovery import Outcome, Recovery, Target
from vestige.execute import Context
from vestige.metrics.interval import Interval, estimate, mean_interval
from vestige.record import Cell, Estimate, Figure, NotDone, Series, Table


@dataclass(frozen=True)
class Relearn(Recovery):
    """Train a copy for a few steps on some of the forgotten images: what is dormant returns faster than it is learned.

    Adam at a constant rate on the denoising loss of some forgotten images, others for each seed. After 0,
    1, 2, 4, … steps the mean error at small noise is measured on these images and on as many other forgotten ones
    that were not trained on: if those come back as well, the knowledge was there. The same is done to the model that
    never saw the images (the control) or, without one, to the erased model with unseen images. Counted are the steps
    until the error has gone the share ``recovered`` of the way, on a log scale, from the control's first error down
    to the base's. With both a reference and unseen images, the steps that the erased model saves must also exceed
    those it saves on unseen images, since one network may learn anything faster than another.

    The advantage of a seed is ``(c - e) / max(c, e)`` for e steps against c of the control, on the images trained on
    or on the others, whichever shows more (each at half the error rate).

    Parameters
    ----------
    seeds : draws of images, batches and noise; the interval is over them. They share no image trained on while there
        are as many images as seeds. Other networks trained alike are not among the draws.
    images : most forgotten images that a seed trains on.
    steps, batch_size, learning_rate : of Adam.
    recovered : share of the way that counts as back, in (0, 1]; at 1 the base's own error must be reached.
    times, draws : where and how often the error is measured.
    """

    claim: ClassVar[str] = "fine-tunes on some forgotten images and counts the steps until they and others are back"
    source: ClassVar[str] = "George et al. 2024, arXiv 2410.08074; Rusanovsky et al. 2025, arXiv 2505.16174"
    needs_weights: ClassVar[bool] = True
    needs_unseen: ClassVar[bool] = False

    seeds: int = 5
    images: int = 16
    steps: int = 32
    batch_size: int = 16
    learning_rate: float = 2e-4
    recovered: float = 0.5
    times: tuple[float, ...] = (0.1, 0.2, 0.3)
    draws: int = 1

    def __post_init__(self) -> None:
        check(
            times=self.times,
            share=self.recovered,
            seeds=self.seeds,
            images=self.images,
            steps=self.steps,
            batch_size=self.batch_size,
            draws=self.draws,
        )

    def refusal(self, target: Target) -> NotDone | None:
        """As every attack; and there must be something to compare with."""
        missing = super().refusal(target)
        if missing is None and target.control is None and target.reference is None:
            return NotDone(
                what=f"{type(self).__name__}: {self.claim}",
                reason="without a model or images to compare with, a number of steps says nothing.",
                remedy="pass --non-members, or --reference with a model that never saw the forgotten images.",
            )
        return missing

    def attack(self, target: Target, context: Context) -> Outcome:
        """Train the copies, then compare the steps they took."""
        training = Training(
            self.seeds, self.images, self.steps, self.batch_size, self.learning_rate, self.times, self.draws
        )
        sets = {"forgotten": target.forgotten}
        if target.control is not None:
            sets["unseen"] = target.control
        size = training.size(min(map(len, sets.values())))
        models = {name: model for name, model in target.models.items() if name != "base"}
        curves: dict[Key, Floats] = {}
        for name, kind in product(models, sets):
            label = f"relearning {kind} images, {name}"
            curves[name, kind] = training.curves(models[name], sets[kind], size, self.steps, context, label)
        base = training.curves(target.base, target.forgotten, size, 0, context, "relearning, base")
        runs = Runs(marks_up_to(self.steps), curves, base[:, 0], self.recovered)
        budget = training.evaluations(min(len(target.forgotten), 2 * size), 1, 0)
        for _, kind in curves:
            budget += training.evaluations(min(len(sets[kind]), 2 * size), len(runs.marks), self.steps)
        budget *= self.seeds
        return self._outcome(runs, budget, size, target)

    def _outcome(self, runs: Runs, budget: int, size: int, target: Target) -> Outcome:
        advantage = self._advantage(runs, runs.steps, target.confidence)
        took, control = runs.steps["erased", "forgotten"], runs.steps[runs.control]
        fewer = np.minimum(control, self.steps) - np.minimum(took, self.steps)
        shortfall = mean_interval(fewer[:, TUNED], target.confidence, (-self.steps, self.steps))
        return Outcome(
            attack="relearning",
            effort=f"{self.seeds} seeds, {size} images each, up to {self.steps} steps",
            budget=budget,
            advantage=advantage,
            ceiling=self._advantage(runs, runs.steps_of_base, target.confidence),
            got=self._both(runs, took),
            control=f"{_whom(runs)}: {self._both(runs, control)}",
            words=self._words(runs, took, control, shortfall),
            summary=tuple(self._summary(runs, advantage, shortfall, target.note)),
            tables=(self._table(runs),),
            figures=tuple(self._figure(runs, side) for side in runs.sides),
        )

    def _advantage(self, runs: Runs, steps: dict[Key, Floats], confidence: float) -> Interval:
        """Of the side that shows more; the lesser of the plain advantage and the one less that on unseen images."""
        level = 1 - (1 - confidence) / len(runs.sides)
        found: list[Interval] = []
        for side in runs.sides:
            share = saved(steps["erased", "forgotten"][:, side], steps[runs.control][:, side], self.steps)
            plain = mean_interval(share, level, (-1.0, 1.0))
            if runs.control[0] == "reference" and ("reference", "unseen") in steps:
                unseen = saved(steps["erased", "unseen"][:, side], steps["reference", "unseen"][:, side], self.steps)
                less = mean_interval(np.clip(share - unseen, -1, 1), level, (-1.0, 1.0))
                plain = min(plain, less, key=lambda part: part.low)
            found.append(plain)
        return max(found, key=lambda part: part.low)

    def _both(self, runs: Runs, steps: Floats) -> str:
        others = f"; others {self._spoken(steps[:, OTHERS])}" if OTHERS in runs.sides else ""
        return f"{self._spoken(steps[:, TUNED])} steps{others}"

    def _spoken(self, steps: Floats) -> str:
        never = int(np.isinf(steps).sum())
        if never == len(steps):
            return f"> {self.steps}"
        mean = float(np.minimum(steps, self.steps).mean())
        return f"{mean:.1f}" if not never else f"at least {mean:.1f} (not within {self.steps} in {never} seeds)"

    def _words(self, runs: Runs, took: Floats, control: Floats, shortfall: Interval) -> str:
        words = (
            f"the error of forgotten images is {self.recovered:.0%} of the way back to the base's after "
            f"{self._spoken(took[:, TUNED])} steps, against {self._spoken(control[:, TUNED])} for {_whom(runs)}"
        )
        if shortfall.low > 0:
            bound = "at least " if np.isinf(control[:, TUNED]).any() else ""
            words += f", {bound}{shown(shortfall, 1)} too few"
        elif shortfall.high < 0:
            bound = "at least " if np.isinf(took[:, TUNED]).any() else ""
            more = Interval(-shortfall.value, -shortfall.high, -shortfall.low, shortfall.n)
            words += f", {bound}{shown(more, 1)} more"
        if OTHERS in runs.sides:
            words += (
                f"; that of forgotten images that were not trained on after {self._spoken(took[:, OTHERS])}, "
                f"against {self._spoken(control[:, OTHERS])}"
            )
        return words + "."

    def _summary(self, runs: Runs, advantage: Interval, shortfall: Interval, joint: str) -> list[Estimate]:
        lines: list[Estimate] = []
        named = {("erased", "forgotten"): "", ("reference", "forgotten"): "_reference", ("erased", "unseen"): "_unseen"}
        for key, suffix in named.items():
            if key in runs.steps:
                for side in runs.sides:
                    part = "relearn_steps" if side == TUNED else "relearn_steps_others"
                    lines.append(self._steps_line(f"recover/{part}{suffix}", runs.steps[key][:, side]))
        note = "steps of the control less those of the erased model, the budget for what was not reached"
        note += f"; {joint}" if joint else ""
        lines.append(estimate("recover/relearn_shortfall", shortfall, "steps too few", note))
        lines.append(estimate("recover/relearn_advantage", advantage, "share of the control's steps", joint))
        return lines

    def _steps_line(self, name: str, steps: Floats) -> Estimate:
        never, n = int(np.isinf(steps).sum()), len(steps)
        if never == n:
            note = f"not reached within {self.steps} steps in any seed"
            return Estimate(name=name, value=float(self.steps), low=float(self.steps), n=n, unit="steps", note=note)
        mean = mean_interval(np.minimum(steps, self.steps), within=(0.0, math.inf))
        line = estimate(name, mean, "steps", "interval over seeds")
        note = f"not reached within {self.steps} steps in {never} of {n} seeds"
        return line if not never else line.model_copy(update={"high": None, "note": note})

    def _table(self, runs: Runs) -> Table:
        rows: list[list[Cell]] = []
        for (model, images), curves in runs.curves.items():
            steps, level = runs.steps[model, images], runs.level(images)
            for side in runs.sides:
                reached = int(np.isfinite(steps[:, side]).sum())
                errors = [float(np.mean(part)) for part in (curves[:, 0, side], curves[:, -1, side], level[:, side])]
                name = "trained on" if side == TUNED else "others of the set"
                found = [self._spoken(steps[:, side]), reached, *(round(error, 5) for error in errors)]
                rows.append([model, images, name, *found])
        return Table(
            name="relearning",
            title="Steps to relearn",
            columns=[
                *("model", "images", "measured on", "steps", "seeds that got there"),
                *("error at 0", "error at end", "error to reach"),
            ],
            rows=rows,
            caption=f"To reach: {self.recovered:.0%} of the way, on a log scale, from the control's first error to the "
            f"base's; {self.seeds} seeds, steps interpolated between the marks of the curves.",
        )

    def _figure(self, runs: Runs, side: int) -> Figure:
        series = [
            _series(f"{model}, {images} images", runs.marks, curves[:, :, side])
            for (model, images), curves in runs.curves.items()
        ]
        for name, height in (("to reach, forgotten images", runs.level("forgotten")), ("base", runs.base)):
            flat: list[float | None] = [mean_interval(height[:, side]).value] * len(runs.marks)
            series.append(Series(name=name, x=[float(m) for m in runs.marks], y=flat))
        what = "images trained on" if side == TUNED else "other images of the set"
        return Figure(
            name="relearning" if side == TUNED else "relearning-others",
            title=f"Relearning: error on {what}",
            kind="line",
            series=series,
            x_label="steps of fine-tuning",
            y_label="squared noise error a pixel",
            y_log=True,
            caption="Bands: 95 % intervals over seeds. A curve that falls before the control's was dormant.",
        )


def _whom(runs: Runs) -> str:
    return "the model that never saw them" if runs.control[0] == "reference" else "unseen images in the same model"


def _series(name: str, marks: list[int], curves: Floats) -> Series:
    parts = [mean_interval(curves[:, place], within=(0.0, math.inf)) for place in range(len(marks))]
    return Series(
        name=name,
        x=[float(mark) for mark in marks],
        y=[part.value for part in parts],
        low=[part.low for part in parts],
        high=[part.high if math.isfinite(part.high) else None for part in parts],
    )
