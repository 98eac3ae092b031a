"""Opening what a fingerprint command is given: a model, or the card of one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, final

import numpy as np
import numpy.typing as npt

from vestige.errors import CorruptFile, NotFound, Unsupported
from vestige.fingerprint.card import Fingerprint, Plan, fingerprint
from vestige.fingerprint.publish import read_card
from vestige.models.transformer.block import Block, Matrix, Norm, Transformer
from vestige.models.transformer.open import open_transformer
from vestige.progress import Progress

CARD_VERSION = 1
_FORMAT = "vestige-fingerprint"
_LARGEST = 1 << 24


@dataclass(frozen=True, eq=False)
class Side:
    """One model of a comparison: its name, its path, and its weights or its card, whichever was given."""

    name: str
    path: Path
    source: Transformer | Fingerprint

    @property
    def model(self) -> Transformer | None:
        """The weights, where they were given."""
        return self.source if isinstance(self.source, Transformer) else None

    @property
    def digest(self) -> str:
        """Digest of the weights."""
        return self.source.digest

    def fingerprint(self, plan: Plan | None, progress: Progress) -> Fingerprint:
        """The card: as it was given, or made from the weights, with a bar over the layers."""
        if isinstance(self.source, Fingerprint):
            return self.source
        with progress.task(f"Reading {self.name}", self.source.depth) as task:
            return fingerprint(Watched(self.source, task.advance), plan)


def open_side(path: str | Path) -> Side:
    """A model or a card by its path; a card is a ``.json`` file that ``vestige fingerprint`` wrote.

    Raises
    ------
    NotFound, CorruptFile, BadWeights, Unsupported, InvalidInput : it is neither; see :func:`open_transformer` and
        :func:`read_card_file`.
    """
    path = Path(path)
    if is_card(path):
        return Side(path.stem, path, read_card_file(path))
    return Side(model_name(path), path, open_model(path))


def is_card(path: Path) -> bool:
    """Whether a path is named like a card: JSON, and no index of shards."""
    return path.suffix == ".json" and not path.name.endswith(".index.json") and not path.is_dir()


def model_name(path: Path) -> str:
    """What a model is called: its folder, or its file without the suffix."""
    whole = path.resolve()
    return whole.name if whole.is_dir() or whole.suffix not in (".gguf", ".safetensors") else whole.stem


def open_model(path: str | Path) -> Transformer:
    """The model at a path, as :func:`open_transformer` reads it.

    Raises
    ------
    NotFound : nothing is there, or a file that is no model; the message says what would be one.
    """
    path = Path(path)
    if not path.exists():
        raise NotFound(
            f"There is no {path}.",
            expected="a folder of transformers (config.json beside safetensors), or a GGUF file.",
            remedy="check the path; nothing is downloaded.",
        )
    return open_transformer(path)


def read_card_file(path: Path) -> Fingerprint:
    """A published card.

    Raises
    ------
    NotFound : there is no such file. Unsupported : it was written for another version of the format.
    CorruptFile : it is no card, or damaged.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise _no_card(path, f"it has {path.stat().st_size:,} bytes")
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise NotFound(
            f"{path} cannot be read ({error.strerror}).",
            expected="a card that `vestige fingerprint MODEL -o card.json` wrote.",
            remedy="check the path.",
        ) from error
    except UnicodeDecodeError as error:
        raise _no_card(path, f"byte {error.start} is not UTF-8") from error
    _check_version(path, text)
    try:
        return read_card(text)
    except CorruptFile as error:
        raise CorruptFile(f"{path}: {error.found}", expected=error.expected, remedy=error.remedy) from error


def _check_version(path: Path, text: str) -> None:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _no_card(path, f"it is no JSON: {str(error)[:120]}") from error
    fields = cast("dict[str, Any]", content) if isinstance(content, dict) else {}
    if fields.get("format") != _FORMAT:
        raise _no_card(path, "its field 'format' says otherwise")
    version = fields.get("version")
    if version != CARD_VERSION:
        raise Unsupported(
            f"{path} is a card of version {str(version)[:20]}.",
            expected=f"version {CARD_VERSION}, the one that this vestige writes and compares.",
            remedy="make the card again from the model with this vestige, or install the vestige that wrote it.",
        )


def _no_card(path: Path, why: str) -> CorruptFile:
    return CorruptFile(
        f"{path} is no fingerprint card: {why}.",
        expected="the JSON that `vestige fingerprint MODEL -o card.json` writes, or a model.",
        remedy="pass the card, the model's folder, or its GGUF file.",
    )


@final
class Watched(Transformer):
    """A model that tells how many of its blocks were read for the first time; everything else is the model's."""

    def __init__(self, model: Transformer, advance: Callable[[], None]) -> None:
        self._model, self._advance = model, advance
        self._seen: set[int] = set()

    @property
    def architecture(self) -> str:
        """Its name in the field."""
        return self._model.architecture

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return self._model.depth

    @property
    def width(self) -> int:
        """Width of the residual stream."""
        return self._model.width

    @property
    def vocabulary(self) -> int:
        """Rows of the embedding."""
        return self._model.vocabulary

    @property
    def tokens(self) -> tuple[str, ...] | None:
        """The token of every row."""
        return self._model.tokens

    @property
    def digest(self) -> str:
        """Of the model."""
        return self._model.digest

    @property
    def embedding_scale(self) -> float:
        """What the embedding's rows are multiplied by."""
        return self._model.embedding_scale

    @property
    def logit_cap(self) -> float | None:
        """Where logits are capped."""
        return self._model.logit_cap

    def embedding(self, rows: npt.NDArray[np.int64] | None = None) -> Matrix:
        """Embedding of these rows, or all."""
        return self._model.embedding(rows)

    def positions(self) -> Matrix | None:
        """Learned absolute positions."""
        return self._model.positions()

    def embedding_norm(self) -> Norm | None:
        """The norm between embedding and first block."""
        return self._model.embedding_norm()

    def final_norm(self) -> Norm | None:
        """The norm before the head."""
        return self._model.final_norm()

    def head(self) -> Matrix | None:
        """The head."""
        return self._model.head()

    def head_bias(self) -> Matrix | None:
        """What is added to the logits."""
        return self._model.head_bias()

    def block(self, index: int) -> Block:
        """Block ``index``; its first reading counts."""
        found = self._model.block(index)
        if index not in self._seen:
            self._seen.add(index)
            self._advance()
        return found
