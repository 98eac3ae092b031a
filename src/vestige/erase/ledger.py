"""The ledger of erasure requests: who had which rows forgotten, when and how, in a chain of digests.

A ledger is a text file of JSON Lines. Each entry carries the digest of the entry before it and its own, so a line
that was changed, removed or moved is noticed. What a chain alone cannot show is that its last lines were cut off or
that all of it was written anew; that takes a copy of the latest digest (:attr:`Ledger.head`) kept elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vestige.digest import short
from vestige.erase.increment import Increment
from vestige.erase.ledger_entry import START, Entry, Erased, Withdrawn, active, corrupt, fault, parsed
from vestige.errors import AlreadyExists, DigestMismatch, InvalidInput, NotFound
from vestige.store import write_text


@dataclass(frozen=True)
class Ledger:
    """The entries of a ledger and where it lies.

    Parameters
    ----------
    path : of the file.
    entries : in order; none if there is no file yet.
    """

    path: Path
    entries: tuple[Entry, ...] = ()

    @staticmethod
    def read(path: Path) -> Ledger:
        """Read and check a ledger.

        Raises
        ------
        NotFound : no such file.
        CorruptFile : a line was changed, removed, moved or written in part; the message names it.
        """
        try:
            content = path.read_bytes()
        except OSError as error:
            raise NotFound(
                f"The ledger {path} cannot be read ({error.strerror}).",
                expected="a file that `vestige erase --ledger` wrote.",
                remedy="check the path.",
            ) from error
        *lines, rest = content.split(b"\n")
        if rest or not lines:
            raise corrupt(path, len(lines) + 1, "is not whole")
        entries: list[Entry] = []
        for number, line in enumerate(lines, 1):
            entry = parsed(path, number, line)
            wrong = fault(entries, entry)
            if wrong:
                raise corrupt(path, number, wrong)
            entries.append(entry)
        return Ledger(path, tuple(entries))

    @staticmethod
    def begin(path: Path) -> Ledger:
        """Read a ledger, or start an empty one where there is no file; raises as :meth:`read`."""
        return Ledger.read(path) if path.exists() else Ledger(path)

    @property
    def head(self) -> str:
        """Digest of the last entry, which stands for all of them."""
        return self.entries[-1].digest if self.entries else START

    @property
    def requests(self) -> list[Erased]:
        """The erasures, withdrawn ones included."""
        return [entry for entry in self.entries if isinstance(entry, Erased)]

    @property
    def active(self) -> list[Erased]:
        """The erasures that were not withdrawn, in order."""
        return active(self.entries)

    @property
    def forgotten(self) -> dict[str, Erased]:
        """Row ids that active increments make the model forget, and the entry of each."""
        return {row: entry for entry in self.active for row in entry.rows}

    def before(self, number: int) -> Ledger:
        """The ledger as it stood before the entry of that number."""
        return Ledger(self.path, self.entries[: number - 1])

    def check(self, *, base: str | None = None, data: str | None = None) -> None:
        """Raise DigestMismatch unless the ledger, if it has entries, is of this base model and training data."""
        if not self.entries:
            return
        first = self.requests[0]
        if base is not None and first.base != base:
            raise DigestMismatch(
                f"The ledger {self.path} is of the model {short(first.base)}, this one is {short(base)}.",
                expected="the base model that its first request names, without increments.",
                remedy="pass that model (the ledger's increments are added to it), or begin another ledger.",
            )
        if data is not None and first.data != data:
            raise DigestMismatch(
                f"The ledger {self.path} is of the training data {short(first.data)}, this is {short(data)}.",
                expected="the training data of its first request, forgotten rows included.",
                remedy="pass that data, or begin another ledger.",
            )

    def refuse_taken(self, name: str, folder: Path) -> None:
        """Raise AlreadyExists if an active increment has that name, or any increment of the ledger that folder."""
        for entry in self.requests:
            if self.folder(entry) == folder.resolve():
                raise AlreadyExists(
                    f"{folder} is the folder of entry {entry.number} of {self.path}.",
                    expected="a folder that the ledger does not name.",
                    remedy="choose another --out.",
                )
        for entry in self.active:
            if entry.name == name:
                raise AlreadyExists(
                    f"The increment of entry {entry.number} of {self.path} is called '{name}' as well.",
                    expected="a name that no active increment of the ledger has.",
                    remedy="pass another --name.",
                )

    def new_rows(self, rows: Sequence[str]) -> list[str]:
        """The rows that no active increment has forgotten, in the given order.

        Raises
        ------
        AlreadyExists : there is none; the message names the request, when it was made and by whom.
        """
        gone = self.forgotten
        new = [row for row in rows if row not in gone]
        if new or not rows:
            return new
        entries = {gone[row].number: gone[row] for row in rows}
        who = "; ".join(f"entry {n}, {e.when} by {e.who} ('{e.name}')" for n, e in sorted(entries.items()))
        raise AlreadyExists(
            f"This is a request already in the ledger {self.path}: its {len(rows)} rows are forgotten by {who}.",
            expected="at least one row that is not forgotten yet.",
            remedy="name other rows, or withdraw that increment first with `vestige ledger withdraw`.",
        )

    def folder(self, entry: Erased) -> Path:
        """Where the increment of an entry lies."""
        return (self.path.parent.resolve() / entry.folder).resolve()

    def relative(self, folder: Path) -> str:
        """How an entry names a folder."""
        return Path(os.path.relpath(folder.resolve(), self.path.parent.resolve())).as_posix()

    def increment(self, entry: Erased) -> Increment:
        """The increment of an entry, checked to be the recorded one.

        Raises
        ------
        NotFound, CorruptFile : its folder is gone or damaged.
        DigestMismatch : another increment lies there.
        """
        found = Increment.load(self.folder(entry))
        if found.digest != entry.increment:
            raise DigestMismatch(
                f"The increment in {self.folder(entry)} is {short(found.digest)}.",
                expected=f"{short(entry.increment)}, as entry {entry.number} of {self.path} says.",
                remedy="put the recorded increment back; `vestige ledger replay` makes it again.",
            )
        return found

    def increments(self) -> list[Increment]:
        """The active increments in order; raises as :meth:`increment`."""
        return [self.increment(entry) for entry in self.active]

    def find(self, name: str) -> Erased:
        """The active entry whose increment has that name or digest.

        Raises
        ------
        NotFound : there is none; the message lists those there are.
        """
        for entry in self.active:
            if name in (entry.name, entry.increment, short(entry.increment)):
                return entry
        raise NotFound(
            f"No active increment of {self.path} is called '{name}'.",
            expected=f"one of: {', '.join(entry.name for entry in self.active) or 'none, all are withdrawn'}.",
            remedy="run `vestige ledger show FILE` to see them.",
        )

    def withdraw(self, name: str, *, who: str, when: str) -> Ledger:
        """Mark an increment as withdrawn; returns the ledger with that entry, which is written.

        Raises
        ------
        NotFound : no active increment is called so.
        DigestMismatch, StorageFailed : see :meth:`append`.
        """
        target = self.find(name)
        entry = Withdrawn(
            number=len(self.entries) + 1,
            previous=self.head,
            when=when,
            who=named(who),
            entry=target.number,
            name=target.name,
            increment=target.increment,
        )
        return self.append(entry)

    def append(self, entry: Entry) -> Ledger:
        """Write the ledger with one more entry, whole or not at all; returns it.

        Raises
        ------
        DigestMismatch : the file is no longer what was read.
        StorageFailed : it cannot be written; the old file stays.
        """
        if Ledger.begin(self.path).entries != self.entries:
            raise DigestMismatch(
                f"The ledger {self.path} changed since it was read.",
                expected="one request at a time.",
                remedy="repeat the command (an erasure with --overwrite), which then starts from the new ledger.",
            )
        wrong = fault(self.entries, entry)
        if wrong:
            raise ValueError(f"entry {entry.number} {wrong}")
        whole = Ledger(self.path, (*self.entries, entry))
        write_text(self.path, "".join(each.line + "\n" for each in whole.entries))
        return whole


def named(who: str) -> str:
    """A person's name as a ledger takes it (InvalidInput if it is empty or not printable)."""
    if not who.strip() or not who.isprintable():
        raise InvalidInput(f"{who!r} is no name.", expected="printable text in one line.", remedy="correct --who.")
    return who
