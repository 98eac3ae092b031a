"""Turning ``--attack``, ``--set`` and ``--shadows`` into attacks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import vestige.audit
from vestige.audit.attack import Attack
from vestige.cli.settings import by_method, with_settings
from vestige.discover import method, methods

_ROOT = cast("type[Attack[Any]]", Attack)


def chosen(names: Sequence[str], settings: Sequence[str], shadows: Path | None) -> list[Attack[Any]]:
    """The named attacks, or all that run unasked, with their settings; shadow models add the attack that needs them.

    Raises
    ------
    NotFound : no such attack.
    InvalidInput : a setting that names no attack or no field of it; the message lists what there is.
    """
    every = methods(vestige.audit, _ROOT)
    kinds = [method(vestige.audit, _ROOT, name) for name in names] or [k for k in every.values() if k.by_default]
    told = [] if shadows is None else [f"lira.shadows={shadows}"]
    if shadows is not None and every["LiRA"] not in kinds:
        kinds.append(every["LiRA"])
    given = by_method([*told, *settings], list(every), what="attack")
    return [with_settings(kind, given[kind.__name__.lower()]) for kind in kinds]
