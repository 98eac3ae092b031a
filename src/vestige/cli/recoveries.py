"""Turning ``--recover`` and ``--recover-set`` into recovery attacks."""

from __future__ import annotations

from collections.abc import Sequence

import vestige.erase.recover
from vestige.cli.settings import by_method, with_settings
from vestige.discover import method, methods
from vestige.erase.recover.recovery import Recovery


def recoveries(names: Sequence[str], settings: Sequence[str]) -> list[Recovery]:
    """The named attacks, or every one for ``all``, with their settings (NAME.FIELD=VALUE).

    Raises
    ------
    NotFound : no such attack.
    InvalidInput : a setting that names no attack that was asked for, or no field of it.
    """
    every = methods(vestige.erase.recover, Recovery)
    kinds = [method(vestige.erase.recover, Recovery, name) for name in names if name.lower() != "all"]
    if len(kinds) < len(names):
        kinds = list(every.values())
    names = [kind.__name__ for kind in kinds]
    given = by_method(settings, names, option="--recover-set", what="recovery attack that was asked for")
    return [with_settings(kind, given[kind.__name__.lower()], option="--recover-set") for kind in dict.fromkeys(kinds)]
