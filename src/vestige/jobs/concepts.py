"""``vestige erase --concept``: take concepts out of a text-to-image model, each as an increment in its own folder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vestige.erase.applied import open_base
from vestige.erase.concept.eraser import ConceptEraser
from vestige.erase.concept.guarded_sepme import GuardedSepME
from vestige.erase.concept.peft_folder import write_peft
from vestige.erase.concept.request import TEMPLATES, ConceptRequest
from vestige.erase.concept.sepme import SepME
from vestige.erase.increment import MANIFEST, Increment
from vestige.errors import AlreadyExists, InvalidInput, Unsupported
from vestige.jobs.increments import model_folder
from vestige.jobs.prompts import PromptsLike, resolve_prompts
from vestige.models.adapters.text_to_image import TextToImage
from vestige.progress import Progress


@dataclass(frozen=True, eq=False)
class Erasures:
    """Increments and the folders that they lie in; ``earlier`` are those that were there before."""

    folders: tuple[Path, ...]
    increments: tuple[Increment, ...]
    earlier: tuple[Increment, ...] = ()


def erase_concepts(
    model: str | Path,
    concepts: Sequence[str],
    *,
    out: str | Path,
    method: ConceptEraser | None = None,
    templates: Sequence[str] | None = None,
    captions: PromptsLike | None = None,
    keep: Sequence[str] = (),
    guard: Sequence[str] = (),
    anchors: Sequence[str] = ("",),
    add: bool = False,
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Erasures:
    """Erase concepts; the model itself is not changed.

    Parameters
    ----------
    model : zoo name or diffusers folder. Of a folder with increments applied, the base below them is taken.
    out : folder in which each increment gets a folder of its own, named after its concept.
    method : SepME if absent, with captions GuardedSepME.
    templates : see :class:`ConceptRequest`; without any the bare concept if there are captions, else ``TEMPLATES``.
    captions : sentences as users write them, or a file of them. Each concept is erased in those that name it, and the
        others guarded; see :meth:`ConceptRequest.in_captions`.
    keep, guard, anchors : see :class:`ConceptRequest`.
    add : put new increments beside those in ``out``, whose concepts' prompts are kept as they are in the base: an
        increment does the same whether the others are active or not.

    Raises
    ------
    AlreadyExists : ``out`` holds increments, and neither ``add`` nor ``overwrite`` was asked for.
    InvalidInput : a concept was erased before, or see :meth:`ConceptEraser.erase`.
    Unsupported : the model is no text-to-image pipeline.
    DigestMismatch : an increment in ``out`` belongs to another base.
    """
    sentences = None if captions is None else resolve_prompts(captions).texts
    base, layers = opened_pipeline(model)
    folder = Path(out)
    there = stored(folder)
    if there and not (add or overwrite):
        raise AlreadyExists(
            f"{folder} already holds {len(there)} increments.",
            expected="a new folder.",
            remedy="pass --add to erase more concepts beside them, --overwrite to replace them, or another --out.",
        )
    earlier = [*(increment for increment, _ in layers), *(there if add else [])]
    told = {prompt: None for increment in earlier for prompt in _first_prompts(increment, base.digest)}
    chosen = tuple(templates or (TEMPLATES if captions is None else TEMPLATES[:1]))
    request = ConceptRequest(tuple(concepts), chosen, (*keep, *told), tuple(guard), tuple(anchors))
    requests = [request] if sentences is None else request.in_captions(sentences, seed)
    for one in requests:
        one.check(base)
    eraser = method or default_eraser(captions)()
    part = "transformer" if "transformer" in base.pipeline.components else "unet"
    made: dict[Path, Increment] = {}
    for one in requests:
        for increment in eraser.erase(base, one, seed=seed, progress=progress):
            place = folder / slug(increment.manifest.name)
            increment.save(place, overwrite=overwrite)
            write_peft(increment, place, part)
            made[place] = increment
    return Erasures(tuple(made), tuple(made.values()), tuple(earlier))


def default_eraser(captions: PromptsLike | None) -> type[ConceptEraser]:
    """The method if none is named: captions bring the prompts that GuardedSepME guards."""
    return SepME if captions is None else GuardedSepME


def opened_pipeline(model: str | Path) -> tuple[TextToImage, list[tuple[Increment, float]]]:
    """The base of a text-to-image model and the increments applied to it.

    Raises
    ------
    Unsupported : another kind of model.
    """
    base, layers = open_base(model_folder(model))
    if not isinstance(base, TextToImage):
        raise Unsupported(
            f"{model} takes no prompts, so no concept of it has a name.",
            expected="a text-to-image pipeline.",
            remedy="pass --forget with images or rows to erase data from it.",
        )
    return base, layers


def stored(folder: Path) -> list[Increment]:
    """The increments in the sub-folders of a folder, by name."""
    return [Increment.load(path.parent) for path in sorted(folder.glob(f"*/{MANIFEST}"))]


def slug(name: str) -> str:
    """A folder's name for a concept."""
    return re.sub(r"[^\w]+", "-", name.lower()).strip("-") or "concept"


def _first_prompts(increment: Increment, base: str) -> list[str]:
    """The prompts by which other increments keep this one's concepts."""
    increment.check_base(base)
    settings: dict[str, Any] = increment.manifest.settings
    concepts, templates = settings.get("concepts"), settings.get("templates")
    if not concepts or not templates:
        raise InvalidInput(
            f"The increment '{increment.manifest.name}' does not say which concepts it erases.",
            expected="one that `vestige erase --concept` wrote.",
            remedy="take it out of the folder, or choose another --out.",
        )
    return [str(templates[0]).replace("{}", str(concept)) for concept in concepts]
