"""Rows x columns on disk, in shards that are either whole or absent.

A column is keyed by the digest of everything that determines its values (model, data,
method, seed), so a changed setting never meets an old shard. Shards have fixed rows and
carry the digest of their content in their name; a damaged one is computed again.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vestige.digest import digest_json
from vestige.progress import Progress, Silent
from vestige.store.write import write_bytes, write_text

Rows = npt.NDArray[np.int64]
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Store:
    """A folder of columns."""

    root: Path

    def column(self, kind: str, key: Mapping[str, Any]) -> Column:
        """The column of that kind whose values are determined by ``key`` (plain values only)."""
        return Column(self.root / f"{kind}-{digest_json(dict(key))[:24]}", kind, dict(key))


@dataclass(frozen=True)
class Column:
    """One array over rows, filled shard by shard."""

    folder: Path
    kind: str
    key: dict[str, Any]

    def fill(
        self,
        count: int,
        compute: Callable[[Rows], Array],
        *,
        shard_rows: int = 256,
        progress: Progress | None = None,
        label: str = "",
    ) -> Array:
        """Values [count, ...] of rows 0 .. count-1, computing only the missing shards.

        ``compute(rows)`` must return one value a row that depends on the row alone. A
        longer request later reuses every whole shard of a shorter one.
        """
        starts = range(0, count, shard_rows)
        parts: list[Array] = []
        with (progress or Silent()).task(label or self.kind, count) as task:
            for start in starts:
                rows = np.arange(start, min(start + shard_rows, count), dtype=np.int64)
                part = self._read(start, len(rows))
                if part is None:
                    part = compute(rows)
                    if len(part) != len(rows):
                        raise ValueError(f"{self.kind}: {len(part)} values were computed for {len(rows)} rows")
                    self._write(start, part)
                parts.append(part)
                task.advance(len(rows))
        if not parts:
            return compute(np.arange(0, dtype=np.int64))
        return np.concatenate(parts)

    def _name(self, start: int, content: bytes, length: int) -> str:
        return f"{start:09d}-{length:06d}-{hashlib.sha256(content).hexdigest()[:16]}.npy"

    def _read(self, start: int, length: int) -> Array | None:
        for path in sorted(self.folder.glob(f"{start:09d}-{length:06d}-*.npy")):
            content = path.read_bytes()
            if path.name == self._name(start, content, length):
                return np.load(io.BytesIO(content), allow_pickle=False)
            path.unlink()
        return None

    def _write(self, start: int, part: Array) -> None:
        note = self.folder / "key.json"
        if not note.exists():
            write_text(note, json.dumps({"kind": self.kind, **self.key}, indent=2, sort_keys=True) + "\n")
        buffer = io.BytesIO()
        np.save(buffer, part, allow_pickle=False)
        content = buffer.getvalue()
        write_bytes(self.folder / self._name(start, content, len(part)), content)
