"""The tokens that two vocabularies share, and bands of them: rows are matched by what they stand for, not by place.

A model whose file holds no tokens is matched by row number, and only with a model of as many rows; a permuted
vocabulary then cannot be undone.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from vestige.errors import InvalidInput
from vestige.models.transformer.block import Transformer

Rows = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]


def hash_of(word: str) -> int:
    """64 bits of BLAKE2b of a token: the row of its noise, the same in every model."""
    return int.from_bytes(hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


@dataclass(frozen=True, eq=False)
class Words:
    """Tokens of one model that stand for exactly one row, in the order of rows.

    ``rows`` [n] are their rows of the embedding; ``by_row`` says that the names are only row numbers.
    """

    names: tuple[str, ...]
    rows: Rows
    by_row: bool = False

    @staticmethod
    def of(transformer: Transformer) -> Words:
        """The tokens of a model; strings that two rows share are left out, since neither can be matched."""
        tokens, held = transformer.tokens, transformer.vocabulary
        if tokens is None:
            return Words(tuple(f"#{row}" for row in range(held)), np.arange(held, dtype=np.int64), by_row=True)
        count = Counter(tokens[:held])
        single = [row for row, token in enumerate(tokens[:held]) if count[token] == 1]
        return Words(tuple(tokens[row] for row in single), np.array(single, np.int64))

    @cached_property
    def hashes(self) -> Hashes:
        """:func:`hash_of` every name [n]."""
        return np.array([hash_of(name) for name in self.names], np.uint64)

    def __len__(self) -> int:
        return len(self.names)

    def at(self, places: Rows) -> Words:
        """The words at these places, in this order."""
        return Words(tuple(self.names[place] for place in places), self.rows[places], self.by_row)


def shared(first: Words, second: Words) -> tuple[Words, Words]:
    """The words that both models have, twice over in the order of the first; empty where they cannot be matched."""
    if first.by_row != second.by_row or (first.by_row and len(first) != len(second)):
        nothing = np.empty(0, np.int64)
        return first.at(nothing), second.at(nothing)
    where = {name: place for place, name in enumerate(second.names)}
    both = [(place, where[name]) for place, name in enumerate(first.names) if name in where]
    ours, theirs = (np.array(side, np.int64).reshape(-1) for side in (zip(*both, strict=True) if both else ((), ())))
    return first.at(ours), second.at(theirs)


@dataclass(frozen=True)
class Band(ABC):
    """Which words an invariant is taken over. Fields are its settings; a subclass is final."""

    claim: ClassVar[str]

    @abstractmethod
    def choose(self, words: Words) -> Rows:
        """Places [k] among the words, ascending."""

    @property
    def name(self) -> str:
        """How a table calls it."""
        return type(self).__name__.lower()


def _positive(count: int) -> None:
    if count < 2:
        raise InvalidInput(f"A band of {count} tokens.", expected="at least 2.", remedy="ask for more tokens.")


@dataclass(frozen=True)
class Rarest(Band):
    """The last words in the order of rows: those that byte-pair merging made last, moved least by training."""

    claim: ClassVar[str] = "Rare rows move least when a model is tuned, and are the cheapest to overwrite."
    count: int = 1024

    def __post_init__(self) -> None:
        _positive(self.count)

    def choose(self, words: Words) -> Rows:
        """The last ``count`` places."""
        return np.arange(max(0, len(words) - self.count), len(words), dtype=np.int64)


@dataclass(frozen=True)
class Commonest(Band):
    """The first words in the order of rows: bytes, marks and the merges that were made first."""

    claim: ClassVar[str] = "Common rows cannot be overwritten without harm."
    count: int = 1024

    def __post_init__(self) -> None:
        _positive(self.count)

    def choose(self, words: Words) -> Rows:
        """The first ``count`` places."""
        return np.arange(min(self.count, len(words)), dtype=np.int64)


@dataclass(frozen=True)
class Middle(Band):
    """Words from the middle of the order of rows."""

    claim: ClassVar[str] = "Between rows that training moves and rows that are free to overwrite."
    count: int = 1024

    def __post_init__(self) -> None:
        _positive(self.count)

    def choose(self, words: Words) -> Rows:
        """``count`` places around the middle."""
        held = min(self.count, len(words))
        start = (len(words) - held) // 2
        return np.arange(start, start + held, dtype=np.int64)


@dataclass(frozen=True)
class Sampled(Band):
    """Words with the smallest hashes: a sample that no reordering changes and new words change little.

    Whether a word is in it depends on the word alone and on how many others there are (bottom-k sampling), so two
    models that share most words share most of the band, however their rows are ordered.
    """

    claim: ClassVar[str] = "The same words in every model, whatever the order of its rows."
    count: int = 4096

    def __post_init__(self) -> None:
        _positive(self.count)

    def choose(self, words: Words) -> Rows:
        """Places of the ``count`` smallest hashes."""
        order = np.argsort(words.hashes, kind="stable")[: self.count]
        return np.sort(order).astype(np.int64)


@dataclass(frozen=True)
class Everything(Band):
    """The whole vocabulary."""

    claim: ClassVar[str] = "Nothing left out; the factored form makes it affordable."

    def choose(self, words: Words) -> Rows:
        """Every place."""
        return np.arange(len(words), dtype=np.int64)


@dataclass(frozen=True)
class Listed(Band):
    """Words of a list, such as those a corpus uses least."""

    claim: ClassVar[str] = "The words that a count over a corpus names."
    list_name: str = "listed"
    tokens: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name of the list."""
        return self.list_name

    def choose(self, words: Words) -> Rows:
        """Places of the words of the list that the model has."""
        wanted = set(self.tokens)
        return np.array([place for place, name in enumerate(words.names) if name in wanted], np.int64)


BANDS: Sequence[Band] = (Sampled(), Rarest(), Middle(), Commonest())
"""What is compared by default: no one band can be overwritten unnoticed."""
