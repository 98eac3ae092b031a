"""What an examiner may see of a model."""

from __future__ import annotations

from enum import IntEnum


class Access(IntEnum):
    """Each level includes the ones before it."""

    SAMPLES = 0
    LOSSES = 1
    SCORES = 2
    WEIGHTS = 3

    @property
    def label(self) -> str:
        """Lower-case name for reports."""
        return self.name.lower()
