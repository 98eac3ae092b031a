"""The entries of a ledger of erasure requests: what each line holds, and what may follow what."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError

from vestige.digest import digest_json
from vestige.errors import CorruptFile
from vestige.record import Environment

START = "0" * 64
"""What the first entry follows."""

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
RowId = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
Time = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00$")]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal[1] = 1
    number: int = Field(ge=1)
    previous: Digest
    """Digest of the entry before."""
    when: Time
    """UTC, to the second."""
    who: str = Field(min_length=1)

    @property
    def digest(self) -> str:
        """Digest of the entry, the one before it included."""
        return digest_json(self.model_dump())

    @property
    def line(self) -> str:
        """The one way to write the entry, without the end of the line."""
        return json.dumps({**self.model_dump(), "digest": self.digest}, sort_keys=True, separators=(",", ":"))


class Erased(_Entry):
    """A request that was carried out."""

    action: Literal["erase"] = "erase"
    base: Digest
    """Of the model without any increment."""
    data: Digest
    """Of the training data: distinct rows, their copies and clusters."""
    unseen: Digest | None = None
    """Of the images that were never trained on, where the erasure had some."""
    rows: list[RowId] = Field(min_length=1)
    """Row ids that were newly forgotten, near-duplicates included."""
    method: str
    settings: dict[str, JsonValue]
    loop: dict[str, JsonValue]
    seed: int
    name: str
    """Of the increment."""
    folder: str
    """Of the increment, seen from the folder of the ledger."""
    increment: Digest
    delta: Digest
    """Of the weights' change alone."""
    after: list[Digest]
    """Increments that it was trained on top of, in order."""
    environment: Environment
    workers: int = Field(default=1, ge=1)
    """Processes that shared the work."""


class Withdrawn(_Entry):
    """An increment that later erasures start without."""

    action: Literal["withdraw"] = "withdraw"
    entry: int = Field(ge=1)
    """Number of the entry whose increment it is."""
    name: str
    increment: Digest


Entry = Erased | Withdrawn
_ENTRY: TypeAdapter[Entry] = TypeAdapter(Annotated[Erased | Withdrawn, Field(discriminator="action")])


def parsed(path: Path, number: int, line: bytes) -> Entry:
    """The entry in a line, which must be written exactly as vestige writes it (CorruptFile if it is not)."""
    try:
        values: Any = json.loads(line)
        values.pop("digest")
        entry = _ENTRY.validate_python(values)
        written = entry.line.encode()
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise corrupt(path, number, f"is no entry ({where}: {first['msg']})") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise corrupt(path, number, "is no entry") from error
    if written != line:
        raise corrupt(path, number, "was changed: it does not have the digest that it states")
    return entry


def fault(before: Sequence[Entry], entry: Entry) -> str:
    """Why the entry cannot follow those before it; empty if it can."""
    if entry.number != len(before) + 1 or entry.previous != (before[-1].digest if before else START):
        return "does not follow the line before it: a line was changed, removed or moved"
    now = active(before)
    if isinstance(entry, Withdrawn):
        known = (entry.entry, entry.increment, entry.name) in {(e.number, e.increment, e.name) for e in now}
        return "" if known else "withdraws an increment that is not active"
    first = next((e for e in before if isinstance(e, Erased)), entry)
    if (entry.base, entry.data) != (first.base, first.data):
        return "is of another model or other training data than the first"
    if entry.after != [e.increment for e in now]:
        return "was not trained on top of the increments that were active"
    return ""


def active(entries: Sequence[Entry]) -> list[Erased]:
    """The erasures that no later entry withdraws, in order."""
    gone = {entry.entry for entry in entries if isinstance(entry, Withdrawn)}
    return [entry for entry in entries if isinstance(entry, Erased) and entry.number not in gone]


def corrupt(path: Path, line: int, reason: str) -> CorruptFile:
    """The error that names a line of a ledger and what is wrong with it."""
    return CorruptFile(
        f"Line {line} of the ledger {path} {reason}.",
        expected="the lines that vestige wrote, all of them and unchanged.",
        remedy="take a whole copy of the ledger; nothing was done.",
    )
