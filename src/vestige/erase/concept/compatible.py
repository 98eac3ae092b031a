"""Increments of concepts that may stand in one model."""

from __future__ import annotations

from collections.abc import Sequence

from vestige.erase.increment import Increment
from vestige.errors import InvalidInput


def check_compatible(increments: Sequence[Increment]) -> None:
    """Refuse two increments that erase one concept.

    Each was made for the base, where the concept is whole: together they overshoot, and two methods work against each
    other. Increments of different concepts may be of different methods; what one promises about prompts then holds for
    its own change alone.

    Raises
    ------
    InvalidInput : a concept is erased twice; the message names both increments.
    """
    erased: dict[str, Increment] = {}
    for increment in increments:
        for row in increment.manifest.forgotten:
            if not row.startswith("concept:"):
                continue
            other = erased.setdefault(row, increment)
            if other is not increment:
                methods = " and ".join(sorted({other.manifest.method, increment.manifest.method}))
                raise InvalidInput(
                    f"The increments '{other.manifest.name}' and '{increment.manifest.name}' ({methods}) both erase "
                    f"'{row.removeprefix('concept:')}'.",
                    expected="at most one increment a concept.",
                    remedy="remove one of them first: `vestige increments remove MODEL NAME --out FOLDER`.",
                )
