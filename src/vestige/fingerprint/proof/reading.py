"""Small files read within a bound, secret files written for their owner alone, and the JSON forms of each tier."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

from vestige.errors import AlreadyExists, CorruptFile, InvalidInput, NotFound, StorageFailed
from vestige.fingerprint.proof.auditor import KEY_BYTES, RowCommitment, RowKey
from vestige.fingerprint.proof.challenge import DIGEST_BYTES, LEAST_NONCE, MOST_NONCE, MOST_SIZE, Challenge
from vestige.fingerprint.proof.integers import MOST_INNER, MOST_WORDS, TermName
from vestige.fingerprint.proof.open_weights import FileDigest, Manifest
from vestige.fingerprint.proof.sketch import IntegerSketch
from vestige.fingerprint.terms import Term

MOST_BYTES = 1 << 28
MOST_JSON = 1 << 26
_SECRET_MODE = 0o600

T = TypeVar("T")


def read_bounded(path: Path, most: int = MOST_BYTES) -> bytes:
    """The bytes of a file of at most ``most``.

    Raises
    ------
    NotFound : it cannot be read. CorruptFile : it is larger than any file of its kind.
    """
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise NotFound(
            f"{path} cannot be read ({error.strerror}).",
            expected="a file that vestige wrote.",
            remedy="check the path.",
        ) from error
    if len(data) > most:
        raise CorruptFile(
            f"{path} is larger than {most:,} bytes.", expected="a file of this kind.", remedy="check the path."
        )
    return data


def write_secret(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read (mode 0600) whole or not at all; an existing one is kept.

    Raises
    ------
    AlreadyExists : there is a file, which may be the only copy of a secret. StorageFailed : the disk refused.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _SECRET_MODE)
    except OSError as error:
        refuse_existing(path)
        raise _not_written(path, content, error) from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise _not_written(path, content, error) from error


def refuse_existing(path: Path) -> None:
    """Raise AlreadyExists if there is something of this name."""
    if path.exists():
        raise AlreadyExists(
            f"{path} exists.", expected="a new name for a secret.", remedy="choose another folder, or move it away."
        )


def _not_written(path: Path, content: bytes, error: OSError) -> StorageFailed:
    return StorageFailed(
        f"Writing {path} failed: {error.strerror or error}.",
        expected=f"{len(content):,} free bytes and a writable folder.",
        remedy="free some space or choose another folder.",
    )


def challenge_json(challenge: Challenge) -> str:
    """A challenge as JSON."""
    commitments = [digest.hex() for digest in challenge.commitments]
    return _written("challenge", {"nonce": challenge.nonce.hex(), "commitments": commitments, "size": challenge.size})


def challenge_of(data: bytes, name: str) -> Challenge:
    """The challenge of :func:`challenge_json`. Raises CorruptFile."""
    fields = _fields(data, "challenge", {"nonce", "commitments", "size"}, name)
    nonce = _hex(fields["nonce"], LEAST_NONCE, MOST_NONCE, name)
    digests = tuple(_hex(digest, DIGEST_BYTES, DIGEST_BYTES, name) for digest in _list(fields["commitments"], name))
    size = _whole(fields["size"], 2, MOST_SIZE, name)
    return _made(lambda: Challenge(nonce, digests, size), name)


def row_commitment_json(commitment: RowCommitment) -> str:
    """A root as JSON."""
    return _written("row commitment", {"root": commitment.root.hex()})


def row_commitment_of(data: bytes, name: str) -> RowCommitment:
    """The root of :func:`row_commitment_json`. Raises CorruptFile."""
    fields = _fields(data, "row commitment", {"root"}, name)
    return RowCommitment(_hex(fields["root"], DIGEST_BYTES, DIGEST_BYTES, name))


def row_key_json(key: RowKey) -> str:
    """A key as JSON; keep it secret."""
    return _written("row key", {"root": key.root.hex(), "key": key.key.hex()})


def row_key_of(data: bytes, name: str) -> RowKey:
    """The key of :func:`row_key_json`. Raises CorruptFile."""
    fields = _fields(data, "row key", {"root", "key"}, name)
    return RowKey(
        _hex(fields["root"], DIGEST_BYTES, DIGEST_BYTES, name), _hex(fields["key"], KEY_BYTES, KEY_BYTES, name)
    )


def manifest_json(manifest: Manifest) -> str:
    """A manifest as JSON; numbers of the sketch are text, since they can exceed 2**53."""
    return _written(
        "manifest",
        {
            "files": [[file.name, file.size, file.digest] for file in manifest.files],
            "names": list(manifest.names),
            "by_row": manifest.by_row,
            "terms": [[name.layer, name.term.value, name.inner] for name in manifest.sketch.terms],
            "values": [[str(value) for value in values] for values in manifest.sketch.values],
        },
    )


def manifest_of(data: bytes, name: str) -> Manifest:
    """The manifest of :func:`manifest_json`. Raises CorruptFile."""
    fields = _fields(data, "manifest", {"files", "names", "by_row", "terms", "values"}, name)
    files = tuple(_file(entry, name) for entry in _list(fields["files"], name))
    names = tuple(_text(entry, name) for entry in _list(fields["names"], name))
    terms = tuple(_term(entry, name) for entry in _list(fields["terms"], name))
    values = tuple(tuple(_integer(entry, name) for entry in _list(row, name)) for row in _list(fields["values"], name))
    sizes = {len(row) for row in values}
    if not isinstance(fields["by_row"], bool) or len(values) != len(terms) or len(sizes) != 1:
        raise _bad(name)
    if not 2 <= min(sizes) <= MOST_SIZE or not 2 <= len(names) <= MOST_WORDS or len(set(names)) < len(names):
        raise _bad(name)
    if [file.name for file in files] != sorted({file.name for file in files}):
        raise _bad(name)
    return Manifest(files, names, fields["by_row"], IntegerSketch(terms, values))


def _written(kind: str, fields: Mapping[str, Any]) -> str:
    return json.dumps({"format": f"vestige {kind} 1", **fields}, indent=1) + "\n"


def _fields(data: bytes, kind: str, expected: set[str], name: str) -> dict[str, Any]:
    try:
        fields = json.loads(data.decode(), parse_constant=lambda _: None, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise _bad(name) from error
    if (
        not isinstance(fields, dict)
        or fields.get("format") != f"vestige {kind} 1"
        or set(fields) != {"format"} | expected
    ):
        raise _bad(name)
    return cast("dict[str, Any]", fields)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("a field twice")
    return dict(pairs)


def _list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise _bad(name)
    return cast("list[Any]", value)


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise _bad(name)
    return value


def _whole(value: Any, least: int, most: int, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise _bad(name)
    return value


def _hex(value: Any, least: int, most: int, name: str) -> bytes:
    text = _text(value, name)
    if len(text) % 2 or not 2 * least <= len(text) <= 2 * most or set(text) - set("0123456789abcdef"):
        raise _bad(name)
    return bytes.fromhex(text)


def _integer(value: Any, name: str) -> int:
    text = _text(value, name)
    if not 1 <= len(text) <= 40 or str(_made(lambda: int(text), name)) != text:
        raise _bad(name)
    return int(text)


def _file(value: Any, name: str) -> FileDigest:
    entry = _list(value, name)
    if len(entry) != 3:
        raise _bad(name)
    digest = _hex(entry[2], DIGEST_BYTES, DIGEST_BYTES, name).hex()
    return FileDigest(_text(entry[0], name), _whole(entry[1], 0, 1 << 62, name), digest)


def _term(value: Any, name: str) -> TermName:
    entry = _list(value, name)
    if len(entry) != 3:
        raise _bad(name)
    term = _made(lambda: Term(_text(entry[1], name)), name)
    return TermName(_whole(entry[0], 0, 1 << 20, name), term, _whole(entry[2], 1, MOST_INNER, name))


def _made(make: Callable[[], T], name: str) -> T:
    try:
        return make()
    except (ValueError, InvalidInput) as error:
        raise _bad(name) from error


def _bad(name: str) -> CorruptFile:
    return CorruptFile(
        f"{name} is not a file of the form it should have.",
        expected="JSON that vestige wrote, every field of its kind and no other.",
        remedy="ask for the file again.",
    )
