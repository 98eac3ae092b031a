"""An increment on top of earlier ones: what stands below it, and the model that they make together."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vestige.data.split import Split
from vestige.digest import short
from vestige.erase.applied import applied, check_after, open_base, write_applied
from vestige.erase.increment import Increment
from vestige.erase.ledger import Ledger
from vestige.errors import InvalidInput, NotFound
from vestige.jobs.erase import Erasure
from vestige.models.adapters.diffusers import DiffusersDenoiser
from vestige.models.denoiser import Denoiser
from vestige.record import Estimate

IncrementLike = Erasure | Increment | str | Path


@dataclass(frozen=True, eq=False)
class Stack:
    """An increment and the earlier ones that are applied before it.

    Parameters
    ----------
    below : in order.
    withdrawn : digests of increments that it was trained on top of and that a ledger has withdrawn since.
    """

    increment: Increment
    below: tuple[Increment, ...] = ()
    withdrawn: tuple[str, ...] = ()

    @staticmethod
    def of(
        increment: IncrementLike, base: str, below: Sequence[IncrementLike] = (), ledger: str | Path | None = None
    ) -> Stack:
        """The increment on top of those below it, which are named or taken from a ledger.

        Parameters
        ----------
        base : digest of the model that all of them belong to.
        below : earlier increments, in the order in which they were made.
        ledger : file of requests; those of its active increments that are older than this one stand below it.

        Raises
        ------
        InvalidInput : the increment was trained on top of one that is missing or in another place, or both ``below``
            and ``ledger`` are given.
        NotFound, CorruptFile, DigestMismatch : an increment is not there, is damaged, is not the recorded one, is not
            active in the ledger, or belongs to another base.
        """
        top = opened(increment)
        top.check_base(base)
        if ledger is None:
            return Stack(top, _in_order(top, [opened(each) for each in below], base))
        if below:
            raise InvalidInput(
                f"The ledger {ledger} and {len(below)} increments below were given.",
                expected="one of the two.",
                remedy="leave --below out, since the ledger knows which increments are active, or leave --ledger out.",
            )
        return _recorded(top, Ledger.read(Path(ledger)), base)

    @property
    def whole(self) -> list[tuple[Increment, float]]:
        """All increments at full strength, in order."""
        return [(each, 1.0) for each in (*self.below, self.increment)]

    @property
    def earlier_rows(self) -> set[str]:
        """Row ids that the increments below forget."""
        return {row for each in self.below for row in each.manifest.forgotten}

    @property
    def words(self) -> str:
        """On what the increment stands; nothing if it stands on the bare base."""
        text = ""
        if self.below:
            names = ", ".join(f"'{each.manifest.name}' ({short(each.digest)})" for each in self.below)
            text = f"Below the increment, on the base, lie {names}. What they forget is neither retained nor counted."
        if self.withdrawn:
            gone = ", ".join(map(short, self.withdrawn))
            text += f" It was trained on top of {gone}, which the ledger has withdrawn since."
        return text.strip()

    def on(self, base: Denoiser) -> Denoiser:
        """The base with all of them applied; the base is not touched."""
        return applied(base, self.whole)

    def restored(self, base: Denoiser, out: Path) -> Estimate:
        """Apply all to a folder, take the increment off, and compare both models below it bit for bit."""
        name, unit = "restore/bit_exact", "1 = identical"
        if not isinstance(base, DiffusersDenoiser):
            return Estimate(name=name, value=None, unit=unit, note="only diffusers models can be written to a folder")
        with tempfile.TemporaryDirectory(dir=out if out.is_dir() else None) as scratch:
            there, back = Path(scratch) / "erased", Path(scratch) / "restored"
            changed = write_applied(there, base, self.whole)
            found, layers = open_base(there)
            restored = write_applied(back, found, layers[:-1])
            wanted = applied(base, self.whole[:-1])
            exact = found.digest == base.digest and restored.digest == wanted.digest != changed.digest
        note = "digest of every weight after apply and remove"
        return Estimate(name=name, value=float(exact), n=1, unit=unit, note=note)

    def costs(self) -> list[Estimate]:
        """What making the increment cost, without those below it."""
        cost = self.increment.manifest.cost
        units = {
            "forwards_per_step": "forward-equivalents of the batch",
            "forward_equivalents": "images forward through the network",
            "steps": "steps",
        }
        return [
            Estimate(name=f"erase/{key}", value=cost[key], unit=unit, note=self.increment.manifest.method)
            for key, unit in units.items()
            if key in cost
        ]

    def forgotten(self, who: Split) -> npt.NDArray[np.int64]:
        """Members that the increment forgets.

        Raises
        ------
        NotFound : it does not say which, or some are not in the training data.
        """
        rows, members = self.increment.manifest.forgotten, set(who.members.ids)
        missing = [i for i in rows if i not in members]
        if missing or not rows:
            raise NotFound(
                f"{len(missing)} rows that the increment forgets are not in the training data."
                if missing
                else "The increment does not say which rows it forgets.",
                expected="the training data that it was made with.",
                remedy="pass --data with that training data.",
            )
        return _places(set(rows), who)

    def earlier(self, who: Split) -> npt.NDArray[np.int64]:
        """Members that the increments below forget."""
        return _places(self.earlier_rows, who)


def opened(increment: IncrementLike) -> Increment:
    """The increment itself, from its folder if need be (NotFound or CorruptFile if there is none)."""
    if isinstance(increment, Erasure):
        return increment.increment
    return increment if isinstance(increment, Increment) else Increment.load(Path(increment))


def _places(rows: set[str], who: Split) -> npt.NDArray[np.int64]:
    return np.array([place for place, row in enumerate(who.members.ids) if row in rows], dtype=np.int64)


def _in_order(top: Increment, below: Sequence[Increment], base: str) -> tuple[Increment, ...]:
    for each in below:
        each.check_base(base)
    try:
        check_after([(each, 1.0) for each in (*below, top)])
    except InvalidInput as error:
        raise InvalidInput(
            error.found,
            expected=error.expected,
            remedy="pass --below FOLDER for each of them, in that order, or --ledger FILE where they are recorded.",
        ) from error
    return tuple(below)


def _recorded(top: Increment, ledger: Ledger, base: str) -> Stack:
    ledger.check(base=base)
    entry = ledger.find(top.digest)
    below = tuple(ledger.increment(each) for each in ledger.active if each.number < entry.number)
    # Of those that it was trained on, the ledger says which are no longer applied; its order is that of the requests.
    active = {each.increment for each in ledger.active}
    return Stack(top, below, tuple(digest for digest in top.manifest.after if digest not in active))
