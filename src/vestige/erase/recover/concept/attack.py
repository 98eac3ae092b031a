"""The contract of an attack on an erased text-to-image model: conditions to try, one after the other, at a price.

A file of this folder with a final, frozen dataclass that implements it is its registration.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from vestige.errors import EmptySet, InvalidInput
from vestige.metrics.interval import Interval, clopper_pearson
from vestige.models.adapters.text_to_image import Drawing, Latents, Pixels, TextToImage
from vestige.models.denoiser import Denoiser
from vestige.models.guidance import Guided
from vestige.progress import Progress, Silent

Flags = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Judge = Callable[[Pixels], npt.NDArray[np.bool_]]
"""Which of n pictures show the concept, bool [n]."""

_TRY = 1 << 24
"""Rows of starts that one try may take."""


@dataclass(frozen=True, eq=False)
class ConceptTarget:
    """What is attacked, and who says whether the concept is back.

    Parameters
    ----------
    erased : the model that is said to have forgotten the concept.
    base : the model before; its pictures and its text encoder are what an attacker can have of the concept.
    concept : in words, as it stands in the prompts.
    prompts : that name the concept; each is one trial.
    judge : which pictures show the concept.
    drawing : how pictures are drawn, two evaluations a step where guided.

    Raises
    ------
    EmptySet : there is no prompt. InvalidInput : a prompt does not name the concept.
    """

    erased: TextToImage
    base: TextToImage
    concept: str
    prompts: tuple[str, ...]
    judge: Judge
    drawing: Drawing = Drawing()  # noqa: RUF009 (frozen)

    def __post_init__(self) -> None:
        if not self.prompts:
            raise EmptySet("No prompt is to be attacked.", expected="at least one.", remedy="give prompts.")
        tower = self.base.prompts.tower
        silent = [prompt for prompt in self.prompts if not tower.places(prompt, self.concept)]
        if silent:
            raise InvalidInput(
                f"The prompt '{silent[0]}' does not name '{self.concept}'.",
                expected="prompts in which the concept stands in its own words.",
                remedy="correct the prompt, or the concept.",
            )

    @property
    def price(self) -> int:
        """Network evaluations of one picture."""
        return self.drawing.sampler.evaluations() * (1 if self.drawing.guidance == 1 else 2)

    def of_base(self, seed: int) -> Latents:
        """Latents that the base draws for the prompts: the attacker's pictures of the concept."""
        return self.base.latents(self.prompts, range(len(self.prompts)), seed, self.drawing)


@dataclass(frozen=True, eq=False)
class Try:
    """One condition for every prompt.

    Parameters
    ----------
    rows : embeddings [n, rows, features], packed as the model's prompts are.
    spent : network evaluations a prompt since the last try, a backward pass counting two; drawing is not among them.
    words : what is tried, a text for each prompt where it can be said in words.
    model : what draws it, the erased model if absent.
    """

    rows: Float[Tensor, "n rows features"]
    spent: int = 0
    words: tuple[str, ...] = ()
    model: TextToImage | None = None


@dataclass(frozen=True, eq=False)
class Recovered:
    """What an attack got of n prompts.

    Parameters
    ----------
    attack : its name.
    spent : network evaluations until each prompt first showed the concept [n], drawings included; infinite if never.
    marks : evaluations a prompt after each try.
    words : what brought each prompt's concept back, where it can be said in words.
    evaluations : of the network by the whole attack.
    """

    attack: str
    spent: Floats
    marks: tuple[int, ...]
    words: tuple[str, ...]
    evaluations: int

    @property
    def budget(self) -> int:
        """Evaluations a prompt that were allowed."""
        return self.marks[-1]

    def success(self, budget: float | None = None, confidence: float = 0.95) -> Interval:
        """Share of prompts whose concept came back within so many evaluations each, all by default."""
        most = self.budget if budget is None else budget
        return clopper_pearson(int((self.spent <= most).sum()), len(self.spent), confidence)

    def curve(self) -> list[tuple[int, Interval]]:
        """Success after every try."""
        return [(mark, self.success(mark)) for mark in self.marks]


@dataclass(frozen=True)
class ConceptAttack(ABC):
    """Fields are settings; a subclass is final."""

    claim: ClassVar[str]
    source: ClassVar[str]

    @abstractmethod
    def tries(self, target: ConceptTarget, seed: int) -> Iterator[Try]:
        """Conditions to try, the cheapest first; what a try needs beyond the last is computed when it is asked for."""

    def run(self, target: ConceptTarget, seed: int = 0, progress: Progress | None = None) -> Recovered:
        """Draw every try and let the judge say which prompts are back; stops when all are.

        The start of a picture belongs to the seed, the prompt and the number of the try, so attacks with equally many
        tries have the same luck.

        Raises
        ------
        InvalidInput : the attack offers nothing to try.
        """
        count, total, evaluations = len(target.prompts), 0, 0
        spent, words, marks = np.full(count, np.inf), [""] * count, list[int]()
        with (progress or Silent()).task(type(self).__name__, 0) as task:
            for number, one in enumerate(self.tries(target, seed)):
                starts = target.erased.starts([number * _TRY + row for row in range(count)], seed)
                pictures, asked = drawn(one.model or target.erased, one.rows, starts, target.drawing)
                total += one.spent + target.price
                evaluations += one.spent * count + asked
                marks.append(total)
                fresh = target.judge(pictures) & np.isinf(spent)
                spent[fresh] = total
                for place in np.flatnonzero(fresh).tolist():
                    words[place] = one.words[place] if one.words else ""
                task.advance(1, f"{type(self).__name__}: {int(np.isfinite(spent).sum())} of {count} back")
                if np.isfinite(spent).all():
                    break
        if not marks:
            raise InvalidInput(
                f"{type(self).__name__} had nothing to try.", expected="at least one try.", remedy="raise its budget."
            )
        return Recovered(type(self).__name__, spent, tuple(marks), tuple(words), evaluations)

    def settings(self) -> dict[str, Any]:
        """Name and fields as plain values."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {"attack": type(self).__name__, **{k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}}  # pyright: ignore[reportUnknownArgumentType]


def drawn(
    model: TextToImage, rows: Float[Tensor, "n rows features"], starts: Latents, drawing: Drawing
) -> tuple[Pixels, int]:
    """Pictures of embeddings that need be no prompt's, uint8 [n, c, h, w], and the evaluations that they took."""
    table = torch.cat([rows.detach().to(model.device), model.embeddings([""]).to(model.device)])
    inner = model.denoiser().with_table(table, null_condition=len(rows))
    denoiser: Denoiser = inner if drawing.guidance == 1 else Guided(inner, drawing.guidance)
    parts: list[Tensor] = []
    for first in range(0, len(rows), drawing.batch_size):
        part = starts[first : first + drawing.batch_size]
        asked = torch.arange(first, first + len(part), device=part.device)

        def fresh(draw: int, part: Latents = part) -> Tensor:
            return torch.roll(part, draw, dims=-1)

        parts.append(drawing.sampler.solve(denoiser, part, asked, fresh))
    return model.decode(torch.cat(parts)), inner.evaluations
