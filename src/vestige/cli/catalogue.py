"""``vestige ls``: every method with its claim, access level and source."""

from __future__ import annotations

from typing import Any, cast

import vestige.audit
import vestige.erase
from vestige.audit.attack import Attack
from vestige.cli.display import show_table
from vestige.discover import methods
from vestige.erase.eraser import Eraser
from vestige.record import Cell, Table
from vestige.zoo import MODELS, zoo_model


def show_methods() -> None:
    """Print attacks, erasers and shipped models."""
    rows: list[list[Cell]] = []
    for name, attack in methods(vestige.audit, cast("type[Attack[Any]]", Attack)).items():
        needs = attack.access.label + (", non-members" if attack.needs_others else "")
        rows.append(["audit", name, attack.claim, needs, attack.source])
    for name, eraser in methods(vestige.erase, Eraser).items():
        rows.append(["erase", name, eraser.claim, "weights", eraser.source])
    columns = ["job", "method", "claim", "needs", "source"]
    show_table(Table(name="methods", title="Methods", columns=columns, rows=rows))
    models: list[list[Cell]] = [[name, zoo_model(name).card.claim] for name in MODELS]
    show_table(Table(name="models", title="Models that ship with vestige", columns=["name", "claim"], rows=models))
