"""``vestige lineage add`` and ``show``: a small registry of models on disk, one file a model.

An entry holds a model's card and what its owner says of it: a name, its parents, a note. Every entry is a file of
its own that is written whole or not at all, so two people who add different models at once do not undo one another.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vestige.digest import short
from vestige.errors import AlreadyExists, CorruptFile, DigestMismatch, InvalidInput, NotFound
from vestige.fingerprint.card import Fingerprint, Plan
from vestige.fingerprint.compare import Comparison, Judge, Lineage, compare_cards
from vestige.fingerprint.publish import card_json, read_card
from vestige.jobs.fingerprint_open import open_side
from vestige.jobs.run import now
from vestige.progress import Progress, Silent
from vestige.record import Cell, Table
from vestige.store.write import write_text

SUFFIX = ".lineage.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_LARGEST = 1 << 25


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal["vestige-lineage"] = "vestige-lineage"
    version: Literal[1] = 1
    name: str = Field(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    parents: list[str]
    note: str
    added: str
    card: str


@dataclass(frozen=True, eq=False)
class Entry:
    """A registered model: its card, and what was said of it."""

    name: str
    parents: tuple[str, ...]
    note: str
    added: str
    card: Fingerprint


@dataclass(frozen=True, eq=False)
class Added:
    """A new entry and what its card shows beside every other one of the registry."""

    entry: Entry
    beside: tuple[tuple[str, Comparison], ...]

    @property
    def unsupported(self) -> tuple[str, ...]:
        """Claimed parents whose cards do not show the same lineage."""
        shown = {name for name, comparison in self.beside if comparison.verdict is Lineage.SAME}
        return tuple(name for name in self.entry.parents if name not in shown)

    def table(self) -> Table:
        """A row for every other model, likeliest relatives first."""
        ordered = sorted(self.beside, key=lambda item: (item[1].p_value, item[0]))
        rows: list[list[Cell]] = [
            [
                name,
                found.verdict.value,
                found.similarity and round(found.similarity, 3),
                f"{found.p_value:.1e}",
                "yes" if name in self.entry.parents else "",
            ]
            for name, found in ordered
        ]
        columns = ["model", "verdict", "similarity", "p", "claimed as parent"]
        return Table(name="beside", title=f"{self.entry.name} beside the registry", columns=columns, rows=rows)


@dataclass(frozen=True)
class Registry:
    """A folder of entries."""

    folder: Path

    def entries(self) -> dict[str, Entry]:
        """All entries by name, in order.

        Raises
        ------
        NotFound : there is no such folder. CorruptFile : an entry is damaged; the message names it.
        """
        if not self.folder.is_dir():
            raise NotFound(
                f"There is no registry {self.folder}.",
                expected="a folder that `vestige lineage add` filled.",
                remedy="add a model first: vestige lineage add MODEL.",
            )
        found = [_read(path) for path in sorted(self.folder.glob(f"*{SUFFIX}"))]
        return {entry.name: entry for entry in found}

    def path(self, name: str) -> Path:
        """Where the entry of this name lies."""
        return self.folder / f"{name}{SUFFIX}"

    def add(
        self,
        model: str | Path,
        *,
        name: str | None = None,
        parents: tuple[str, ...] = (),
        note: str = "",
        judge: Judge | None = None,
        plan: Plan | None = None,
        overwrite: bool = False,
        progress: Progress | None = None,
    ) -> Added:
        """Register a model or its card, and compare it with all that are registered.

        Parents are claims: what the cards show beside them is returned, and a claim that they do not support is
        kept as a claim.

        Raises
        ------
        InvalidInput : the name is none that a file can have, or a model is named as its own parent.
        NotFound : a parent is not registered. AlreadyExists : the name is taken.
        DigestMismatch : the name is to be replaced, and others name it as their parent for other weights.
        """
        side = open_side(model)
        called = side.name if name is None else name
        others = self.entries() if self.folder.is_dir() else {}
        _check(called, parents, others, overwrite, self.path(called))
        card = side.fingerprint(plan, progress or Silent())
        _keep_children(called, card, others)
        entry = Entry(called, parents, note, now(), card)
        beside = [(other, compare_cards(held.card, card, judge)) for other, held in others.items() if other != called]
        held = _Entry(name=called, parents=list(parents), note=note, added=entry.added, card=card_json(card))
        write_text(self.path(called), held.model_dump_json(indent=1) + "\n")
        return Added(entry, tuple(beside))

    def table(self) -> Table:
        """A row for every entry."""
        rows: list[list[Cell]] = [
            [e.name, ", ".join(e.parents), e.card.architecture, e.card.depth, short(e.card.digest), e.added, e.note]
            for e in self.entries().values()
        ]
        columns = ["model", "claimed parents", "architecture", "layers", "weights", "added", "note"]
        return Table(name="registry", title=f"Models of {self.folder}", columns=columns, rows=rows)


def _check(name: str, parents: tuple[str, ...], others: dict[str, Entry], overwrite: bool, path: Path) -> None:
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            f"The model would be called {name[:60]!r}.",
            expected="up to 100 letters, digits, dots, dashes and underscores, a letter or digit first.",
            remedy="choose a name with --name.",
        )
    missing = [parent for parent in parents if parent not in others]
    if name in parents or missing:
        raise (NotFound if missing else InvalidInput)(
            f"The parent {(missing or [name])[0]!r} is {'not registered' if missing else 'the model itself'}.",
            expected=f"one of {', '.join(others) or 'none yet'}.",
            remedy="add the parent first: vestige lineage add PARENT.",
        )
    if path.exists() and not overwrite:
        raise AlreadyExists(
            f"{path} exists.", expected="a new name.", remedy="choose another --name, or pass --overwrite."
        )


def _keep_children(name: str, card: Fingerprint, others: dict[str, Entry]) -> None:
    children = [other.name for other in others.values() if name in other.parents]
    if name in others and children and others[name].card.digest != card.digest:
        raise DigestMismatch(
            f"{', '.join(children)} name {name} as a parent, and it has other weights now.",
            expected="the same weights, or a name that no other entry refers to.",
            remedy="add the new weights under another --name.",
        )


def _read(path: Path) -> Entry:
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError("it is too large")
        held = _Entry.model_validate_json(path.read_bytes())
        card = read_card(held.card)
        if path.name != f"{held.name}{SUFFIX}":
            raise ValueError(f"it is the entry of {held.name}")
    except (OSError, ValueError, ValidationError, CorruptFile) as error:
        reason = error.found if isinstance(error, CorruptFile) else str(error).splitlines()[0]
        raise CorruptFile(
            f"{path} is no entry of a registry: {reason}.",
            expected="a file that `vestige lineage add` wrote.",
            remedy="restore it from a copy, or take it away and add the model again.",
        ) from error
    return Entry(held.name, tuple(held.parents), held.note, held.added, card)
