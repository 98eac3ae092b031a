"""``vestige ledger``: show the requests, withdraw an increment, apply what is active, and repeat everything."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

import vestige.erase
from vestige.data.split import Split
from vestige.digest import short
from vestige.discover import method
from vestige.erase.applied import open_base, write_applied
from vestige.erase.eraser import Eraser
from vestige.erase.increment import MANIFEST, Increment
from vestige.erase.ledger import Ledger
from vestige.erase.ledger_entry import Entry, Erased, Withdrawn
from vestige.erase.loop import Loop
from vestige.erase.workers import Workers
from vestige.errors import AlreadyExists, CorruptFile, DigestMismatch, NotFound, Unsupported
from vestige.execute import Context
from vestige.jobs.erase_ledger import system_user
from vestige.jobs.forget import request_for, rows_of, training_digest, training_split, unseen_digest
from vestige.jobs.increments import model_folder
from vestige.jobs.resolve import DataLike, Loading, ModelLike, resolve_model
from vestige.jobs.run import environment, now
from vestige.models.denoiser import Denoiser
from vestige.models.sampler import DDIM
from vestige.progress import Progress, Silent
from vestige.record import Cell, Environment, Table
from vestige.store import Store

_VERSIONS = ("vestige", "torch", "numpy", "diffusers")
"""Packages whose version may change what an erasure gives."""

Settings = TypeVar("Settings")


def describe_ledger(path: str | Path) -> Table:
    """A table with a row for each entry.

    Raises
    ------
    NotFound, CorruptFile : there is no ledger, or a line of it was changed; the message names it.
    """
    ledger = Ledger.read(Path(path))
    standing = {entry.number for entry in ledger.active}
    first = ledger.requests[0]
    title = f"Requests of {path}: base {short(first.base)}, training data {short(first.data)}"
    columns = ["number", "when", "who", "action", "rows", "method", "increment", "active"]
    rows = [_row(entry, entry.number in standing) for entry in ledger.entries]
    return Table(name="ledger", title=title, columns=columns, rows=rows, caption=f"Latest digest: {ledger.head}")


def _row(entry: Entry, active: bool) -> list[Cell]:
    called = f"{entry.name} ({short(entry.increment)})"
    start: list[Cell] = [entry.number, entry.when, entry.who, entry.action]
    if isinstance(entry, Withdrawn):
        return [*start, None, None, called, None]
    return [*start, len(entry.rows), entry.method, called, "yes" if active else "no"]


def withdraw_increment(path: str | Path, name: str, *, who: str | None = None) -> Withdrawn:
    """Mark an increment of a ledger as withdrawn: later erasures start without it, and its rows may be asked for again.

    Parameters
    ----------
    name : of the increment, or its digest.
    who : asks for it; the system's user name if absent.

    Raises
    ------
    NotFound : no active increment is called so.
    CorruptFile : the ledger was changed.
    """
    last = Ledger.read(Path(path)).withdraw(name, who=who or system_user(), when=now()).entries[-1]
    if not isinstance(last, Withdrawn):
        raise TypeError("a withdrawal was written")
    return last


def apply_ledger(
    path: str | Path,
    model: str | Path,
    *,
    out: str | Path,
    null_condition: int | None = None,
    overwrite: bool = False,
) -> str:
    """Write the base with the active increments as a diffusers folder; returns its digest.

    Raises
    ------
    DigestMismatch : the model is not the ledger's base, or an increment is not the recorded one.
    AlreadyExists : ``out`` is not empty.
    """
    ledger = Ledger.read(Path(path))
    base, _ = open_base(model_folder(model), null_condition=null_condition)
    ledger.check(base=base.digest)
    layers = [(increment, 1.0) for increment in ledger.increments()]
    return write_applied(Path(out), base, layers, overwrite=overwrite).digest


@dataclass(frozen=True)
class Replay:
    """What repeating a ledger gave.

    Parameters
    ----------
    same : every increment came out as recorded, and the active ones lie unchanged in their folders.
    table : a row for each erasure.
    written : whether this process wrote it; of several that share the work, the first one does.
    """

    same: bool
    table: Table
    written: bool = True


def replay_ledger(
    path: str | Path,
    model: ModelLike,
    *,
    out: str | Path,
    retain: DataLike | None = None,
    non_members: DataLike | None = None,
    null_condition: int | None = None,
    skip_corrupt: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Replay:
    """Repeat every erasure of a ledger from the base, as recorded, and compare the increments bit for bit.

    Those that were withdrawn are repeated too, because later ones were trained on top of them.

    Parameters
    ----------
    model, retain, non_members, null_condition, skip_corrupt : as they were passed to :func:`vestige.jobs.erase.erase`.
    out : folder for the repeated increments, ``entry-001`` and so on.

    Raises
    ------
    NotFound, CorruptFile : there is no ledger, or a line of it was changed; the message names it.
    DigestMismatch : model or data are not the ledger's.
    AlreadyExists : ``out`` holds increments of an earlier replay.
    Unsupported : an entry names a method or setting that this version does not have.
    """
    ledger, folder = Ledger.read(Path(path)), Path(out)
    plans = [(entry, *_plan(entry)) for entry in ledger.requests]
    _refuse_repeated(ledger, folder, overwrite)
    workers, made = Workers.of_process(), dict[int, Increment]()
    subject = resolve_model(model, Loading(DDIM(), null_condition=null_condition))
    data = training_split(subject, model, retain, skip_corrupt, non_members)
    ledger.check(base=subject.digest, data=training_digest(data))
    _check_unseen(ledger, data)
    writes, base = workers.rank == 0, subject.opened("Erasing")
    bench = _Bench(ledger, base, data, folder, writes, (progress if writes else None) or Silent())
    for entry, eraser, loop in plans:
        made[entry.number] = bench.repeat(entry, eraser, loop, made)
    here = environment()
    rows, agree = list[list[Cell]](), True
    for entry in ledger.requests:
        same = made[entry.number].manifest.delta == entry.delta
        lies, sound = _on_disk(ledger, entry)
        agree = agree and same and sound
        otherwise = _otherwise(entry, here, workers.count)
        called = f"{entry.name} ({short(entry.increment)})"
        rows.append([entry.number, called, entry.method, "same" if same else "different", lies, otherwise])
    columns = ["number", "increment", "method", "repeated", "in its folder", "circumstances"]
    return Replay(agree, Table(name="replay", title=f"Replay of {path}", columns=columns, rows=rows), writes)


@dataclass(frozen=True, eq=False)
class _Bench:
    """Where erasures are repeated."""

    ledger: Ledger
    base: Denoiser
    data: Split
    out: Path
    writes: bool
    progress: Progress

    def repeat(self, entry: Erased, eraser: Eraser, loop: Loop, made: Mapping[int, Increment]) -> Increment:
        """Carry an entry's erasure out on top of the repeated increments that were active then."""
        earlier = self.ledger.before(entry.number)
        rows = rows_of(entry.rows, self.data)
        request = request_for(self.data, rows, rows_of(list(earlier.forgotten), self.data))
        if entry.unseen is None:
            request = dataclasses.replace(request, unseen=None)
        folder = self.out / f"entry-{entry.number:03d}"
        context = Context(Store(folder / "store"), entry.seed, progress=self.progress)
        after = [made[e.number] for e in earlier.active]
        increment = eraser.erase(self.base, request, context, name=entry.name, loop=loop, after=after)
        if self.writes:
            increment.save(folder, overwrite=True)
            # A checkpoint that stays would let the next replay take up this one's work instead of repeating it.
            shutil.rmtree(folder / "store", ignore_errors=True)
        return increment


