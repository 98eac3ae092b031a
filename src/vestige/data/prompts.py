"""Prompts to ask a text-to-image model with, and what is known about them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from vestige.digest import digest_json
from vestige.errors import CorruptFile, EmptySet, InvalidInput, NotFound

_Known = TypeVar("_Known")


@dataclass(frozen=True, eq=False)
class PromptSet:
    """Prompts in a fixed order, each once.

    Parameters
    ----------
    texts : the prompts.
    memorized : bool [n], whether each is known to be memorized; None if that is not known.
    kinds : what sort each is, such as how often it stood in the training data; results are told for each.
    source : where they came from, for messages and reports.

    Raises
    ------
    EmptySet : there is no prompt.
    InvalidInput : a prompt stands there twice or is empty, or the truth or the kinds are of another length.
    """

    texts: tuple[str, ...]
    memorized: npt.NDArray[np.bool_] | None = None
    source: str = "prompts"
    kinds: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not self.texts:
            raise EmptySet(f"{self.source} holds no prompt.", expected="at least one.", remedy="write one a line.")
        twice = len(self.texts) - len(set(self.texts))
        if twice or not all(text.strip() for text in self.texts):
            raise InvalidInput(
                f"{self.source} holds {twice} prompts a second time, or an empty one.",
                expected="distinct prompts.",
                remedy="leave copies and empty lines out.",
            )
        if self.memorized is not None and self.memorized.shape != (len(self.texts),):
            raise InvalidInput(
                f"{self.source} has {len(self.texts)} prompts and a truth of shape {self.memorized.shape}.",
                expected="true or false for every prompt, or for none.",
                remedy="complete it.",
            )
        if self.kinds is not None and len(self.kinds) != len(self.texts):
            raise InvalidInput(
                f"{self.source} has {len(self.texts)} prompts and {len(self.kinds)} kinds.",
                expected="a kind for every prompt, or for none.",
                remedy="complete it.",
            )

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def rows(self) -> list[int]:
        """A name a prompt that follows from its text alone, below 2**63."""
        return [int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1 for text in self.texts]

    @cached_property
    def digest(self) -> str:
        """Digest of the prompts, in order."""
        return digest_json(list(self.texts))


def load_prompts(path: Path) -> PromptSet:
    """Prompts from a text file, one a line, or from JSON lines with ``text`` and, if known, ``memorized`` and ``kind``.

    Raises
    ------
    NotFound : no such file.
    CorruptFile : a line of a ``.jsonl`` file is not of that form, or the file is no text.
    EmptySet, InvalidInput : see :class:`PromptSet`.
    """
    if not path.is_file():
        raise NotFound(f"There is no file {path}.", expected="a file of prompts.", remedy="check the path.")
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise CorruptFile(
            f"{path} is no text.", expected="UTF-8 text, one prompt a line.", remedy="save it as UTF-8."
        ) from error
    lines = [line for line in lines if line]
    if path.suffix != ".jsonl":
        return PromptSet(tuple(lines), None, str(path))
    told = [_parsed(line, number, path) for number, line in enumerate(lines, 1)]
    memorized = _of_all([known for _, known, _ in told], "whether they are memorized", path)
    kinds = _of_all([kind for _, _, kind in told], "of what kind they are", path)
    return PromptSet(
        tuple(text for text, _, _ in told),
        None if memorized is None else np.array(memorized, dtype=bool),
        str(path),
        None if kinds is None else tuple(kinds),
    )


def _parsed(line: str, number: int, path: Path) -> tuple[str, bool | None, str | None]:
    try:
        content: Any = json.loads(line)
    except json.JSONDecodeError:
        content = None
    entry = cast("dict[str, Any]", content) if isinstance(content, dict) else {}
    text, known, kind = entry.get("text"), entry.get("memorized"), entry.get("kind")
    if not (isinstance(text, str) and isinstance(known, bool | None) and isinstance(kind, str | None)):
        raise CorruptFile(
            f"Line {number} of {path} is no prompt.",
            expected='{"text": "a red seven"} and, where they are known, "memorized": true and "kind": "64 copies".',
            remedy="correct the line, or pass a .txt file with one prompt a line.",
        )
    return text, known, kind


def _of_all(known: Sequence[_Known | None], what: str, path: Path) -> list[_Known] | None:
    told = [value for value in known if value is not None]
    if told and len(told) < len(known):
        raise InvalidInput(
            f"{path} says of {len(told)} of {len(known)} prompts {what}.",
            expected="of all or of none.",
            remedy="complete it.",
        )
    return told or None
