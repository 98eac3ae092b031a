"""``vestige erase``: from a model, rows to forget and rows to keep, make an increment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vestige.erase.data.erasediff import EraseDiff
from vestige.erase.eraser import Eraser
from vestige.erase.increment import MANIFEST, Increment
from vestige.erase.ledger_entry import Erased
from vestige.erase.loop import Loop
from vestige.erase.workers import Workers
from vestige.errors import AlreadyExists
from vestige.execute import Context
from vestige.jobs.erase_ledger import entry_of, open_ledger, system_user, work_left
from vestige.jobs.forget import Forget, forgotten_rows, training_split
from vestige.jobs.resolve import DataLike, Loading, ModelLike, resolve_model
from vestige.models.sampler import DDIM
from vestige.progress import Progress, Silent
from vestige.store import Store


@dataclass(frozen=True)
class Erasure:
    """An increment and where it lies.

    Parameters
    ----------
    entry : of the ledger, where there is one.
    forgotten_before : rows of the request that an increment of the ledger had forgotten already.
    written : whether this process wrote it; of several that share the work, the first one does.
    """

    folder: Path
    increment: Increment
    entry: Erased | None = None
    forgotten_before: tuple[str, ...] = ()
    written: bool = True


def erase(
    model: ModelLike,
    *,
    forget: Forget,
    retain: DataLike | None = None,
    non_members: DataLike | None = None,
    out: str | Path,
    method: Eraser | None = None,
    loop: Loop | None = None,
    name: str | None = None,
    ledger: str | Path | None = None,
    who: str | None = None,
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
    forget : see :func:`vestige.jobs.forget.forgotten_rows`.
    retain : the training data; the rows to forget are taken out of it. A zoo model brings its own.
    non_members : images of the same source that the model never saw, for methods and stopping rules that need some;
        near-duplicates of training images are taken out. A zoo model brings its own with its training data.
    out : folder of the increment.
    method : an :class:`Eraser`; EraseDiff if absent.
    loop : how its loop is carried out.
    ledger : file in which requests are recorded. The erasure then starts from the base and the increments that are
        active in it, and rows that those have forgotten are neither erased again nor retained.
    who : makes the request; the system's user name if absent.

    Raises
    ------
    VestigeError : bad input, named, before any work is done; NothingChanged if no weight moved.
    """
    folder, method, loop = Path(out), method or EraseDiff(), loop or Loop()
    name = name or folder.name
    _refuse_increment(folder, overwrite)
    book = open_ledger(ledger, who, name, folder)
    workers = Workers.of_process()
    subject = resolve_model(model, Loading(DDIM(), null_condition=null_condition))
    data = training_split(subject, model, retain, skip_corrupt, non_members)
    work = work_left(book, subject, data, forgotten_rows(forget, data))
    denoiser = subject.opened("Erasing")
    writes = workers.rank == 0
    context = Context(Store(folder / "store"), seed, progress=(progress if writes else None) or Silent())
    increment = method.erase(denoiser, work.request, context, name=name, loop=loop, after=work.after)
    if not writes:
        return Erasure(folder, increment, None, work.forgotten_before, written=False)
    increment.save(folder, overwrite=overwrite)
    if book is None:
        return Erasure(folder, increment)
    entry = entry_of(
        book, data, increment, method, loop, folder=folder, who=who or system_user(), workers=workers.count
    )
    book.append(entry)
    return Erasure(folder, increment, entry, work.forgotten_before)


def _refuse_increment(folder: Path, overwrite: bool) -> None:
    if (folder / MANIFEST).exists() and not overwrite:
        raise AlreadyExists(
            f"{folder} already holds an increment.",
            expected="a new folder.",
            remedy="choose another --out, or pass --overwrite.",
        )
