"""``vestige increments matrix``: what each concept's pictures become under each increment and under all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vestige.erase.applied import applied
from vestige.erase.increment import MANIFEST, Increment
from vestige.errors import InvalidInput, NotFound
from vestige.features.extractor import FeatureExtractor
from vestige.features.pixels import BlockMeans
from vestige.features.scene_judge import SceneJudge
from vestige.jobs.concepts import opened_pipeline, stored
from vestige.jobs.run import Desk, Run, environment, now
from vestige.metrics.frechet import Gaussian, frechet_distance
from vestige.metrics.interval import Interval, wilson
from vestige.metrics.paired_distance import feature_distance, pixel_distance
from vestige.models.adapters.text_to_image import Drawing, TextToImage
from vestige.progress import Progress, Silent
from vestige.record import Cell, Estimate, Record, Section, Table, Verdict
from vestige.report.evidence import Evidence, Strip
from vestige.zoo.pipelines import PIPELINES, zoo_pipeline

Pixels = npt.NDArray[np.uint8]
BASE, ALL = "none", "all"
_STRIP = 8


@dataclass(frozen=True)
class Outcome:
    """One prompt under some increments, against the base from the same noise.

    ``success`` is the share of pictures in which the judge names the concept, where there is a judge that knows it.
    """

    success: Interval | None
    pixels: float
    features: float
    frechet: float


@dataclass(frozen=True, eq=False)
class Judging:
    """How pictures are judged: features for drift, and for each concept the judge's attribute that it is a value of."""

    features: FeatureExtractor
    judge: SceneJudge | None = None

    @staticmethod
    def of(model: str | Path) -> Judging:
        """The zoo's judge for a model of the zoo, plain features for any other."""
        if str(model) in PIPELINES:
            judge = zoo_pipeline(str(model)).judge()
            return Judging(judge, judge)
        return Judging(BlockMeans())

    def named(self, concept: str) -> Callable[[Pixels], int] | None:
        """Counts the pictures in which the judge names the concept; None where it does not know it."""
        judge = self.judge
        if judge is None:
            return None
        for attribute, values in judge.attributes.items():
            if concept in values:
                return lambda pixels: judge.named(pixels, attribute).count(concept)
        return None


