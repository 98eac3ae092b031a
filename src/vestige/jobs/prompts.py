"""``vestige audit --prompts``: which prompts does a text-to-image model know by heart, and what do they bring out?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vestige.audit.extraction.generate_and_filter import GenerateAndFilter, Generations
from vestige.audit.prompts.detector import PromptDetector
from vestige.data.images import ImageSet
from vestige.data.prompts import PromptSet, load_prompts
from vestige.data.split import Split
from vestige.errors import InvalidInput, NotFound
from vestige.jobs.audit import Findings, cost_lines, data_section, evidence, examine, prepare
from vestige.jobs.judge import Reason, judge_audit, overall
from vestige.jobs.policy import Policy
from vestige.jobs.prompt_detection import Scored, default_detectors, detection_section, score_prompts
from vestige.jobs.prompt_mitigation import Fits, chosen_prompts, mitigation_section
from vestige.jobs.resolve import DataLike, describe
from vestige.jobs.run import Desk, Run, environment, now, plain
from vestige.models.adapters.text_to_image import Drawing, Pixels, TextToImage
from vestige.models.adapters.text_to_image_load import load_text_to_image
from vestige.models.prompted import PromptedGenerator
from vestige.models.subject import Subject
from vestige.progress import Progress, Silent
from vestige.record import Cell, Record, Section, Table, Verdict
from vestige.store import write_text
from vestige.zoo.captions import all_captions, understood
from vestige.zoo.evaluate_t2i import drawn_rightly
from vestige.zoo.pictures import Shown, held_out_pairs, rendered, special_pairs
from vestige.zoo.pipelines import PIPELINES, zoo_pipeline
from vestige.zoo.planted import special_captions

TextToImageLike = str | Path | TextToImage
PromptsLike = str | Path | PromptSet
Flags = npt.NDArray[np.bool_]

FILE = "prompts.jsonl"

HELD_OUT = 2000
"""Pictures that a zoo pipeline did not see, to measure false matches with."""

_SHOWN = 40


@dataclass(frozen=True, eq=False)
class Brought:
    """What each prompt's pictures are: copies among them, and the nearest member with its distance, [prompts]."""

    drawn: npt.NDArray[np.int64]
    copies: npt.NDArray[np.int64]
    nearest: npt.NDArray[np.int64]
    distance: npt.NDArray[np.float64]

    @staticmethod
    def of(generated: Generations, prompts: int, delta: float) -> Brought:
        """From the generations of an extraction whose conditions are the prompts."""
        condition = np.arange(len(generated.pixels)) % prompts
        search, copy = generated.members, generated.members.copies(delta)
        best = [int(np.argmin(np.where(condition == p, search.distance, np.inf))) for p in range(prompts)]
        drawn, copies = (np.bincount(asked, minlength=prompts) for asked in (condition, condition[copy]))
        found = [search.index[best], search.distance[best]]
        nothing = drawn == 0
        return Brought(drawn, copies, np.where(nothing, -1, found[0]), np.where(nothing, np.nan, found[1]))


