"""``vestige erase``: from a model, rows to forget and rows to keep, make an increment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vestige.data.images import ImageSet
from vestige.data.split import Split, split
from vestige.erase.data.erasediff import EraseDiff
from vestige.erase.eraser import Eraser, Request
from vestige.erase.increment import MANIFEST, Increment
from vestige.errors import AlreadyExists, EmptySet, InvalidInput, NotFound
from vestige.execute import Context
from vestige.jobs.resolve import DataLike, Loading, ModelLike, check_suits, resolve_data, resolve_model, zoo_entry
from vestige.jobs.run import Run
from vestige.models.sampler import DDIM
from vestige.models.subject import Subject
from vestige.progress import Progress, Silent
from vestige.report.folder import JSON_NAME
from vestige.store import Store

Forget = Run | str | Path | ImageSet


@dataclass(frozen=True)
class Erasure:
    """An increment and where it lies."""

    folder: Path
    increment: Increment


def forgotten_rows(forget: Forget, who: Split) -> npt.NDArray[np.int64]:
    """Members to forget, near-duplicates included.

    ``forget`` is a run (everything its audit extracted), an image set, a folder or npz of
    images, ``class:LABEL``, ``rows:ID,ID,…``, or a text file with one row id a line.

    Raises
    ------
    EmptySet : nothing to forget.
    NotFound : a row does not stand in the training data; the message names it.
    """
    chosen = np.unique(np.concatenate([_named(forget, who), np.empty(0, np.int64)])).astype(np.int64)
    if len(chosen) == 0:
        raise EmptySet(
            f"The forget set {_name(forget)} is empty.",
            expected="at least one training image.",
            remedy="where an audit extracted nothing, name what to forget: rows:ID, class:LABEL or images.",
        )
    return np.flatnonzero(np.isin(who.cluster, who.cluster[chosen])).astype(np.int64)


def _name(forget: Forget) -> str:
    if isinstance(forget, Run):
        return str(forget.folder)
    return forget.source if isinstance(forget, ImageSet) else str(forget)


def _named(forget: Forget, who: Split) -> npt.NDArray[np.int64]:
    if isinstance(forget, str) and forget.startswith("class:"):
        return _class(forget, who)
    if isinstance(forget, str) and forget.startswith("rows:"):
        return _by_id([i.strip() for i in forget.removeprefix("rows:").split(",") if i.strip()], who)
    if isinstance(forget, Run):
        return _by_id([m.row for s in forget.record.sections for m in s.matches], who)
    if isinstance(forget, ImageSet):
        return _by_id(list(forget.ids), who)
    path = Path(forget)
    if (path / JSON_NAME).is_file():
        return _named(Run.open(path), who)
    if path.is_file() and path.suffix in (".txt", ".ids"):
        return _by_id(path.read_text().split(), who)
    images, _ = resolve_data(path)
    return _by_id(list(images.ids), who)


def _class(forget: str, who: Split) -> npt.NDArray[np.int64]:
    text = forget.removeprefix("class:")
    labels = who.members.labels
    if labels is None or not text.lstrip("-").isdigit() or int(text) not in labels:
        have = "none, the data has no labels" if labels is None else ", ".join(map(str, np.unique(labels)))
        raise NotFound(
            f"The training data has no class '{text}'.", expected=f"one of: {have}.", remedy="pass class:LABEL."
        )
    return np.flatnonzero(labels == int(text)).astype(np.int64)


def _by_id(ids: list[str], who: Split) -> npt.NDArray[np.int64]:
    place = {identity: row for row, identity in enumerate(who.members.ids)}
    missing = [i for i in ids if i not in place]
    if missing:
        raise NotFound(
            f"{len(missing)} of {len(ids)} rows to forget are not in the training data, '{missing[0]}' among them.",
            expected="row ids of the training data (see the report's table of matches).",
            remedy="pass as --retain the same training data that the audit used.",
        )
    return np.array([place[i] for i in ids], dtype=np.int64)


def request_for(who: Split, rows: npt.NDArray[np.int64]) -> Request:
    """Forget the rows, retain every other member as often as it stands in the training data."""
    kept = np.setdiff1d(np.arange(len(who.members)), rows)
    return Request(who.members.take(rows), who.members.take(kept), who.exact[kept], who.copies[rows])


def erase(
    model: ModelLike,
    *,
    forget: Forget,
    retain: DataLike | None = None,
    out: str | Path,
    method: Eraser | None = None,
    name: str | None = None,
    seed: int = 0,
    null_condition: int | None = None,
    skip_corrupt: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Erasure:
    """Make a model forget training images; the model itself is not changed.

    Parameters
    ----------
    model : zoo name, diffusers folder, pipeline or trainable denoiser.
    forget : see :func:`forgotten_rows`.
    retain : the training data; the rows to forget are taken out of it. A zoo model brings its own.
    out : folder of the increment.
    method : an :class:`Eraser`; EraseDiff if absent.

    Raises
    ------
    VestigeError : bad input, named, before any work is done; NothingChanged if no weight moved.
    """
    folder, method = Path(out), method or EraseDiff()
    if (folder / MANIFEST).exists() and not overwrite:
        raise AlreadyExists(
            f"{folder} already holds an increment.",
            expected="a new folder.",
            remedy="choose another --out, or pass --overwrite.",
        )
    subject = resolve_model(model, Loading(DDIM(), null_condition=null_condition))
    who = training_split(subject, model, retain, skip_corrupt)
    request = request_for(who, forgotten_rows(forget, who))
    context = Context(Store(folder / "store"), seed, progress=progress or Silent())
    denoiser = subject.opened("Erasing")
    increment = method.erase(denoiser, request, context, name=name or folder.name)
    increment.save(folder, overwrite=overwrite)
    return Erasure(folder, increment)


def training_split(subject: Subject, model: ModelLike, retain: DataLike | None, skip_corrupt: bool) -> Split:
    """The training data of a model, its copies counted.

    Raises
    ------
    InvalidInput : none was given and the model is not of the zoo.
    """
    entry = zoo_entry(model)
    if retain is None and entry is None:
        raise InvalidInput(
            "No training data was given.",
            expected="the images to keep, from which the forgotten ones are taken out.",
            remedy="pass --retain with the training data.",
        )
    data = retain if retain is not None else f"{model}:train"
    train, _ = resolve_data(data, skip_corrupt=skip_corrupt)
    check_suits(train, subject)
    return split(train)
