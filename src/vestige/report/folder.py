"""A run's folder: ``report.json`` is the record, ``report.html`` is drawn from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn, cast

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from vestige.errors import CorruptFile, InvalidInput, NotFound, Unsupported
from vestige.record import SCHEMA_VERSION, Record
from vestige.report.evidence import Evidence
from vestige.report.html import render
from vestige.store import write_bytes

JSON_NAME, HTML_NAME = "report.json", "report.html"


def write(record: Record, folder: Path, evidence: Evidence | None = None) -> tuple[Path, Path]:
    """Write ``report.json`` and ``report.html`` into ``folder``, each replaced whole; returns their paths.

    Both are made in memory first, so a record that cannot be drawn leaves the folder as it was. Numbers that are
    not finite become null. Pictures are shown only if ``evidence`` is passed; they never enter the JSON.

    Raises
    ------
    InvalidInput : the record would not be readable again (NaN where a number is required, text that is not
        Unicode) or cannot be drawn. StorageFailed : the folder cannot be written.
    """
    text = _to_json(record)
    page = render(_parse(text), evidence).encode()
    paths = folder / JSON_NAME, folder / HTML_NAME
    write_bytes(paths[0], text.encode())
    write_bytes(paths[1], page)
    return paths


def load(folder: Path) -> Record:
    """Read the record of a run.

    Raises
    ------
    NotFound : no ``report.json`` in ``folder``. CorruptFile : it is not a record; the message names the field.
    Unsupported : it was written with a schema version that this vestige does not read.
    """
    path = folder / JSON_NAME
    try:
        text = path.read_bytes().decode("utf-8")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise NotFound(
            f"There is no {path}.",
            expected="a folder that a vestige command wrote.",
            remedy="give the folder that was passed to --out.",
        ) from error
    except UnicodeDecodeError as error:
        raise _corrupt(path, f"byte {error.start} is not UTF-8") from error
    _check_version(path, text)
    try:
        return _parse(text)
    except ValidationError as error:
        raise _corrupt(path, _first(error)) from error


def _to_json(record: Record) -> str:
    try:
        text = record.model_dump_json(indent=2)
        _parse(text)
    except ValidationError as error:
        found = f"The record could not be read again: {_first(error)}."
    except (PydanticSerializationError, UnicodeEncodeError) as error:
        found = f"The record cannot be written as JSON: {error}."
    else:
        return text + "\n"
    raise InvalidInput(
        found,
        expected="finite numbers in every required field, and text that is Unicode.",
        remedy="correct the part of the program that fills this field.",
    )


def _parse(text: str) -> Record:
    return Record.model_validate_json(text)


def _check_version(path: Path, text: str) -> None:
    try:
        content = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise _corrupt(path, str(error)) from error
    if not isinstance(content, dict):
        raise _corrupt(path, "it holds no object")
    version = cast("dict[str, Any]", content).get("schema_version")
    if version is None:
        raise _corrupt(path, "schema_version is missing")
    if version != SCHEMA_VERSION:
        raise Unsupported(
            f"{path} has schema version {version!r}.",
            expected=f"schema version {SCHEMA_VERSION!r}.",
            remedy="install the version of vestige that wrote it, or run the command again with this one.",
        )


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _first(error: ValidationError) -> str:
    """The first field at fault and how many there are beside it."""
    problems = error.errors(include_url=False, include_input=False)
    field = ".".join(str(part) for part in problems[0]["loc"]) or "the document"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{field}: {problems[0]['msg']}{more}"


def _corrupt(path: Path, reason: str) -> CorruptFile:
    return CorruptFile(
        f"{path} is not a record: {reason}.",
        expected="the JSON that vestige writes, described by vestige.record.json_schema().",
        remedy="run the command again, or restore the file from a copy.",
    )
