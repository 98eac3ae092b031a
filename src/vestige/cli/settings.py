"""Turning ``--set name=value`` and its like into the fields of a method."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from vestige.errors import InvalidInput

Method = TypeVar("Method")


def by_method(
    settings: Sequence[str], names: Sequence[str], *, what: str, option: str = "--set"
) -> dict[str, list[str]]:
    """Settings ``METHOD.NAME=VALUE`` as ``NAME=VALUE`` by lower-case name of the method, every one of ``names``.

    Raises
    ------
    InvalidInput : a setting of none of them; ``what`` says what they are.
    """
    found: dict[str, list[str]] = {name.lower(): [] for name in names}
    for text in settings:
        name, dot, field = text.partition(".")
        if not dot or name.lower() not in found:
            raise InvalidInput(
                f"{option} {text} names no {what}.",
                expected=f"METHOD.NAME=VALUE with one of {', '.join(dict.fromkeys(names)) or 'none'}.",
                remedy="correct it; `vestige ls` lists methods, and the page of each its settings.",
            )
        found[name.lower()].append(field)
    return found


def with_settings(kind: type[Method], settings: Sequence[str], option: str = "--set") -> Method:
    """An instance of a method with the given fields, read by their types; lists are separated by commas.

    ``option`` is what messages say was typed.

    Raises
    ------
    InvalidInput : no such field, or a value of the wrong kind; the message lists the fields.
    """
    fields = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    chosen: dict[str, str | list[str]] = {}
    for text in settings:
        name, sign, value = text.partition("=")
        if not sign or name not in fields:
            raise InvalidInput(
                f"{option} {text} does not name a setting of {kind.__name__}.",
                expected="NAME=VALUE with one of: " + ", ".join(f"{n}={_default(f)}" for n, f in fields.items()) + ".",
                remedy="correct it.",
            )
        chosen[name] = value.split(",") if isinstance(fields[name].default, tuple) else value
    try:
        return TypeAdapter(kind).validate_python(chosen)
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidInput(
            f"{option} {'.'.join(map(str, first['loc']))}: {first['msg']}.",
            expected="a value of the setting's kind.",
            remedy="run `vestige ls` and see the method's page for its settings.",
        ) from error


def _default(field: dataclasses.Field[object]) -> object:
    value = field.default
    return getattr(value, "value", value)