def _plan(entry: Erased) -> tuple[Eraser, Loop]:
    """The eraser and loop that an entry records."""
    try:
        kind = method(vestige.erase, Eraser, entry.method)
    except NotFound as error:
        raise _unknown(entry, f"the method {entry.method}") from error
    return _rebuilt(kind, entry.settings, entry), _rebuilt(Loop, entry.loop, entry)


def _rebuilt(kind: type[Settings], values: Mapping[str, Any], entry: Erased) -> Settings:
    known = {f.name for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if set(values) - known:
        raise _unknown(entry, f"the setting {min(set(values) - known)} of {kind.__name__}")
    try:
        return TypeAdapter(kind).validate_python(dict(values))
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise _unknown(entry, f"that value of the setting {where} of {kind.__name__}") from error


def _unknown(entry: Erased, what: str) -> Unsupported:
    return Unsupported(
        f"Entry {entry.number} uses {what}, which this version of vestige does not have.",
        expected=f"what vestige {entry.environment.versions.get('vestige', '')} had, with which it was made.",
        remedy="replay the ledger with that version.",
    )


def _refuse_repeated(ledger: Ledger, out: Path, overwrite: bool) -> None:
    for entry in ledger.requests:
        place = out / f"entry-{entry.number:03d}"
        mine = any(ledger.folder(each) == place.resolve() for each in ledger.requests)
        if mine or ((place / MANIFEST).exists() and not overwrite):
            raise AlreadyExists(
                f"{place} already holds an increment{' of the ledger' if mine else ''}.",
                expected="a new folder.",
                remedy="choose another --out." if mine else "choose another --out, or pass --overwrite.",
            )


def _check_unseen(ledger: Ledger, data: Split) -> None:
    have = unseen_digest(data)
    for entry in ledger.requests:
        if entry.unseen is not None and entry.unseen != have:
            raise DigestMismatch(
                f"Entry {entry.number} was made with the non-members {short(entry.unseen)}, "
                + ("none are given." if have is None else f"these are {short(have)}."),
                expected="the non-members of that erasure.",
                remedy="pass them as --non-members.",
            )


def _on_disk(ledger: Ledger, entry: Erased) -> tuple[str, bool]:
    """What lies in the folder of an entry, and whether that is as it should be; a withdrawn one may be gone."""
    try:
        ledger.increment(entry)
    except NotFound:
        return "missing", entry not in ledger.active
    except DigestMismatch:
        return "different", False
    except CorruptFile:
        return "damaged", False
    return "same", True


def _otherwise(entry: Erased, here: Environment, workers: int) -> str:
    """In what the circumstances of an entry differ from these."""
    then = entry.environment
    pairs = {name: (then.versions.get(name), here.versions.get(name)) for name in _VERSIONS}
    pairs |= {"platform": (then.platform, here.platform), "device": (then.device, here.device)}
    pairs |= {"threads": (str(then.threads), str(here.threads)), "processes": (str(entry.workers), str(workers))}
    found = [f"{name} {old or 'none'}, now {new or 'none'}" for name, (old, new) in pairs.items() if old != new]
    return "; ".join(found) or "the same"
