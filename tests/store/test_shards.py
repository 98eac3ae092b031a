from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from vestige.errors import StorageFailed
from vestige.execute import Context
from vestige.progress import Progress, Silent
from vestige.store import Column, Store, write_bytes, write_text

KEY = {"model": "abc", "seed": 3}


class Counter:
    """Computes squares and remembers for which rows."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        self.asked.append(rows.tolist())
        return np.stack([rows, rows**2], axis=1).astype(np.float32)


@pytest.fixture
def column(tmp_path: Path) -> Column:
    return Store(tmp_path).column("squares", KEY)


def expected(count: int) -> np.ndarray:
    rows = np.arange(count)
    return np.stack([rows, rows**2], axis=1).astype(np.float32)


def shards(column: Column) -> list[Path]:
    return sorted(column.folder.glob("*.npy"))


def test_rows_are_computed_once_and_whole_shards_serve_longer_requests(column):
    compute = Counter()
    for count in (10, 10, 14, 8, 0):
        found = column.fill(count, compute, shard_rows=4)
        assert (found == expected(count)).all()
        assert found.shape == (count, 2)
    # 10 rows; nothing new; the broken shard 8..9 grows to 8..11 and one is added; nothing; none.
    assert compute.asked == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9], [8, 9, 10, 11], [12, 13], []]
    reopened = Store(column.folder.parent).column("squares", dict(reversed(KEY.items())))
    assert reopened.folder == column.folder
    before = len(compute.asked)
    reopened.fill(14, compute, shard_rows=4)
    assert len(compute.asked) == before


@pytest.mark.parametrize("other", [{**KEY, "seed": 4}, {"model": "abc"}, {**KEY, "more": None}])
def test_a_changed_key_never_meets_an_old_shard(column, other):
    column.fill(4, Counter())
    elsewhere = Store(column.folder.parent).column("squares", other)
    assert (elsewhere.fill(4, lambda rows: -rows) == -np.arange(4)).all()
    assert (column.fill(4, Counter()) == expected(4)).all()
    assert Store(column.folder.parent).column("cubes", KEY).folder != column.folder


DAMAGES = {
    "truncated": lambda content: content[:-1],
    "emptied": lambda content: b"",
    "flipped": lambda content: content[:-3] + bytes([content[-3] ^ 1]) + content[-2:],
    "extended": lambda content: content + b"x",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_shard_is_computed_again_and_no_other(column, damage):
    column.fill(12, Counter(), shard_rows=4)
    names = [p.name for p in shards(column)]
    victim = shards(column)[1]
    victim.write_bytes(damage(victim.read_bytes()))
    compute = Counter()
    assert (column.fill(12, compute, shard_rows=4) == expected(12)).all()
    assert compute.asked == [[4, 5, 6, 7]]
    assert [p.name for p in shards(column)] == names


def test_the_key_is_readable(column):
    column.fill(4, Counter())
    assert json.loads((column.folder / "key.json").read_text()) == {"kind": "squares", **KEY}
    assert re.fullmatch(r"squares-[0-9a-f]{24}", column.folder.name)


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_a_full_disk_leaves_nothing_that_counts_as_whole(column, monkeypatch, call):
    column.fill(4, Counter(), shard_rows=4)
    before = sorted(p.name for p in column.folder.iterdir())

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(f"os.{call}", full)
        with pytest.raises(StorageFailed, match=r"No space left on device\. .*same command resumes"):
            column.fill(8, Counter(), shard_rows=4)
    assert sorted(p.name for p in column.folder.iterdir()) == before
    compute = Counter()
    assert (column.fill(8, compute, shard_rows=4) == expected(8)).all()
    assert compute.asked == [[4, 5, 6, 7]]


def test_an_interruption_keeps_finished_shards(column):
    def interrupted(rows: np.ndarray) -> np.ndarray:
        if rows[0] >= 8:
            raise KeyboardInterrupt
        return Counter()(rows)

    with pytest.raises(KeyboardInterrupt):
        column.fill(12, interrupted, shard_rows=4)
    compute = Counter()
    assert (column.fill(12, compute, shard_rows=4) == expected(12)).all()
    assert compute.asked == [[8, 9, 10, 11]]


def test_too_few_values_are_not_stored(column):
    with pytest.raises(ValueError, match="squares: 3 values were computed for 4 rows"):
        column.fill(4, lambda rows: rows[1:])
    assert shards(column) == []


def test_writing_replaces_whole_files_and_creates_folders(tmp_path):
    file = tmp_path / "deep" / "er" / "note.txt"
    write_text(file, "é")
    write_bytes(file, b"two")
    assert file.read_bytes() == b"two"
    assert [p.name for p in file.parent.iterdir()] == ["note.txt"]
    plain = file.with_name("plain")
    plain.touch()
    assert file.stat().st_mode == plain.stat().st_mode
    plain.unlink()
    (tmp_path / "file").touch()
    with pytest.raises(StorageFailed, match="free bytes and a writable folder"):
        write_text(tmp_path / "file" / "below", "x")


class Recorder(Progress):
    def __init__(self) -> None:
        self.events: list[tuple[object, ...]] = []

    def start(self, label: str, total: int) -> int:
        self.events.append(("start", label, total))
        return 7

    def advance(self, task: int, amount: int, note: str) -> None:
        self.events.append(("advance", task, amount, note))

    def finish(self, task: int) -> None:
        self.events.append(("finish", task))


def test_progress_counts_rows_and_ends_even_in_failure(column):
    progress = Recorder()
    column.fill(6, Counter(), shard_rows=4, progress=progress, label="work")
    assert progress.events == [("start", "work", 6), ("advance", 7, 4, ""), ("advance", 7, 2, ""), ("finish", 7)]
    progress = Recorder()
    with pytest.raises(ZeroDivisionError):
        column.fill(9, lambda rows: rows + 1 // 0, progress=progress)
    assert progress.events == [("start", "squares", 9), ("finish", 7)]


def test_a_context_is_silent_unless_told(tmp_path):
    context = Context(Store(tmp_path))
    assert isinstance(context.progress, Silent)
    assert (context.seed, context.batch_size) == (0, 128)
    with context.progress.task("nothing", 1) as task:
        task.advance()
