"""The ledger as a file: what it holds, what may follow what, and that every tampering is named by its line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vestige.digest import digest_json
from vestige.erase.ledger import Ledger, named
from vestige.erase.ledger_entry import START, Erased, Withdrawn, parsed
from vestige.errors import AlreadyExists, CorruptFile, DigestMismatch, InvalidInput, NotFound, StorageFailed
from vestige.record import Environment

HERE = Environment(versions={"torch": "2.0"}, python="3.11", platform="Linux", device="cpu", threads=1)
WHEN = "2031-05-06T07:08:09+00:00"


def digest(text: str) -> str:
    return digest_json(text)


def row(number: int) -> str:
    return f"{number:016x}"


def erased(ledger: Ledger, rows: list[str], name: str = "one", **changed: Any) -> Erased:
    values: dict[str, Any] = {
        "number": len(ledger.entries) + 1,
        "previous": ledger.head,
        "when": WHEN,
        "who": "Ada Lövlace",
        "base": digest("base"),
        "data": digest("data"),
        "rows": rows,
        "method": "EraseDiff",
        "settings": {"steps": 3, "learning_rate": 2.2e-4, "target": "auto", "list": [1, None, True]},
        "loop": {"rank": 0},
        "seed": 7,
        "name": name,
        "folder": f"../made/{name}",
        "increment": digest(name),
        "delta": digest(f"delta of {name}"),
        "after": [entry.increment for entry in ledger.active],
        "environment": HERE,
    }
    return Erased(**{**values, **changed})


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """Two erasures, the first withdrawn, and a third on top of the second."""
    book = Ledger.begin(tmp_path / "books" / "requests.jsonl")
    book = book.append(erased(book, [row(1), row(2)], "one"))
    book = book.append(erased(book, [row(3)], "two"))
    book = book.withdraw("one", who="Bob", when=WHEN)
    return book.append(erased(book, [row(2), row(4)], "three"))


def test_a_ledger_reads_back_as_it_was_written(ledger: Ledger) -> None:
    again = Ledger.read(ledger.path)
    assert again == ledger
    assert [entry.number for entry in again.entries] == [1, 2, 3, 4]
    assert [entry.name for entry in again.active] == ["two", "three"]
    assert [entry.name for entry in again.requests] == ["one", "two", "three"]
    assert {key: entry.name for key, entry in again.forgotten.items()} == {
        row(3): "two",
        row(2): "three",
        row(4): "three",
    }
    assert again.before(3).active == again.requests[:2]
    assert again.entries[0].previous == START
    assert [e.previous for e in again.entries[1:]] == [e.digest for e in again.entries[:-1]]
    assert isinstance(again.entries[2], Withdrawn)
    assert again.folder(again.requests[0]) == ledger.path.parent.parent / "made" / "one"
    assert again.relative(ledger.path.parent.parent / "made" / "one") == "../made/one"
    assert len(ledger.path.read_text().splitlines()) == 4
    assert [path.name for path in ledger.path.parent.iterdir()] == ["requests.jsonl"]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_changed_byte_is_noticed_in_its_line_or_the_next(ledger: Ledger, data: st.DataObject) -> None:
    whole = ledger.path.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda b: b != whole[place]))
    line = whole[:place].count(b"\n") + 1
    changed = ledger.path.with_name("changed.jsonl")
    changed.write_bytes(whole[:place] + bytes([byte]) + whole[place + 1 :])
    with pytest.raises(CorruptFile, match=rf"^Line ({line}|{line + 1}) of the ledger"):
        Ledger.read(changed)


def changed(what: Callable[[list[str]], list[str]], ledger: Ledger) -> Path:
    ledger.path.write_text("\n".join(what(ledger.path.read_text().split("\n")[:-1])) + "\n")
    return ledger.path


@pytest.mark.parametrize(
    ("what", "line"),
    [
        (lambda lines: lines[1:], 1),
        (lambda lines: [lines[0], *lines[2:]], 2),
        (lambda lines: [lines[1], lines[0], *lines[2:]], 1),
        (lambda lines: [*lines[:2], lines[3], lines[2]], 3),
        (lambda lines: [*lines, lines[-1]], 5),
        (lambda lines: [*lines, ""], 5),
        (lambda lines: [*lines[:3], "[]"], 4),
        (lambda lines: [*lines[:3], "null"], 4),
        (lambda lines: [*lines[:3], "{" * 100_000], 4),
        (lambda lines: [*lines[:3], '{"a":' * 100_000], 4),
        (lambda lines: [lines[0].replace(", ", ",").replace(",", ", "), *lines[1:]], 1),
        (lambda lines: [lines[0].replace('"seed":7', '"seed":8'), *lines[1:]], 1),
        (lambda lines: [lines[0].replace('"seed":7', '"seed":7,"seed":7'), *lines[1:]], 1),
        (lambda lines: [lines[0].replace('"seed":7', '"seed":NaN'), *lines[1:]], 1),
        (lambda lines: [lines[0].replace('"seed":7', '"seed":7,"more":1'), *lines[1:]], 1),
        (lambda lines: [lines[0].replace('"format":1', '"format":2'), *lines[1:]], 1),
    ],
    ids=range(16),
)
def test_lines_dropped_swapped_repeated_or_rewritten_are_named(ledger: Ledger, what: Any, line: int) -> None:
    with pytest.raises(CorruptFile, match=rf"^Line {line} of the ledger {ledger.path}"):
        Ledger.read(changed(what, ledger))


def test_a_rewritten_entry_breaks_the_chain_behind_it(ledger: Ledger) -> None:
    first = ledger.requests[0].model_copy(update={"who": "Somebody else"})
    path = changed(lambda lines: [first.line, *lines[1:]], ledger)
    with pytest.raises(CorruptFile, match=r"^Line 2 .* does not follow the line before it"):
        Ledger.read(path)


def test_a_half_written_line_is_never_taken_for_a_whole_one(ledger: Ledger) -> None:
    whole = ledger.path.read_bytes()
    for cut in (1, 2, 40, len(whole.split(b"\n")[-2])):
        ledger.path.write_bytes(whole[:-cut])
        with pytest.raises(CorruptFile, match=r"^Line 4 .* is not whole"):
            Ledger.read(ledger.path)
        with pytest.raises(CorruptFile, match="Line 4"):
            Ledger.begin(ledger.path)
    ledger.path.write_bytes(b"")
    with pytest.raises(CorruptFile, match=r"^Line 1 .* is not whole"):
        Ledger.begin(ledger.path)


def test_lines_cut_off_at_the_end_show_in_the_head_alone(ledger: Ledger) -> None:
    shorter = Ledger.read(changed(lambda lines: lines[:-1], ledger))
    assert shorter.head != ledger.head
    assert shorter.head == ledger.entries[-1].previous


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"base": digest("another")}, "another model or other training data"),
        ({"data": digest("another")}, "another model or other training data"),
        ({"after": []}, "not trained on top"),
        ({"number": 7}, "does not follow"),
        ({"previous": START}, "does not follow"),
    ],
)
def test_an_entry_that_cannot_follow_is_refused(ledger: Ledger, change: dict[str, Any], words: str) -> None:
    entry = erased(ledger, [row(9)], "four", **change)
    with pytest.raises(ValueError, match=words):
        ledger.append(entry)
    with ledger.path.open("a") as file:
        file.write(entry.line + "\n")
    with pytest.raises(CorruptFile, match=rf"^Line 5 .*{words}"):
        Ledger.read(ledger.path)


def test_what_is_not_active_cannot_be_withdrawn(ledger: Ledger) -> None:
    for name in ("one", digest("one"), "four"):
        with pytest.raises(NotFound, match="one of: two, three"):
            ledger.withdraw(name, who="Bob", when=WHEN)
    fields = {"number": 5, "previous": ledger.head, "when": WHEN, "who": "Bob", "entry": 1, "name": "one"}
    with pytest.raises(ValueError, match="not active"):
        ledger.append(Withdrawn(**fields, increment=digest("one")))
    for name in ("two", digest("three")[:12]):
        ledger = ledger.withdraw(name, who="Bob", when=WHEN)
    assert ledger.active == []
    with pytest.raises(NotFound, match="all are withdrawn"):
        ledger.find("two")


def test_repeated_requests_are_refused_and_partial_ones_cut(ledger: Ledger) -> None:
    with pytest.raises(AlreadyExists, match=rf"already in the ledger .* entry 4, .*{WHEN[:10]}.* by Ada Lövlace"):
        ledger.new_rows([row(2)])
    with pytest.raises(AlreadyExists, match=r"entry 2, .*; entry 4, "):
        ledger.new_rows([row(4), row(3)])
    assert ledger.new_rows([row(4), row(1), row(8)]) == [row(1), row(8)]  # row 1 was withdrawn
    assert ledger.new_rows([]) == []


def test_another_base_or_training_set_is_refused(ledger: Ledger) -> None:
    ledger.check(base=digest("base"), data=digest("data"))
    with pytest.raises(DigestMismatch, match="of the model"):
        ledger.check(base=digest("another"))
    with pytest.raises(DigestMismatch, match="of the training data"):
        ledger.check(data=digest("another"))
    Ledger(ledger.path).check(base=digest("anything"))


def test_names_and_folders_of_the_ledger_are_taken(ledger: Ledger, tmp_path: Path) -> None:
    ledger.refuse_taken("one", tmp_path / "new")  # withdrawn, so the name is free
    with pytest.raises(AlreadyExists, match=r"entry 2 .* is called 'two' as well"):
        ledger.refuse_taken("two", tmp_path / "new")
    with pytest.raises(AlreadyExists, match="is the folder of entry 1"):
        ledger.refuse_taken("new", tmp_path / "made" / "two" / ".." / "one")


def test_two_writers_do_not_lose_an_entry(ledger: Ledger) -> None:
    ledger.append(erased(ledger, [row(5)], "four"))
    with pytest.raises(DigestMismatch, match="changed since it was read"):
        ledger.append(erased(ledger, [row(6)], "five"))
    assert Ledger.read(ledger.path).active[-1].name == "four"


def test_a_failed_write_leaves_the_old_ledger(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StorageFailed):
            ledger.append(erased(ledger, [row(5)], "four"))
    assert Ledger.read(ledger.path) == ledger


@pytest.mark.parametrize("who", ["", "  ", "two\nlines", "\x1b[31m", "\udc80"])
def test_a_name_is_printable(who: str) -> None:
    with pytest.raises(InvalidInput, match="is no name"):
        named(who)


def test_a_missing_ledger_is_not_found(tmp_path: Path) -> None:
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(NotFound, match=str(path)):
            Ledger.read(path)
    assert Ledger.begin(tmp_path / "absent").head == START


def test_the_line_is_plain_json_with_its_digest(ledger: Ledger) -> None:
    line = ledger.path.read_bytes().split(b"\n")[0]
    values = json.loads(line)
    stated = values.pop("digest")
    assert digest_json(values) == stated == ledger.entries[1].previous
    assert line.isascii()
    assert parsed(ledger.path, 1, line) == ledger.entries[0]