def audit_prompts(
    model: TextToImageLike,
    prompts: PromptsLike,
    data: DataLike | None = None,
    *,
    non_members: DataLike | None = None,
    out: str | Path,
    detectors: Sequence[PromptDetector] | None = None,
    extraction: GenerateAndFilter | None = None,
    drawing: Drawing | None = None,
    mitigate: int = 0,
    fits: Fits | None = None,
    policy: Policy | None = None,
    seed: int = 0,
    batch_size: int = 128,
    skip_corrupt: bool = False,
    show_images: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Run:
    """Score prompts for memorization and, with training images, draw them and search for copies.

    Parameters
    ----------
    model : a text-to-image folder of diffusers, or the model itself.
    prompts : file of prompts (see :func:`load_prompts`), or a set of them. Where it says which are memorized,
        detectors are judged by that; otherwise by which prompts bring out a training image.
    data : training images; without them nothing is drawn. A zoo pipeline brings the pictures of its special captions,
        every copy included, also named ``ZOO:special``.
    non_members : images from the same source that the model never saw; ``ZOO:held-out`` for a zoo pipeline.
    detectors : of prompts; all with their defaults, if absent.
    extraction : how many pictures are drawn in all (each prompt gets its equal share) and what counts as a copy.
    drawing : sampler and guidance.
    mitigate : how many memorized prompts, the likeliest first, are taken apart into words and mitigated.
    fits : which pictures show what a prompt says, to measure what a mitigation costs; a zoo pipeline brings its own.

    Returns the run; ``prompts.jsonl`` has a line a prompt.

    Raises
    ------
    VestigeError : bad input, named, before any work is done.
    """
    asked, subject = resolve_prompts(prompts), resolve_text_to_image(model)
    detectors = default_detectors() if detectors is None else list(detectors)
    extraction, drawing, policy = extraction or GenerateAndFilter(), drawing or Drawing(), policy or Policy()
    name = str(model) if isinstance(model, str | Path) else type(model.pipeline).__name__
    drawn = Subject(name, PromptedGenerator(subject, asked.texts, drawing), None, subject.digest, subject.folder)
    if data is None and name in PIPELINES:
        data, non_members = f"{name}:special", non_members or f"{name}:held-out"
    sides = zoo_pictures(data), zoo_pictures(non_members)
    who, skipped = (None, ()) if sides[0] is None else prepare(drawn, sides[0], sides[1], skip_corrupt)
    digests = {"model": drawn.digest, "prompts": asked.digest} | ({} if who is None else {"data": who.digest})
    config = {
        "model": name,
        "prompts": asked.source,
        "data": describe(data),
        "non_members": describe(non_members),
        "detectors": [detector.settings() for detector in detectors],
        "extraction": extraction.settings(),
        "sampler": drawing.sampler.key(),
        "guidance": drawing.guidance,
        "mitigate": mitigate,
        "policy": policy.audit.model_dump(),
        "seed": seed,
        "digests": digests,
    }
    desk = Desk(Path(out), plain(config), seed, batch_size, progress or Silent(), overwrite)
    denoiser, earlier = subject.denoiser(asked.texts), drawn.evaluations
    scored, missing = score_prompts(detectors, denoiser, drawn.digest, asked, desk.context)
    findings = Findings({}, {}, []) if who is None else examine(drawn, who, [extraction], desk.context)
    brought = _brought(findings, asked, extraction.delta)
    memorized, truth = _truth(asked, brought)
    lines, section = detection_section(scored, asked, memorized, truth, seed)
    helped, spent = list[Section](), 0
    if mitigate:
        likely = chosen_prompts(asked, memorized, scored, mitigate)
        copied, judge = None if who is None else partial(extraction.copied, split=who), fits or fits_of(model)
        more, help_section, spent = mitigation_section(subject, likely, copied, judge, drawing, desk.context)
        lines, helped = [*lines, *more], [help_section]
    verdict, reasons = _judged(findings, policy, who is not None)
    cost = desk.cost(denoiser.evaluations + drawn.evaluations - earlier + spent)
    sections = [] if who is None else [data_section(who, skipped)]
    sections += [outcome.section for outcome in findings.outcomes.values()]
    sections += [] if who is None or brought is None else [_brought_section(brought, asked, who)]
    record = Record(
        command="audit",
        title=f"What prompts bring out of {name}",
        created=now(),
        subject={"name": name, "digest": drawn.digest, "kind": type(subject.pipeline).__name__},
        access=denoiser.access.label,
        config=desk.config,
        digests=digests,
        seeds={"seed": seed},
        environment=environment(),
        cost=cost,
        verdict=verdict,
        reasons=reasons,
        summary=[*findings.summary, *lines, *cost_lines(cost.seconds, cost.network_evaluations)],
        sections=[*sections, section, *helped],
        not_done=[*findings.not_done, *missing],
    )
    _write(desk.out / FILE, asked, memorized, scored, brought, who)
    return desk.finish(record, None if who is None else evidence(findings, who), show_images)


def resolve_text_to_image(model: TextToImageLike) -> TextToImage:
    """A text-to-image model from a folder of diffusers, a zoo name, or itself.

    Raises
    ------
    NotFound : there is no such folder. Others as :func:`load_text_to_image`.
    """
    if isinstance(model, TextToImage):
        return model
    folder = zoo_pipeline(model).folder if isinstance(model, str) and model in PIPELINES else Path(model)
    if not folder.is_dir():
        raise NotFound(
            f"There is no text-to-image model at {folder}.",
            expected=f"a folder that save_pretrained wrote, or one of {', '.join(PIPELINES)}.",
            remedy="check the path.",
        )
    return load_text_to_image(folder)


def resolve_prompts(prompts: PromptsLike) -> PromptSet:
    """Prompts from a file, a set, or a zoo pipeline.

    ``ZOO:special`` are those whose truth its card tells, ``ZOO:captions`` all others that it was trained on.

    Raises
    ------
    NotFound, CorruptFile, EmptySet, InvalidInput : see :func:`load_prompts`.
    """
    if isinstance(prompts, PromptSet):
        return prompts
    name, _, part = str(prompts).partition(":")
    if name in PIPELINES and part == "special":
        special = zoo_pipeline(name).card.special
        known = np.array([one.memorized for one in special])
        kinds = tuple(f"{one.kind}, {one.copies} copies" for one in special)
        return PromptSet(tuple(one.text for one in special), known, str(prompts), kinds)
    if name in PIPELINES and part == "captions":
        return PromptSet(tuple(caption.text for caption in all_captions()), None, str(prompts))
    return load_prompts(Path(prompts))


def zoo_pictures(data: DataLike | None) -> DataLike | None:
    """Pictures of a zoo pipeline by name (``ZOO:special``, ``ZOO:held-out``); anything else as it is.

    Raises
    ------
    InvalidInput : the pipeline has no such pictures.
    """
    name, _, part = str(data).partition(":")
    if isinstance(data, ImageSet) or name not in PIPELINES:
        return data
    if part not in ("special", "held-out"):
        raise InvalidInput(
            f"'{data}' is no set of pictures of the zoo.",
            expected=f"{name}:special or {name}:held-out.",
            remedy="choose one of them.",
        )
    if part == "special":
        pairs = [pair for caption in special_captions() for pair in special_pairs(caption)]
    else:
        pairs = held_out_pairs(HELD_OUT)
    places: dict[Shown, int] = {}
    rows = [places.setdefault(pair.shown, len(places)) for pair in pairs]
    return ImageSet(rendered(list(places))[rows], source=str(data))


def fits_of(model: TextToImageLike) -> Fits | None:
    """Whether pictures of a zoo pipeline show the digit, style and colour that a prompt names; None for others."""
    if not (isinstance(model, str) and model in PIPELINES):
        return None
    judge = zoo_pipeline(model).judge()

    def fits(prompt: str, pictures: Pixels) -> Flags:
        right = drawn_rightly(judge, [understood(prompt)] * len(pictures), pictures)
        return np.logical_and.reduce(list(right.values()))

    return fits


def _brought(findings: Findings, prompts: PromptSet, delta: float) -> Brought | None:
    generated = findings.collected.get(GenerateAndFilter.__name__)
    return Brought.of(generated, len(prompts), delta) if isinstance(generated, Generations) else None


def _truth(prompts: PromptSet, brought: Brought | None) -> tuple[Flags | None, str]:
    if prompts.memorized is not None:
        return prompts.memorized, f"according to {prompts.source}"
    if brought is None:
        return None, ""
    return brought.copies > 0, "in that they bring a training image out"


def _judged(findings: Findings, policy: Policy, searched: bool) -> tuple[Verdict, list[str]]:
    if searched:
        return judge_audit(findings.summary, policy.audit)
    words = "Prompts were scored, but no training images were given to search for; pass --data."
    reason: Reason = (Verdict.INCONCLUSIVE, words)
    return overall([reason])


def _brought_section(brought: Brought, prompts: PromptSet, who: Split) -> Section:
    order = np.lexsort((brought.distance, -brought.copies))[:_SHOWN]
    rows: list[list[Cell]] = [
        [
            prompts.texts[p],
            int(brought.drawn[p]),
            int(brought.copies[p]),
            round(float(brought.distance[p]), 4),
            who.members.ids[brought.nearest[p]],
            int(who.copies[brought.nearest[p]]),
        ]
        for p in order
        if brought.drawn[p]
    ]
    columns = ["prompt", "pictures", "copies", "nearest distance", "nearest training image", "its rows in the data"]
    table = Table(name="brought", title="What prompts bring out", columns=columns, rows=rows)
    some = int((brought.copies > 0).sum())
    words = f"{some} of {len(prompts)} prompts brought out a training image at least once."
    return Section(name="brought", title="Prompts: what they bring out", text=[words], tables=[table])


def _write(
    path: Path,
    prompts: PromptSet,
    memorized: Flags | None,
    scored: Sequence[Scored],
    brought: Brought | None,
    who: Split | None,
) -> None:
    lines: list[str] = []
    for place, text in enumerate(prompts.texts):
        line: dict[str, Cell] = {"text": text, "memorized": None if memorized is None else bool(memorized[place])}
        if brought is not None and who is not None and brought.drawn[place]:
            line |= {"pictures": int(brought.drawn[place]), "copies": int(brought.copies[place])}
            line |= {"nearest": who.members.ids[brought.nearest[place]], "distance": float(brought.distance[place])}
        line |= {one.name: float(one.value[place]) for one in scored}
        lines.append(json.dumps(line))
    write_text(path, "\n".join(lines) + "\n")
