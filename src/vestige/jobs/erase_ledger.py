"""An erasure within a ledger: what is left of the request, what it is trained on top of, and what is recorded."""

from __future__ import annotations

import dataclasses
import getpass
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vestige.data.split import Split
from vestige.erase.applied import read_applied
from vestige.erase.eraser import Eraser
from vestige.erase.increment import Increment
from vestige.erase.ledger import Ledger, named
from vestige.erase.ledger_entry import Erased
from vestige.erase.loop import Loop
from vestige.erase.request import Request
from vestige.errors import InvalidInput
from vestige.jobs.forget import request_for, rows_of, training_digest, unseen_digest
from vestige.jobs.run import environment, now, plain
from vestige.models.subject import Subject


def open_ledger(path: str | Path | None, who: str | None, name: str, folder: Path) -> Ledger | None:
    """The ledger, if there is to be one, ready for an increment of that name and folder.

    Raises
    ------
    InvalidInput : a person without a ledger, or no printable name.
    CorruptFile : the ledger was changed.
    AlreadyExists : it has that name or folder already.
    """
    if path is None:
        if who is not None:
            raise InvalidInput(
                f"A request by {who} was to be recorded, and no ledger was named.",
                expected="a ledger beside the name.",
                remedy="pass --ledger FILE, or leave --who out.",
            )
        return None
    named(who or system_user())
    book = Ledger.begin(Path(path))
    book.refuse_taken(name, folder)
    return book


@dataclass(frozen=True, eq=False)
class Work:
    """What is left of a request once the ledger was asked."""

    request: Request
    after: list[Increment]
    forgotten_before: tuple[str, ...] = ()


def work_left(book: Ledger | None, subject: Subject, data: Split, rows: npt.NDArray[np.int64]) -> Work:
    """What remains of a request; all of it where there is no ledger.

    Raises
    ------
    InvalidInput : the model carries increments already.
    DigestMismatch : model or data are not the ledger's, or an increment is not the recorded one.
    AlreadyExists : every row is forgotten already.
    """
    if book is None:
        return Work(request_for(data, rows), [])
    if subject.folder is not None and read_applied(subject.folder) is not None:
        raise InvalidInput(
            f"{subject.folder} is a model with increments applied.",
            expected="the base model, from which every erasure of a ledger starts.",
            remedy="pass the base; the increments of the ledger are added to it.",
        )
    book.check(base=subject.digest, data=training_digest(data))
    ids = [data.members.ids[row] for row in rows]
    new = set(book.new_rows(ids))
    request = request_for(data, rows_of([i for i in ids if i in new], data), rows_of(list(book.forgotten), data))
    return Work(request, book.increments(), tuple(i for i in ids if i not in new))


def entry_of(
    book: Ledger,
    data: Split,
    increment: Increment,
    method: Eraser,
    loop: Loop,
    *,
    folder: Path,
    who: str,
    workers: int,
) -> Erased:
    """What the ledger is to say of an erasure."""
    manifest = increment.manifest
    return Erased(
        number=len(book.entries) + 1,
        previous=book.head,
        when=now(),
        who=who,
        base=manifest.base,
        data=training_digest(data),
        unseen=unseen_digest(data),
        rows=list(manifest.forgotten),
        method=type(method).__name__,
        settings=plain(method.settings()),
        loop=settings_of(loop),
        seed=manifest.settings["seed"],
        name=manifest.name,
        folder=book.relative(folder),
        increment=increment.digest,
        delta=manifest.delta,
        after=list(manifest.after),
        environment=environment(),
        workers=workers,
    )


def system_user() -> str:
    """Name of the user that runs this process, or the user's number where there is no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return f"user {os.getuid()}"


def settings_of(loop: Loop) -> dict[str, Any]:
    """Every field of the loop as a plain value."""
    return {f.name: plain(getattr(loop, f.name)) for f in dataclasses.fields(loop)}
