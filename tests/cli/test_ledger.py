"""The commands on a ledger, from a first request to a replay."""

from __future__ import annotations

import getpass
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vestige.data.load import load_images
from vestige.data.split import split
from vestige.erase.ledger import Ledger
from vestige.erase.workers import Workers

QUICK = ["--method", "finetune", "--set", "steps=1", "--set", "batch_size=2", "--set", "learning_rate=0.001"]


@pytest.fixture
def forget(world: Any, cli: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    """Run `vestige erase` on rows of the training data."""
    ids = split(load_images(world.train)[0]).members.ids

    def run(*rows: int, out: str, more: tuple[object, ...] = ()) -> Any:
        given = ["--forget", "rows:" + ",".join(ids[row] for row in rows), "--retain", world.train, *QUICK]
        return cli("erase", world.plain, *given, "--out", tmp_path / out, *more)

    return run


def test_from_a_request_to_a_replay(
    world: Any, cli: Callable[..., Any], forget: Callable[..., Any], tmp_path: Path
) -> None:
    book = tmp_path / "requests.jsonl"
    ledger = ("--ledger", book)
    answer = forget(1, 2, out="one", more=(*ledger, "--who", "Ada", "--loop", "micro_batch=1"))
    assert (answer.code, answer.err) == (0, "")
    assert f"vestige ledger apply {book}" in answer.out
    assert "earlier requests" not in answer.out
    answer = forget(2, 3, out="two", more=(*ledger, "--non-members", world.others))
    assert answer.code == 0
    assert "1 of the 2 rows were forgotten by earlier requests; the other 1 were erased now." in answer.out
    answer = forget(1, out="three", more=ledger)
    assert (answer.code, answer.out) == (2, "")
    assert "already in the ledger" in answer.err
    first, second = Ledger.read(book).requests
    assert (first.who, first.loop["micro_batch"], first.unseen) == ("Ada", 1, None)
    assert (second.who, second.loop["micro_batch"], second.after) == (getpass.getuser(), 0, [first.increment])
    assert second.unseen is not None

    answer = cli("ledger", "withdraw", book, "one", "--who", "Bob")
    assert (answer.code, answer.err) == (0, "")
    assert "Entry 3 withdraws 'one' of entry 1" in answer.out
    answer = cli("ledger", "show", book)
    assert answer.code == 0
    for word in ("Ada", "Bob", "withdraw", "FineTune", "one", "two", "yes", "no", Ledger.read(book).head):
        assert word in answer.out
    answer = cli("ledger", "apply", book, world.plain, "--out", tmp_path / "model")
    assert (answer.code, answer.err) == (0, "")
    listed = cli("increments", "list", tmp_path / "model").out
    assert "two" in listed
    assert "one" not in listed

    given = ["--retain", world.train, "--non-members", world.others]
    answer = cli("ledger", "replay", book, world.plain, *given, "--out", tmp_path / "again")
    assert (answer.code, answer.err) == (0, "")
    assert "bit for bit" in answer.out
    (tmp_path / "two" / "increment.safetensors").write_bytes(b"")
    answer = cli("ledger", "replay", book, world.plain, *given, "--out", tmp_path / "again", "--overwrite")
    assert answer.code == 1
    assert "damaged" in answer.out
    assert "Not every increment" in answer.out


def test_only_one_of_several_processes_prints(
    world: Any, forget: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Workers, "of_process", staticmethod(lambda: Workers(1, 1)))
    answer = forget(1, out="one", more=("--ledger", tmp_path / "requests.jsonl"))
    assert (answer.code, answer.out, answer.err) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


def test_bad_words_are_named(cli: Callable[..., Any], forget: Callable[..., Any], tmp_path: Path) -> None:
    answer = forget(1, out="one", more=("--loop", "speed=2"))
    assert (answer.code, answer.out) == (2, "")
    assert "does not name a setting of Loop" in answer.err
    assert "micro_batch=0" in answer.err
    answer = forget(1, out="one", more=("--who", "Ada"))
    assert (answer.code, "pass --ledger" in answer.err) == (2, True)
    for command in (["show"], ["withdraw", "one"], ["apply", "model", "--out", "o"], ["replay", "model", "--out", "o"]):
        answer = cli("ledger", command[0], tmp_path / "absent", *command[1:])
        assert (answer.code, answer.out) == (2, "")
        assert "absent cannot be read" in answer.err
    assert list(tmp_path.iterdir()) == []
