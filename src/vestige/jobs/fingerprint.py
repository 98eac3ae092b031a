"""``vestige fingerprint``: the card of a model, the code of its vector, and its portrait."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vestige.digest import short
from vestige.errors import AlreadyExists
from vestige.fingerprint.card import Fingerprint, Plan
from vestige.fingerprint.portrait.code import VectorCode
from vestige.fingerprint.publish import card_json
from vestige.jobs.fingerprint_open import open_side
from vestige.progress import Progress, Silent
from vestige.record import Table
from vestige.store.write import write_text

if TYPE_CHECKING:
    from vestige.fingerprint.portrait.painter import Painter


@dataclass(frozen=True, eq=False)
class Fingerprinted:
    """A model's card, what it is called and the code under its portrait."""

    name: str
    card: Fingerprint
    code: VectorCode

    def table(self) -> Table:
        """What identifies the model, a line each."""
        card = self.card
        bands = ", ".join(f"{band.band} {band.count:,}" for band in card.bands)
        rows = [
            ["architecture", card.architecture],
            ["layers", f"{card.depth} of width {card.width:,}"],
            ["vocabulary", f"{card.vocabulary:,} rows, {card.words:,} tokens that stand for one row"],
            ["weights", f"SHA-256 {card.digest}"],
            ["vector", f"{card.vector.size} numbers from the last {card.last} layers; bands of tokens: {bands}"],
            ["code, kin", self.code.kin],
            ["code, exact", self.code.exact],
        ]
        return Table(
            name="fingerprint",
            title=f"Fingerprint of {self.name} ({short(card.digest)})",
            columns=["", "value"],
            rows=[list(row) for row in rows],
        )


def fingerprint(
    model: str | Path,
    *,
    out: str | Path | None = None,
    portrait: str | Path | None = None,
    painter: Painter | None = None,
    plan: Plan | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Fingerprinted:
    """Fingerprint a model, or look at a card that exists.

    Parameters
    ----------
    model : transformers folder, GGUF file, or a card.
    out : JSON file for the card; not written if absent.
    portrait : PNG file for the portrait, with the code under it; not drawn if absent.
    painter : draws it; the shipped one if absent.
    plan : what goes into the card; only cards of one plan can be compared.

    Raises
    ------
    AlreadyExists : a file would be replaced; nothing was read yet.
    NotFound, CorruptFile, BadWeights, Unsupported, InvalidInput, EmptySet : the model cannot be read.
    StorageFailed : a file cannot be written.
    """
    for path in (out, portrait):
        refuse_to_replace(path, overwrite)
    side = open_side(model)
    draws = None if portrait is None else _painter(painter)
    card = side.fingerprint(plan, progress or Silent())
    done = Fingerprinted(side.name, card, VectorCode.of(card.code))
    if out is not None:
        write_text(Path(out), card_json(card) + "\n")
    if portrait is not None and draws is not None:
        draws.paint(card.code).save(portrait)
    return done


def _painter(painter: Painter | None) -> Painter:
    if painter is not None:
        return painter
    from vestige.fingerprint.portrait.painter import Painter as Shipped

    return Shipped()


def refuse_to_replace(path: str | Path | None, overwrite: bool) -> None:
    """Raise AlreadyExists where a file that is to be written exists."""
    if path is not None and not overwrite and Path(path).exists():
        raise AlreadyExists(
            f"{path} exists.", expected="a new file.", remedy="choose another name or pass --overwrite."
        )