def concept_matrix(
    model: str | Path,
    increments: Sequence[str | Path],
    *,
    out: str | Path,
    prompts: Sequence[str] = (),
    draws: int = 16,
    drawing: Drawing | None = None,
    judging: Judging | None = None,
    seed: int = 0,
    show_images: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Run:
    """Draw every concept's prompts, the given ones and the empty one with no, each and all increments active.

    Parameters
    ----------
    increments : folders of increments of concepts, or folders that gather some.
    draws : pictures a prompt; the noise of a picture is the same in all columns.
    judging : the zoo's own judge, or none, if absent.

    Raises
    ------
    NotFound : no increment.
    DigestMismatch : an increment belongs to another base.
    InvalidInput : two increments have one name.
    """
    base, _ = opened_pipeline(model)
    loaded = _loaded(increments)
    how, judge = drawing or Drawing(guidance=4.0), judging or Judging.of(model)
    rows = _rows(loaded, prompts)
    config: dict[str, Any] = {
        "model": str(model),
        "increments": [increment.digest for increment in loaded],
        "prompts": [prompt for _, prompt in rows],
        "draws": draws,
        "sampler": how.sampler.key(),
        "guidance": how.guidance,
        "seed": seed,
    }
    desk = Desk(Path(out), config, seed, overwrite=overwrite, progress=progress or Silent())
    columns: dict[str, list[Increment]] = {increment.manifest.name: [increment] for increment in loaded}
    if len(loaded) > 1:
        columns[ALL] = loaded
    found, strips, evaluations = _drawn(base, rows, columns, draws, how, judge, seed, desk.progress)
    record = Record(
        command="increments matrix",
        title=f"What the increments do to prompts: {len(loaded)} x {len(rows)}",
        created=now(),
        subject={"name": str(model), "digest": base.digest, "kind": "text-to-image"},
        access="weights",
        config=config,
        digests={"model": base.digest, **{i.manifest.name: i.digest for i in loaded}},
        seeds={"seed": seed},
        environment=environment(),
        cost=desk.cost(evaluations),
        verdict=Verdict.NONE,
        reasons=[],
        summary=_summary(rows, columns, found),
        sections=[_section(base, rows, columns, loaded, found, judge)],
    )
    return desk.finish(record, Evidence(strips={"matrix": strips}), show_images)


Found = dict[tuple[str, str], Outcome]
"""By prompt and column."""


def _loaded(paths: Sequence[str | Path]) -> list[Increment]:
    loaded: list[Increment] = []
    for path in map(Path, paths):
        loaded += [Increment.load(path)] if (path / MANIFEST).is_file() else stored(path)
    names = [increment.manifest.name for increment in loaded]
    if not loaded:
        raise NotFound(
            f"{', '.join(map(str, paths))} holds no increment.",
            expected="folders that `vestige erase --concept` wrote.",
            remedy="check the path.",
        )
    twice = sorted({name for name in names if names.count(name) > 1 or name in (BASE, ALL)})
    if twice:
        raise InvalidInput(
            f"Two increments are called '{twice[0]}', or one by a name that the matrix needs.",
            expected="increments of distinct names.",
            remedy="compare increments of one method at a time, or compose some under another name.",
        )
    return loaded


def _rows(loaded: Sequence[Increment], prompts: Sequence[str]) -> list[tuple[str | None, str]]:
    """A concept and its first prompt each, then the other prompts and the empty one."""
    rows: list[tuple[str | None, str]] = []
    for increment in loaded:
        settings = increment.manifest.settings
        templates = settings.get("templates") or ["{}"]
        rows += [(str(each), str(templates[0]).replace("{}", str(each))) for each in settings.get("concepts", [])]
    told = {prompt for _, prompt in rows}
    return [*rows, *((None, prompt) for prompt in dict.fromkeys([*prompts, ""]) if prompt not in told)]


def _drawn(
    base: TextToImage,
    rows: Sequence[tuple[str | None, str]],
    columns: dict[str, list[Increment]],
    draws: int,
    how: Drawing,
    judge: Judging,
    seed: int,
    progress: Progress,
) -> tuple[Found, list[Strip], int]:
    asked = [prompt for _, prompt in rows for _ in range(draws)]
    noise = [draw for _ in rows for draw in range(draws)]
    found: Found = {}
    strips: list[Strip] = []
    evaluations = 0
    with progress.task("matrix", 1 + len(columns)) as task:
        before = base.sample(asked, noise, seed, how)
        evaluations += base.evaluations
        task.advance()
        pictures = {BASE: before}
        for name, active in columns.items():
            changed = applied(base, [(increment, 1.0) for increment in active])
            pictures[name] = changed.sample(asked, noise, seed, how)
            evaluations += changed.evaluations
            task.advance()
    for place, (concept, prompt) in enumerate(rows):
        part = slice(place * draws, (place + 1) * draws)
        for name, drawn in pictures.items():
            found[prompt, name] = _cell(drawn[part], before[part], judge, concept)
            shown = drawn[part][:_STRIP].transpose(0, 2, 3, 1)
            strips.append(Strip(f"{prompt or 'the empty prompt'}: {name}", np.ascontiguousarray(shown)))
    return found, strips, evaluations


def _cell(drawn: Pixels, before: Pixels, judge: Judging, concept: str | None) -> Outcome:
    counted = None if concept is None else judge.named(concept)
    features, reference = judge.features.features(drawn), judge.features.features(before)
    return Outcome(
        None if counted is None else wilson(counted(drawn), len(drawn)),
        float(pixel_distance(drawn, before).mean()),
        float(feature_distance(features, reference).mean()),
        frechet_distance(Gaussian.fit(features), Gaussian.fit(reference)),
    )


def _summary(
    rows: Sequence[tuple[str | None, str]], columns: dict[str, list[Increment]], found: Found
) -> list[Estimate]:
    lines: list[Estimate] = []
    for concept, prompt in rows:
        for name in (BASE, *columns):
            cell = found[prompt, name]
            where = f"{prompt or 'empty'}@{name}"
            if cell.success is not None:
                rate = cell.success
                told = f"pictures in which the judge names '{concept}'"
                lines.append(
                    Estimate(
                        name=f"success/{where}", value=rate.value, low=rate.low, high=rate.high, n=rate.n, note=told
                    )
                )
            if name != BASE:
                lines.append(Estimate(name=f"drift/{where}", value=cell.pixels, unit="rms, pixels in [0, 1]"))
    return lines


def _section(
    base: TextToImage,
    rows: Sequence[tuple[str | None, str]],
    columns: dict[str, list[Increment]],
    loaded: Sequence[Increment],
    found: Found,
    judge: Judging,
) -> Section:
    tables = [
        _table("pixels", "Drift in pixels", rows, columns, found, lambda cell: round(cell.pixels, 5)),
        _table("features", "Drift in features", rows, columns, found, lambda cell: round(cell.features, 5)),
        _table(
            "frechet", "Fréchet distance to the base's pictures", rows, columns, found, lambda c: round(c.frechet, 4)
        ),
    ]
    if judge.judge is not None:
        first = _table("success", "Pictures that show the concept", rows, columns, found, _share)
        tables.insert(0, first)
    tables.append(_weights(base, loaded))
    text = [
        "Rows are prompts, columns the active increments. Every column starts from the same noise; drift is against "
        "no increment: root mean squared difference of pixels in [0, 1], squared distance of unit-length features, "
        f"and Fréchet distance of features ({judge.features.name})."
    ]
    return Section(name="matrix", title="Concepts and increments", text=text, tables=tables)


def _share(cell: Outcome) -> Cell:
    rate = cell.success
    return None if rate is None else f"{rate.value:.0%} [{rate.low:.0%}, {rate.high:.0%}], n = {rate.n}"


def _table(
    name: str,
    title: str,
    rows: Sequence[tuple[str | None, str]],
    columns: dict[str, list[Increment]],
    found: Found,
    value: Callable[[Outcome], Cell],
) -> Table:
    every = [BASE, *columns]
    lines: list[list[Cell]] = [
        [prompt or "(empty)", *(value(found[prompt, each]) for each in every)] for _, prompt in rows
    ]
    return Table(name=name, title=title, columns=["prompt", *every], rows=lines)


def _weights(base: TextToImage, loaded: Sequence[Increment]) -> Table:
    """How far each increment moves each layer, as a share of the layer's norm."""
    state = base.module.state_dict()
    names = sorted({name for increment in loaded for name in increment.delta})
    lines: list[list[Cell]] = []
    for name in names:
        norm = float(state[name].double().norm()) or 1.0
        shares = [float(i.delta[name].double().norm()) / norm if name in i.delta else 0.0 for i in loaded]
        lines.append([name, *(round(share, 5) for share in shares)])
    return Table(
        name="weights",
        title="Change of weights, as a share of each layer's norm",
        columns=["layer", *(increment.manifest.name for increment in loaded)],
        rows=lines,
    )
