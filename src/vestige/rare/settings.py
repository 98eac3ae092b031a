"""Settings of a method in words and as plain values."""

from __future__ import annotations

import dataclasses
from enum import Enum
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def plain(value: Any) -> Any:
    """Enums as their values and dataclasses as mappings, all the way down."""
    if isinstance(value, Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return settings(value)
    return list(value) if isinstance(value, tuple) else value


def settings(method: DataclassInstance) -> dict[str, Any]:
    """Fields as plain values, with the name of the class under ``name``."""
    fields = {f.name: plain(getattr(method, f.name)) for f in dataclasses.fields(method)}
    return {"name": type(method).__name__, **fields}


def named(method: DataclassInstance) -> str:
    """Class name, with the fields that differ from those of a method without arguments."""
    usual = type(method)()
    changed: list[str] = []
    for f in dataclasses.fields(method):
        value = getattr(method, f.name)
        if value != getattr(usual, f.name):
            inner = not isinstance(value, type) and dataclasses.is_dataclass(value)
            changed.append(f"{f.name}={named(cast('DataclassInstance', value)) if inner else plain(value)}")
    return type(method).__name__ + (f"({', '.join(changed)})" if changed else "")
