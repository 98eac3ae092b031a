"""What every method is handed besides its model and data."""

from __future__ import annotations

from dataclasses import dataclass, field

from vestige.progress import Progress, Silent
from vestige.store import Store


@dataclass(frozen=True)
class Context:
    """Where results are kept, which seed rules, how large a batch may be, who watches."""

    store: Store
    seed: int = 0
    batch_size: int = 128
    progress: Progress = field(default_factory=Silent)
