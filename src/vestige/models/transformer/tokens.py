"""The string of every row of an embedding, from the files of a tokenizer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from vestige.errors import CorruptFile

VOCABULARY = "vocab.json"
_LARGEST = 512 << 20
"""Bytes of a file of a tokenizer; those of 250,000 tokens have 35 million."""


def tokens_of_folder(folder: Path, count: int) -> tuple[str, ...] | None:
    """The tokens of a folder's tokenizer, or None where it has no file that lists them.

    ``tokenizer.json`` is read, else ``vocab.json`` with ``added_tokens.json``. A row without a token has the empty
    string, rows after the last token are left out, and tokens without a row of the ``count`` are dropped.

    Raises
    ------
    CorruptFile : a file is not what its name says.
    """
    whole, plain = folder / "tokenizer.json", folder / VOCABULARY
    if whole.is_file():
        return _rows(_of_tokenizer(_table(whole), whole), count)
    if plain.is_file():
        added = folder / "added_tokens.json"
        pairs = {**_table(plain), **(_table(added) if added.is_file() else {})}
        return _rows(pairs.items(), count)
    return None


def _of_tokenizer(content: Mapping[str, Any], path: Path) -> Iterable[tuple[object, object]]:
    """Tokens and ids: a table of them (BPE, WordPiece) or a list of pairs in order (Unigram); then those added."""
    model = content.get("model")
    vocabulary = cast("Mapping[str, Any]", model).get("vocab") if isinstance(model, Mapping) else None
    if isinstance(vocabulary, Mapping):
        yield from cast("Mapping[str, Any]", vocabulary).items()
    elif isinstance(vocabulary, list):
        for row, pair in enumerate(cast("list[Any]", vocabulary)):
            yield (cast("list[Any]", pair)[0] if isinstance(pair, list) and pair else None), row
    else:
        raise _odd(path, "no vocabulary")
    added = content.get("added_tokens") or []
    for token in cast("list[Any]", added) if isinstance(added, list) else []:
        if not isinstance(token, Mapping):
            raise _odd(path, "an added token that is no table")
        yield cast("Mapping[str, Any]", token).get("content"), cast("Mapping[str, Any]", token).get("id")


def _rows(pairs: Iterable[tuple[object, object]], count: int) -> tuple[str, ...]:
    found: dict[int, str] = {}
    for token, row in pairs:
        if isinstance(token, str) and isinstance(row, int) and not isinstance(row, bool) and 0 <= row < count:
            found[row] = token
    return tuple(found.get(row, "") for row in range(max(found, default=-1) + 1))


def _table(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LARGEST:
            raise _odd(path, f"more than {_LARGEST} bytes")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _odd(path, f"no readable JSON ({str(error)[:200]})") from error
    if not isinstance(content, dict):
        raise _odd(path, "JSON that is not a table")
    return cast("dict[str, Any]", content)


def _odd(path: Path, what: str) -> CorruptFile:
    return CorruptFile(
        f"{path} holds {what}.",
        expected="the vocabulary of a tokenizer, as transformers saves it.",
        remedy="fetch the file again, or take it away to do without tokens.",
    )
