"""What an erasure is about: the rows to forget, the rows to keep, and images never seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from vestige.data.images import ImageSet
from vestige.data.split import Split
from vestige.erase.request import Request
from vestige.errors import EmptySet, InvalidInput, NotFound
from vestige.jobs.audit import prepare
from vestige.jobs.resolve import DataLike, ModelLike, both_sides, describe, resolve_data, zoo_entry
from vestige.jobs.run import Run
from vestige.models.subject import Subject
from vestige.report.folder import JSON_NAME

Forget = Run | str | Path | ImageSet


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
        return rows_of([i.strip() for i in forget.removeprefix("rows:").split(",") if i.strip()], who)
    if isinstance(forget, Run):
        return rows_of([m.row for s in forget.record.sections for m in s.matches], who)
    if isinstance(forget, ImageSet):
        return rows_of(list(forget.ids), who)
    path = Path(forget)
    if (path / JSON_NAME).is_file():
        return _named(Run.open(path), who)
    if path.is_file() and path.suffix in (".txt", ".ids"):
        return rows_of(path.read_text().split(), who)
    images, _ = resolve_data(path)
    return rows_of(list(images.ids), who)


def _class(forget: str, who: Split) -> npt.NDArray[np.int64]:
    text = forget.removeprefix("class:")
    labels = who.members.labels
    if labels is None or not text.lstrip("-").isdigit() or int(text) not in labels:
        have = "none, the data has no labels" if labels is None else ", ".join(map(str, np.unique(labels)))
        raise NotFound(
            f"The training data has no class '{text}'.", expected=f"one of: {have}.", remedy="pass class:LABEL."
        )
    return np.flatnonzero(labels == int(text)).astype(np.int64)


def rows_of(ids: list[str], who: Split) -> npt.NDArray[np.int64]:
    """Members of those row ids, in that order (NotFound if one is not in the training data)."""
    place = {identity: row for row, identity in enumerate(who.members.ids)}
    missing = [i for i in ids if i not in place]
    if missing:
        raise NotFound(
            f"{len(missing)} of {len(ids)} rows to forget are not in the training data, '{missing[0]}' among them.",
            expected="row ids of the training data (see the report's table of matches).",
            remedy="pass as --retain the same training data that the audit used.",
        )
    return np.array([place[i] for i in ids], dtype=np.int64)


def request_for(who: Split, rows: npt.NDArray[np.int64], gone: npt.NDArray[np.int64] | None = None) -> Request:
    """Forget the rows, retain every other member as often as it stands in the training data.

    ``gone`` are rows that earlier erasures made the model forget; they are not retained.
    """
    out = rows if gone is None else np.union1d(rows, gone)
    kept = np.setdiff1d(np.arange(len(who.members)), out)
    return Request(who.members.take(rows), who.members.take(kept), who.exact[kept], who.copies[rows], who.others)


def training_split(
    subject: Subject,
    model: ModelLike,
    retain: DataLike | None,
    skip_corrupt: bool,
    non_members: DataLike | None = None,
) -> Split:
    """The training data of a model, its copies counted, beside images that it never saw.

    A zoo model brings both; to training data that were given, none are added.

    Raises
    ------
    InvalidInput : no training data was given and the model is not of the zoo.
    EmptySet : every non-member that was given is a near-duplicate of a training image.
    """
    entry = zoo_entry(model)
    if retain is None and entry is None:
        raise InvalidInput(
            "No training data was given.",
            expected="the images to keep, from which the forgotten ones are taken out.",
            remedy="pass --retain with the training data.",
        )
    data, others = both_sides(entry, retain, non_members)
    who, _ = prepare(subject, data, others, skip_corrupt)
    if who.others is not None and len(who.others) == 0:
        raise EmptySet(
            f"All {who.dropped} images of {describe(others)} are near-duplicates of training images.",
            expected="images that the model was not trained on.",
            remedy="pass others as --non-members, or leave it out.",
        )
    return who


def training_digest(data: Split) -> str:
    """Digest of the training data alone, without non-members."""
    return Split(data.members, data.exact, data.copies, data.cluster).digest


def unseen_digest(data: Split) -> str | None:
    """Digest of the non-members, where there are some."""
    return None if data.others is None else data.others.digest
