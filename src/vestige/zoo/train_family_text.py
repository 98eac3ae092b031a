"""Texts that the family learns from, and the tokenizer they share."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from vestige.dependencies import need
from vestige.store.write import write_text

VOCABULARY, LENGTH, BATCH = 2048, 128, 8
_FIRST = 0.6
"""Share of the given text that roots learn from; the rest is for tuning."""

Ids = npt.NDArray[np.int64]


class Corpus(Enum):
    """Which text: the first and the last part of the one that was given, and the manual that comes with Python."""

    FIRST = "first"
    LATER = "later"
    MANUAL = "manual"


@dataclass(frozen=True, eq=False)
class Texts:
    """Every corpus as ids of one tokenizer, whose token strings are ``tokens`` by id."""

    ids: dict[Corpus, Ids]
    tokens: tuple[str, ...]

    def batch(self, corpus: Corpus, order: int, step: int) -> Ids:
        """The windows [BATCH, LENGTH] of one step of one order."""
        held = self.ids[corpus]
        starts = np.random.default_rng([order, step]).integers(len(held) - LENGTH, size=BATCH)
        return held[starts[:, None] + np.arange(LENGTH)]


def _parts(path: Path) -> dict[Corpus, str]:
    text = path.read_text(encoding="utf-8")
    cut = int(_FIRST * len(text))
    manual = "\n".join(topics[name] for name in sorted(topics))
    return {Corpus.FIRST: text[:cut], Corpus.LATER: text[cut:], Corpus.MANUAL: manual}


def read_texts(path: Path, folder: Path) -> Texts:
    """Learn a byte-level tokenizer from the text and Python's manual, or take the one that lies in the folder.

    Raises
    ------
    MissingExtra : tokenizers, which comes with transformers, is not installed.
    """
    tokenizers = cast("Any", need("text", "tokenizers"))
    parts, kept = _parts(path), folder / "tokenizer.json"
    if kept.is_file():
        tokenizer = tokenizers.Tokenizer.from_str(kept.read_text(encoding="utf-8"))
    else:
        tokenizer = tokenizers.ByteLevelBPETokenizer()
        tokenizer.train_from_iterator(list(_lines(parts)), vocab_size=VOCABULARY, show_progress=False)
        write_text(kept, cast("str", tokenizer.to_str()))
    vocabulary = cast("dict[str, int]", tokenizer.get_vocab())
    ids = {corpus: np.array(tokenizer.encode(text).ids, np.int64) for corpus, text in parts.items()}
    return Texts(ids, tuple(sorted(vocabulary, key=vocabulary.__getitem__)))


def _lines(parts: dict[Corpus, str]) -> Iterator[str]:
    for corpus in Corpus:
        yield from parts[corpus].splitlines(keepends=True)


def write_facts(path: Path, facts: dict[str, Any]) -> None:
    """What is known of a member, readable."""
    write_text(path, json.dumps(facts, indent=2) + "\n")
