"""Turning ``--attack``, ``--set`` and ``--shadows`` into attacks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import vestige.audit
from vestige.audit.attack import Attack
from vestige.cli.settings import with_settings
from vestige.discover import method, methods
from vestige.errors import InvalidInput

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
    given: dict[str, list[str]] = {name.lower(): [] for name in every}
    if shadows is not None:
        given["lira"].append(f"shadows={shadows}")
        kinds += [every["LiRA"]] if every["LiRA"] not in kinds else []
    for text in settings:
        name, dot, field = text.partition(".")
        if not dot or name.lower() not in given:
            raise InvalidInput(
                f"--set {text} names no attack.",
                expected=f"ATTACK.NAME=VALUE with one of {', '.join(every)}.",
                remedy="correct it, e.g. --set pia.times=0.2.",
            )
        given[name.lower()].append(field)
    return [with_settings(kind, given[kind.__name__.lower()]) for kind in kinds]
