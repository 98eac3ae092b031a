"""Which words of memorized prompts are to blame, what helps against them, and what that costs in fidelity."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

import vestige.audit.prompts
from vestige.audit.prompts.mitigation import Mitigated, Mitigation
from vestige.audit.prompts.words import Blame, WordAttribution
from vestige.data.prompts import PromptSet
from vestige.discover import methods
from vestige.erase.recover.concept.attack import drawn
from vestige.execute import Context
from vestige.jobs.prompt_detection import Scored
from vestige.metrics.interval import clopper_pearson, estimate, mean_interval
from vestige.models.adapters.text_to_image import Drawing, Pixels, TextToImage
from vestige.record import Cell, Estimate, Section, Table

Flags = npt.NDArray[np.bool_]
Fits = Callable[[str, Pixels], Flags]
"""Which pictures show what a prompt says, bool [n]."""
Copied = Callable[[Pixels], Flags]
"""Which pictures are copies of training images, bool [n]."""

PICTURES = 4
"""Pictures drawn of each prompt before and after."""


@dataclass(frozen=True, eq=False)
class Tried:
    """One mitigation of one prompt: pictures from the same starts before and after."""

    mitigation: str
    result: Mitigated
    before: Pixels
    after: Pixels


def chosen_prompts(prompts: PromptSet, memorized: Flags | None, scored: Sequence[Scored], most: int) -> list[str]:
    """The prompts to mitigate: of those known to be memorized, or of all, those that rank highest over detectors."""
    if not scored:
        return list(prompts.texts[:most])
    ranks = np.mean([np.argsort(np.argsort(-one.value)) for one in scored], axis=0)
    if memorized is not None:
        ranks = np.where(memorized, ranks, np.inf)
    order = np.argsort(ranks, kind="stable")[:most]
    return [prompts.texts[place] for place in order.tolist() if np.isfinite(ranks[place])]


def mitigation_section(
    model: TextToImage,
    texts: Sequence[str],
    copied: Copied | None,
    fits: Fits | None,
    drawing: Drawing,
    context: Context,
) -> tuple[list[Estimate], Section, int]:
    """Blame the words of each prompt and try every mitigation; lines, section and network evaluations."""
    blames = _blamed(model, texts, context)
    tried, drawings = _tried(model, texts, drawing, context)
    spent = drawings + sum(b.evaluations for each in blames.values() for b in each)
    spent += sum(one.result.evaluations for one in tried)
    lines: list[Estimate] = []
    for name in dict.fromkeys(one.mitigation for one in tried):
        lines += _lines(name, [one for one in tried if one.mitigation == name], copied, fits)
    words = f"{len(texts)} prompts were taken apart and mitigated; {PICTURES} pictures of each, from the same starts."
    if fits is None:
        words += " Nobody judged whether pictures show what prompts say; closeness compares embeddings alone."
    tables = [_blame_table(texts, blames), _tried_table(tried, copied, fits)]
    return lines, Section(name="mitigation", title="Prompts: what helps", text=[words], tables=tables), spent


def _blamed(model: TextToImage, texts: Sequence[str], context: Context) -> dict[str, list[Blame]]:
    found: dict[str, list[Blame]] = {}
    for name, kind in methods(vestige.audit.prompts, WordAttribution).items():
        attribution = cast("Callable[[], WordAttribution]", kind)()
        found[name] = [attribution.blame(model, text, seed=context.seed) for text in texts]
    return found


def _tried(model: TextToImage, texts: Sequence[str], drawing: Drawing, context: Context) -> tuple[list[Tried], int]:
    found: list[Tried] = []
    evaluations = 0
    starts = model.starts(range(PICTURES), context.seed)
    kinds = methods(vestige.audit.prompts, Mitigation)
    with context.progress.task("mitigating prompts", len(texts) * len(kinds)) as task:
        for text in texts:
            before, used = drawn(model, model.embeddings([text]).expand(PICTURES, -1, -1), starts, drawing)
            evaluations += used
            for name, kind in kinds.items():
                mitigation = cast("Callable[[], Mitigation]", kind)()
                result = mitigation.mitigate(model, text, seed=context.seed)
                after, used = drawn(model, result.rows.expand(PICTURES, -1, -1), starts, drawing)
                evaluations += used
                found.append(Tried(name, result, before, after))
                task.advance(1)
    return found, evaluations


def _lines(name: str, tried: Sequence[Tried], copied: Copied | None, fits: Fits | None) -> list[Estimate]:
    prefix, n = f"mitigation/{name}", len(tried)
    fall = [1 - one.result.after / one.result.before for one in tried]
    near = [one.result.closeness for one in tried]
    found = [
        _mean(f"{prefix}/guidance_fall", fall, "share of the guidance's length"),
        _mean(f"{prefix}/closeness", near, "cosine of embeddings"),
        Estimate(
            name=f"{prefix}/evaluations",
            value=float(np.mean([one.result.evaluations for one in tried])),
            n=n,
            unit="network evaluations a prompt",
        ),
    ]
    for side in ("before", "after"):
        pictures = np.concatenate([one.before if side == "before" else one.after for one in tried])
        if copied is not None:
            copies = int(copied(pictures).sum())
            found.append(
                estimate(f"{prefix}/copies_{side}", clopper_pearson(copies, len(pictures)), "share of pictures")
            )
        if fits is not None:
            asked = [one.before if side == "before" else one.after for one in tried]
            right = sum(int(fits(one.result.prompt, each).sum()) for one, each in zip(tried, asked, strict=True))
            found.append(estimate(f"{prefix}/fits_{side}", clopper_pearson(right, len(pictures)), "share of pictures"))
    return found


def _mean(name: str, values: Sequence[float], unit: str) -> Estimate:
    if len(values) < 2:
        return Estimate(name=name, value=values[0], n=len(values), unit=unit, note="a single prompt has no interval")
    return estimate(name, mean_interval(np.array(values)), unit)


def _blame_table(texts: Sequence[str], blames: dict[str, list[Blame]]) -> Table:
    rows: list[list[Cell]] = []
    for place, text in enumerate(texts):
        ranked = ([each[place].words[i] for i in each[place].order[:3]] for each in blames.values())
        rows.append([text, *(", ".join(words) for words in ranked)])
    return Table(
        name="blame",
        title="Words to blame, the strongest first",
        columns=["prompt", *blames],
        rows=rows,
    )


def _tried_table(tried: Sequence[Tried], copied: Copied | None, fits: Fits | None) -> Table:
    rows: list[list[Cell]] = []
    for one in tried:
        result = one.result
        cells: list[Cell] = [result.prompt, one.mitigation, result.text]
        cells += [round(v, 3) for v in (result.before, result.after, result.closeness)]
        for pictures in (one.before, one.after):
            cells.append(None if copied is None else int(copied(pictures).sum()))
            cells.append(None if fits is None else int(fits(result.prompt, pictures).sum()))
        rows.append(cells)
    return Table(
        name="mitigation",
        title="Mitigations",
        columns=[
            *("prompt", "mitigation", "said instead", "guidance before", "after", "closeness"),
            *("copies before", "fitting before", "copies after", "fitting after"),
        ],
        rows=rows,
        caption=f"Of {PICTURES} pictures each. Guidance: length at the first step, on noise that no search saw. "
        "Fitting: pictures that show what the prompt said at first.",
    )
