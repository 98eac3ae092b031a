"""Cards as JSON: numbers as base64 of little-endian float32, everything else readable."""

from __future__ import annotations

import base64
import binascii
import math
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vestige.errors import CorruptFile
from vestige.fingerprint.card import LEAST, BandVector, Fingerprint
from vestige.fingerprint.fold import Doubles
from vestige.fingerprint.profile import RANKS

_TERMS = 3
_MOST = 1 << 24
"""Characters of the longest card that is read: far more than any model needs."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _Band(_Part):
    band: str
    count: int = Field(ge=2)
    tokens: str = Field(pattern="^[0-9a-f]{64}$")
    vector: str


class _Card(_Part):
    format: Literal["vestige-fingerprint"] = "vestige-fingerprint"
    version: Literal[1] = 1
    architecture: str
    depth: int = Field(ge=1, le=1 << 16)
    width: int = Field(ge=1)
    vocabulary: int = Field(ge=1)
    digest: str
    sketch_size: int = Field(ge=1, le=1 << 16)
    sketch_seed: int = Field(ge=0, lt=1 << 64)
    last: int = Field(ge=1, le=1 << 16)
    layer_size: int = Field(ge=1, le=1 << 16)
    layers_read: int = Field(ge=0, le=1 << 16)
    words: int = Field(ge=2)
    bands: list[_Band] = Field(min_length=1)
    layers: str
    spectra: str
    strengths: str
    least_words: str


def _written(array: npt.NDArray[np.generic], dtype: str) -> str:
    return base64.b64encode(np.ascontiguousarray(array, dtype).tobytes()).decode("ascii")


def card_json(card: Fingerprint) -> str:
    """A card as one line of JSON; :func:`read_card` gives the same card back, number for number."""
    bands = [_Band(band=b.band, count=b.count, tokens=b.tokens, vector=_written(b.vector, "<f4")) for b in card.bands]
    return _Card(
        architecture=card.architecture,
        depth=card.depth,
        width=card.width,
        vocabulary=card.vocabulary,
        digest=card.digest,
        sketch_size=card.sketch_size,
        sketch_seed=card.sketch_seed,
        last=card.last,
        layer_size=card.layers.shape[2],
        layers_read=len(card.layers),
        words=card.words,
        bands=bands,
        layers=_written(card.layers, "<f4"),
        spectra=_written(card.spectra, "<f4"),
        strengths=_written(card.strengths, "<f4"),
        least_words=_written(card.least_words, "<u8"),
    ).model_dump_json()


def _corrupt(what: str) -> CorruptFile:
    return CorruptFile(
        f"The card cannot be read: {what}.",
        expected="a card that `vestige fingerprint` wrote.",
        remedy="fetch it again, or make it anew from the model.",
    )


def _bytes(text: str, name: str) -> bytes:
    try:
        return base64.b64decode(text.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error) as error:
        raise _corrupt(f"{name} is not base64") from error


def _numbers(text: str, shape: tuple[int, ...], name: str) -> Doubles:
    raw = _bytes(text, name)
    if len(raw) != 4 * math.prod(shape):
        raise _corrupt(f"{name} holds {len(raw)} bytes instead of {4 * math.prod(shape)}")
    array = np.frombuffer(raw, "<f4").reshape(shape).astype(np.float64)
    if not np.isfinite(array).all():
        raise _corrupt(f"{name} holds numbers that are not finite")
    return array


def read_card(text: str) -> Fingerprint:
    """The card that :func:`card_json` wrote.

    Raises
    ------
    CorruptFile : the text is no card, or parts of it do not fit together.
    """
    if len(text) > _MOST:
        raise _corrupt(f"it has {len(text)} characters")
    try:
        held = _Card.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        raise _corrupt(f"{'.'.join(map(str, first['loc'])) or 'the whole'}: {first['msg']}") from error
    raw = _bytes(held.least_words, "least_words")
    if held.layers_read not in (0, held.depth) or len(raw) != 8 * min(LEAST, held.words):
        raise _corrupt("its numbers of layers or words do not fit together")
    length = held.last * _TERMS * held.sketch_size
    return Fingerprint(
        architecture=held.architecture,
        depth=held.depth,
        width=held.width,
        vocabulary=held.vocabulary,
        digest=held.digest,
        sketch_size=held.sketch_size,
        sketch_seed=held.sketch_seed,
        last=held.last,
        bands=tuple(BandVector(b.band, b.count, b.tokens, _numbers(b.vector, (length,), b.band)) for b in held.bands),
        layers=_numbers(held.layers, (held.layers_read, _TERMS, held.layer_size), "layers"),
        spectra=_numbers(held.spectra, (held.layers_read, _TERMS, RANKS), "spectra"),
        strengths=_numbers(held.strengths, (held.layers_read, _TERMS), "strengths"),
        least_words=np.frombuffer(raw, "<u8").astype(np.uint64),
        words=held.words,
    )
